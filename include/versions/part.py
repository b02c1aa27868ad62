"""Parts: rows of a batch that go into one message, without a copy of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from include.versions.manifest import width

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

# A part that waits for its message keeps its whole batch only if that has at most this many times its rows.
MAX_WAITING_BATCHES = 32


@dataclass(frozen=True)
class Part:
    """Some rows of a batch.

    Attributes:
        batch: The batch.
        rows: The numbers of the rows, ascending.
        columns: The batch's values as integers of their width; None if some are null or have no fixed width.
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
        """The chosen rows; ``chosen`` has a value for each row of the batch."""
        import numpy as np

        rows = np.flatnonzero(chosen)
        contiguous = len(rows) and rows[-1] - rows[0] + 1 == len(rows)
        return replace(self, rows=slice(int(rows[0]), int(rows[-1]) + 1) if contiguous else rows)

    def slice(self, start: int, length: int) -> Part:
        """Up to ``length`` rows from the row with number ``start`` on."""
        if isinstance(self.rows, slice):
            first = self.rows.start + start
            return replace(self, rows=slice(first, min(first + length, self.rows.stop)))
        return replace(self, rows=self.rows[start : start + length])

    def copy_to(self, columns: Sequence[NDArray[Any]], start: int) -> None:
        """Copies the values of each column into an array, from ``start`` on; only for a part with ``columns``."""
        assert self.columns is not None
        end = start + len(self)
        for column, values in zip(columns, self.columns, strict=True):
            if isinstance(self.rows, slice):
                column[start:end] = values[self.rows]
            else:
                # With the default mode, "raise", numpy would copy into a buffer of its own first.
                values.take(self.rows, out=column[start:end], mode="clip")

    def to_batch(self) -> pa.RecordBatch:
        """The rows as a batch: a view if they are contiguous."""
        if isinstance(self.rows, slice):
            return self.batch.slice(self.rows.start, len(self))
        return self.batch.take(self.rows)

    def detached(self) -> Part:
        """The same rows, copied if the batch has more than ``MAX_WAITING_BATCHES`` times as many."""
        import numpy as np

        if len(self) > self.batch.num_rows // MAX_WAITING_BATCHES:
            return self
        rows = np.arange(self.rows.start, self.rows.stop) if isinstance(self.rows, slice) else self.rows
        return Part.of(self.batch.take(rows))


def _values(batch: pa.RecordBatch) -> list[NDArray[Any]] | None:
    import numpy as np

    widths = [width(str(column.type)) for column in batch.columns]
    if not all(widths) or any(column.null_count for column in batch.columns):
        return None
    return [
        np.frombuffer(column.buffers()[1], f"i{bytes_}", len(column), column.offset * bytes_)
        for column, bytes_ in zip(batch.columns, widths, strict=True)
    ]
