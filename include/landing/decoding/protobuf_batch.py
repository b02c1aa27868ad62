"""Reads a batch of Protobuf messages field by field, for messages without repeated fields.

A first pass finds where each field of each message is; a second reads the fields. Messages that are unusual, because
they repeat a field, use another wire type or have groups, are left to the package protobuf. Protobuf's documentation,
"Encoding", describes the input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from msgspec import inspect
from numpy.typing import NDArray

from include.landing.decoding import packing, protobuf_schema
from include.landing.decoding.misfit import alternatives
from include.landing.decoding.packing import (
    BIN32,
    FALSE,
    FLOAT32,
    FLOAT64,
    INT64,
    MAX_FIELDS,
    STR32,
    UINT64,
    Batch,
    Layout,
    Pieces,
    Positions,
    Unpacker,
)
from include.landing.decoding.protobuf_schema import TIMESTAMP

_VARINT, _FIXED64, _SIZED, _FIXED32 = 0, 1, 2, 5
_ABSENT = -1
_MAX_VARINT = 10
_WIDTHS = {_FIXED64: 8, _FIXED32: 4}
_KNOWN_WIRES = frozenset({_VARINT, _FIXED64, _SIZED, _FIXED32})
_MAX_NUMBER = 1 << 29
# Messages with many different fields at the same place are read one by one.
_MAX_TAGS = 32
_MAX_NANOSECONDS = 1_000_000_000


@dataclass(frozen=True)
class _Field:
    """A field of a message.

    Attributes:
        wire: The wire type.
        read: Reads its values; None for a message.
        inner: The fields of a message.
        is_moment: Whether it is a Timestamp.
        is_text: Whether it must be UTF-8.
        is_kept: Whether the struct has it.
        symbols: Of an enum: the numbers in order, int64[n], and the MessagePack of each.
        has_presence: Whether a message may lack it; otherwise it is then zero or empty.
        has_default: Whether the struct has a default other than None for it.
    """

    number: int
    key: bytes
    wire: int
    read: Callable[[_Messages, _Located], Pieces] | None
    inner: tuple[_Field, ...] = ()
    is_moment: bool = False
    is_text: bool = False
    is_kept: bool = True
    has_presence: bool = False
    has_default: bool = False
    symbols: Any = None


@dataclass
class _Located:
    """Where a field is in some messages, and how many bytes it has if its wire type says so.

    Attributes:
        rows: The indices of the messages.
    """

    field: _Field
    rows: Positions
    at: Positions
    sizes: Positions


class ProtobufBatch:
    """Reads batches of messages of one type; see ``of``."""

    def __init__(self, fields: tuple[_Field, ...], event: type[msgspec.Struct]) -> None:
        self._fields = fields
        self._unpacker = Unpacker(event)

    @classmethod
    def of(cls, message: Any, event: type[msgspec.Struct]) -> ProtobufBatch | None:
        """The reader for a message type; None if its messages must be read one by one."""
        fields = _fields(message, inspect.type_info(event), frozenset())
        return None if fields is None else cls(fields, event)

    def events(self, values: Sequence[bytes], start: int, after: bytes = b"") -> tuple[list[Any], list[int]]:
        """The events of values, in order, and the indices of those that must be read alone; their events are None.

        Args:
            after: What each message comes after: one byte, or nothing.
        """
        found: list[Any] = []
        unread: list[int] = []
        for some in packing.parts(values):
            batch = _Messages(some, start)
            batch.skip(after)
            packed = batch.message(self._fields, np.arange(len(some)), batch.begins, batch.ends)
            events, indices = self._unpacker.events(packed, batch.bad)
            unread += [len(found) + at for at in indices]
            found += events
        return found, unread


class _Messages(Batch):
    """The messages of a batch."""

    def skip(self, after: bytes) -> None:
        """Moves the beginnings past a byte. Marks the values that begin with another one."""
        if after:
            self.bad |= (self.begins >= self.ends) | (self.bytes[self.begins] != after[0])
            self.begins = np.minimum(self.begins + 1, self.ends)

    def message(self, fields: Sequence[_Field], rows: Positions, begins: Positions, ends: Positions) -> pa.Array:
        """Some messages as MessagePack."""
        layout = Layout(len(rows))
        layout.head(sum(field.is_kept for field in fields))
        for located in self.located(fields, rows, begins, ends):
            if located.field.is_kept:
                layout.constant(located.field.key)
            self._field(located, layout)
        return layout.joined()

    def located(self, fields: Sequence[_Field], rows: Positions, begins: Positions, ends: Positions) -> list[_Located]:
        """Where the fields of some messages are."""
        found = [
            _Located(field, rows, np.full(len(rows), _ABSENT, np.int64), np.zeros(len(rows), np.int64))
            for field in fields
        ]
        by_number = {each.field.number: each for each in found}
        index: Positions | slice = slice(None)
        at, limit = begins, ends
        unread = (at < limit) & ~self.bad[rows]
        while unread.any():
            if not unread.all():
                # The messages that end earlier are left out.
                index = np.flatnonzero(unread) if isinstance(index, slice) else index[unread]
                at, limit = at[unread], limit[unread]
            tags, lengths = self.varints(at)
            at = np.minimum(at + lengths, limit)
            wrong = lengths > _MAX_VARINT
            if (tags == tags[0]).all():
                at, wrong = self._step(by_number, int(tags[0]), index, at, wrong)
            else:
                different = np.unique(tags)
                wrong |= tags > different[:_MAX_TAGS][-1]
                for tag in different[:_MAX_TAGS].tolist():
                    mine = np.flatnonzero(tags == tag)
                    where = mine if isinstance(index, slice) else index[mine]
                    at[mine], wrong[mine] = self._step(by_number, tag, where, at[mine], wrong[mine])
            wrong |= at > limit
            if wrong.any():
                self.bad[rows[index][wrong]] = True
            unread = (at < limit) & ~wrong
        return found

    def _step(
        self,
        by_number: dict[int, _Located],
        tag: int,
        index: Positions | slice,
        at: Positions,
        wrong: NDArray[np.bool_],
    ) -> tuple[Positions, NDArray[np.bool_]]:
        """Reads past a field with this tag in some messages. Returns where it ends, and which are wrong.

        Args:
            index: Which of the messages they are.
            at: Where the data of the field begin, after the tag.
            wrong: Which are wrong already.
        """
        wire, located = tag & 7, by_number.get(tag >> 3)
        sizes = None
        if wire == _VARINT:
            lengths = self.varints(at)[1]
            after = at + lengths
            wrong = wrong | (lengths > _MAX_VARINT)
        elif wire == _SIZED:
            values, lengths = self.varints(at)
            sizes = values.view(np.int64)
            wrong = wrong | (lengths > _MAX_VARINT) | (sizes < 0) | (sizes > len(self.bytes))
            if wrong.any():
                sizes = np.where(wrong, 0, sizes)
            at = at + lengths
            after = at + sizes
        else:
            after = at + _WIDTHS.get(wire, 0)
        if not 0 < tag >> 3 < _MAX_NUMBER or wire not in _KNOWN_WIRES:
            return after, np.ones(len(at), bool)
        if located is not None:
            if wire != located.field.wire:
                return after, np.ones(len(at), bool)
            wrong = wrong | (located.at[index] != _ABSENT)
            # A position outside of the buffer is never read.
            located.at[index] = np.minimum(at, self.zeros)
            if sizes is not None:
                located.sizes[index] = np.minimum(sizes, self.zeros - np.minimum(at, self.zeros))
        return after, wrong

    def _field(self, located: _Located, layout: Layout) -> None:
        field, present = located.field, located.at != _ABSENT
        if not field.has_presence:
            # A position with zeros stands for an absent field.
            located.at = np.where(present, located.at, self.zeros)
            self._value(located, layout)
            return
        if field.has_default and not present.all():
            # msgspec sets the default of a field that is not there.
            self.bad[located.rows[~present]] = True
        if present.all():
            self._value(located, layout)
            return
        inner = Layout(int(present.sum()))
        self._value(_Located(field, located.rows[present], located.at[present], located.sizes[present]), inner)
        if field.is_kept:
            layout.sparse(inner, present)

    def _value(self, located: _Located, layout: Layout) -> None:
        field = located.field
        if field.read is not None:
            pieces = field.read(self, located)
            if field.is_kept:
                layout.pieces(pieces)
            return
        ends = located.at + located.sizes
        if field.is_moment:
            seconds, nanoseconds = self.located(field.inner, located.rows, located.at, ends)
            part = self._number(nanoseconds).astype(np.int32).astype(np.int64)
            outside = (part < 0) | (part >= _MAX_NANOSECONDS)
            self.bad[located.rows[outside]] = True
            if field.is_kept:
                layout.pieces(packing.timestamps(self._number(seconds), np.where(outside, 0, part)))
            return
        packed = self.message(field.inner, located.rows, located.at, ends)
        if field.is_kept:
            layout.varying(packed)

    def _number(self, located: _Located) -> Positions:
        found: Positions = self._unsigned(located).view(np.int64)
        return found

    def _unsigned(self, located: _Located) -> NDArray[np.uint64]:
        """The varints of a field; 0 where it is absent."""
        return self.varints(np.where(located.at == _ABSENT, self.zeros, located.at))[0]

    def int64(self, located: _Located) -> Pieces:
        return [("u1", INT64), (">i8", self._number(located))]

    def int32(self, located: _Located) -> Pieces:
        return [("u1", INT64), (">i8", self._number(located).astype(np.int32))]

    def uint64(self, located: _Located) -> Pieces:
        return [("u1", UINT64), (">u8", self._unsigned(located))]

    def uint32(self, located: _Located) -> Pieces:
        return [("u1", UINT64), (">u8", self._unsigned(located).astype(np.uint32))]

    def sint64(self, located: _Located) -> Pieces:
        return [("u1", INT64), (">i8", packing.zigzag(self._unsigned(located)))]

    def sint32(self, located: _Located) -> Pieces:
        low = self._unsigned(located).astype(np.uint32).astype(np.uint64)
        return [("u1", INT64), (">i8", packing.zigzag(low))]

    def boolean(self, located: _Located) -> Pieces:
        return [("u1", (self._unsigned(located) != 0).astype(np.uint8) + np.uint8(FALSE))]

    def enum(self, located: _Located) -> Pieces:
        numbers = self._number(located).astype(np.int32).astype(np.int64)
        known, symbols = located.field.symbols
        where = np.minimum(np.searchsorted(known, numbers), len(known) - 1)
        self.bad[located.rows[known[where] != numbers]] = True
        return [("", symbols.take(pa.array(where)))]

    def fixed64(self, located: _Located) -> Pieces:
        return [("u1", UINT64), (">u8", self.words[located.at])]

    def sfixed64(self, located: _Located) -> Pieces:
        return [("u1", INT64), (">i8", self.words[located.at].view(np.int64))]

    def fixed32(self, located: _Located) -> Pieces:
        return [("u1", UINT64), (">u8", self.halves[located.at])]

    def sfixed32(self, located: _Located) -> Pieces:
        return [("u1", INT64), (">i8", self.halves[located.at].view(np.int32))]

    def double(self, located: _Located) -> Pieces:
        return [("u1", FLOAT64), (">f8", self.doubles[located.at])]

    def float(self, located: _Located) -> Pieces:
        return [("u1", FLOAT32), (">f4", self.floats[located.at])]

    def sized_field(self, located: _Located) -> Pieces:
        """A text or bytes. Arrow takes positions in order only, and an absent field has none of its own."""
        begins, sizes, wrong = located.at, located.sizes, self.bad[located.rows]
        if wrong.any():
            sizes = np.where(wrong, 0, sizes)
        empty = sizes == 0
        if empty.any():
            begins = np.where(empty, self.begins[located.rows], begins)
        found = self.sized(begins, sizes)
        if located.field.is_text and not located.field.is_kept and not packing.is_utf8(found):
            self.bad[located.rows] = True
        return [("u1", STR32 if located.field.is_text else BIN32), (">u4", sizes), ("", found)]


_KINDS: dict[str, tuple[int, Callable[[_Messages, _Located], Pieces]]] = {
    "DOUBLE": (_FIXED64, _Messages.double),
    "FLOAT": (_FIXED32, _Messages.float),
    "INT64": (_VARINT, _Messages.int64),
    "UINT64": (_VARINT, _Messages.uint64),
    "INT32": (_VARINT, _Messages.int32),
    "FIXED64": (_FIXED64, _Messages.fixed64),
    "FIXED32": (_FIXED32, _Messages.fixed32),
    "BOOL": (_VARINT, _Messages.boolean),
    "STRING": (_SIZED, _Messages.sized_field),
    "BYTES": (_SIZED, _Messages.sized_field),
    "UINT32": (_VARINT, _Messages.uint32),
    "SFIXED32": (_FIXED32, _Messages.sfixed32),
    "SFIXED64": (_FIXED64, _Messages.sfixed64),
    "SINT32": (_VARINT, _Messages.sint32),
    "SINT64": (_VARINT, _Messages.sint64),
    "ENUM": (_VARINT, _Messages.enum),
}


def _fields(message: Any, declared: inspect.Type | None, parents: frozenset[str]) -> tuple[_Field, ...] | None:
    """The fields of a message; None if one cannot be read in a batch."""
    if isinstance(declared, inspect.StructType):
        if declared.array_like or declared.forbid_unknown_fields or declared.tag_field is not None:
            return None
        known = protobuf_schema.by_encoded_name(message)
        wanted = {known[each.encode_name].number: each for each in declared.fields if each.encode_name in known}
        if len(wanted) < sum(each.encode_name in known for each in declared.fields):
            # Two fields of the struct have one of the message.
            return None
    elif declared is None:
        wanted = {}
    else:
        return None
    if message.full_name in parents or len(message.fields) >= MAX_FIELDS:
        return None
    fields = [_field(field, wanted.get(field.number), parents | {message.full_name}) for field in message.fields]
    found = tuple(each for each in fields if each is not None)
    return found if len(found) == len(fields) else None


def _field(field: Any, each: inspect.Field | None, parents: frozenset[str]) -> _Field | None:
    if field.is_repeated or field.is_required:
        return None
    kept: dict[str, Any] = {"is_kept": each is not None, "has_presence": bool(field.has_presence)}
    if each is not None:
        kept["has_default"] = not each.required and each.default is not None
        kept["key"] = msgspec.msgpack.encode(each.encode_name)
    kept.setdefault("key", b"")
    if field.message_type is not None:
        if field.message_type.full_name == TIMESTAMP:
            inner = tuple(_Field(number, b"", _VARINT, None) for number in (1, 2))
            return _Field(field.number, wire=_SIZED, read=None, inner=inner, is_moment=True, **kept)
        return _message_field(field, each, kept, parents)
    name = next(name for name in _KINDS if getattr(field, f"TYPE_{name}") == field.type)
    wire, read = _KINDS[name]
    symbols = None
    if field.enum_type is not None:
        options = alternatives(each.type) if each is not None else ()
        as_text = any(map(protobuf_schema.is_text, options))
        numbers = sorted(field.enum_type.values_by_number)
        values = [field.enum_type.values_by_number[number].name if as_text else number for number in numbers]
        packed = pa.array([msgspec.msgpack.encode(value) for value in values], pa.binary())
        symbols = (np.array(numbers, np.int64), packed)
    return _Field(field.number, wire=wire, read=read, is_text=name == "STRING", symbols=symbols, **kept)


def _message_field(
    field: Any, each: inspect.Field | None, kept: dict[str, Any], parents: frozenset[str]
) -> _Field | None:
    if field.message_type.full_name.startswith("google.protobuf."):
        return None
    declared: inspect.Type | None = None
    if each is not None:
        structs = [option.type for option in alternatives(each.type) if isinstance(option.type, inspect.StructType)]
        if len(structs) != 1:
            return None
        declared = structs[0]
    inner = _fields(field.message_type, declared, parents)
    return None if inner is None else _Field(field.number, wire=_SIZED, read=None, inner=inner, **kept)
