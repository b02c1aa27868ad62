"""doctor on datasets: problems of a champion, caused on a real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from cli import doctor
from embedded.platform import Platform
from include.datasets import Dataset, definitions
from include.definitions import Found
from include.error_codes import Code
from include.promotion import evaluation_queue
from include.registry import champion_history
from tests.integration.registry import Given, change, given, seal, signal, train

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

BROKEN_PROBE = "UPDATE millrace.artifact SET probe = substr(probe, 1, 100)"
BROKEN_BYTES = "UPDATE millrace.artifact SET content = set_byte(content, 99, get_byte(content, 99) # 1)"
CHANGED_ANSWERS = "UPDATE millrace.artifact SET probe = %s"


@pytest.fixture
def promoted(
    topic: Callable[..., str], warehouse: Connection, services: Platform, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Dataset]:
    """A dataset with a champion, the only one that doctor checks."""
    dataset = given(topic, signal(600))
    monkeypatch.setattr(definitions, "find", lambda: Found({dataset.name: dataset}, {}))
    # doctor must use the warehouse of the test.
    monkeypatch.setattr(Platform, "environment", lambda _: {})
    judge(dataset)
    assert champion_history.current(warehouse, dataset.name) is not None
    warehouse.rollback()
    assert list(doctor._datasets(services)) == []
    yield dataset


def judge(dataset: Dataset) -> None:
    train(dataset, seal(dataset))
    evaluation_queue.evaluate_pending_runs(dataset)


def inverted(warehouse: Connection) -> bytes:
    """The champion's probe with the opposite of each prediction."""
    with warehouse.cursor() as cursor:
        cursor.execute("SELECT probe FROM millrace.artifact")
        (probe,) = cursor.fetchone() or (b"",)
    warehouse.rollback()
    with pa.ipc.open_stream(bytes(probe)) as reader:
        rows = reader.read_all()
    other = pa.array(["no" if answer == "yes" else "yes" for answer in rows["prediction"].to_pylist()])
    rows = rows.set_column(rows.num_columns - 1, "prediction", other)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return bytes(sink.getvalue().to_pybytes())


@pytest.mark.parametrize(
    ("statement", "code", "value"),
    [
        (BROKEN_BYTES, Code.ARTIFACT_CHANGED, ""),
        (BROKEN_PROBE, Code.PREDICTION_MISMATCH, "probe"),
        (CHANGED_ANSWERS, Code.PREDICTION_MISMATCH, "32 of 32"),
    ],
    ids=["bytes", "probe", "answers"],
)
def test_a_champion_that_cannot_be_loaded_is_found(
    promoted: Dataset, warehouse: Connection, services: Platform, statement: str, code: Code, value: str
) -> None:
    values = [inverted(warehouse)] if "%s" in statement else []
    change(warehouse, statement, *values)
    (finding,) = doctor._datasets(services)
    assert finding.what.startswith(f"The champion of {promoted.name!r} cannot be loaded.")
    assert value in finding.what and finding.remedy.endswith(f"[{code}]")
    assert f"./millrace champion {promoted.name} --" in finding.remedy


def test_a_version_that_could_not_be_compared_is_found(
    promoted: Dataset, warehouse: Connection, services: Platform
) -> None:
    rows = signal(600, seed=1, first=1000)
    answers = pa.array([str(answer == "yes") for answer in rows["target"].to_pylist()])
    other = replace(promoted, source=Given(rows.set_column(3, "target", answers)))
    judge(other)
    (finding,) = doctor._datasets(services)
    assert finding.what.startswith("Version ")
    assert finding.what.endswith(f" of {promoted.name!r} was not compared with the champion.")
    assert all(name in finding.remedy for name in ("'no'", "'yes'"))
    text = f"{finding.what} {finding.remedy}"
    assert text.count(f"./millrace champion {promoted.name} --retire") == 1, "the remedy is named once"
    champion_history.retire(promoted.name, "ann", "other classes")
    assert list(doctor._datasets(services)) == [], "a retired champion has no problem"


def test_a_later_version_that_could_be_compared_has_no_problem(
    promoted: Dataset, warehouse: Connection, services: Platform
) -> None:
    def later(first: int, target: Callable[[pa.Table], Any]) -> Dataset:
        rows = signal(600, seed=first, first=first)
        return replace(promoted, source=Given(rows.set_column(3, "target", target(rows))))

    judge(later(1000, lambda rows: pa.array(["other", "another"] * 300)))
    assert len(list(doctor._datasets(services))) == 1
    judge(later(2000, lambda rows: rows["target"]))
    assert list(doctor._datasets(services)) == []
