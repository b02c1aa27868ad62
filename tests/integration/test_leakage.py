"""Leakage on a real broker: a version with repeated records, or with records in the wrong part, is refused."""

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
from include.error_codes import Code
from include.training import fitting, run
from include.training.verification import verify_version
from include.versions import leakage
from include.versions.reading import read
from tests.errors import raises
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
    repeated = (
        "2 values of id occur more than once, 0 of them in both splits: 7 (3 times, in train), 8 (2 times, in train)"
    )
    with raises(Code.VERSION_REPEATED, "refused, repeated: ", repeated):
        read(manifest)


def test_a_test_record_that_also_trains_is_refused_before_a_model_is_fitted(name: str, warehouse: Connection) -> None:
    manifest = foreign.seal(name, parts(signal(500), signal(100, first=491)), SOMEHOW)
    dataset = replace(given(lambda _: name, signal(1)), name=name)
    planned = run.begin(dataset, "run", {}, "test")
    repeated = "refused, repeated: 9 values of id occur more than once, 9 of them in both splits: 491 "
    with raises(Code.VERSION_REPEATED, repeated, "495 (2 times, in train and test) and 4 more."):
        fitting.fit(dataset, planned[0]["run"], "tree")
    assert ask(warehouse, "SELECT * FROM millrace.model_result") == []
    found = verify_version(name, None, "ada")
    assert found.outcome == "different" and "is refused, repeated: 9 values" in found.findings[0]
    assert found.manifest.version == manifest.version


def test_ids_with_the_same_hash_are_distinguished(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = hashing.hash64

    def poor(column: Any, salt: str = "") -> Any:
        return real(column, salt) % np.uint64(64)

    monkeypatch.setattr(hashing, "hash64", poor)
    manifest = foreign.seal(name, parts(texts(signal(500)), texts(signal(100, first=500))), SOMEHOW)
    assert read(manifest).train.num_rows == 500, "hits are confirmed by the ids themselves"
    manifest = foreign.seal(name, parts(texts(signal(500)), texts(signal(100, first=499))), SOMEHOW)
    with raises(Code.VERSION_REPEATED, "1 values of id", "1 of them in both splits: record 499"):
        read(manifest)


def texts(rows: pa.Table) -> pa.Table:
    ids = pa.array([f"record {number}" for number in rows["id"].to_pylist()])
    return rows.set_column(rows.schema.get_field_index("id"), "id", ids)


@pytest.mark.parametrize("order", [1, -1])
def test_repeated_ids_are_found_in_any_order(name: str, order: int) -> None:
    rows = [signal(200)[::order], signal(100, first=200)[::order]]
    assert read(foreign.seal(name, parts(*rows), SOMEHOW)).test.num_rows == 100
    rows = [signal(200)[::order], signal(100, first=199)[::order]]
    with raises(Code.VERSION_REPEATED, "1 values of id", "199 (2 times, in train and test)"):
        read(foreign.seal(name, parts(*rows), SOMEHOW))


def test_a_record_without_an_id_is_refused(name: str) -> None:
    rows = signal(50)
    nameless = rows.set_column(0, "id", pa.array([None, *range(1, 50)], pa.int64()))
    manifest = foreign.seal(name, parts(nameless, signal(10, first=50)), SOMEHOW)
    with raises(Code.VERSION_REPEATED, "1 or more records have no id"):
        read(manifest)


def timed(rows: pa.Table, first: datetime) -> pa.Table:
    moments = [first + timedelta(hours=n) for n in range(rows.num_rows)]
    return rows.append_column("at", pa.array(moments, pa.timestamp("us")))


def test_a_split_by_time_whose_parts_overlap_is_refused(name: str) -> None:
    rule = {"kind": "time", "column": "at", "boundary": "2025-01-02T00:00:00"}
    early, late = timed(signal(24), datetime(2025, 1, 1)), timed(signal(9, first=24), datetime(2025, 1, 2))
    assert read(foreign.seal(name, parts(early, late), rule)).test.num_rows == 9
    leaking = timed(signal(25, first=100), datetime(2025, 1, 1))
    manifest = foreign.seal(name, parts(leaking, late), rule)
    with raises(
        Code.VERSION_LEAKING, " by at ", "training record is of 2025-01-02 00:00", "test record of 2025-01-02 00:00"
    ):
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
    with raises(Code.VERSION_LEAKING, "1 or more train records"):
        read(foreign.seal(name, moved, rule))
    with raises(Code.VERSION_LEAKING, " or more "):
        read(foreign.seal(name, by_rule, rule | {"salt": "another"}))


def test_rows_with_the_same_features_are_counted_and_not_refused(
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
    (line,) = ask(warehouse, "SELECT message FROM millrace.run_log WHERE message LIKE '%%can memorise%%'")
    assert line.message.startswith(f"{found.shared} of ")


def test_features_of_all_kinds_are_compared() -> None:
    rows = pa.table(
        {"a": [1.5, 1.5, None, None, 1.5], "b": ["x", "x", None, None, "x"], "c": [True, True, False, False, False]}
    )
    found = leakage.repeats(rows.to_batches(), rows.slice(3).to_batches(), ["a", "b", "c"])
    assert (found.train, found.test, found.shared) == (2, 0, 2)
