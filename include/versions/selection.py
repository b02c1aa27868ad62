"""Selection: which rows of a source make a version, on which side each is, and in which order they are published.

Only the columns that decide are looked at, so that a version may be larger than memory.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from include.datasets.definition import Dataset
from include.durations import duration
from include.errors import NonRetryableError
from include.versions.infinity import FIRST_ROWS, Infinities
from include.versions.manifest import SPLITS, Interval, Role, width

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from include.datasets.sources import Scan

# A part that waits for its message holds its whole batch if that is at most so many times as large.
MAX_WAITING_BATCHES = 32
# No column of a source can be called so.
_PLACE = "\0place"
_FIRST_ROWS = 1_000

log = logging.getLogger(__name__)


class NothingToPublish(NonRetryableError):
    """The interval holds nothing to learn from or to test on; no version is made of it."""


@dataclass(frozen=True)
class Part:
    """Some rows of a batch.

    Attributes:
        batch: The batch.
        rows: Which of its rows, ascending.
        columns: The batch's values as integers of their width; None when some are null or of no fixed width.
    """

    batch: pa.RecordBatch
    rows: slice | NDArray[np.int64]
    columns: Sequence[NDArray[Any]] | None

    @classmethod
    def of(cls, batch: pa.RecordBatch) -> Part:
        """All rows of a batch."""
        return cls(batch, slice(0, batch.num_rows), _values(batch))

    def __len__(self) -> int:
        return self.rows.stop - self.rows.start if isinstance(self.rows, slice) else len(self.rows)

    def only(self, chosen: NDArray[np.bool_]) -> Part:
        """Those that are chosen of all rows of the batch."""
        import numpy as np

        rows = np.flatnonzero(chosen)
        together = len(rows) and rows[-1] - rows[0] + 1 == len(rows)
        return replace(self, rows=slice(int(rows[0]), int(rows[-1]) + 1) if together else rows)

    def slice(self, start: int, most: int) -> Part:
        """Those from the one with number ``start`` on, ``most`` or fewer."""
        if isinstance(self.rows, slice):
            first = self.rows.start + start
            return replace(self, rows=slice(first, min(first + most, self.rows.stop)))
        return replace(self, rows=self.rows[start : start + most])

    def put(self, places: Sequence[NDArray[Any]], start: int) -> None:
        """Copies the values of each column to its place, from ``start`` on; only of a part that has ``columns``."""
        assert self.columns is not None
        end = start + len(self)
        for place, values in zip(places, self.columns, strict=True):
            if isinstance(self.rows, slice):
                place[start:end] = values[self.rows]
            else:
                # Without a mode that needs no check numpy would copy to a place of its own first.
                values.take(self.rows, out=place[start:end], mode="clip")

    def taken(self) -> pa.RecordBatch:
        """The rows as a batch of their own; where they lie together, a view."""
        if isinstance(self.rows, slice):
            return self.batch.slice(self.rows.start, len(self))
        return self.batch.take(self.rows)

    def alone(self) -> Part:
        """The same rows, without holding more than ``MAX_WAITING_BATCHES`` times as many that lie between them."""
        import numpy as np

        if len(self) > self.batch.num_rows // MAX_WAITING_BATCHES:
            return self
        rows = np.arange(self.rows.start, self.rows.stop) if isinstance(self.rows, slice) else self.rows
        return Part.of(self.batch.take(rows))


@dataclass(frozen=True)
class Selection:
    """The rows of a version, in canonical order: by event time, then by record id.

    Attributes:
        schema: The version's columns.
        features: Those to learn from.
        rows: How many rows each split has.
        rule: The split's, as the manifest states it.
        classes: The target's values, ascending; empty for a regression.
        scanned: How many rows the source has.
    """

    schema: pa.Schema
    features: list[str]
    rows: dict[Role, int]
    rule: dict[str, Any]
    classes: list[Any]
    scanned: int
    _dataset: Dataset
    _scan: Scan
    _places: NDArray[np.int64]
    _tests: NDArray[np.bool_]

    def parts(self) -> Iterator[tuple[Role, Part]]:
        """The rows in their order, split by split of each batch; may be called again.

        Rows that lie in canonical order are streamed; others have to be sorted in memory.

        Raises:
            UserError: The source cannot be read, has changed since it was looked at, or holds infinite values.
        """
        import numpy as np

        if (np.diff(self._places) > 0).all():
            yield from self._streamed(self._scan, self._places)
        else:
            import pyarrow as pa

            from include.datasets.sources import Whole

            rows = pa.Table.from_batches(_typed(batch, self.schema) for batch in self._scan.batches(self.schema.names))
            self._require(rows.num_rows)
            yield from self._streamed(Whole(rows.take(pa.array(self._places))), np.arange(len(self._places)))

    def _streamed(self, scan: Scan, places: NDArray[np.int64]) -> Iterator[tuple[Role, Part]]:
        import numpy as np

        infinities = Infinities(self._dataset.name, self._dataset.record_id, self.features)
        start = first = 0
        for batch in _ahead(scan.batches(self.schema.names)):
            last = first + int(np.searchsorted(places[first:], start + batch.num_rows))
            whole = Part.of(_typed(batch, self.schema))
            testing = self._tests[first:last]
            infinities.see(whole.batch, places[first:last] - start)
            for split, wanted in zip(SPLITS, (~testing, testing), strict=True):
                chosen = wanted
                if len(wanted) < batch.num_rows:
                    chosen = np.zeros(batch.num_rows, bool)
                    chosen[places[first:last] - start] = wanted
                if chosen.any():
                    yield split, whole.only(chosen)
            start, first = start + batch.num_rows, last
        if scan is self._scan:
            self._require(start)
        infinities.require_none()

    def _require(self, found: int) -> None:
        if found != self.scanned:
            raise NonRetryableError(
                f"The source had {self.scanned} rows and now has {found}: it changes while it is read."
            )


def select(dataset: Dataset, scan: Scan, interval: Interval, most_rows: int | None = None, seed: int = 0) -> Selection:
    """Chooses and checks the rows of an interval's version.

    Args:
        most_rows: Take a sample of so many rows, drawn by the hash of their ids.
        seed: Another seed draws another sample.

    Raises:
        NothingToPublish: The interval has none, or too few to train and test.
        UserError: The source or its columns are not as defined.
    """
    import numpy as np
    import pyarrow as pa

    from include.datasets.sources.plain import Plain

    needed = [dataset.record_id, dataset.event_time, dataset.split.column, dataset.target]
    scan = Plain(scan, [name for name in needed if name])
    schema, features = _schema(dataset, scan)
    batches = list(scan.batches(list(dict.fromkeys(name for name in needed if name))))
    scanned = sum(batch.num_rows for batch in batches)
    if not scanned:
        raise NothingToPublish(
            f"Dataset {dataset.name!r} has no rows{_of(interval)}; its source {dataset.source} gives none at all."
        )
    keys = pa.Table.from_batches(batches).append_column(_PLACE, pa.array(np.arange(scanned)))
    keys = _within(dataset, keys, interval)
    _require_ids(dataset, keys)
    keys = _with_target(dataset, keys, interval)
    if most_rows is not None and most_rows < keys.num_rows:
        keys = _sample(dataset, keys, most_rows, seed)
    keys = _sorted(dataset, keys)
    tests = dataset.split.tests(keys, dataset, interval.end)
    return Selection(
        schema=schema,
        features=features,
        rows=_counts(dataset, keys, tests, interval),
        rule=dataset.split.rule(keys, dataset, interval.end),
        classes=_classes(dataset, keys),
        scanned=scanned,
        _dataset=dataset,
        _scan=scan,
        _places=keys[_PLACE].to_numpy(),
        _tests=tests,
    )


def require_usable(dataset: Dataset, scan: Scan, interval: Interval) -> None:
    """Refuses what publishing would refuse, as far as that is certain from a scan.

    Raises:
        NothingToPublish: The interval has no rows, or too few to train and test; only of a scan of all rows.
        UserError: The source or its columns are not as defined.
    """
    import pyarrow as pa
    import pyarrow.types as types

    from include.datasets.sources.plain import Plain
    from include.datasets.splits import moments

    if scan.certain == "rows":
        for _ in select(dataset, scan, interval).parts():
            pass
        return
    keys = [dataset.record_id, dataset.event_time, dataset.split.column, dataset.target]
    scan = Plain(scan, [name for name in keys if name])
    schema, _ = _schema(dataset, scan)

    def settled(kind: pa.DataType) -> bool:
        # What is a number at the beginning may be text later; what is text stays text.
        return scan.certain == "types" or types.is_string(kind)

    if settled(target := scan.schema.field(dataset.target).type):
        _require_target(dataset, target)
    if dataset.event_time and settled(moment := scan.schema.field(dataset.event_time).type):
        moments(pa.table({dataset.event_time: pa.array([], moment)}), dataset)
    if scan.certain == "names":
        # Types that the definition gives are tried on the rows that are there.
        for _ in scan.batches(schema.names):
            pass


def _ahead(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same, each read in another thread while the one before it is worked on."""
    with ThreadPoolExecutor(1, "read") as thread:
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield batch


