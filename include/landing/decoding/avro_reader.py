"""Reads one Avro value in Python, with limits: for schemas that contain themselves, and to name the field of an error.

fastavro is faster, but has no limit of nesting, and its errors do not name fields.
"""

from __future__ import annotations

import struct
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from include.landing.decoding.avro_schema import LOCAL_TIMESTAMPS, TIMESTAMPS, AvroType
from include.landing.decoding.plan import Unreadable

MAX_DEPTH = 100
"""The most levels of records, lists and maps. Python limits how deeply functions may call each other."""

MAX_EMPTY_ITEMS = 100_000
"""The most items of an array whose items take no bytes."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LOCAL_EPOCH = datetime(1970, 1, 1)
_EPOCH_DAY = date(1970, 1, 1)
_PER_SECOND = 1_000_000


class AvroReader:
    """Reads values of a schema, one at a time.

    Args:
        schema: The schema of the values.
    """

    def __init__(self, schema: AvroType) -> None:
        self._schema = schema
        self._data = b""
        self._at = 0
        self._path: list[str] = []

    def read(self, data: bytes, start: int = 0) -> Any:
        """The value that fills the bytes from ``start`` to the end.

        Raises:
            Unreadable: The bytes do not fit the schema; names the field.
        """
        self._data, self._at, self._path = data, start, []
        try:
            found = self._read(self._schema)
        except Unreadable as error:
            raise Unreadable(f"field {'.'.join(self._path)!r}: {error}" if self._path else str(error)) from None
        if left := len(data) - self._at:
            raise Unreadable(f"{left} bytes are left after the last field")
        return found

    def _read(self, schema: AvroType) -> Any:
        if len(self._path) > MAX_DEPTH:
            self._path.clear()
            raise Unreadable(f"nested deeper than {MAX_DEPTH} levels")
        match schema.kind:
            case "null":
                return None
            case "boolean":
                return self._boolean()
            case "int" | "long":
                return _logical(schema, self._long())
            case "float":
                return struct.unpack("<f", self._bytes(4))[0]
            case "double":
                return struct.unpack("<d", self._bytes(8))[0]
            case "bytes":
                return _logical(schema, self._bytes(self._long()))
            case "fixed":
                return _logical(schema, self._bytes(schema.size))
            case "string":
                return _logical(schema, self._text())
            case "enum":
                return schema.symbols[self._index(len(schema.symbols), "symbols")]
            case "union":
                return self._read(schema.items[self._index(len(schema.items), "branches")])
            case "array":
                return [self._inside("[]", schema.items[0]) for _ in self._blocks()]
            case "map":
                return {self._text(): self._inside("[]", schema.items[0]) for _ in self._blocks()}
        return {name: self._inside(name, each) for name, each in schema.fields}

    def _inside(self, name: str, schema: AvroType) -> Any:
        self._path.append(name)
        found = self._read(schema)
        self._path.pop()
        return found

    def _blocks(self) -> Any:
        """Yields once for each item of an array or a map."""
        while count := self._long():
            if count < 0:
                self._long()
                count = -count
            for number in range(count):
                before = self._at
                yield number
                if self._at == before and number >= MAX_EMPTY_ITEMS:
                    raise Unreadable(f"more than {MAX_EMPTY_ITEMS:,} items without bytes")

    def _boolean(self) -> bool:
        found = self._bytes(1)[0]
        if found > 1:
            raise Unreadable(f"{found} is not a boolean, which is 0 or 1")
        return bool(found)

    def _index(self, count: int, of: str) -> int:
        found = self._long()
        if not 0 <= found < count:
            raise Unreadable(f"{found} is not one of the schema's {count} {of}")
        return found

    def _text(self) -> str:
        try:
            return self._bytes(self._long()).decode()
        except UnicodeDecodeError as error:
            raise Unreadable(f"the text is not UTF-8: {error.reason}") from error

    def _bytes(self, count: int) -> bytes:
        left = len(self._data) - self._at
        if not 0 <= count <= left:
            raise Unreadable(f"the schema needs {count} bytes here, and {left} are left")
        found = self._data[self._at : self._at + count]
        self._at += count
        return found

    def _long(self) -> int:
        found = shift = 0
        while True:
            if self._at >= len(self._data):
                raise Unreadable("the value ends before this number does")
            byte = self._data[self._at]
            found |= (byte & 0x7F) << shift
            self._at, shift = self._at + 1, shift + 7
            if byte < 0x80:
                found &= 2**64 - 1
                return (found >> 1) ^ -(found & 1)
            if shift >= 70:
                raise Unreadable("the number has more than 10 bytes")


def _logical(schema: AvroType, value: Any) -> Any:
    """A value in the form of its logical type."""
    if not schema.logical:
        return value
    try:
        return _converted(schema, value)
    except (ValueError, OverflowError, TypeError) as error:
        raise Unreadable(f"{value!r} is not a {schema.logical}: {error}") from error


def _converted(schema: AvroType, value: Any) -> Any:
    match schema.logical:
        case "date":
            return _EPOCH_DAY + timedelta(days=value)
        case "time-millis" | "time-micros":
            us = value * 1000 if schema.logical == "time-millis" else value
            if not 0 <= us < 86_400 * _PER_SECOND:
                raise ValueError("it is outside of a day")
            moment: datetime = _LOCAL_EPOCH + timedelta(microseconds=us)
            return time(moment.hour, moment.minute, moment.second, moment.microsecond)
        case "decimal":
            sign, digits, _ = Decimal(int.from_bytes(value, "big", signed=True)).as_tuple()
            return Decimal((sign, digits, -schema.scale))
        case "uuid":
            return UUID(bytes=value) if schema.kind == "fixed" else UUID(value)
    unit = TIMESTAMPS.get(schema.logical) or LOCAL_TIMESTAMPS[schema.logical]
    epoch = _EPOCH if schema.logical in TIMESTAMPS else _LOCAL_EPOCH
    return epoch + timedelta(microseconds=value * _PER_SECOND // unit.per_second)
