"""Assembly: batches that arrive in any order put together, without holding any row twice."""

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
    """The rows of one split, put in their places as their batches arrive.

    A column of fixed width is one array from the beginning, of the length that the manifest states; a batch is copied
    into it and can be expired together with its message. Other columns keep their batches apart. Several threads may
    put batches at a time.

    Args:
        messages: The split's, in batch order.
        columns: The version's.
    """

    def __init__(self, messages: Sequence[Message], columns: Sequence[Column]) -> None:
        self._starts = [0, *accumulate(message.rows for message in messages)]
        self._blocks = _blocks([width(column.type) for column in columns], self._starts[-1])
        self._columns: list[_Fixed | _Chunked] = []
        self._schema: pa.Schema | None = None
        self._form: Form | None = None
        self._making = threading.Lock()

    def put_alike(self, number: int, value: bytes) -> bool:
        """Takes in the batch of that number out of its message, if that differs in nothing but numbers from one before.

        Returns:
            Whether it does. If not, it has to be decoded, and ``put``.
        """
        view = None if self._form is None else self._form.view(value)
        start, end = self._starts[number], self._starts[number + 1]
        if view is None or view.shape[1] != end - start:
            return False
        self._blocks[0][0][:, start:end] = view
        return True

    def put(self, number: int, rows: pa.RecordBatch, value: bytes | None = None) -> None:
        """Takes in the batch of that number, of as many rows as its message has, which is ``value``."""
        with self._making:
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
                if value is not None and self._form is None and len(places) == rows.num_columns:
                    self._form = Form.of(value, view)
        for column in left:
            self._columns[column].put(number, start, rows.column(column))

    def table(self) -> pa.Table:
        """The rows in batch order, once every batch was put."""
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
class Form:
    """What messages of a version have in common that differ in their values alone, which all have one width.

    Where the values lie in an Arrow stream is said by what lies before them. A message that has the same bytes there,
    and as many, needs not be decoded.

    Attributes:
        before: What lies before the values.
        after: What lies behind them.
        size: The bytes of a whole message.
        layout: The shape (columns, rows), the strides and the type of the values.
    """

    before: bytes
    after: bytes
    size: int
    layout: tuple[tuple[int, ...], tuple[int, ...], np.dtype[Any]]

    @classmethod
    def of(cls, value: bytes, view: NDArray[Any]) -> Form | None:
        """The form of a message that was decoded, and found to be as the manifest says.

        Args:
            view: Its values, shape (columns, rows), where they were decoded to.

        Returns:
            None when that is not in the message itself, which may be compressed.
        """
        import numpy as np

        start = view.ctypes.data - np.frombuffer(value, np.uint8).ctypes.data
        end = start + view.strides[0] * (view.shape[0] - 1) + view.itemsize * view.shape[1]
        if start < 0 or end > len(value):
            return None
        return cls(value[:start], value[end:], len(value), (view.shape, view.strides, view.dtype))

    def view(self, value: bytes) -> NDArray[Any] | None:
        """The values of a message, shape (columns, rows); None when it has another form."""
        import numpy as np

        if len(value) != self.size or not value.startswith(self.before) or not value.endswith(self.after):
            return None
        shape, strides, kind = self.layout
        return np.ndarray(shape, kind, value, len(self.before), strides)


def _blocks(widths: Sequence[int], rows: int) -> list[tuple[NDArray[Any], list[int]]]:
    """For each width memory for the values of all columns of that width, shape (columns, rows), with their places."""
    import numpy as np

    found = []
    for size in {*widths} - {0}:
        places = [place for place, one in enumerate(widths) if one == size]
        content = _memory(len(places) * rows * size)
        found.append((np.frombuffer(content, f"i{size}", len(places) * rows).reshape(len(places), rows), places))
    return found


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
