"""Infinity: values that are no number in a version's columns, found while its rows are published."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from include.errors import NonRetryableError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

FIRST_ROWS = 3
"""How many of the rows with an infinite value are named."""


class Infinities:
    """Looks at every batch of a version. No estimator of scikit-learn takes an infinite value.

    Args:
        dataset: The dataset's name.
        record_id: The column that names a record.
        columns: The columns that must be finite where they hold a number.
    """

    def __init__(self, dataset: str, record_id: str, columns: Collection[str]) -> None:
        self._dataset = dataset
        self._record_id = record_id
        self._columns = columns
        self._counts: dict[str, int] = {}
        self._first: dict[str, list[Any]] = {}

    def see(self, batch: pa.RecordBatch, rows: NDArray[np.int64]) -> None:
        """Takes in the rows of a batch that belong to the version.

        Args:
            rows: Their numbers in the batch, ascending, shape (rows,).
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
        """To be called when all batches were seen.

        Raises:
            NonRetryableError: There are some; each column is named, with their number and the first rows.
        """
        if not self._counts:
            return
        found = [
            f"{name} in {count:,} rows, the first with {self._record_id} {', '.join(map(str, self._first[name]))}"
            for name, count in self._counts.items()
        ]
        raise NonRetryableError(
            f"Dataset {self._dataset!r} has infinite values: {'; '.join(found)}. Nothing was published.",
            "Have the source give null where there is no number, or name features without these columns.",
        )


def _has_finite_sum(column: pa.Array) -> bool:
    """Whether the values add up to a number, which takes a tenth of the time of looking at each."""
    import numpy as np

    width = column.type.bit_width // 8
    content = column.buffers()[1]
    if content is None:
        return True
    values = np.frombuffer(content, f"f{width}", len(column), column.offset * width)
    with np.errstate(all="ignore"):
        return bool(np.isfinite(values.sum()))
