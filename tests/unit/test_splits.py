"""Splits: which rows test, and that the part of a row does not depend on other rows."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from include.datasets import Dataset, GroupSplit, HashSplit, Packaged, TimeSplit
from include.datasets.splits import Split
from include.error_codes import Code
from tests.errors import raises

ROWS = pa.table(
    {
        "order": range(1000),
        "at": [datetime(2025, 1, 1) + timedelta(hours=hour) for hour in range(1000)],
        "shop": [f"shop {number % 40}" for number in range(1000)],
        "returned": [number % 2 for number in range(1000)],
    }
)


def no_models() -> Mapping[str, Any]:
    return {}


def dataset(split: Split, **changes: Any) -> Dataset:
    fields: dict[str, Any] = {"record_id": "order", "event_time": "at", "target": "returned"} | changes
    return Dataset(name="orders", source=Packaged("orders:load"), split=split, models=no_models, **fields)


def test_the_records_before_the_intervals_end_test() -> None:
    split = TimeSplit("10 days")
    end = datetime(2025, 2, 1, tzinfo=UTC)
    tests = split.tests(ROWS, dataset(split), end)
    at = np.array(ROWS["at"].to_pylist())
    assert (tests == (at >= datetime(2025, 1, 22))).all()
    assert split.rule(ROWS, dataset(split), end)["boundary"] == "2025-01-22T00:00:00"


def test_without_an_interval_the_end_is_the_last_record() -> None:
    split = TimeSplit("24h")
    assert split.tests(ROWS, dataset(split), None).sum() == 24


def test_time_splits_need_times() -> None:
    split = TimeSplit("10 days")
    with raises(Code.COLUMN_UNUSABLE, "event_time", "'shop'", "string"):
        split.tests(ROWS, dataset(split, event_time="shop"), None)
    gaps = ROWS.set_column(1, "at", pa.array([None, None, *ROWS["at"].to_pylist()[2:]], pa.timestamp("us")))
    with raises(Code.VALUES_MISSING, "event_time", "'at'", "2 of 1000"):
        split.tests(gaps, dataset(split), None)


@pytest.mark.parametrize("kind", [pa.date32(), pa.timestamp("s"), pa.timestamp("ns", "Europe/Berlin")])
def test_a_time_may_have_any_type(kind: pa.DataType) -> None:
    days = [date(2025, 1, 1) + timedelta(days=day) for day in range(100)]
    rows = pa.table({"order": range(100), "at": pa.array(days).cast(kind)})
    split = TimeSplit("10 days")
    tests = split.tests(rows, dataset(split), datetime(2025, 4, 11, tzinfo=UTC))
    assert 10 <= tests.sum() <= 11


def test_a_hash_split_tests_about_its_share_and_keeps_each_record_in_its_part() -> None:
    split = HashSplit(0.25)
    whole = split.tests(ROWS, dataset(split), None)
    assert 0.2 < whole.mean() < 0.3
    part = split.tests(ROWS.slice(300, 200), dataset(split), None)
    assert (part == whole[300:500]).all()
    assert (HashSplit(0.25, salt="other").tests(ROWS, dataset(split), None) != whole).any()


def test_a_groups_column_needs_a_value_in_every_row() -> None:
    cells = pa.array([None] * 3 + ["a"] * 997)
    rows = ROWS.set_column(ROWS.schema.get_field_index("shop"), "shop", cells)
    split = GroupSplit("shop", 0.3)
    with raises(Code.VALUES_MISSING, "field split", "'shop'", "3 of 1000"):
        split.tests(rows, dataset(split), None)
    numbers = ROWS.set_column(2, "shop", pa.array([None, *range(999)], pa.int64()))
    with raises(Code.VALUES_MISSING, "'shop'", "1 of 1000"):
        split.tests(numbers, dataset(split), None)
    lists = ROWS.set_column(2, "shop", pa.array([[1]] * 1000))
    with raises(Code.COLUMN_UNUSABLE, "'shop'", "list<"):
        split.tests(lists, dataset(split), None)


@pytest.mark.parametrize("share", [0.01, 0.2, 0.4, 0.6, 0.99])
@pytest.mark.parametrize("groups", [2, 3, 5])
def test_the_closest_split_divides_any_few_groups(share: float, groups: int) -> None:
    sizes = [100 * (number + 1) for number in range(groups)]
    shops = [f"shop {number}" for number in range(groups) for _ in range(sizes[number])]
    rows = pa.table({"order": range(len(shops)), "shop": shops, "returned": [n % 2 for n in range(len(shops))]})
    split = GroupSplit("shop", share)
    found = split.closest(rows, dataset(split, event_time=None), None)
    assert isinstance(found, GroupSplit)
    possible = [sum(chosen) / len(shops) for n in range(1, groups) for chosen in itertools.combinations(sizes, n)]
    tests = found.tests(rows, dataset(found, event_time=None), None)
    best = min(possible, key=lambda part: abs(part - share))
    assert tests.mean() == pytest.approx(best, abs=0.07), "of all ways to divide these groups"


def test_one_group_cannot_be_divided() -> None:
    rows = pa.table({"order": range(9), "shop": ["a"] * 9, "returned": [n % 2 for n in range(9)]})
    assert GroupSplit("shop").closest(rows, dataset(GroupSplit("shop"), event_time=None), None) is None


def test_the_closest_split_leaves_two_classes_to_learn() -> None:
    rows = pa.table({"order": range(6), "shop": list("aabbcc"), "returned": [0, 0, 1, 1, 1, 1]})
    split = GroupSplit("shop", 0.3)
    found = split.closest(rows, dataset(split, event_time=None), None)
    assert found is not None
    tests = found.tests(rows, dataset(found, event_time=None), None)
    assert not tests[:2].any() and 0 < tests.sum() < 4


@pytest.mark.parametrize("rows", [2, 3, 10])
def test_a_hash_split_of_a_few_rows_has_a_closest(rows: int) -> None:
    split = HashSplit(0.001)
    few = ROWS.slice(0, rows)
    described = dataset(split, kind="regression")
    found = split.closest(few, described, None)
    assert isinstance(found, HashSplit)
    assert 0 < found.tests(few, described, None).sum() < rows


@pytest.mark.parametrize(
    ("asked", "end", "closest"),
    [
        ("365 days", None, "5 weeks"),
        ("365 days", datetime(2025, 2, 11, 16, tzinfo=UTC), "5 weeks"),
        ("1 day", datetime(2025, 3, 1, tzinfo=UTC), "3 weeks"),
        ("1 second", datetime(2025, 2, 11, 17, tzinfo=UTC), "1 week"),
    ],
)
def test_the_closest_split_by_time_is_as_near_as_the_rows_allow(asked: str, end: datetime | None, closest: str) -> None:
    split = TimeSplit(asked)
    found = split.closest(ROWS, dataset(split), end)
    assert found == TimeSplit(closest)
    assert 0 < found.tests(ROWS, dataset(found), end).sum() < 1000


def test_rows_of_one_moment_cannot_be_divided_by_time() -> None:
    rows = pa.table({"order": range(3), "at": [datetime(2025, 1, 1)] * 3, "returned": [0, 1, 0]})
    assert TimeSplit("1 day").closest(rows, dataset(TimeSplit("1 day")), None) is None


def test_a_group_stays_together() -> None:
    split = GroupSplit("shop", 0.3)
    tests = split.tests(ROWS, dataset(split), None)
    sides: dict[str, set[bool]] = {}
    for shop, side in zip(ROWS["shop"].to_pylist(), tests, strict=True):
        sides.setdefault(shop, set()).add(bool(side))
    assert all(len(found) == 1 for found in sides.values())
    assert len({next(iter(found)) for found in sides.values()}) == 2
