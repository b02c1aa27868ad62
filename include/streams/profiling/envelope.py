"""The format of a topic's records: JSON or something else, and the envelope in which events may be sent."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any

import msgspec

from include.streams.profiling.record import Record
from include.streams.profiling.schema import Decoded

# The registry's header that holds the id of the schema of the value, instead of five bytes in front of it.
SCHEMA_HEADER = "__value_schema_id"
# Bytes with which some formats begin.
_MAGIC = {
    b"Obj\x01": "Avro files",
    b"PAR1": "Parquet files",
    b"\x1f\x8b": "gzip data",
    b"\x28\xb5\x2f\xfd": "zstd data",
    b"PK\x03\x04": "zip archives",
    b"\xef\xbb\xbf": "text with a byte order mark",
}
# What the values of a topic may be instead of events.
TEXT, LINES, NUMBERS, ARRAYS = "plain text", "lines of fields with ", "single numbers, booleans or nulls", "JSON arrays"
INVALID, SEVERAL = "JSON that is incomplete or invalid", "several JSON documents in one record"
STRING_OF_JSON = "JSON inside a JSON string"
_DELIMITERS, _MIN_DELIMITERS = "\t;|,", 2
_FRAME = 5
_MAX_VARINT_BYTES = 10


class Envelope(StrEnum):
    """What surrounds an event."""

    NONE = "no envelope"
    CONNECT = "Kafka Connect's envelope of schema and payload"
    DEBEZIUM = "Debezium's change events"
    DEBEZIUM_CONNECT = "Debezium's change events in Kafka Connect's envelope of schema and payload"
    CLOUD_EVENTS = "CloudEvents"

    @property
    def is_change(self) -> bool:
        """Whether the events are changes of rows."""
        return self in (Envelope.DEBEZIUM, Envelope.DEBEZIUM_CONNECT)

    @property
    def has_schema(self) -> bool:
        """Whether the event is the field ``payload``, and its schema the field ``schema``."""
        return self in (Envelope.CONNECT, Envelope.DEBEZIUM_CONNECT)


@dataclass(frozen=True)
class Event:
    """A record whose value is a JSON object, or was decoded with its schema.

    Attributes:
        record: The record.
        fields: The object. Its numbers with a fraction or an exponent are Decimals. A value that was decoded with its
            schema has the types of the schema, such as datetime.
    """

    record: Record
    fields: dict[str, Any]


@dataclass(frozen=True)
class Contents:
    """What the values of a sample are.

    Attributes:
        events: The records that are events.
        tombstones: The number of records without a value.
        others: The number of other records by what they are, such as ``plain text``, the most frequent first.
        examples: For each kind of the others, the partition and offset of the first.
    """

    events: Sequence[Event]
    tombstones: int
    others: Mapping[str, int]
    examples: Mapping[str, str]


def contents(records: Sequence[Record], decoded: Decoded | None = None) -> Contents:
    """Recognizes the format of each record.

    Args:
        decoded: The records that name schemas, if the events of the topic do.
    """
    events: list[Event] = []
    others: Counter[str] = Counter()
    examples: dict[str, str] = {}
    framed: list[Record] = []
    tombstones = 0
    for record in records:
        if record.value is None:
            tombstones += 1
            continue
        kind = _decoded(record.value) if decoded is None else _with_schema(record, decoded)
        if isinstance(kind, dict):
            events.append(Event(record, kind))
        elif kind == _FRAMED:
            framed.append(record)
        else:
            if decoded is None and SCHEMA_HEADER in record.headers:
                kind = f"{kind} with the id of a registry's schema in the header {SCHEMA_HEADER}"
            others[kind] += 1
            examples.setdefault(kind, f"{record.partition}:{record.offset}")
    if framed:
        kind = _framed([record.value or b"" for record in framed])
        others[kind] = len(framed)
        examples[kind] = f"{framed[0].partition}:{framed[0].offset}"
    return Contents(events, tombstones, dict(others.most_common()), examples)


def envelope(events: Sequence[Event]) -> Envelope:
    """The envelope that nine of ten events have."""
    # Topics of changes have what is not a change, too.
    events = [event for event in events if not _is_metadata(event.fields)] or events
    counts: Counter[Envelope] = Counter(_envelope(event.fields) for event in events)
    found, count = counts.most_common(1)[0]
    return found if count * 10 >= len(events) * 9 else Envelope.NONE


def is_protobuf(message: bytes) -> bool:
    """Whether bytes can be read as the fields of a Protobuf message. The empty message is one."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if at < 0 or not 0 < number < 1 << 29:
            return False
        if wire == 0:
            _, at = _varint(message, at)
        elif wire == 2:
            length, at = _varint(message, at)
            at = at + length if at >= 0 else at
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            return False
        if at < 0 or at > len(message):
            return False
    return True


_FRAMED = "framed"


