"""Packing: rows as messages, Arrow IPC streams of one record batch each, hashed.

Columns of fixed width are gathered from where the source's reader has put them straight to their places in the message;
all other rows are first put together by pyarrow. Both make the same bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from include.versions.manifest import SPLITS, Role, width
from include.versions.selection import Part, Selection

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

# More would be more than what librdkafka puts into one request and asks for in one.
MESSAGE_BYTES = 960 * 1024
MIN_ROWS = 16
# So many that the source's next rows are read while these are packed.
PACKED_AHEAD = 12
WORTH_COMPRESSING = 0.9


@dataclass(frozen=True)
class Batch:
    """What is kept of a message once it is sent."""

    split: Role
    number: int
    rows: int
    blake3: str


def packed(selection: Selection) -> Iterator[tuple[Batch, pa.Buffer]]:
    """The rows as messages of ``MESSAGE_BYTES`` each or a little less. A message is there until the next is asked for.

    Which rows go together depends on the rows alone, not on how the source hands them out: the same rows are the same
    messages.
    """
    numbers = dict.fromkeys(SPLITS, 0)
    press = _Press(selection.schema)
    packing: deque[Future[tuple[Batch, pa.Buffer]]] = deque()
    # Gathering and hashing take longer than choosing the rows, and need the interpreter for a moment only.
    with ThreadPoolExecutor(1, "pack") as thread:
        for split, parts in _messages(selection):
            packing.append(thread.submit(press.batch, split, numbers[split], parts))
            numbers[split] += 1
            while len(packing) > PACKED_AHEAD:
                batch, value = packing.popleft().result()
                yield batch, value
                press.reuse(value)
        while packing:
            yield packing.popleft().result()


def stream(batch: pa.RecordBatch) -> bytes:
    """A record batch as an Arrow IPC stream of its own, schema included."""
    return _stream(batch).to_pybytes()


def rows_of_a_message(schema: pa.Schema) -> int:
    """So many rows are ``MESSAGE_BYTES``, headers included, if a value of variable length takes 16 bytes."""
    bits = sum(1 + (field.type.bit_width if _is_fixed(field.type) else 128) for field in schema)
    return max(1, (MESSAGE_BYTES - 16_384) * 8 // bits)


def compression(value: pa.Buffer) -> str:
    """What messages like this one are compressed with: numbers at random get no smaller, and reading them no faster."""
    import pyarrow as pa

    return "lz4" if pa.Codec("lz4_raw").compress(value).size < WORTH_COMPRESSING * value.size else "none"


def _messages(selection: Selection) -> Iterator[tuple[Role, list[Part]]]:
    cutters = {split: _Cutter(selection.schema) for split in SPLITS}
    for split, part in selection.parts():
        for parts in cutters[split].cut(part):
            yield split, parts
    for split in SPLITS:
        for parts in cutters[split].rest():
            yield split, parts


class _Cutter:
    """Cuts rows into those of one message each: a fixed number, or a part of it where these take too many bytes."""

    def __init__(self, schema: pa.Schema) -> None:
        self._size = rows_of_a_message(schema)
        self._any_length = not all(_is_fixed(field.type) for field in schema)
        self._parts: list[Part] = []
        self._left = self._size

    def cut(self, part: Part) -> Iterator[list[Part]]:
        """The messages that are full now."""
        start = 0
        while start < len(part):
            piece = part.slice(start, self._left)
            self._parts.append(piece)
            self._left -= len(piece)
            start += len(piece)
            if not self._left:
                yield from self.rest()
        if self._parts:
            self._parts[-1] = self._parts[-1].alone()

    def rest(self) -> Iterator[list[Part]]:
        """The messages of the rows that are left."""
        if self._parts:
            yield from _small(_joined(self._parts)) if self._any_length else [self._parts]
        self._parts, self._left = [], self._size


class _Press:
    """Makes messages, one at a time, and uses the memory of those that were sent again."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._plain = all(width(str(field.type)) for field in schema)
        self._layouts: dict[int, _Layout] = {}
        # By address, messages that have the layout, whatever their values are.
        self._made: dict[int, _Message] = {}

    def batch(self, split: Role, number: int, parts: Sequence[Part]) -> tuple[Batch, pa.Buffer]:
        """The message of these rows."""
        rows = sum(map(len, parts))
        if self._plain and all(part.columns is not None for part in parts):
            value = self._filled(rows, parts)
        else:
            value = _stream(_clean(_joined(parts)))
        return Batch(split, number, rows, blake3(value).hexdigest()), value

    def reuse(self, value: pa.Buffer) -> None:
        """Takes back a message that nobody looks at any more; may be called while another is made."""
        if (found := self._made.get(value.address)) is not None:
            found.layout.spare.append(found)

    def _filled(self, rows: int, parts: Sequence[Part]) -> pa.Buffer:
        if rows not in self._layouts:
            self._layouts[rows] = _Layout(self._schema, rows)
        layout = self._layouts[rows]
        if layout.spare:
            message = layout.spare.popleft()
        else:
            message = layout.message()
            self._made[message.value.address] = message
        start = 0
        for part in parts:
            part.put(message.columns, start)
            start += len(part)
        return message.value


