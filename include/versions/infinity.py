"""Finds infinite values in a version's columns while its rows are published."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from include.error_codes import Code
from include.errors import NonRetryableError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

FIRST_ROWS = 3
"""An error names this many rows with an infinite value."""


class Infinities:
    """Counts the infinite values of a version, which most estimators of scikit-learn refuse.

    Args:
        dataset: The dataset's name.
        record_id: The column that identifies a record.
        columns: The columns that must be finite where they are not null.
    """

    def __init__(self, dataset: str, record_id: str, columns: Collection[str]) -> None:
        self._dataset = dataset
        self._record_id = record_id
        self._columns = columns
        self._counts: dict[str, int] = {}
        self._first: dict[str, list[Any]] = {}

    def add_batch(self, batch: pa.RecordBatch, rows: NDArray[np.int64]) -> None:
        """Checks the rows of a batch that belong to the version.

        Args:
            rows: The numbers of these rows in the batch, ascending, shape (rows,).
        """
        import numpy as np
        import pyarrow.compute as pc
        import pyarrow.types as types

        for name in self._columns:
            column = batch[name]
            if not types.is_floating(column.type) or _has_finite_sum(column):
                continue
            infinite = pc.is_inf(column).fill_null(False).to_numpy(zero_copy_only=False)[rows]
            if infinite.any():
                self._counts[name] = self._counts.get(name, 0) + int(np.count_nonzero(infinite))
                first = self._first.setdefault(name, [])
                places = rows[np.flatnonzero(infinite)[: FIRST_ROWS - len(first)]]
                first += [batch[self._record_id][int(place)].as_py() for place in places]

    def require_none(self) -> None:
        """Call it after the last batch.

        Raises:
            NonRetryableError: A column has infinite values; the message gives their number and the first rows.
        """
        if not self._counts:
            return
        found = [
            f"{name} in {count:,} rows, the first with {self._record_id} {', '.join(map(str, self._first[name]))}"
            for name, count in self._counts.items()
        ]
        raise NonRetryableError(
            f"Dataset {self._dataset!r} has infinite values: {'; '.join(found)}. Nothing was published.",
            "Have the source return null instead, or leave these columns out of features.",
            code=Code.VALUES_INFINITE,
        )


def _has_finite_sum(column: pa.Array) -> bool:
    """Whether the sum of the values is finite. It takes a tenth of the time of a check of each value."""
    import numpy as np

    width = column.type.bit_width // 8
    content = column.buffers()[1]
    if content is None:
        return True
    values = np.frombuffer(content, f"f{width}", len(column), column.offset * width)
    with np.errstate(all="ignore"):
        return bool(np.isfinite(values.sum()))
