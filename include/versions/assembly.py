"""Assembles the batches of a version, which arrive in any order, into a table without a second copy of any row."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from include.versions.manifest import width

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from include.versions.manifest import Column, Message


class Assembly:
    """The rows of one split, filled in as their batches arrive.

    A column of fixed width is one array, allocated with the length that the manifest states: each batch is copied into
    it, and its message can be freed. Other columns keep the values of each batch separately. Several threads may add
    batches at the same time.

    Args:
        messages: The messages of the split, in batch order.
        columns: The columns of the version.
    """

    def __init__(self, messages: Sequence[Message], columns: Sequence[Column]) -> None:
        self._starts = [0, *accumulate(message.rows for message in messages)]
        self._blocks = _blocks([width(column.type) for column in columns], self._starts[-1])
        self._columns: list[_Fixed | _Chunked] = []
        self._schema: pa.Schema | None = None
        self._layout: Layout | None = None
        self._creating = threading.Lock()

    def put_same_layout(self, number: int, value: bytes) -> bool:
        """Copies the batch of this number out of its message, if the message has the layout of an earlier one.

        Returns:
            Whether the layout is the same. If not, decode the message and call ``put``.
        """
        view = None if self._layout is None else self._layout.view(value)
        start, end = self._starts[number], self._starts[number + 1]
        if view is None or view.shape[1] != end - start:
            return False
        self._blocks[0][0][:, start:end] = view
        return True

    def put(self, number: int, rows: pa.RecordBatch, value: bytes | None = None) -> None:
        """Copies the batch of this number.

        Args:
            rows: The decoded batch.
            value: Its message, whose layout is remembered for ``put_same_layout``.
        """
        with self._creating:
            if self._schema is None:
                self._columns = self._empty(rows.schema)
                self._schema = rows.schema
        start, end = self._starts[number], self._starts[number + 1]
        left = set(range(rows.num_columns))
        for block, places in self._blocks:
            view = _view([rows.column(place) for place in places], block.itemsize)
            if view is not None:
                block[:, start:end] = view
                left -= set(places)
                if value is not None and self._layout is None and len(places) == rows.num_columns:
                    self._layout = Layout.of(value, view)
        for column in left:
            self._columns[column].put(number, start, rows.column(column))

    def table(self) -> pa.Table:
        """All rows in batch order; call it after the last batch."""
        import pyarrow as pa

        assert self._schema is not None
        return pa.Table.from_arrays([column.column() for column in self._columns], schema=self._schema)

    def _empty(self, schema: pa.Schema) -> list[_Fixed | _Chunked]:
        columns: list[_Fixed | _Chunked] = [_Chunked(len(self._starts) - 1) for _ in schema]
        for block, places in self._blocks:
            for place, values in zip(places, block, strict=True):
                columns[place] = _Fixed(schema.field(place).type, values)
        return columns


@dataclass(frozen=True)
class Layout:
    """The layout of messages that differ only in their values, all of one width.

    The bytes before the values of an Arrow stream describe where the values are. A message of the same size with the
    same bytes there does not need to be decoded.

    Attributes:
        before: The bytes before the values.
        after: The bytes after the values.
        size: The size of a message in bytes.
        array: The shape (columns, rows), the strides and the type of the values.
    """

    before: bytes
    after: bytes
    size: int
    array: tuple[tuple[int, ...], tuple[int, ...], np.dtype[Any]]

    @classmethod
    def of(cls, value: bytes, view: NDArray[Any]) -> Layout | None:
        """The layout of a message that was decoded and agrees with the manifest.

        Args:
            view: The decoded values, shape (columns, rows).

        Returns:
            None if the values are not inside the message, for instance because it is compressed.
        """
        import numpy as np

        start = view.ctypes.data - np.frombuffer(value, np.uint8).ctypes.data
        end = start + view.strides[0] * (view.shape[0] - 1) + view.itemsize * view.shape[1]
        if start < 0 or end > len(value):
            return None
        return cls(value[:start], value[end:], len(value), (view.shape, view.strides, view.dtype))

    def view(self, value: bytes) -> NDArray[Any] | None:
        """The values of a message, shape (columns, rows); None if it has another layout."""
        import numpy as np

        if len(value) != self.size or not value.startswith(self.before) or not value.endswith(self.after):
            return None
        shape, strides, kind = self.array
        return np.ndarray(shape, kind, value, len(self.before), strides)


def _blocks(widths: Sequence[int], rows: int) -> list[tuple[NDArray[Any], list[int]]]:
    """For each width, an array for all columns of that width, shape (columns, rows), and the columns' numbers."""
    import numpy as np

    found = []
    for size in {*widths} - {0}:
        places = [place for place, one in enumerate(widths) if one == size]
        content = _memory(len(places) * rows * size)
        found.append((np.frombuffer(content, f"i{size}", len(places) * rows).reshape(len(places), rows), places))
    return found


def _memory(size: int) -> mmap.mmap:
    """Allocates memory in pages of the ordinary size.

    numpy and pyarrow request huge pages, which take three times as long if the kernel has to make them first.
    """
    content = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        content.madvise(mmap.MADV_NOHUGEPAGE)
    return content


def _view(columns: Sequence[pa.Array], width: int) -> NDArray[Any] | None:
    """Columns at equal distances in a message as one array, shape (columns, rows); None if they are not or have nulls.

    Columns of one type are at equal distances in an Arrow stream. Copying them together takes a tenth of the time.
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
        self._creating = threading.Lock()

    def put(self, number: int, start: int, values: pa.Array) -> None:
        import numpy as np

        buffer, width, end = values.buffers()[1], self._values.itemsize, start + len(values)
        self._values[start:end] = np.frombuffer(buffer, self._values.dtype, len(values), values.offset * width)
        if values.null_count:
            with self._creating:
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

        # Concatenating two arrays makes a copy; the array itself would keep its whole message in memory.
        self._chunks[number] = pa.concat_arrays([values, values.slice(0, 0)])

    def column(self) -> pa.ChunkedArray:
        import pyarrow as pa

        return pa.chunked_array(self._chunks)