def _with_schema(record: Record, decoded: Decoded) -> dict[str, Any] | str:
    """The event of a record in a topic whose events name schemas, or what the record is instead."""
    found = decoded.values.get((record.partition, record.offset))
    if found is not None:
        return found
    kind = _decoded(record.value or b"")
    return f"{'JSON objects' if isinstance(kind, dict) else kind} without the id of a schema"


def _decoded(value: bytes) -> dict[str, Any] | str:
    """The JSON object of a value, or what the value is instead."""
    if not value:
        return "empty values"
    if value[0] == 0 and len(value) >= _FRAME:
        return _FRAMED
    for magic, kind in _MAGIC.items():
        if value.startswith(magic):
            return kind
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return "binary data"
    if any(ord(letter) < 32 and letter not in "\t\r\n" for letter in text):
        return "binary data"
    return _decoded_text(value, text)


def _decoded_text(value: bytes, text: str) -> dict[str, Any] | str:
    try:
        found = json.loads(text, parse_float=Decimal, parse_constant=_not_json)
        # Python's decoder accepts more than the one that lands events.
        msgspec.json.decode(value)
    except _NotJson as constant:
        return f"JSON with {constant}, which JSON does not have"
    except (ValueError, RecursionError):
        return _text(text)
    if isinstance(found, dict):
        return found
    if isinstance(found, list):
        return ARRAYS
    if isinstance(found, str) and _holds_json(found):
        return STRING_OF_JSON
    return "JSON strings" if isinstance(found, str) else NUMBERS


def _text(text: str) -> str:
    lines = text.splitlines()
    if len(lines) > 1 and all(_holds_json(line) for line in lines):
        return SEVERAL
    if re.match(r"\s*<[?!A-Za-z]", text):
        return "XML"
    if re.match(r'\s*[{\[]\s*["{\[]', text):
        return INVALID
    if len(lines) == 1 and (delimiter := _delimiter(text)):
        return f"{LINES}{delimiter!r} between them"
    return TEXT


def _delimiter(line: str) -> str | None:
    """The character between the fields of a line; None for a sentence."""
    found = (each for each in _DELIMITERS if len(re.findall(f"{re.escape(each)}(?! )", line)) >= _MIN_DELIMITERS)
    return next(found, None)


class _NotJson(Exception):
    """A constant such as NaN, which Python's decoder accepts."""


def _not_json(constant: str) -> None:
    raise _NotJson(constant)


def _holds_json(text: str) -> bool:
    if not re.match(r"\s*[{\[]", text):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _framed(values: Sequence[bytes]) -> str:
    """What values are that begin as a registry's serializers write them: a zero, and the schema's id in four bytes."""
    ids = sorted({int.from_bytes(value[1:_FRAME], "big") for value in values})
    listed = ", ".join(map(str, ids[:3])) + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")
    bodies = [value[_FRAME:] for value in values]
    if all(body[:1] in (b"{", b"[", b'"') and _holds_any_json(body) for body in bodies):
        kind = "JSON Schema"
    elif all(_is_indexed_protobuf(body) for body in bodies):
        kind = "Protobuf"
    else:
        kind = "Avro"
    return f"{kind} with a schema registry's framing (schema id {listed})"


def _holds_any_json(body: bytes) -> bool:
    try:
        msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return False
    return True


def _is_indexed_protobuf(body: bytes) -> bool:
    """Whether bytes are the indexes of a message type in its schema, and then a message."""
    count, at = _varint(body, 0)
    if at < 0 or count % 2:  # zigzag: an even number is not negative
        return False
    for _ in range(min(count // 2, len(body))):
        index, at = _varint(body, at)
        if at < 0 or index % 2:
            return False
    return is_protobuf(body[at:])


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A variable-length number and the place after it; the place is -1 if there is none."""
    value = 0
    for shift, byte in enumerate(data[at : at + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return value, at + shift + 1
    return 0, -1


def _envelope(fields: Mapping[str, Any]) -> Envelope:
    if set(fields) == {"schema", "payload"} and isinstance(fields["schema"], dict | None):
        payload = fields["payload"]
        is_change = isinstance(payload, dict) and _is_change(payload)
        return Envelope.DEBEZIUM_CONNECT if is_change else Envelope.CONNECT
    if _is_change(fields):
        return Envelope.DEBEZIUM
    if {"specversion", "id", "source", "type"} <= fields.keys():
        return Envelope.CLOUD_EVENTS
    return Envelope.NONE


def _is_metadata(fields: Mapping[str, Any]) -> bool:
    """Whether an object is the beginning or the end of a transaction, as Debezium writes it."""
    return {"status", "id", "event_count", "data_collections"} <= fields.keys()


def _is_change(fields: Mapping[str, Any]) -> bool:
    return "op" in fields and isinstance(fields.get("source"), dict) and bool({"before", "after"} & fields.keys())
