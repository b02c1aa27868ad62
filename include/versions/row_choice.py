"""The choice of a version's rows: those of the interval, with an id and a target, in canonical order."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from include.datasets.definition import Dataset
from include.durations import duration
from include.error_codes import Code
from include.errors import NonRetryableError
from include.versions.columns import require_target_type
from include.versions.infinity import FIRST_ROWS
from include.versions.manifest import SPLITS, Interval, Role

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

_FIRST_ROWS = 1_000

log = logging.getLogger(__name__)


class NothingToPublish(NonRetryableError):
    """The interval has no rows to train on or to test on, so it has no version."""

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what, remedy, code=Code.NOTHING_TO_PUBLISH)


def choose_rows(dataset: Dataset, keys: pa.Table, interval: Interval, max_rows: int | None, seed: int) -> pa.Table:
    """The rows of the interval's version, in canonical order: by event time, then by record id.

    Args:
        keys: The key columns of all rows.
        max_rows: Take a sample of this many rows, drawn by the hash of their ids.
        seed: Another seed draws another sample.

    Raises:
        NothingToPublish: The interval has no rows with a target.
        NonRetryableError: A record id is missing or repeated, or a target is infinite.
    """
    keys = _within(dataset, keys, interval)
    _require_ids(dataset, keys)
    keys = _with_target(dataset, keys, interval)
    if max_rows is not None and max_rows < keys.num_rows:
        keys = _sample(dataset, keys, max_rows, seed)
    return _sorted(dataset, keys)


def count_rows(dataset: Dataset, keys: pa.Table, tests: NDArray[np.bool_], interval: Interval) -> dict[Role, int]:
    """The number of rows in each part.

    Args:
        tests: For each row, whether it is a test row.

    Raises:
        NothingToPublish: A part has no rows, or the training part has one class only.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    counts: dict[Role, int] = {"train": int((~tests).sum()), "test": int(tests.sum())}
    about = f"Dataset {dataset.name!r}{describe(interval)}"
    for split, use in zip(SPLITS, ("train on", "test on"), strict=True):
        if not counts[split]:
            raise NothingToPublish(
                f"{about} has {len(tests)} rows, none of them to {use}: its split is {dataset.split}.",
                _closest_split(dataset, keys, interval),
            )
    if dataset.kind == "classification":
        train = pa.table({"target": keys[dataset.target], "trains": ~tests})
        # The first rows usually have two classes already.
        for rows in (train.slice(0, _FIRST_ROWS), train):
            if len(pc.unique(rows["target"].filter(rows["trains"]))) > 1:
                break
        else:
            raise NothingToPublish(
                f"{about} has {counts['train']} rows to train on, all of one class.",
                "Choose a longer interval or another split.",
            )
    return counts


def classes(dataset: Dataset, keys: pa.Table) -> list[Any]:
    """The target's values, ascending; empty for a regression."""
    import pyarrow.compute as pc

    return sorted(pc.unique(keys[dataset.target]).to_pylist()) if dataset.kind == "classification" else []


def describe(interval: Interval) -> str:
    """The interval as a part of a sentence, such as `` from 2025-01-01 00:00``; empty if it is open."""
    bounds = (("from", interval.start), ("to", interval.end))
    return "".join(f" {word} {moment:%Y-%m-%d %H:%M}" for word, moment in bounds if moment)


def _within(dataset: Dataset, rows: pa.Table, interval: Interval) -> pa.Table:
    if dataset.event_time is None:
        return rows
    import numpy as np
    import pyarrow as pa

    from include.datasets.splits import moments

    happened = moments(rows, dataset)
    inside = np.ones(len(happened), bool)
    if interval.start is not None:
        inside &= happened >= _utc(interval.start)
    if interval.end is not None:
        inside &= happened < _utc(interval.end)
    if not inside.any():
        raise NothingToPublish(
            f"Dataset {dataset.name!r} has no rows{describe(interval)}; the rows of its source are from "
            f"{happened.min()} to {happened.max()}."
        )
    if dataset.history != "interval":
        inside = np.ones(len(happened), bool) if interval.end is None else happened < _utc(interval.end)
        if dataset.history != "all":
            end = happened.max() if interval.end is None else _utc(interval.end)
            inside &= happened >= end - np.timedelta64(duration(dataset.history))
    return rows if inside.all() else rows.filter(pa.array(inside))