def _values(batch: pa.RecordBatch) -> list[NDArray[Any]] | None:
    import numpy as np

    widths = [width(str(column.type)) for column in batch.columns]
    if not all(widths) or any(column.null_count for column in batch.columns):
        return None
    return [
        np.frombuffer(column.buffers()[1], f"i{bytes_}", len(column), column.offset * bytes_)
        for column, bytes_ in zip(batch.columns, widths, strict=True)
    ]


def _typed(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch with the version's types."""
    import pyarrow as pa

    from include.datasets.sources.plain import cast

    columns = zip(batch.columns, schema, strict=True)
    return pa.RecordBatch.from_arrays(
        [column if column.type == field.type else cast(column, field.type) for column, field in columns], schema=schema
    )


def _schema(dataset: Dataset, scan: Scan) -> tuple[pa.Schema, list[str]]:
    """The columns that a version of the dataset has, and those of them to learn from."""
    import pyarrow as pa

    found = scan.schema
    features = dataset.feature_names(found.names)
    if dataset.features is None and (unfit := [name for name in features if name in scan.unfit]):
        log.info("Not learned from: %s.", ", ".join(f"{name} ({scan.unfit[name]})" for name in unfit))
        features = [name for name in features if name not in unfit]
    wanted: dict[str, Sequence[str]] = {
        "record_id": [dataset.record_id],
        "event_time": [dataset.event_time] if dataset.event_time else [],
        "split": [dataset.split.column] if dataset.split.column else [],
        "features": features,
        "target": [dataset.target],
        "slices": dataset.slice_columns(found.names),
    }
    for field, names in wanted.items():
        if missing := [name for name in names if name not in found.names]:
            raise NonRetryableError(
                f"Dataset {dataset.name!r}, field {field}: its source has no column {', '.join(missing)}; "
                f"it has {', '.join(found.names)}.",
                "Correct the definition.",
            )
        if field != "slices" and (unfit := [name for name in names if name in scan.unfit]):
            raise NonRetryableError(
                f"Dataset {dataset.name!r}, field {field}: the column {unfit[0]!r} is {scan.unfit[unfit[0]]}, which "
                "cannot be used there.",
                "Name another, or have the source give it, or a part of it, as text or a number.",
            )
    if not features:
        raise NonRetryableError(f"Dataset {dataset.name!r}: no column is left to learn from.", "Name features.")
    names = list(dict.fromkeys(name for names in wanted.values() for name in names))
    # Models compute with doubles; what names and divides records stays exact.
    exact = {dataset.record_id, dataset.event_time, dataset.split.column}
    return pa.schema([(name, _learnable(found.field(name).type, name in exact)) for name in names]), features


def _learnable(type_: pa.DataType, exact: bool) -> pa.DataType:
    import pyarrow as pa

    return pa.float64() if pa.types.is_decimal(type_) and not exact else type_


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
            f"Dataset {dataset.name!r} has no rows{_of(interval)}; "
            f"its source's go from {happened.min()} to {happened.max()}."
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
    if ids.null_count:
        raise NonRetryableError(
            f"Dataset {dataset.name!r}: {ids.null_count} rows have no {dataset.record_id!r}, their record_id.",
            "Name a column that has a value in every row, or leave these rows out in the source.",
        )
    if not _ascending([ids]) and (distinct := pc.count_distinct(ids).as_py()) < len(ids):
        counts = pc.value_counts(ids)
        twice = counts.filter(pc.greater(counts.field("counts"), 1))[0].as_py()
        raise NonRetryableError(
            f"Dataset {dataset.name!r}: {len(ids) - distinct} rows repeat a record_id, such as "
            f"{dataset.record_id}={twice['values']} in {twice['counts']} rows.",
            "Name a column that is different in every row, or remove the repeated rows.",
        )


def _with_target(dataset: Dataset, rows: pa.Table, interval: Interval) -> pa.Table:
    """The rows that have a target: from the others nothing can be learned, and nothing be tested on them."""
    import pyarrow.compute as pc
    import pyarrow.types as types

    column = _without_nan(rows[dataset.target])
    _require_target(dataset, column.type)
    if column.null_count:
        log.warning("%d rows have no %s and are left out.", column.null_count, dataset.target)
        rows = rows.filter(pc.is_valid(column))
    if types.is_floating(column.type) and (count := pc.sum(pc.is_inf(rows[dataset.target])).as_py()):
        first = rows.filter(pc.is_inf(rows[dataset.target]))[dataset.record_id].slice(0, FIRST_ROWS).to_pylist()
        raise NonRetryableError(
            f"Dataset {dataset.name!r}: the target {dataset.target!r} is infinite in {count:,} rows, the first with "
            f"{dataset.record_id} {', '.join(map(str, first))}.",
            "Have the source give a number, or null to leave these rows out.",
        )
    if not rows.num_rows:
        raise NothingToPublish(f"Dataset {dataset.name!r} has no row with a {dataset.target}{_of(interval)}.")
    return rows


def _require_target(dataset: Dataset, kind: pa.DataType) -> None:
    import pyarrow.types as types

    numeric = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    if dataset.kind == "regression" and not numeric:
        raise NonRetryableError(
            f"Dataset {dataset.name!r}: a regression needs a numeric target, and {dataset.target!r} is {kind}.",
            "Name another target, or set kind='classification'.",
        )
    if dataset.kind == "classification" and (types.is_temporal(kind) or types.is_decimal(kind)):
        raise NonRetryableError(
            f"Dataset {dataset.name!r}: the target {dataset.target!r} is {kind}, which are no classes.",
            "Name another target, or have the source give it as text or whole numbers: in SQL target::integer or "
            "target::text.",
        )


def _without_nan(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column with null for NaN: neither says anything."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as types

    if not types.is_floating(column.type):
        return column
    return pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)


def _sample(dataset: Dataset, rows: pa.Table, most: int, seed: int) -> pa.Table:
    import numpy as np

    from include.datasets.hashing import hash64

    drawn = hash64(rows[dataset.record_id], f"sample {seed}")
    return rows.take(np.sort(np.argsort(drawn, kind="stable")[:most]))


def _sorted(dataset: Dataset, rows: pa.Table) -> pa.Table:
    names = [dataset.event_time, dataset.record_id] if dataset.event_time else [dataset.record_id]
    order = list(dict.fromkeys(name for name in names if name))
    if _ascending([rows[name] for name in order]):
        return rows
    return rows.sort_by([(name, "ascending") for name in order])


def _ascending(columns: Sequence[pa.ChunkedArray]) -> bool:
    """Whether each row is greater than the one before; only of columns whose values are numbers inside, else False."""
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


def _counts(dataset: Dataset, rows: pa.Table, tests: NDArray[np.bool_], interval: Interval) -> dict[Role, int]:
    import pyarrow as pa
    import pyarrow.compute as pc

    counts: dict[Role, int] = {"train": int((~tests).sum()), "test": int(tests.sum())}
    about = f"Dataset {dataset.name!r}{_of(interval)}"
    for split, use in zip(SPLITS, ("train on", "test on"), strict=True):
        if not counts[split]:
            raise NothingToPublish(
                f"{about} has no rows to {use}, of {len(tests)}; its split is {dataset.split}. "
                f"{_closest(dataset, rows, interval)}"
            )
    if dataset.kind == "classification":
        train = pa.table({"target": rows[dataset.target], "trains": ~tests})
        # Most often the first rows show two classes already.
        for seen in (train.slice(0, _FIRST_ROWS), train):
            classes = pc.unique(seen["target"].filter(seen["trains"]))
            if len(classes) > 1:
                break
        else:
            raise NothingToPublish(f"{about} has {counts['train']} rows to train on, all of one class.")
    return counts


def _closest(dataset: Dataset, rows: pa.Table, interval: Interval) -> str:
    """The split to write instead of one that leaves a side without rows, as a sentence."""
    found = dataset.split.closest(rows, dataset, interval.end)
    if found is None:
        return "No split of this kind divides these rows."
    tests = int(found.tests(rows, dataset, interval.end).sum())
    return f"The closest that divides them is {found}: {tests} rows test, {rows.num_rows - tests} train."


def _classes(dataset: Dataset, rows: pa.Table) -> list[Any]:
    import pyarrow.compute as pc

    return sorted(pc.unique(rows[dataset.target]).to_pylist()) if dataset.kind == "classification" else []


def _utc(moment: datetime) -> Any:
    import numpy as np

    return np.datetime64(moment.replace(tzinfo=None), "us")


def _of(interval: Interval) -> str:
    bounds = (("from", interval.start), ("to", interval.end))
    return "".join(f" {word} {moment:%Y-%m-%d %H:%M}" for word, moment in bounds if moment)
