"""Assembly: batches that arrive in any order put together, without holding any row twice."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from include.versions.manifest import Message


class Assembly:
    """The rows of one split, put in their places as their batches arrive.

    A column of fixed width is one array from the beginning, of the length that the manifest states; a batch is copied
    into it and can be forgotten together with its message. Other columns keep their batches apart. Several threads may
    put batches at a time.

    Args:
        messages: The split's, in batch order.
    """

    def __init__(self, messages: Sequence[Message]) -> None:
        self._starts = [0, *accumulate(message.rows for message in messages)]
        self._blocks: list[tuple[NDArray[Any], list[int]]] = []
        self._columns: list[_Fixed | _Chunked] = []
        self._schema: pa.Schema | None = None
        self._making = threading.Lock()

    def put(self, number: int, rows: pa.RecordBatch) -> None:
        """Takes in the batch of that number, of as many rows as its message has."""
        with self._making:
            if self._schema is None:
                self._blocks, self._columns = _columns(rows.schema, self._starts[-1], len(self._starts) - 1)
                self._schema = rows.schema
        start, end = self._starts[number], self._starts[number + 1]
        left = set(range(rows.num_columns))
        for block, columns in self._blocks:
            view = _view([rows.column(column) for column in columns], block.itemsize)
            if view is not None:
                block[:, start:end] = view
                left -= set(columns)
        for column in left:
            self._columns[column].put(number, start, rows.column(column))

    def table(self) -> pa.Table:
        """The rows in batch order, once every batch was put."""
        import pyarrow as pa

        assert self._schema is not None
        return pa.Table.from_arrays([column.column() for column in self._columns], schema=self._schema)


def _columns(
    schema: pa.Schema, rows: int, batches: int
) -> tuple[list[tuple[NDArray[Any], list[int]]], list[_Fixed | _Chunked]]:
    """The columns, and for each width the block of all columns of that width, with their places in the schema."""
    import numpy as np

    widths = [_width(field.type) for field in schema]
    blocks = []
    columns: list[_Fixed | _Chunked] = [_Chunked(batches) for _ in widths]
    for width in {*widths} - {0}:
        places = [place for place, found in enumerate(widths) if found == width]
        block = np.frombuffer(_memory(len(places) * rows * width), f"i{width}").reshape(len(places), rows)
        blocks.append((block, places))
        for place, values in zip(places, block, strict=True):
            columns[place] = _Fixed(schema.field(place).type, values)
    return blocks, columns


def _memory(size: int) -> mmap.mmap:
    """So much memory, in pages of the ordinary size.

    Neither numpy's nor pyarrow's own: they ask for huge pages, and a kernel that has none at hand takes three times as
    long to make them.
    """
    content = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        content.madvise(mmap.MADV_NOHUGEPAGE)
    return content


def _view(columns: Sequence[pa.Array], width: int) -> NDArray[Any] | None:
    """Columns that lie evenly in a message as one array, shape (columns, rows); None when they do not or have nulls.

    Columns of one type follow each other evenly in an Arrow stream: copied together they take a tenth of the time.
    """
    import numpy as np
    import pyarrow as pa

    if any(column.null_count or column.offset for column in columns):
        return None
    addresses = [column.buffers()[1].address for column in columns]
    steps = {after - before for before, after in pairwise(addresses)} or {width * len(columns[0])}
    step = steps.pop()
    if steps or step < width * len(columns[0]):
        return None
    shape = (len(columns), len(columns[0]))
    content = pa.foreign_buffer(addresses[0], step * (shape[0] - 1) + width * shape[1], base=columns)
    return np.ndarray(shape, f"i{width}", content, strides=(step, width))


class _Fixed:
    def __init__(self, type_: pa.DataType, values: Any) -> None:
        self._type = type_
        self._values = values
        self._valid: Any = None
        self._making = threading.Lock()

    def put(self, number: int, start: int, values: pa.Array) -> None:
        import numpy as np

        buffer, width, end = values.buffers()[1], self._values.itemsize, start + len(values)
        self._values[start:end] = np.frombuffer(buffer, self._values.dtype, len(values), values.offset * width)
        if values.null_count:
            with self._making:
                if self._valid is None:
                    self._valid = np.ones(len(self._values), bool)
            self._valid[start:end] = values.is_valid().to_numpy(zero_copy_only=False)

    def column(self) -> pa.Array:
        import numpy as np
        import pyarrow as pa

        valid = None if self._valid is None else pa.py_buffer(np.packbits(self._valid, bitorder="little"))
        return pa.Array.from_buffers(self._type, len(self._values), [valid, pa.py_buffer(self._values)])


class _Chunked:
    def __init__(self, batches: int) -> None:
        self._chunks: list[pa.Array | None] = [None] * batches

    def put(self, number: int, start: int, values: pa.Array) -> None:
        import pyarrow as pa

        # Two arrays are copied into a new one; the one alone would hold its whole message.
        self._chunks[number] = pa.concat_arrays([values, values.slice(0, 0)])

    def column(self) -> pa.ChunkedArray:
        import pyarrow as pa

        return pa.chunked_array(self._chunks)


def _width(type_: pa.DataType) -> int:
    """The bytes of a value, or 0 where values have no fixed number of whole bytes."""
    import pyarrow.types as types

    fixed = types.is_primitive(type_) and not types.is_null(type_) and type_.bit_width in (8, 16, 32, 64)
    return type_.bit_width // 8 if fixed else 0