def _require_ids(dataset: Dataset, rows: pa.Table) -> None:
    import pyarrow.compute as pc

    ids = _without_nan(rows[dataset.record_id])
    about = f"Dataset {dataset.name!r}, field record_id: the column {dataset.record_id!r}"
    if ids.null_count:
        raise NonRetryableError(
            f"{about} is null in {ids.null_count} of {len(ids)} rows.",
            "Name a column with a value in every row, or leave these rows out in the source.",
            code=Code.RECORD_ID_NOT_UNIQUE,
        )
    if not _ascending([ids]) and (distinct := pc.count_distinct(ids).as_py()) < len(ids):
        counts = pc.value_counts(ids)
        example = counts.filter(pc.greater(counts.field("counts"), 1))[0].as_py()
        raise NonRetryableError(
            f"{about} repeats values in {len(ids) - distinct} rows, such as {example['values']} in "
            f"{example['counts']} rows.",
            "Name a column whose value is different in every row, or remove the repeated rows.",
            code=Code.RECORD_ID_NOT_UNIQUE,
        )


def _with_target(dataset: Dataset, rows: pa.Table, interval: Interval) -> pa.Table:
    """The rows with a target. Rows without one can neither train nor test."""
    import pyarrow.compute as pc
    import pyarrow.types as types

    column = _without_nan(rows[dataset.target])
    require_target_type(dataset, column.type)
    if column.null_count:
        log.warning("%d rows without a value of %s are left out.", column.null_count, dataset.target)
        rows = rows.filter(pc.is_valid(column))
    if types.is_floating(column.type) and (count := pc.sum(pc.is_inf(rows[dataset.target])).as_py()):
        first = rows.filter(pc.is_inf(rows[dataset.target]))[dataset.record_id].slice(0, FIRST_ROWS).to_pylist()
        raise NonRetryableError(
            f"Dataset {dataset.name!r}, field target: the column {dataset.target!r} is infinite in {count:,} rows, the "
            f"first with {dataset.record_id} {', '.join(map(str, first))}.",
            "Have the source return a number, or null to leave these rows out.",
            code=Code.VALUES_INFINITE,
        )
    if not rows.num_rows:
        raise NothingToPublish(
            f"Dataset {dataset.name!r} has no rows with a value of {dataset.target}{describe(interval)}."
        )
    return rows


def _without_nan(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column with null for NaN, since both mean a missing value."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as types

    if not types.is_floating(column.type):
        return column
    return pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)


def _sample(dataset: Dataset, rows: pa.Table, size: int, seed: int) -> pa.Table:
    import numpy as np

    from include.datasets.hashing import hash64

    drawn = hash64(rows[dataset.record_id], f"sample {seed}")
    return rows.take(np.sort(np.argsort(drawn, kind="stable")[:size]))


def _sorted(dataset: Dataset, rows: pa.Table) -> pa.Table:
    names = [dataset.event_time, dataset.record_id] if dataset.event_time else [dataset.record_id]
    order = list(dict.fromkeys(name for name in names if name))
    if _ascending([rows[name] for name in order]):
        return rows
    return rows.sort_by([(name, "ascending") for name in order])


def _ascending(columns: Sequence[pa.ChunkedArray]) -> bool:
    """Whether each row is greater than the one before it. False for columns that are not stored as integers."""
    import numpy as np
    import pyarrow.types as types

    greater: Any = None
    for column in reversed(columns):
        if not (types.is_integer(column.type) or types.is_temporal(column.type)) or column.null_count:
            return False
        values = column.to_numpy()
        same = False if greater is None else (values[1:] == values[:-1]) & greater
        greater = (values[1:] > values[:-1]) | same
    return bool(np.all(greater))


def _closest_split(dataset: Dataset, rows: pa.Table, interval: Interval) -> str:
    """A sentence that proposes a split with rows in both parts."""
    found = dataset.split.closest(rows, dataset, interval.end)
    if found is None:
        return "No split of this kind divides these rows."
    tests = int(found.tests(rows, dataset, interval.end).sum())
    return f"The closest split that divides them is {found}: {tests} rows test, {rows.num_rows - tests} train."


def _utc(moment: datetime) -> Any:
    import numpy as np

    return np.datetime64(moment.replace(tzinfo=None), "us")
