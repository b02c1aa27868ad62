"""Leakage on a real broker: records that repeat or lie on the wrong side of their split are refused, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from include.datasets import GroupSplit, HashSplit, hashing
from include.datasets.splits import Split
from include.errors import NonRetryableError
from include.training import fitting, run
from include.training.verification import verify_version
from include.versions import leakage
from include.versions.reading import VersionRefused, read
from tests.integration import foreign
from tests.integration.registry import ask, given, seal, signal, train

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

SOMEHOW = {"kind": "by hand"}


@pytest.fixture
def name(topic: Callable[..., str], warehouse: Connection) -> str:
    return topic("foreign").replace("-", "_")


def parts(train_: pa.Table, test: pa.Table) -> dict[str, pa.Table]:
    return {"train": train_, "test": test}


def test_ids_that_repeat_within_a_split_are_refused_and_named(name: str) -> None:
    twice = pa.concat_tables([signal(500), signal(2, first=7), signal(1, first=7)])
    manifest = foreign.seal(name, parts(twice, signal(100, first=500)), SOMEHOW)
    with pytest.raises(
        VersionRefused, match=r"refused, repeated: 2 values of id occur more than once, 0 of them in both"
    ) as e:
        read(manifest)
    assert str(e.value).endswith(": 7 (3 times, in train), 8 (2 times, in train).")


def test_a_test_record_that_trains_too_is_refused_before_a_model_sees_it(name: str, warehouse: Connection) -> None:
    manifest = foreign.seal(name, parts(signal(500), signal(100, first=491)), SOMEHOW)
    dataset = replace(given(lambda _: name, signal(1)), name=name)
    planned = run.begin(dataset, "run", {}, "test")
    says = "refused, repeated: 9 values of id occur more than once, 9 of them in both splits: 491 "
    with pytest.raises(NonRetryableError, match=says) as e:
        fitting.fit(dataset, planned[0]["run"], "tree")
    assert str(e.value).endswith("495 (2 times, in train and test) and 4 more.")
    assert ask(warehouse, "SELECT * FROM millrace.model_result") == []
    found = verify_version(name, None, "ada")
    assert found.outcome == "different" and "is refused, repeated: 9 values" in found.findings[0]
    assert found.manifest.version == manifest.version


def test_ids_with_the_same_hash_are_told_apart(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = hashing.hash64

    def poor(column: Any, salt: str = "") -> Any:
        return real(column, salt) % np.uint64(64)

    monkeypatch.setattr(hashing, "hash64", poor)
    manifest = foreign.seal(name, parts(texts(signal(500)), texts(signal(100, first=500))), SOMEHOW)
    assert read(manifest).train.num_rows == 500, "hits are confirmed by the ids themselves"
    manifest = foreign.seal(name, parts(texts(signal(500)), texts(signal(100, first=499))), SOMEHOW)
    with pytest.raises(
        VersionRefused, match=r"refused, repeated: 1 values of id .* 1 of them in both splits: record 499"
    ):
        read(manifest)


def texts(rows: pa.Table) -> pa.Table:
    ids = pa.array([f"record {number}" for number in rows["id"].to_pylist()])
    return rows.set_column(rows.schema.get_field_index("id"), "id", ids)


@pytest.mark.parametrize("order", [1, -1])
def test_ids_in_any_order_are_told_apart(name: str, order: int) -> None:
    rows = [signal(200)[::order], signal(100, first=200)[::order]]
    assert read(foreign.seal(name, parts(*rows), SOMEHOW)).test.num_rows == 100
    rows = [signal(200)[::order], signal(100, first=199)[::order]]
    with pytest.raises(
        VersionRefused, match=r"refused, repeated: 1 values of id .*: 199 \(2 times, in train and test\)"
    ):
        read(foreign.seal(name, parts(*rows), SOMEHOW))


def test_a_record_without_an_id_is_refused(name: str) -> None:
    rows = signal(50)
    nameless = rows.set_column(0, "id", pa.array([None, *range(1, 50)], pa.int64()))
    manifest = foreign.seal(name, parts(nameless, signal(10, first=50)), SOMEHOW)
    with pytest.raises(VersionRefused, match="refused, repeated: 1 or more records have no id"):
        read(manifest)


def timed(rows: pa.Table, first: datetime) -> pa.Table:
    moments = [first + timedelta(hours=n) for n in range(rows.num_rows)]
    return rows.append_column("at", pa.array(moments, pa.timestamp("us")))


def test_a_split_by_time_whose_training_reaches_into_the_test_is_refused(name: str) -> None:
    rule = {"kind": "time", "column": "at", "boundary": "2025-01-02T00:00:00"}
    early, late = timed(signal(24), datetime(2025, 1, 1)), timed(signal(9, first=24), datetime(2025, 1, 2))
    assert read(foreign.seal(name, parts(early, late), rule)).test.num_rows == 9
    leaking = timed(signal(25, first=100), datetime(2025, 1, 1))
    manifest = foreign.seal(name, parts(leaking, late), rule)
    says = (
        r"refused, leaking: .* in at, but training goes to 2025-01-02 00:00:00 and testing begins at 2025-01-02 00:00"
    )
    with pytest.raises(VersionRefused, match=says):
        read(manifest)


@pytest.mark.parametrize("split", [HashSplit(0.3, "salt"), GroupSplit("machine", 0.3, "salt")])
def test_a_split_by_hash_that_does_not_follow_its_rule_is_refused(name: str, split: Split) -> None:
    rows = signal(1000)
    rows = rows.append_column("machine", pa.array([f"machine {n % 40}" for n in range(1000)]))
    dataset = given(lambda _: name, rows, split=split)
    tests = split.tests(rows, dataset, None)
    by_rule = parts(rows.filter(~tests), rows.filter(tests))
    rule = split.rule(rows, dataset, None)
    assert read(foreign.seal(name, by_rule, rule)).train.num_rows == int((~tests).sum())
    moved = parts(rows.filter(~tests), rows.filter(tests).slice(1))
    moved["train"] = pa.concat_tables([moved["train"], rows.filter(tests).slice(0, 1)])
    with pytest.raises(VersionRefused, match="refused, leaking: 1 or more train records belong to the other split"):
        read(foreign.seal(name, moved, rule))
    with pytest.raises(VersionRefused, match=r"refused, leaking: \d+ or more (train|test) records"):
        read(foreign.seal(name, by_rule, rule | {"salt": "another"}))


def test_rows_with_the_same_features_are_counted_apart_and_refused_by_nobody(
    warehouse: Connection, topic: Callable[..., str]
) -> None:
    rows = signal(300)
    again = rows.slice(0, 30).set_column(0, "id", pa.array(range(300, 330)))
    rows = pa.concat_tables([rows, again])
    dataset = given(topic, rows, split=HashSplit(0.3))
    train(dataset, seal(dataset))
    (found,) = ask(warehouse, "SELECT * FROM millrace.repeats")
    tests = dataset.split.tests(rows, dataset, None)
    sides = list(zip(tests[:30], tests[300:], strict=True))
    assert found.train == sides.count((False, False)) and found.test == sides.count((True, True))
    assert found.shared == sides.count((True, False)) + sides.count((False, True))
    assert found.shared > 5
    (line,) = ask(warehouse, "SELECT message FROM millrace.run_log WHERE message LIKE '%%know them by heart%%'")
    assert line.message.startswith(f"{found.shared} of ")


def test_features_of_all_kinds_are_compared() -> None:
    rows = pa.table(
        {"a": [1.5, 1.5, None, None, 1.5], "b": ["x", "x", None, None, "x"], "c": [True, True, False, False, False]}
    )
    found = leakage.repeats(rows.to_batches(), rows.slice(3).to_batches(), ["a", "b", "c"])
    assert (found.train, found.test, found.shared) == (2, 0, 2)