@dataclass(frozen=True)
class _Message:
    """A message of a layout, and its columns' values in it as integers of their width."""

    layout: _Layout
    value: pa.Buffer
    columns: Sequence[NDArray[Any]]


class _Layout:
    """Where everything lies in a message of so many rows without nulls, of columns of fixed width.

    Attributes:
        spare: Messages of this layout to be filled again.
    """

    def __init__(self, schema: pa.Schema, rows: int) -> None:
        import numpy as np
        import pyarrow as pa

        arrays = [
            pa.Array.from_buffers(field.type, rows, [None, pa.py_buffer(bytes(rows * width(str(field.type))))])
            for field in schema
        ]
        self._zeros = _stream(pa.RecordBatch.from_arrays(arrays, schema=schema))
        with pa.ipc.open_stream(self._zeros) as reader:
            columns = reader.read_next_batch().columns
        self._columns = [
            (np.dtype(f"i{width(str(column.type))}"), column.buffers()[1].address - self._zeros.address)
            for column in columns
        ]
        self._rows = rows
        self.spare: deque[_Message] = deque()

    def message(self) -> _Message:
        """A new one, of zeros."""
        import numpy as np
        import pyarrow as pa

        value = pa.allocate_buffer(self._zeros.size)
        np.frombuffer(value, np.uint8)[:] = np.frombuffer(self._zeros, np.uint8)
        return _Message(self, value, [np.frombuffer(value, kind, self._rows, offset) for kind, offset in self._columns])


def _stream(batch: pa.RecordBatch) -> pa.Buffer:
    import pyarrow as pa

    # A buffer of the right size from the beginning is several times as fast as one that grows.
    measure = pa.MockOutputStream()
    with pa.ipc.new_stream(measure, batch.schema) as writer:
        writer.write_batch(batch)
    content = pa.allocate_buffer(measure.size())
    with pa.ipc.new_stream(pa.FixedSizeBufferWriter(content), batch.schema) as writer:
        writer.write_batch(batch)
    return content


def _joined(parts: Sequence[Part]) -> pa.RecordBatch:
    import pyarrow as pa

    return parts[0].taken() if len(parts) == 1 else pa.concat_batches([part.taken() for part in parts])


def _clean(rows: pa.RecordBatch) -> pa.RecordBatch:
    """The rows without traces of those before and after them, which views have in the last byte of their bitmaps."""
    import pyarrow as pa

    return pa.concat_batches([rows, rows.slice(0, 0)])


def _small(rows: pa.RecordBatch) -> Iterator[list[Part]]:
    if rows.nbytes <= MESSAGE_BYTES or rows.num_rows <= MIN_ROWS:
        yield [Part.of(rows)]
        return
    half = rows.num_rows // 2
    yield from _small(rows.slice(0, half))
    yield from _small(rows.slice(half))


def _is_fixed(type_: pa.DataType) -> bool:
    import pyarrow.types as types

    return bool(types.is_primitive(type_) or types.is_decimal(type_)) and not types.is_null(type_)
