"""Fields that do not come from a record's value: from its Kafka key, from a header, or from its timestamp."""

from __future__ import annotations

import types
import typing
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Annotated, Any, Union
from uuid import UUID

import msgspec
from msgspec import NODEFAULT, inspect

from include.definitions import InvalidDefinition
from include.schemas.schema import Format
from include.streams.times import RECORD_TIMESTAMP, Instant

PLAIN = "plain"
"""As ``key_format``: the Kafka key is text or JSON."""

KEY_FORMATS = (PLAIN, *(each.value for each in Format if each != Format.JSON))

_SEPARATOR = "."
_BINARY_TYPES = (int, float, UUID)


@dataclass(frozen=True)
class KeyPart:
    """The Kafka key of the record, or a field of the object that the key is.

    Attributes:
        path: The names that lead to the field; none for the whole key.
        is_binary: Whether the key is a number or a UUID in binary, as Kafka's own serializers write it.
    """

    path: tuple[str, ...] = ()
    is_binary: bool = False

    def __call__(self, path: str = "", *, binary: bool = False) -> KeyPart:
        """The field of the key at a path, or the whole key.

        Args:
            path: Such as ``id`` or ``payload.id``; empty for the whole key.
            binary: Whether the key is the binary number or UUID of Kafka's ``IntegerSerializer``, ``LongSerializer``,
                ``DoubleSerializer`` or a UUID's 16 bytes.
        """
        return KeyPart(tuple(path.split(_SEPARATOR)) if path else (), binary)

    def __str__(self) -> str:
        return "the Kafka key" if not self.path else f"{_SEPARATOR.join(self.path)!r} of the Kafka key"


@dataclass(frozen=True)
class Header:
    """The last header of the record with a name: ``Annotated[str | None, Header("trace-id")]``."""

    name: str

    def __str__(self) -> str:
        return f"the header {self.name!r}"


@dataclass(frozen=True)
class TimestampPart:
    """The timestamp of the record in Kafka."""

    def __str__(self) -> str:
        return "the timestamp of the record"


Key = KeyPart()
"""The Kafka key as a column, ``Annotated[UUID, Key]``; ``Key("id")`` is a field of a key that is an object."""

RecordTimestamp = TimestampPart()
"""The timestamp of the record in Kafka as a column: ``Annotated[Instant, RecordTimestamp]``."""


@dataclass(frozen=True)
class ValuePart:
    """The whole value of the record, which is JSON."""

    def __str__(self) -> str:
        return "the value"


Value = ValuePart()
"""The whole value as a column of type jsonb: ``Annotated[msgspec.Raw, Value]``."""


class Path(str):
    """A path into a value that is JSON, and the type of what it leads to.

    Either the event time of a stream with ``event=Json``, or where a field comes from: ``Annotated[int, Path("a.b")]``.

    Args:
        path: The names that lead to a field, such as ``payload.created``.
        declared: The type of the field; only as event time.
    """

    declared: Any

    def __new__(cls, path: str, declared: Any = Instant) -> Path:
        """A path from its text and the type."""
        found = super().__new__(cls, path)
        found.declared = declared
        return found

    @property
    def steps(self) -> tuple[str, ...]:
        """The names."""
        return tuple(self.split(_SEPARATOR))


class Json(msgspec.Struct):
    """As ``event``: the whole value lands as jsonb, whatever JSON it is, in the column ``value``."""


JSON_TIME = "event_time"
"""The column of the event time of a stream with ``event=Json``."""

Part = KeyPart | Header | TimestampPart | ValuePart | Path
"""Where a field comes from, if not from a field of the value with its name."""


