"""Packs rows into messages: Arrow IPC streams of one record batch each, with their digests.

Columns of fixed width are copied from the source's batches directly to their positions in the message. pyarrow builds
all other messages. Both ways give the same bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from include.versions.manifest import SPLITS, Role, width
from include.versions.part import Part
from include.versions.selection import Selection

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

# A larger message exceeds what librdkafka puts into one request, and what it fetches with one.
MESSAGE_BYTES = 960 * 1024
MIN_ROWS = 16
# Enough that the source's next rows are read while these are packed.
PACKED_AHEAD = 12
# Messages are compressed if that makes them smaller than this share.
WORTH_COMPRESSING = 0.9


@dataclass(frozen=True)
class Batch:
    """The facts about a message that its manifest needs after it is sent."""

    split: Role
    number: int
    rows: int
    blake3: str


def packed(selection: Selection) -> Iterator[tuple[Batch, pa.Buffer]]:
    """The rows as messages of at most about ``MESSAGE_BYTES``. A message is valid until the next one is requested.

    Which rows share a message depends on the rows only, not on the batches of the source: the same rows give the same
    messages.
    """
    numbers = dict.fromkeys(SPLITS, 0)
    encoder = _MessageEncoder(selection.schema)
    packing: deque[Future[tuple[Batch, pa.Buffer]]] = deque()
    # Copying and hashing take longer than choosing the rows, and hold the interpreter's lock only briefly.
    with ThreadPoolExecutor(1, "pack") as thread:
        for split, parts in _messages(selection):
            packing.append(thread.submit(encoder.encode, split, numbers[split], parts))
            numbers[split] += 1
            while len(packing) > PACKED_AHEAD:
                batch, value = packing.popleft().result()
                yield batch, value
                encoder.recycle(value)
        while packing:
            yield packing.popleft().result()


def stream(batch: pa.RecordBatch) -> bytes:
    """A record batch as an Arrow IPC stream, schema included."""
    value: bytes = _stream(batch).to_pybytes()
    return value


def rows_of_a_message(schema: pa.Schema) -> int:
    """The number of rows in ``MESSAGE_BYTES``, headers included, if a value of variable length takes 16 bytes."""
    bits = sum(1 + (field.type.bit_width if _is_fixed(field.type) else 128) for field in schema)
    return max(1, (MESSAGE_BYTES - 16_384) * 8 // bits)


def compression(value: pa.Buffer) -> str:
    """The compression for messages like this one: none if it saves little, as for random numbers."""
    import pyarrow as pa

    return "lz4" if pa.Codec("lz4_raw").compress(value).size < WORTH_COMPRESSING * value.size else "none"


def _messages(selection: Selection) -> Iterator[tuple[Role, list[Part]]]:
    batchers = {split: _RowBatcher(selection.schema) for split in SPLITS}
    for split, part in selection.parts():
        for parts in batchers[split].add(part):
            yield split, parts
    for split in SPLITS:
        for parts in batchers[split].flush():
            yield split, parts


class _RowBatcher:
    """Groups rows by message: a fixed number of rows, or a fraction of it if they take too many bytes."""

    def __init__(self, schema: pa.Schema) -> None:
        self._size = rows_of_a_message(schema)
        self._any_length = not all(_is_fixed(field.type) for field in schema)
        self._parts: list[Part] = []
        self._left = self._size

    def add(self, part: Part) -> Iterator[list[Part]]:
        """Adds rows; yields the messages that are full."""
        start = 0
        while start < len(part):
            piece = part.slice(start, self._left)
            self._parts.append(piece)
            self._left -= len(piece)
            start += len(piece)
            if not self._left:
                yield from self.flush()
        if self._parts:
            self._parts[-1] = self._parts[-1].detached()

    def flush(self) -> Iterator[list[Part]]:
        """The messages of the remaining rows."""
        if self._parts:
            yield from _small(_joined(self._parts)) if self._any_length else [self._parts]
        self._parts, self._left = [], self._size


class _MessageEncoder:
    """Encodes messages, one at a time, and reuses the memory of messages that were sent."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._plain = all(width(str(field.type)) for field in schema)
        self._layouts: dict[int, _Layout] = {}
        # Messages that can be refilled, by address.
        self._allocated: dict[int, _Message] = {}

    def encode(self, split: Role, number: int, parts: Sequence[Part]) -> tuple[Batch, pa.Buffer]:
        """Encodes the message with these rows."""
        rows = sum(map(len, parts))
        if self._plain and all(part.columns is not None for part in parts):
            value = self._filled(rows, parts)
        else:
            value = _stream(_clean(_joined(parts)))
        return Batch(split, number, rows, blake3(value).hexdigest()), value

    def recycle(self, value: pa.Buffer) -> None:
        """Takes back the memory of a message that is no longer used; may run while another message is encoded."""
        if (found := self._allocated.get(value.address)) is not None:
            found.layout.spare.append(found)

    def _filled(self, rows: int, parts: Sequence[Part]) -> pa.Buffer:
        if rows not in self._layouts:
            self._layouts[rows] = _Layout(self._schema, rows)
        layout = self._layouts[rows]
        if layout.spare:
            message = layout.spare.popleft()
        else:
            message = layout.message()
            self._allocated[message.value.address] = message
        start = 0
        for part in parts:
            part.copy_to(message.columns, start)
            start += len(part)
        return message.value


@dataclass(frozen=True)
class _Message:
    """A message with a layout, and views of its columns' values as integers of their width."""

    layout: _Layout
    value: pa.Buffer
    columns: Sequence[NDArray[Any]]


class _Layout:
    """The positions of the values in a message with a given number of rows, without nulls, of fixed-width columns.

    Attributes:
        spare: Messages of this layout that can be refilled.
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
        """A new message, filled with zeros."""
        import numpy as np
        import pyarrow as pa

        value = pa.allocate_buffer(self._zeros.size)
        np.frombuffer(value, np.uint8)[:] = np.frombuffer(self._zeros, np.uint8)
        return _Message(self, value, [np.frombuffer(value, kind, self._rows, offset) for kind, offset in self._columns])


def _stream(batch: pa.RecordBatch) -> pa.Buffer:
    import pyarrow as pa

    # Allocating the right size first is several times as fast as a buffer that grows.
    measure = pa.MockOutputStream()
    with pa.ipc.new_stream(measure, batch.schema) as writer:
        writer.write_batch(batch)
    content = pa.allocate_buffer(measure.size())
    with pa.ipc.new_stream(pa.FixedSizeBufferWriter(content), batch.schema) as writer:
        writer.write_batch(batch)
    return content


def _joined(parts: Sequence[Part]) -> pa.RecordBatch:
    import pyarrow as pa

    return parts[0].to_batch() if len(parts) == 1 else pa.concat_batches([part.to_batch() for part in parts])


def _clean(rows: pa.RecordBatch) -> pa.RecordBatch:
    """A copy of the rows. The last byte of a view's bitmaps also has bits of the rows around it."""
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
