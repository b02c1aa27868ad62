"""Events with fields from other parts of a record than its value: its Kafka key, its headers, its timestamp."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from msgspec import inspect

from include.landing import moments
from include.landing.dead_letters import NO_STAMP, STAMPS, appended_at
from include.landing.decoder import (
    Decoder,
    EventDecoder,
    Others,
    Reason,
    StopReason,
    extend,
    is_too_deep,
    reason_of,
)
from include.schemas.framing import Headers
from include.streams.definition import Stream
from include.streams.parts import PLAIN, Header, KeyPart, PartField, Path, TimestampPart, Value, ValuePart
from include.streams.paths import Paths, paths_of_value

Column = list[Any]
"""The values of a field, one for each record; anything for a record with an error."""

_EMPTY = "DecodeError: Input data was truncated"
_NO_KEY = "the record has no Kafka key"
# Kafka's serializers of numbers write big-endian.
_BINARY: dict[tuple[type, int], Callable[[bytes], Any]] = {
    (int, 4): lambda key: int.from_bytes(key, "big", signed=True),
    (int, 8): lambda key: int.from_bytes(key, "big", signed=True),
    (UUID, 16): lambda key: UUID(bytes=key),
}


class RecordDecoder:
    """Decodes records to events, some fields of which do not come from the value.

    Args:
        stream: The stream.
        values: The decoder of the other fields, which come from the value.
    """

    def __init__(self, stream: Stream, values: EventDecoder) -> None:
        parts = [field.part for field in stream.parts]
        has_headers = any(isinstance(part, Header) for part in parts)
        # A key may name its schema in a header.
        self.reads_headers = values.reads_headers or has_headers or stream.key_format != PLAIN
        self.reads_others = values.reads_others or any(isinstance(part, KeyPart | TimestampPart) for part in parts)
        self._values = values
        self._parts = PartsDecoder(stream, stream.parts)
        self._make = _maker(stream)

    def events(
        self, values: Sequence[bytes], headers: Sequence[Headers | None] | None = None, others: Others | None = None
    ) -> tuple[list[Any], dict[int, Reason]]:
        """See ``EventDecoder``."""
        decoded, bad = self._values.events(values, headers, others)
        good = [index for index in range(len(values)) if index not in bad]
        if not good:
            return [], bad
        columns, unfit = self._parts.columns(
            None if others is None else _chosen(others.keys, good),
            None if headers is None else _chosen(headers, good),
            None if others is None else _chosen(others.stamps, good),
            len(good),
            _chosen(values, good),
        )
        if unfit:
            decoded = [each for at, each in enumerate(decoded) if at not in unfit]
            columns = {
                name: [each for at, each in enumerate(column) if at not in unfit] for name, column in columns.items()
            }
            bad |= {good[at]: reason for at, reason in unfit.items()}
            good = [index for at, index in enumerate(good) if at not in unfit]
        events, failed = _made(self._make(decoded, columns), len(good))
        return events, bad | {good[at]: reason for at, reason in failed.items()}


class UndecodedValues:
    """Takes every value as it is: the fields of the events come from other parts, or from the whole value."""

    reads_headers = False
    reads_others = False

    def events(
        self, values: Sequence[bytes], headers: Sequence[Headers | None] | None = None, others: Others | None = None
    ) -> tuple[list[Any], dict[int, Reason]]:
        """See ``EventDecoder``. A value without bytes is not JSON."""
        bad: dict[int, Reason] = {index: _EMPTY for index, value in enumerate(values) if not value}
        return [None] * (len(values) - len(bad)), bad


class PartsDecoder:
    """Decodes the fields of a stream's events that do not come from the value.

    Args:
        stream: The stream.
        fields: The fields.
    """

    def __init__(self, stream: Stream, fields: Sequence[PartField]) -> None:
        self._at_paths = [field for field in fields if isinstance(field.part, Path)]
        self._paths = paths_of_value(fields)
        if self._paths is not None:
            self._decode_paths = Decoder(self._paths.struct).events
        fields = [field for field in fields if field not in self._at_paths]
        self._plain = [field for field in fields if _is_plain(field, stream)]
        whole = [field for field in fields if isinstance(field.part, KeyPart) and field not in self._plain]
        within = [field for field in whole if isinstance(field.part, KeyPart) and field.part.path]
        self._groups: list[_KeyGroup] = []
        if within:
            self._groups.append(_FieldsOfKey(stream, within))
        self._groups += [_WholeKey(stream, field) for field in whole if field not in within]
        self._reads = {field.name: _reader(field) for field in self._plain}
        self._texts = {field.name: found for field in self._plain if (found := _texts_decoder(field)) is not None}

    def columns(
        self,
        keys: Sequence[bytes | None] | None,
        headers: Sequence[Headers | None] | None,
        stamps: Sequence[int] | None,
        count: int,
        values: Sequence[bytes] = (),
    ) -> tuple[dict[str, Column], dict[int, Reason]]:
        """The values of each field, and for each record that has not all of them the reason, by its index."""
        keys = [None] * count if keys is None else keys
        found: dict[str, Column] = {}
        bad: dict[int, Reason] = {}
        named: list[dict[str, str | bytes | None]] | None = None
        for field in self._plain:
            raw: Sequence[Any]
            if isinstance(field.part, Header):
                if named is None:
                    # Of several headers with one name, the last counts.
                    named = [dict(each or ()) for each in headers or [None] * count]
                raw = [each.get(field.part.name) for each in named]
            elif isinstance(field.part, ValuePart):
                raw = values
            else:
                raw = keys if isinstance(field.part, KeyPart) else stamps or [NO_STAMP] * count
            column = _decoded_together(raw, self._texts[field.name], field) if field.name in self._texts else None
            errors: dict[int, Reason] = {}
            if column is None:
                column, errors = _read(raw, self._reads[field.name], field)
            found[field.name] = column
            bad = errors | bad
        for group in self._groups:
            columns, errors = group.columns(keys, headers)
            found |= columns
            bad = errors | bad
        if self._paths is not None:
            documents, errors = self._decode_paths(values)
            bad = errors | bad
            read = iter(zip(*self._paths.columns(documents), strict=True))
            rows = [None if index in errors else next(read) for index in range(count)]
            for position, field in enumerate(self._at_paths):
                found[field.name] = [None if row is None else row[position] for row in rows]
        return found, bad


class _KeyGroup:
    """Fields that are read from the decoded Kafka key."""

    fields: Sequence[PartField]

    def __init__(self, decoder: EventDecoder) -> None:
        self._decoder = decoder

    def columns(
        self, keys: Sequence[bytes | None], headers: Sequence[Headers | None] | None
    ) -> tuple[dict[str, Column], dict[int, Reason]]:
        """The columns of the fields, and for each record without one of them the reason, by its index."""
        present = [index for index, key in enumerate(keys) if key is not None]
        rests = None if headers is None else _chosen(headers, present)
        decoded, errors = self._decoder.events([keys[index] or b"" for index in present], rests)
        bad: dict[int, Reason] = {present[at]: _of_key(reason) for at, reason in errors.items()}
        where = [index for at, index in enumerate(present) if at not in errors]
        found: dict[str, Column] = {}
        for field, column in zip(self.fields, self._values(decoded), strict=True):
            values: Column = [None] * len(keys)
            for index, value in zip(where, column, strict=True):
                values[index] = value
            if len(present) < len(keys):
                for index in (index for index, key in enumerate(keys) if key is None):
                    try:
                        values[index] = field.missing()
                    except LookupError:
                        bad[index] = f"{field.name}: {_NO_KEY}"
            found[field.name] = values
        return found, bad

    def _values(self, decoded: Sequence[Any]) -> Sequence[Column]:
        raise NotImplementedError


class _FieldsOfKey(_KeyGroup):
    def __init__(self, stream: Stream, fields: Sequence[PartField]) -> None:
        self.fields = fields
        self._paths = Paths([(field.part.path, field) for field in fields if isinstance(field.part, KeyPart)])
        super().__init__(_key_decoder(stream, self._paths.struct))

    def _values(self, decoded: Sequence[Any]) -> Sequence[Column]:
        return self._paths.columns(decoded)


class _WholeKey(_KeyGroup):
    def __init__(self, stream: Stream, field: PartField) -> None:
        self.fields = (field,)
        super().__init__(_key_decoder(stream, field.kind if _is_struct(field.kind) else field.type))

    def _values(self, decoded: Sequence[Any]) -> Sequence[Column]:
        return [list(decoded)]


def _key_decoder(stream: Stream, declared: Any) -> EventDecoder:
    """The decoder of the Kafka keys of a stream to a type."""
    if stream.key_format == PLAIN:
        return Decoder(declared)
    from include.landing.decoding.framed import FramedDecoder

    return FramedDecoder(stream, of_key=declared)


def _is_plain(field: PartField, stream: Stream) -> bool:
    """Whether a field is read from the bytes of a part."""
    return not isinstance(field.part, KeyPart) or (stream.key_format == PLAIN and not field.part.path)


def _is_struct(declared: Any) -> bool:
    return isinstance(declared, type) and issubclass(declared, msgspec.Struct)


def _of_key(reason: Reason) -> Reason:
    return StopReason(f"Kafka key: {reason}", reason.code) if isinstance(reason, StopReason) else f"Kafka key: {reason}"


def _chosen(items: Sequence[Any], indices: Sequence[int]) -> Sequence[Any]:
    return items if len(items) == len(indices) else [items[index] for index in indices]


def _read(raw: Sequence[Any], read: Callable[[Any], Any], field: PartField) -> tuple[Column, dict[int, Reason]]:
    """The values of a field, and the reason for each part that is not one."""
    try:
        return list(map(read, raw)), {}
    except Exception:  # found below
        pass
    found: Column = []
    bad: dict[int, Reason] = {}
    for index, part in enumerate(raw):
        try:
            found.append(read(part))
        except LookupError:
            bad[index] = f"{field.name}: the record has no {_short(field)}"
        except Exception as error:
            bad[index] = reason_of(error, "" if field.part == Value else f"{field.name}, from {field.part}: ")
        if index in bad:
            found.append(None)
    return found, bad


def _texts_decoder(field: PartField) -> Callable[[bytes], list[Any]] | None:
    """The function that decodes a JSON list of the texts of a field; None for a field that is not read from texts."""
    part = field.part
    is_text = isinstance(part, Header) or (isinstance(part, KeyPart) and not part.is_binary)
    if not is_text or field.kind is bytes or _is_json(inspect.type_info(field.type)):
        return None
    return msgspec.json.Decoder(list[field.type], strict=field.kind is str).decode  # type: ignore[name-defined]


def _decoded_together(raw: Sequence[Any], decode: Callable[[bytes], list[Any]], field: PartField) -> Column | None:
    """The values of a field, decoded as one JSON list; None if they have to be decoded one by one.

    Gain: 20,000 UUIDs take a tenth of the time.
    """
    texts = [part.encode() if isinstance(part, str) else part for part in raw if part is not None]
    joined = b'","'.join(texts)
    if not texts or b"\\" in joined or joined.count(b'"') != 2 * (len(texts) - 1):
        return None
    try:
        values = decode(b'["%s"]' % joined)
        if len(texts) == len(raw):
            return values
        rest = iter(values)
        return [field.missing() if part is None else next(rest) for part in raw]
    except Exception:  # a text that does not fit, or is missing: one by one shows which
        return None


def _short(field: PartField) -> str:
    return str(field.part).removeprefix("the ")


def _reader(field: PartField) -> Callable[[Any], Any]:
    """The function that makes a value of a part of a record."""
    if isinstance(field.part, TimestampPart):
        return lambda stamp: field.missing() if stamp == NO_STAMP else _moment(stamp)
    decode = _binary(field) if isinstance(field.part, KeyPart) and field.part.is_binary else plain(field)

    def read(part: str | bytes | None) -> Any:
        if part is None:
            return field.missing()
        return decode(part.encode() if isinstance(part, str) else part)

    return read


def _moment(stamp: int) -> datetime:
    if not STAMPS[0] <= stamp <= STAMPS[1]:
        raise ValueError(
            f"{stamp} ms since 1970 is outside of the years 1 to 9999; its producer may count in another unit"
        )
    return appended_at(stamp)


def _binary(field: PartField) -> Callable[[bytes], Any]:
    import struct

    def decode(key: bytes) -> Any:
        if field.kind is float and len(key) in (4, 8):
            return msgspec.convert(struct.unpack(">f" if len(key) == 4 else ">d", key)[0], field.type)
        make = _BINARY.get((field.kind, len(key)))
        if make is None:
            raise ValueError(f"a binary {field.kind.__name__} does not have {len(key)} bytes")
        return msgspec.convert(make(key), field.type)

    return decode


def plain(field: PartField) -> Callable[[bytes], Any]:
    """The function that decodes text or JSON to a field.

    A field that PostgreSQL stores as jsonb is JSON. A text of the Kafka key loses the quotes of a JSON string.
    """
    kind, declared = field.kind, inspect.type_info(field.type)
    if kind is bytes:
        return lambda part: msgspec.convert(part, field.type)
    if _is_json(declared):
        decoder = msgspec.json.Decoder(field.type)

        def decode_json(part: bytes) -> Any:
            if is_too_deep(part):
                raise ValueError("it nests too deep")
            part.decode()
            return decoder.decode(part)

        return decode_json
    is_text = kind is str
    has_quotes = isinstance(field.part, KeyPart)
    allows_times = kind is datetime

    def decode(part: bytes) -> Any:
        text = part.decode()
        if has_quotes and text[:1] == '"':
            # Otherwise it is a text that begins with a quote.
            with suppress(msgspec.DecodeError):
                text = msgspec.json.decode(part, type=str)
        if is_text:
            # In lax mode, msgspec would take the text null as None.
            return msgspec.convert(text, field.type)
        return msgspec.convert(moments.rfc3339(text) if allows_times else text, field.type, strict=False)

    return decode


_SIMPLE = (
    inspect.StrType,
    inspect.IntType,
    inspect.FloatType,
    inspect.BoolType,
    inspect.DateTimeType,
    inspect.DateType,
    inspect.TimeType,
    inspect.UUIDType,
    inspect.DecimalType,
    inspect.EnumType,
    inspect.LiteralType,
    inspect.NoneType,
)


def _is_json(declared: inspect.Type) -> bool:
    """Whether a type has values that are not written as plain text."""
    if isinstance(declared, inspect.Metadata):
        return _is_json(declared.type)
    if isinstance(declared, inspect.UnionType):
        return any(map(_is_json, declared.types))
    return not isinstance(declared, _SIMPLE)


def _maker(stream: Stream) -> Callable[[Sequence[Any], dict[str, Column]], Iterator[Any]]:
    """The function that makes the events of decoded values and of the columns of their other fields."""
    event = stream.event
    others = {part.name for part in stream.parts}
    positional = list(event.__match_args__)
    keywords = [name for name in event.__struct_fields__ if name not in positional]

    def columns_of(names: Sequence[str], decoded: Sequence[Any], columns: dict[str, Column]) -> list[Any]:
        return [columns[name] if name in others else [getattr(each, name) for each in decoded] for name in names]

    def make(decoded: Sequence[Any], columns: dict[str, Column]) -> Iterator[Any]:
        first = columns_of(positional, decoded, columns)
        if not keywords:
            return map(event, *first)
        rest = zip(*columns_of(keywords, decoded, columns), strict=True)
        if not positional:
            return map(lambda some: event(**dict(zip(keywords, some, strict=True))), rest)
        return map(
            lambda some, more: event(*some, **dict(zip(keywords, more, strict=True))), zip(*first, strict=True), rest
        )

    return make


def _made(remaining: Iterator[Any], count: int) -> tuple[list[Any], dict[int, Reason]]:
    """The events of an iterator, and the reason for each that the definition's own code refuses."""
    events: list[Any] = []
    bad: dict[int, Reason] = {}
    while True:
        error = extend(events, remaining)
        at = len(events) + len(bad)
        if at == count:
            return events, bad
        bad[at] = reason_of(error)
