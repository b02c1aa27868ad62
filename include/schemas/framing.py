"""The framing of records: where a record names the schema of its value.

Confluent's documentation, "Wire format", describes two notations. In the first, the value begins with the byte 0 and
the schema's id, 4 bytes, big-endian. In the second, the header ``__value_schema_id`` has the byte 1 and the schema's
GUID, 16 bytes, and the value has no prefix. The header may also hold the first notation.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

VALUE, KEY = "value", "key"
"""The parts of a record that name a schema."""

HEADER = "__value_schema_id"
"""The header that names the schema of a record's value; ``__key_schema_id`` names that of its key."""

SchemaKey = int | UUID
"""What names a schema: its id in the registry, or its GUID."""

Headers = Sequence[tuple[str, str | bytes | None]]
"""The headers of a record."""

_BY_ID, _BY_GUID = 0, 1
_ID_BYTES, _GUID_BYTES = 5, 17
PREFIX_BYTES = _ID_BYTES
"""The length of the prefix of a value that names its schema by id."""

_MAX_SHIFT = 63


class NotFramed(ValueError):
    """A record names no schema."""


def schema_of(value: bytes, headers: Headers | None, part: str = VALUE) -> tuple[SchemaKey, int, bytes]:
    """What names the schema of a record, where its data begin in the value, and what a header has after the name.

    Args:
        value: The value, or the key if ``part`` is ``KEY``.

    Raises:
        NotFramed: Neither the value nor a header names a schema.
    """
    header = HEADER if part == VALUE else f"__{part}_schema_id"
    for name, found in headers or ():
        if name == header:
            named = found.encode() if isinstance(found, str) else found or b""
            key, size = _key(named, f"the header {header}")
            return key, 0, named[size:]
    if not value or value[0] != _BY_ID:
        start = value[:_ID_BYTES].hex(" ") or "nothing"
        raise NotFramed(
            f"the {part} names no schema: it begins with {start}, and not with 00 and a schema id, and the record has "
            f"no header {header}"
        )
    key, size = _key(value, f"the {part}")
    return key, size, b""


def prefix(schema_id: int) -> bytes:
    """The beginning of a value whose schema has this id."""
    return bytes([_BY_ID]) + schema_id.to_bytes(_ID_BYTES - 1, "big")


def message_indexes(data: bytes, at: int) -> tuple[tuple[int, ...], int]:
    """Which message of a Protobuf schema a value has, and where the message begins.

    The indexes are the position of a message in its file, or of each message and the one inside it. They are zigzag
    varints: first their number, and 0 stands for the first message alone.

    Raises:
        NotFramed: The value ends before the indexes do.
    """
    count, at = _varint(data, at)
    if count == 0:
        return (0,), at
    if not 0 < count <= len(data) - at:
        raise NotFramed(f"the value has {count} message indexes, and {len(data) - at} bytes after their number")
    indexes = []
    for _ in range(count):
        index, at = _varint(data, at)
        indexes.append(index)
    return tuple(indexes), at


def _key(named: bytes, where: str) -> tuple[SchemaKey, int]:
    if named[:1] == bytes([_BY_ID]) and len(named) >= _ID_BYTES:
        return int.from_bytes(named[1:_ID_BYTES], "big"), _ID_BYTES
    if named[:1] == bytes([_BY_GUID]) and len(named) >= _GUID_BYTES:
        return UUID(bytes=named[1:_GUID_BYTES]), _GUID_BYTES
    raise NotFramed(f"{where} names no schema: {named[:_GUID_BYTES].hex(' ') or 'it is empty'}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A zigzag varint, and where it ends."""
    found = shift = 0
    while True:
        if at >= len(data) or shift > _MAX_SHIFT:
            raise NotFramed("the value ends within its message indexes")
        byte = data[at]
        found |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return (found >> 1) ^ -(found & 1), at
