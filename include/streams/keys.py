"""What the current state of a stream is made of: the key, the order of a key's records, and which of them delete it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from include.definitions import InvalidDefinition
from include.streams.field import TIMESTAMP, Field
from include.streams.times import RECORD_TIMESTAMP

TOMBSTONE = "tombstone"
"""As ``deletes``: a record without a value deletes the key that its Kafka key names."""

MAX_KEY_BYTES = 2_000
"""The most bytes that the texts of a key have together: an entry of PostgreSQL's index holds about 2,700 bytes."""

# Types whose values are equal in PostgreSQL exactly if their bytes are: 1.0 and 1.00 are equal as numeric.
_KEY_TYPES = ("text", "bigint", "uuid", "boolean", "date", TIMESTAMP)
_ORDER_TYPES = (TIMESTAMP, "bigint")
_DELETE_TYPES: dict[str, type] = {"text": str, "bigint": int, "boolean": bool}


@dataclass(frozen=True)
class Deletion:
    """A field, and the values with which an event deletes its key."""

    field: str
    values: tuple[str | int | bool, ...]


class Keyed(Protocol):
    """What a stream's definition says about its key."""

    @property
    def key(self) -> str | tuple[str, ...] | None:
        """The field, or the fields, of the key."""

    @property
    def current(self) -> bool:
        """Whether to keep the current state."""

    @property
    def order_by(self) -> str | None:
        """The field that orders the events of a key."""

    @property
    def deletes(self) -> str | tuple[str | int | bool, ...] | None:
        """Which records delete their key."""

    @property
    def fields(self) -> tuple[Field, ...]:
        """The event's fields."""

    @property
    def has_record_time(self) -> bool:
        """Whether the table has the timestamps of records."""


def names_of(key: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """The fields of a key in their order; none if there is no key."""
    return () if key is None else (key,) if isinstance(key, str) else tuple(key)


def deletion_of(deletes: str | tuple[str | int | bool, ...] | None) -> Deletion | None:
    """The field that deletes; None if none does, or if tombstones do."""
    if deletes is None or deletes == TOMBSTONE:
        return None
    if isinstance(deletes, str):
        return Deletion(deletes, (True,))
    field, *values = deletes
    return Deletion(str(field), tuple(values))


def check_current(stream: Keyed) -> None:
    """Checks ``key``, ``current``, ``order_by`` and ``deletes`` of a stream.

    Raises:
        InvalidDefinition: One of them has an invalid value.
    """
    fields = {field.name: field for field in stream.fields}
    _check_key(stream, fields)
    if not isinstance(stream.current, bool):
        raise InvalidDefinition("current", f"{stream.current!r} is not True or False.", "Write current=True.")
    if stream.current:
        _check_types(stream, fields)
    for name in ("order_by", "deletes"):
        if getattr(stream, name) is not None and not stream.current:
            raise InvalidDefinition(
                name, "only the current state of a stream needs it.", "Add current=True, or omit the field."
            )
    _check_order(stream, fields)
    _check_deletes(stream, fields)


def _check_key(stream: Keyed, fields: dict[str, Field]) -> None:
    known = ", ".join(fields)
    if not isinstance(stream.key, str | tuple | None):
        raise InvalidDefinition("key", f"{stream.key!r} is not a field or a tuple of fields.", f"Name one of {known}.")
    names = names_of(stream.key)
    if stream.key is not None and not names:
        raise InvalidDefinition("key", "it names no field.", f"Name one of {known}, or None.")
    for name in names:
        if not isinstance(name, str) or name not in fields:
            raise InvalidDefinition("key", f"the event has no field {name!r}.", f"Name one of {known}, or None.")
    if len(set(names)) < len(names):
        raise InvalidDefinition("key", "it names a field twice.", "Name each field once.")


def _check_types(stream: Keyed, fields: dict[str, Field]) -> None:
    if stream.key is None:
        raise InvalidDefinition(
            "current", "the stream has no key.", 'Name the field that identifies a row, such as key="id".'
        )
    for field in (fields[name] for name in names_of(stream.key)):
        if field.nullable:
            raise InvalidDefinition(
                "key",
                f"the field {field.name!r} can be null.",
                "Declare its type without None and without a default None.",
            )
        if field.sql not in _KEY_TYPES:
            raise InvalidDefinition(
                "key",
                f"the field {field.name!r} is {field.sql}, which cannot identify a row.",
                "Use fields of type str, int, UUID, bool, date, or a time; a Decimal or float as str.",
            )


def _check_order(stream: Keyed, fields: dict[str, Field]) -> None:
    name = stream.order_by
    if name is None:
        return
    if name == RECORD_TIMESTAMP:
        if not stream.has_record_time:
            raise InvalidDefinition(
                "order_by",
                "the table has no column with the timestamp of the record.",
                "Name a field of the event, or set event_time=RECORD_TIMESTAMP, too.",
            )
        return
    field = fields.get(name) if isinstance(name, str) else None
    if field is None or field.nullable or field.sql not in _ORDER_TYPES:
        raise InvalidDefinition(
            "order_by",
            f"the event has no field {name!r} that is always a time or a whole number.",
            "Name a field such as ts: Instant or version: int.",
        )
    if stream.deletes == TOMBSTONE:
        raise InvalidDefinition(
            "order_by",
            f"a tombstone has no field {name!r}, so deletions could not be ordered.",
            "Omit order_by; or set both order_by and event_time to RECORD_TIMESTAMP.",
        )


def _check_deletes(stream: Keyed, fields: dict[str, Field]) -> None:
    deletes = stream.deletes
    remedy = 'Write "tombstone", the name of a boolean field, or a field and values, such as ("op", "d").'
    if deletes is None or deletes == TOMBSTONE:
        return
    if not isinstance(deletes, str) and not (isinstance(deletes, tuple) and len(deletes) > 1):
        raise InvalidDefinition("deletes", f"{deletes!r} does not name a field and its values.", remedy)
    deletion = deletion_of(deletes)
    assert deletion is not None
    field = fields.get(deletion.field)
    if field is None:
        raise InvalidDefinition("deletes", f"the event has no field {deletion.field!r}.", remedy)
    expected = _DELETE_TYPES.get(field.sql)
    if expected is None or any(type(value) is not expected for value in deletion.values):
        raise InvalidDefinition(
            "deletes",
            f"the field {field.name!r} is {field.sql}, and cannot be {' or '.join(map(repr, deletion.values))}.",
            remedy,
        )