@dataclass(frozen=True)
class PartField:
    """A field of an event that does not come from the value.

    Attributes:
        name: The field.
        part: Where it comes from.
        type: Its type, with annotations.
        default, default_factory: As msgspec describes them.
    """

    name: str
    part: Part
    type: Any
    default: Any = NODEFAULT
    default_factory: Any = NODEFAULT

    @cached_property
    def is_optional(self) -> bool:
        """Whether the part may be missing: the field has a default, or its type allows None."""
        return self.has_default or _allows_none(inspect.type_info(self.type))

    @property
    def has_default(self) -> bool:
        """Whether the definition gives the field a default."""
        return self.default is not NODEFAULT or self.default_factory is not NODEFAULT

    def missing(self) -> Any:
        """The value of the field if the part is missing. Raises LookupError if it must not be missing."""
        if self.default is not NODEFAULT:
            return self.default
        if self.default_factory is not NODEFAULT:
            return self.default_factory()
        if self.is_optional:
            return None
        raise LookupError("the record has none")

    @cached_property
    def kind(self) -> Any:
        """The type without annotations and without None."""
        return _bare(self.type)


class PartReader(typing.Protocol):
    """What a stream's definition says about the parts of its records."""

    @property
    def parts(self) -> tuple[PartField, ...]:
        """The fields that do not come from the value."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The fields of ``key``."""

    @property
    def deletes(self) -> str | tuple[str | int | bool, ...] | None:
        """Which records delete their key."""

    @property
    def format(self) -> str:
        """How the topic encodes values."""

    @property
    def key_format(self) -> str:
        """How the topic encodes Kafka keys."""


def parts_of(event: type[msgspec.Struct]) -> tuple[PartField, ...]:
    """The fields of an event that do not come from the value, in the order of their definition.

    Raises:
        InvalidDefinition: A field names two parts.
    """
    found = []
    for field in msgspec.structs.fields(event):
        markers = list(_markers(field.type))
        if len(markers) > 1:
            raise InvalidDefinition(
                f"event.{field.name}",
                f"it comes from {' and from '.join(map(str, markers))}.",
                "Name one part of the record.",
            )
        if markers:
            found.append(PartField(field.name, markers[0], field.type, field.default, field.default_factory))
    return tuple(found)


def json_struct(event_time: str, *, exact: bool) -> type[msgspec.Struct]:
    """The struct of a stream with ``event=Json``.

    Args:
        event_time: The path of the event time, or ``RECORD_TIMESTAMP``.
        exact: Whether the value is stored as it is, with exact numbers; otherwise it is decoded.
    """
    fields: list[Any] = [("value", Annotated[msgspec.Raw if exact else Any, Value])]
    if event_time != RECORD_TIMESTAMP:
        path = event_time if isinstance(event_time, Path) else Path(event_time)
        fields.append((JSON_TIME, Annotated[path.declared, path]))
    return msgspec.defstruct("JsonValue", fields)


def value_struct(event: type[msgspec.Struct], parts: tuple[PartField, ...]) -> type[msgspec.Struct]:
    """The struct of an event's value, without the fields that come from other parts of the record."""
    if not parts:
        return event
    others = {part.name for part in parts}
    config = event.__struct_config__
    fields = [
        (
            field.name,
            field.type,
            msgspec.field(default=field.default, name=field.encode_name)
            if field.default is not NODEFAULT
            else msgspec.field(default_factory=field.default_factory, name=field.encode_name),
        )
        for field in msgspec.structs.fields(event)
        if field.name not in others
    ]
    return msgspec.defstruct(
        event.__name__,
        fields,
        module=event.__module__,
        kw_only=True,
        tag=config.tag,
        tag_field=config.tag_field,
        array_like=config.array_like,
        forbid_unknown_fields=config.forbid_unknown_fields,
        omit_defaults=config.omit_defaults,
    )


def check_parts(stream: PartReader) -> None:
    """Checks the fields that do not come from the value, and ``key_format``.

    Raises:
        InvalidDefinition: One of them is not possible.
    """
    if stream.key_format not in KEY_FORMATS:
        raise InvalidDefinition(
            "key_format",
            f"{stream.key_format!r} is not a format of Kafka keys.",
            f"Use one of {', '.join(map(repr, KEY_FORMATS))}.",
        )
    for field in stream.parts:
        _check_part(field, stream.key_format, stream.format)
    if stream.key_format != PLAIN and not any(isinstance(field.part, KeyPart) for field in stream.parts):
        raise InvalidDefinition(
            "key_format",
            "no field comes from the Kafka key.",
            "Declare one, such as id: Annotated[int, Key], or omit it.",
        )
    if stream.deletes == "tombstone":
        _check_tombstones(stream)


