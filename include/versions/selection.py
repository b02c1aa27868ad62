"""Selection: the rows of a version, the part of each, and the order in which they are published.

Only the key columns of all rows are in memory, so that a version may be larger than memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from include.datasets.definition import Dataset
from include.error_codes import Code
from include.errors import NonRetryableError
from include.versions.columns import key_columns, require_target_type, typed, version_columns
from include.versions.infinity import Infinities
from include.versions.manifest import SPLITS, Interval, Role
from include.versions.part import Part
from include.versions.row_choice import NothingToPublish, choose_rows, classes, count_rows, describe

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from include.datasets.sources import Scan

__all__ = ["NothingToPublish", "Selection", "require_usable", "select"]

# A column name that no source can have.
_ROW_NUMBER = "\0row"


@dataclass(frozen=True)
class Selection:
    """The rows of a version, in canonical order: by event time, then by record id.

    Attributes:
        schema: The version's columns.
        features: The columns to learn from.
        rows: The number of rows in each part.
        rule: The rule of the split, for the manifest.
        classes: The target's values, ascending; empty for a regression.
        scanned: The number of rows of the source.
    """

    schema: pa.Schema
    features: list[str]
    rows: dict[Role, int]
    rule: dict[str, Any]
    classes: list[Any]
    scanned: int
    _dataset: Dataset
    _scan: Scan
    _row_numbers: NDArray[np.int64]
    _tests: NDArray[np.bool_]

    def parts(self) -> Iterator[tuple[Role, Part]]:
        """The rows in canonical order, batch by batch, each batch divided into train and test. Can be called again.

        Rows that the source returns in canonical order are streamed; others are sorted in memory.

        Raises:
            UserError: The source cannot be read, its number of rows has changed, or it has infinite values.
        """
        import numpy as np

        if (np.diff(self._row_numbers) > 0).all():
            yield from self._streamed(self._scan, self._row_numbers)
        else:
            import pyarrow as pa

            from include.datasets.sources import Whole

            rows = pa.Table.from_batches(typed(batch, self.schema) for batch in self._scan.batches(self.schema.names))
            self._require_unchanged(rows.num_rows)
            ordered = rows.take(pa.array(self._row_numbers))
            yield from self._streamed(Whole(ordered), np.arange(len(self._row_numbers)))

    def _streamed(self, scan: Scan, row_numbers: NDArray[np.int64]) -> Iterator[tuple[Role, Part]]:
        import numpy as np

        infinities = Infinities(self._dataset.name, self._dataset.record_id, self.features)
        start = first = 0
        for batch in _prefetched(scan.batches(self.schema.names)):
            last = first + int(np.searchsorted(row_numbers[first:], start + batch.num_rows))
            whole = Part.of(typed(batch, self.schema))
            testing = self._tests[first:last]
            infinities.add_batch(whole.batch, row_numbers[first:last] - start)
            for split, wanted in zip(SPLITS, (~testing, testing), strict=True):
                chosen = wanted
                if len(wanted) < batch.num_rows:
                    chosen = np.zeros(batch.num_rows, bool)
                    chosen[row_numbers[first:last] - start] = wanted
                if chosen.any():
                    yield split, whole.only(chosen)
            start, first = start + batch.num_rows, last
        if scan is self._scan:
            self._require_unchanged(start)
        infinities.require_none()

    def _require_unchanged(self, found: int) -> None:
        if found != self.scanned:
            raise NonRetryableError(
                f"The source had {self.scanned} rows and now has {found}: it changed while it was being read.",
                "Publish again when nothing writes to it.",
                code=Code.SOURCE_CHANGED,
            )


def select(dataset: Dataset, scan: Scan, interval: Interval, max_rows: int | None = None, seed: int = 0) -> Selection:
    """Chooses and checks the rows of an interval's version.

    Args:
        max_rows: Take a sample of this many rows, drawn by the hash of their ids.
        seed: Another seed draws another sample.

    Raises:
        NothingToPublish: The interval has no rows, or none to train or to test on.
        UserError: The source or its columns do not fit the definition.
    """
    import numpy as np
    import pyarrow as pa

    from include.datasets.sources.plain import Plain

    scan = Plain(scan, key_columns(dataset))
    schema, features = version_columns(dataset, scan)
    batches = list(scan.batches(key_columns(dataset)))
    scanned = sum(batch.num_rows for batch in batches)
    if not scanned:
        raise NothingToPublish(
            f"Dataset {dataset.name!r} has no rows{describe(interval)}: its source {dataset.source} is empty."
        )
    keys = pa.Table.from_batches(batches).append_column(_ROW_NUMBER, pa.array(np.arange(scanned)))
    keys = choose_rows(dataset, keys, interval, max_rows, seed)
    tests = dataset.split.tests(keys, dataset, interval.end)
    return Selection(
        schema=schema,
        features=features,
        rows=count_rows(dataset, keys, tests, interval),
        rule=dataset.split.rule(keys, dataset, interval.end),
        classes=classes(dataset, keys),
        scanned=scanned,
        _dataset=dataset,
        _scan=scan,
        _row_numbers=keys[_ROW_NUMBER].to_numpy(),
        _tests=tests,
    )


def require_usable(dataset: Dataset, scan: Scan, interval: Interval) -> None:
    """Raises the errors of publishing that a scan already shows.

    Raises:
        NothingToPublish: The interval has no rows, or none to train or to test on; only for a scan of all rows.
        UserError: The source or its columns do not fit the definition.
    """
    import pyarrow as pa
    import pyarrow.types as types

    from include.datasets.sources.plain import Plain
    from include.datasets.splits import moments

    if scan.certain == "rows":
        for _ in select(dataset, scan, interval).parts():
            pass
        return
    scan = Plain(scan, key_columns(dataset))
    schema, _ = version_columns(dataset, scan)

    def is_settled(kind: pa.DataType) -> bool:
        # A column of numbers may turn out to be text in later rows; text stays text.
        return scan.certain == "types" or types.is_string(kind)

    if is_settled(target := scan.schema.field(dataset.target).type):
        require_target_type(dataset, target)
    if dataset.event_time and is_settled(event_time := scan.schema.field(dataset.event_time).type):
        moments(pa.table({dataset.event_time: pa.array([], event_time)}), dataset)
    if scan.certain == "names":
        # Converts the first rows to the types that the definition gives.
        for _ in scan.batches(schema.names):
            pass


def _prefetched(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same batches; a thread reads the next one while the caller uses the last one."""
    with ThreadPoolExecutor(1, "read") as thread:
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield batch
