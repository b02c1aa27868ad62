"""Batches of values, rewritten to MessagePack field by field, which msgspec decodes and validates as it does JSON.

An array holds the position that each value has been read to. A number becomes 9 bytes, a text its length and a copy of
its bytes, and Arrow joins the pieces. The MessagePack specification describes the output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from include.landing.decoding.plan import guarded

Positions = NDArray[np.int64]
Pieces = Sequence[tuple[str, Any]]
"""The parts of one field: for each its numpy type and its values, or an empty text and an Arrow array of bytes."""

FALSE, FLOAT32, FLOAT64, INT64, UINT64 = 0xC2, 0xCA, 0xCB, 0xD3, 0xCF
STR32, BIN32 = 0xDB, 0xC6
_NIL = b"\xc0"
# An extension of 12 bytes of type -1.
_TIMESTAMP = np.frombuffer(b"\xc7\x0c\xff", "V3")[0]
_MAP, _ARRAY = b"\xde", b"\xdd"
MAX_FIELDS = 1 << 16
"""The most fields of a map, exclusive."""

# A varint has 10 bytes at most, and 8 are read at once from each of its halves.
_PADDING = bytes(32)
# Offsets in Arrow's binary arrays have 32 bits, and a value grows by the names of its fields.
_MAX_BYTES = 1 << 27
_NO_SEPARATOR = pa.scalar(b"", pa.binary())


def parts(values: Sequence[bytes]) -> list[Sequence[bytes]]:
    """The values in parts that Arrow can hold."""
    if sum(map(len, values)) <= _MAX_BYTES or len(values) == 1:
        return [values]
    half = len(values) // 2
    return [*parts(values[:half]), *parts(values[half:])]


class Unpacker:
    """Decodes MessagePack to events.

    Args:
        event: The struct of the stream.
    """

    def __init__(self, event: type[msgspec.Struct]) -> None:
        self._decode = msgspec.msgpack.Decoder(event).decode
        self._decode_all = msgspec.msgpack.Decoder(list[event]).decode  # type: ignore[valid-type]

    def events(self, packed: pa.Array, bad: NDArray[np.bool_]) -> tuple[list[Any], list[int]]:
        """The events, in order, and the indices of those that are bad or cannot be decoded; their events are None."""
        bounds = np.frombuffer(packed.buffers()[1], np.int32)[: len(packed) + 1]
        view = memoryview(packed.buffers()[2])
        if not bad.any():
            try:
                head = _ARRAY + len(packed).to_bytes(4, "big")
                return self._decode_all(b"".join((head, view[: bounds[-1]]))), []
            except BaseException as error:
                guarded(error)
        found: list[Any] = [None] * len(packed)
        unread: list[int] = []
        for at, is_bad in enumerate(bad.tolist()):
            try:
                if is_bad:
                    unread.append(at)
                else:
                    found[at] = self._decode(view[bounds[at] : bounds[at + 1]])
            except BaseException as error:
                guarded(error)
                unread.append(at)
        return found, unread


class Layout:
    """The pieces of the MessagePack of some values. Consecutive pieces of fixed width share a record array."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._record: list[tuple[str, Any]] = []
        self._pieces: list[pa.Array] = []

    def head(self, fields: int) -> None:
        """The beginning of a map."""
        self.constant(_MAP + fields.to_bytes(2, "big"))

    def constant(self, data: bytes) -> None:
        """The same bytes for all values."""
        # numpy would cut NUL bytes off the end of a text, but not of raw bytes.
        self.fixed(f"V{len(data)}", np.frombuffer(data, f"V{len(data)}")[0])

    def pieces(self, pieces: Pieces) -> None:
        """The parts of a field."""
        for width, values in pieces:
            if width:
                self.fixed(width, values)
            else:
                self.varying(values)

    def sparse(self, inner: Layout, present: NDArray[np.bool_]) -> None:
        """A field that some values do not have: what the others have, and null."""
        count = inner._rows
        choice = np.full(self._rows, count, np.int64)
        choice[present] = np.arange(count)
        values = inner.joined() if count else pa.array([], pa.binary())
        self.varying(pa.concat_arrays([values, pa.array([_NIL], pa.binary())]).take(pa.array(choice)))

    def fixed(self, width: str, values: Any) -> None:
        """A part of fixed width: its values, or one for all."""
        self._record.append((width, values))

    def varying(self, array: pa.Array) -> None:
        """A part of any width."""
        self._close()
        self._pieces.append(array)

    def joined(self) -> pa.Array:
        """All parts, value by value."""
        self._close()
        if len(self._pieces) == 1:
            return self._pieces[0]
        return pc.binary_join_element_wise(*self._pieces, _NO_SEPARATOR)

    def _close(self) -> None:
        if not self._record:
            return
        record = np.empty(self._rows, np.dtype([(f"f{at}", width) for at, (width, _) in enumerate(self._record)]))
        for at, (_, values) in enumerate(self._record):
            record[f"f{at}"] = values
        self._pieces.append(_fixed_width(record))
        self._record = []


