"""The fields of an event, and the columns that they become."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import inspect

from include.streams.connect_types import Encoding, encoding_of
from include.streams.times import Epoch, LocalTime, Notation, notation_of

# The type names of PostgreSQL's catalog, so that a table can be compared with its definition.
_SQL: dict[type[inspect.Type], str] = {
    inspect.StrType: "text",
    inspect.IntType: "bigint",
    inspect.FloatType: "double precision",
    inspect.BoolType: "boolean",
    inspect.DateTimeType: "timestamp with time zone",
    inspect.DateType: "date",
    inspect.BytesType: "bytea",
    inspect.UUIDType: "uuid",
    inspect.DecimalType: "numeric",
}
TIMESTAMP, DATE = _SQL[inspect.DateTimeType], _SQL[inspect.DateType]
# PostgreSQL's documentation, appendix "PostgreSQL Limits", without the three columns of the Kafka coordinates.
MAX_FIELDS = 1600 - 3
# The space for one row in a page of 8 kB; long texts are stored elsewhere.
MAX_BYTES = 8_160
_HEADER_BYTES = 23
# The columns before those of the event, and the types of a fixed size. Each starts at a multiple of its size.
_COORDINATE_BYTES = (8, 4, 2)
_FIXED_BYTES = {
    "bigint": 8,
    "double precision": 8,
    TIMESTAMP: 8,
    "time without time zone": 8,
    "date": 4,
    "boolean": 1,
}
# The Python types of JSON values, from which a custom type would have to be converted.
_JSON = (dict, list, str, int, float, bool, type(None))


@dataclass(frozen=True)
class Field:
    """A field of an event and the column that holds it.

    Attributes:
        name: The name of both.
        sql: The column's type; ``jsonb`` for everything without a type of its own.
        nullable: Whether the field may be None, or left unset.
        comment: The field's description, from ``msgspec.Meta(description=…)``; empty without one.
        is_enum: Whether the field's values are members of an enumeration; the column stores their values.
        is_naive: Whether it is a time that may have no time zone, which a column cannot store.
        may_be_unset: Whether its default is ``msgspec.UNSET``, which the column stores as null.
        has_raw: Whether it contains ``msgspec.Raw``, JSON that was not decoded.
        notation: How the topic writes its times; None for texts with a time zone.
        encoding: How the topic writes a type of Kafka Connect; None for every other type.
        has_zone_without_effect: Whether it names a time zone, although its type takes no times without one.
    """

    name: str
    sql: str
    nullable: bool
    comment: str = ""
    is_enum: bool = False
    is_naive: bool = False
    may_be_unset: bool = False
    has_raw: bool = False
    notation: Notation | None = None
    encoding: Encoding | None = None
    has_zone_without_effect: bool = False


def fields_of(event: type[msgspec.Struct]) -> tuple[Field, ...]:
    """The fields of an event in the order of their definition.

    Raises:
        TypeError: A field's type cannot be decoded.
    """
    return tuple(map(_field, _declared(event)))


def undecodable(event: type[msgspec.Struct]) -> dict[str, str]:
    """The fields that msgspec cannot decode from JSON, each with the type that prevents it."""
    found = {field.name: [_foreign(each) for each in within(field.type)] for field in _declared(event)}
    return {name: next(filter(None, types)) for name, types in found.items() if any(types)}


def within(declared: inspect.Type) -> Iterator[inspect.Type]:
    """A type and all types inside it, each once; a struct may contain itself."""
    todo, seen = [declared], set[int]()
    while todo:
        each = todo.pop()
        if id(each) not in seen:
            seen.add(id(each))
            yield each
            todo += _parts(each)


def least_bytes(fields: Iterable[Field]) -> int:
    """The bytes of the smallest row in PostgreSQL: null where it is allowed, and empty texts."""
    fields = tuple(fields)
    nulls = (len(fields) + len(_COORDINATE_BYTES) + 7) // 8 if any(field.nullable for field in fields) else 0
    size = 0
    for width in (*_COORDINATE_BYTES, *(_FIXED_BYTES.get(field.sql) for field in fields if not field.nullable)):
        # An empty text is one byte, at any address.
        size = size + 1 if width is None else _aligned(size, width) + width
    return _aligned(_HEADER_BYTES + nulls, 8) + size


def _aligned(size: int, to: int) -> int:
    return -(-size // to) * to


def storable(text: str) -> str:
    """Replaces what PostgreSQL cannot store: NUL characters and unpaired surrogates."""
    return text.replace("\0", "\N{SYMBOL FOR NULL}").encode("utf-8", "replace").decode()


def _declared(event: type[msgspec.Struct]) -> tuple[inspect.Field, ...]:
    info = inspect.type_info(event)
    assert isinstance(info, inspect.StructType)
    return info.fields


def _parts(declared: inspect.Type) -> list[inspect.Type]:
    """The types directly inside a type."""
    several: tuple[Any, ...] = (*getattr(declared, "types", ()), *getattr(declared, "item_types", ()))
    one = [
        getattr(declared, name) for name in ("type", "item_type", "key_type", "value_type") if hasattr(declared, name)
    ]
    return [*several, *one, *(field.type for field in getattr(declared, "fields", ()))]


def _foreign(declared: inspect.Type) -> str:
    """The name of a type that msgspec cannot decode from JSON; empty for another type."""
    if isinstance(declared, inspect.ExtType):
        return "msgspec.msgpack.Ext"
    if isinstance(declared, inspect.CustomType) and not any(issubclass(json, declared.cls) for json in _JSON):
        return getattr(declared.cls, "__qualname__", str(declared.cls))
    if isinstance(declared, inspect.UnionType) and any(isinstance(each, inspect.RawType) for each in declared.types):
        # msgspec accepts the type, but refuses every value.
        return "msgspec.Raw in a union"
    return ""


def _field(declared: inspect.Field) -> Field:
    core, nullable, comment = _core(declared.type)
    extra = extra_of(declared.type)
    notation, encoding = notation_of(extra), encoding_of(extra)
    has_zone = isinstance(notation, LocalTime)
    is_unset = not declared.required and (declared.default, declared.default_factory) == _NO_DEFAULT
    return Field(
        declared.name,
        _sql(core) if encoding is None else encoding.sql,
        nullable or is_unset or declared.default is None,
        storable(str(comment)),
        is_enum=isinstance(core, inspect.EnumType) and _sql(core) != "jsonb",
        is_naive=isinstance(core, inspect.DateTimeType) and core.tz is not True and not has_zone,
        may_be_unset=is_unset,
        has_raw=any(isinstance(each, inspect.RawType) for each in within(declared.type)),
        notation=notation,
        encoding=encoding,
        has_zone_without_effect=has_zone and not (isinstance(core, inspect.DateTimeType) and core.tz is None),
    )


# msgspec.inspect shows the default UNSET as no default.
_NO_DEFAULT = (msgspec.NODEFAULT, msgspec.NODEFAULT)


def _core(declared: inspect.Type) -> tuple[inspect.Type, bool, str]:
    """The type without its annotations and without None, whether it allows None, and its description."""
    if isinstance(declared, inspect.Metadata):
        core, nullable, comment = _core(declared.type)
        if isinstance(notation_of(declared.extra), Epoch):
            core = inspect.DateTimeType(tz=True)
        return core, nullable, (declared.extra_json_schema or {}).get("description", comment)
    if isinstance(declared, inspect.UnionType):
        members = [member for member in declared.types if not isinstance(member, inspect.NoneType)]
        nullable = len(members) < len(declared.types)
        if len(members) == 1:
            core, takes_none, comment = _core(members[0])
            return core, nullable or takes_none, comment
        if {type(member) for member in members} == {inspect.IntType, inspect.FloatType}:
            return inspect.FloatType(), nullable, ""
        return declared, nullable, ""
    return declared, _takes_none(declared), ""


def extra_of(declared: inspect.Type) -> dict[str, Any]:
    """What the annotations of a field declare, see ``msgspec.inspect.Metadata.extra``."""
    if isinstance(declared, inspect.Metadata):
        return extra_of(declared.type) | (declared.extra or {})
    if isinstance(declared, inspect.UnionType):
        members = [member for member in declared.types if not isinstance(member, inspect.NoneType)]
        return extra_of(members[0]) if len(members) == 1 else {}
    return {}


def _takes_none(declared: inspect.Type) -> bool:
    if isinstance(declared, inspect.LiteralType):
        return None in declared.values
    if isinstance(declared, inspect.CustomType):
        return isinstance(None, declared.cls)
    return isinstance(declared, inspect.NoneType | inspect.AnyType)


def _sql(core: inspect.Type) -> str:
    if isinstance(core, inspect.EnumType):
        return _sql_of_values(member.value for member in core.cls)
    if isinstance(core, inspect.LiteralType):
        return _sql_of_values(core.values)
    return _SQL.get(type(core), "jsonb")


def _sql_of_values(values: Iterable[object]) -> str:
    kinds = {type(value) for value in values if value is not None}
    return "text" if kinds == {str} else "bigint" if kinds == {int} else "jsonb"