def _check_part(field: PartField, key_format: str, value_format: str) -> None:
    where, part = f"event.{field.name}", field.part
    if isinstance(part, Path) and not all(part.steps):
        raise InvalidDefinition(where, f"{str(part)!r} is not a path.", 'Write Path("payload.created").')
    if isinstance(part, ValuePart | Path) and value_format != Format.JSON:
        raise InvalidDefinition(
            where,
            f"it comes from a value that is JSON, and the stream has format={str(value_format)!r}.",
            'Declare the fields of the value, or use format="json".',
        )
    if isinstance(part, TimestampPart) and field.kind is not datetime:
        raise InvalidDefinition(
            where,
            "the timestamp of a record is a time.",
            f"Declare it as {field.name}: Annotated[Instant, RecordTimestamp].",
        )
    if isinstance(part, Header) and (not isinstance(part.name, str) or not part.name):
        raise InvalidDefinition(where, "the header has no name.", 'Write the name, such as Header("trace-id").')
    if not isinstance(part, KeyPart):
        return
    if not all(part.path):
        raise InvalidDefinition(where, f"{_SEPARATOR.join(part.path)!r} is not a path.", 'Write Key("id").')
    if part.is_binary and (part.path or key_format != PLAIN or field.kind not in _BINARY_TYPES):
        raise InvalidDefinition(
            where,
            "only a whole key that is a number or a UUID can be binary.",
            "Declare the field as int, float or UUID; or omit binary=True.",
        )
    is_struct = isinstance(field.kind, type) and issubclass(field.kind, msgspec.Struct)
    if key_format == Format.PROTOBUF and not part.path and not is_struct:
        raise InvalidDefinition(
            where, "a key in Protobuf is a message.", 'Name a field of it, such as Key("id"), or declare a struct.'
        )


def _check_tombstones(stream: PartReader) -> None:
    sources = {field.name: field.part for field in stream.parts}
    of_key = [name for name in stream.keys if isinstance(sources.get(name), KeyPart)]
    others = [name for name in stream.keys if name not in of_key and name in sources]
    if others:
        raise InvalidDefinition(
            "deletes",
            f"a tombstone cannot name the field {others[0]!r}: it comes from {sources[others[0]]}.",
            "Use a key of fields from the Kafka key, or of fields from the value.",
        )
    if of_key and len(of_key) < len(stream.keys):
        raise InvalidDefinition(
            "deletes",
            f"of the fields of key, only {', '.join(map(repr, of_key))} come from the Kafka key.",
            "Use a key of fields from the Kafka key, or of fields from the value.",
        )


def _markers(declared: Any) -> typing.Iterator[Part]:
    origin = typing.get_origin(declared)
    if origin is Annotated:
        inner, *extras = typing.get_args(declared)
        yield from (each for each in extras if isinstance(each, Part))
        yield from _markers(inner)
    elif origin in (Union, types.UnionType):
        for each in typing.get_args(declared):
            yield from _markers(each)


def _bare(declared: Any) -> Any:
    origin = typing.get_origin(declared)
    if origin is Annotated:
        return _bare(typing.get_args(declared)[0])
    if origin in (Union, types.UnionType):
        members = [each for each in typing.get_args(declared) if each is not type(None)]
        return _bare(members[0]) if len(members) == 1 else declared
    return declared


def _allows_none(declared: inspect.Type) -> bool:
    if isinstance(declared, inspect.Metadata):
        return _allows_none(declared.type)
    if isinstance(declared, inspect.UnionType):
        return any(map(_allows_none, declared.types))
    if isinstance(declared, inspect.LiteralType):
        return None in declared.values
    return isinstance(declared, inspect.NoneType | inspect.AnyType)