def _fixed_width(rows: NDArray[Any]) -> pa.Array:
    offsets = np.arange(len(rows) + 1, dtype=np.int32) * np.int32(rows.itemsize)
    return pa.Array.from_buffers(
        pa.binary(), len(rows), [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(rows).view(np.uint8))]
    )


def timestamps(seconds: Positions, nanoseconds: Positions) -> Pieces:
    """Moments since 1970, in whole microseconds: PostgreSQL keeps no more, and msgspec would round."""
    return [("V3", _TIMESTAMP), (">u4", nanoseconds // 1_000 * 1_000), (">i8", seconds)]


class Batch:
    """The values of a batch in one buffer.

    Attributes:
        begins, ends: Where each value begins, and the end of each.
        bad: For each value, whether its bytes do not fit the schema, or it must be read alone.
    """

    def __init__(self, values: Sequence[bytes], start: int) -> None:
        data = b"".join((*values, _PADDING))
        lengths = np.fromiter(map(len, values), np.int64, len(values))
        self.ends: Positions = np.cumsum(lengths)
        self.begins: Positions = np.minimum(self.ends - lengths + start, self.ends)
        self.bad: NDArray[np.bool_] = lengths < start
        self._buffer = pa.py_buffer(data)
        self.bytes: NDArray[np.uint8] = np.frombuffer(data, np.uint8)
        room = len(data) - 8
        # Every position, as a number of several bytes.
        self.words: NDArray[Any] = np.ndarray((room,), "<u8", data, strides=(1,))
        self.halves: NDArray[Any] = np.ndarray((room,), "<u4", data, strides=(1,))
        self.doubles: NDArray[Any] = np.ndarray((room,), "<f8", data, strides=(1,))
        self.floats: NDArray[Any] = np.ndarray((room,), "<f4", data, strides=(1,))

    @property
    def zeros(self) -> int:
        """A position with zeros only."""
        return len(self.bytes) - len(_PADDING)

    def varints(self, at: Positions) -> tuple[NDArray[np.uint64], Positions]:
        """The varints at some positions, and their lengths; more than 10 if one is too long.

        A varint of up to 8 bytes is taken from one word.
        """
        first = self.bytes[at]
        if first.max(initial=0) < 0x80:
            return first.astype(np.uint64), np.ones(len(at), np.int64)
        words = self.words[at]
        stops = ~words & np.uint64(0x8080808080808080)
        lowest = stops & (~stops + np.uint64(1))
        found = words & (lowest - np.uint64(1)) & np.uint64(0x7F7F7F7F7F7F7F7F)
        found = (found & np.uint64(0x007F007F007F007F)) | ((found & np.uint64(0x7F007F007F007F00)) >> np.uint64(1))
        found = (found & np.uint64(0x00003FFF00003FFF)) | ((found & np.uint64(0x3FFF00003FFF0000)) >> np.uint64(2))
        found = (found & np.uint64(0x000000000FFFFFFF)) | ((found & np.uint64(0x0FFFFFFF00000000)) >> np.uint64(4))
        lengths = (np.bitwise_count(lowest - np.uint64(1)).astype(np.int64) + 1) >> 3
        longer = np.flatnonzero(stops == 0)
        if longer.size:
            ninth, tenth = self.bytes[at[longer] + 8].astype(np.uint64), self.bytes[at[longer] + 9].astype(np.uint64)
            has_tenth = ninth >= 0x80
            found[longer] |= (ninth & np.uint64(0x7F)) << np.uint64(56)
            found[longer] |= np.where(has_tenth, tenth & np.uint64(1), np.uint64(0)) << np.uint64(63)
            lengths[longer] = 9 + has_tenth + (has_tenth & (tenth > 1))
        return found, lengths

    def sized(self, begins: Positions, lengths: Positions) -> pa.Array:
        """The bytes at some positions, which must not overlap and must be in order."""
        offsets = np.empty(2 * len(begins), np.int32)
        offsets[::2], offsets[1::2] = begins, begins + lengths
        # Every second item is the gap before the next value.
        whole = pa.Array.from_buffers(
            pa.binary(), max(len(offsets) - 1, 0), [None, pa.py_buffer(offsets), self._buffer]
        )
        return whole.take(pa.array(np.arange(0, len(offsets), 2)))


def is_utf8(texts: pa.Array) -> bool:
    """Whether all bytes are UTF-8."""
    try:
        texts.cast(pa.string())
    except pa.ArrowInvalid:
        return False
    return True


def zigzag(found: NDArray[np.uint64]) -> Positions:
    """Varints as signed numbers."""
    signs = ~(found & np.uint64(1)) + np.uint64(1)
    longs: Positions = ((found >> np.uint64(1)) ^ signs).view(np.int64)
    return longs
