"""Splits: which rows test, and that a row's side does not depend on its neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from include.datasets import Dataset, GroupSplit, HashSplit, Packaged, TimeSplit
from include.datasets.splits import Split
from include.errors import UserError

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


def test_the_last_stretch_before_the_intervals_end_tests() -> None:
    split = TimeSplit("10 days")
    end = datetime(2025, 2, 1, tzinfo=UTC)
    tests = split.tests(ROWS, dataset(split), end)
    at = np.array(ROWS["at"].to_pylist())
    assert (tests == (at >= datetime(2025, 1, 22))).all()
    assert split.rule(ROWS, dataset(split), end)["boundary"] == "2025-01-22T00:00:00"


def test_without_an_interval_the_last_record_is_the_end() -> None:
    split = TimeSplit("24h")
    assert split.tests(ROWS, dataset(split), None).sum() == 24


def test_time_splits_need_times() -> None:
    split = TimeSplit("10 days")
    with pytest.raises(UserError, match="its event_time 'shop' must hold a time in every row, but is string"):
        split.tests(ROWS, dataset(split, event_time="shop"), None)


@pytest.mark.parametrize("kind", [pa.date32(), pa.timestamp("s"), pa.timestamp("ns", "Europe/Berlin")])
def test_any_type_of_time_will_do(kind: pa.DataType) -> None:
    days = [date(2025, 1, 1) + timedelta(days=day) for day in range(100)]
    rows = pa.table({"order": range(100), "at": pa.array(days).cast(kind)})
    split = TimeSplit("10 days")
    tests = split.tests(rows, dataset(split), datetime(2025, 4, 11, tzinfo=UTC))
    assert 10 <= tests.sum() <= 11


def test_a_hash_split_takes_about_its_share_and_keeps_each_record_on_its_side() -> None:
    split = HashSplit(0.25)
    whole = split.tests(ROWS, dataset(split), None)
    assert 0.2 < whole.mean() < 0.3
    part = split.tests(ROWS.slice(300, 200), dataset(split), None)
    assert (part == whole[300:500]).all()
    assert (HashSplit(0.25, salt="other").tests(ROWS, dataset(split), None) != whole).any()


def test_a_group_stays_together() -> None:
    split = GroupSplit("shop", 0.3)
    tests = split.tests(ROWS, dataset(split), None)
    sides: dict[str, set[bool]] = {}
    for shop, side in zip(ROWS["shop"].to_pylist(), tests, strict=True):
        sides.setdefault(shop, set()).add(bool(side))
    assert all(len(found) == 1 for found in sides.values())
    assert len({next(iter(found)) for found in sides.values()}) == 2
