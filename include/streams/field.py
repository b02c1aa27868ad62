"""The fields of an event and the columns they become."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec
from msgspec import inspect

# The names are those of PostgreSQL's catalog, so that a table can be compared with its definition.
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
TIMESTAMP = _SQL[inspect.DateTimeType]


@dataclass(frozen=True)
class Field:
    """A field of an event and the column that holds it.

    Attributes:
        name: The name of both.
        sql: The column's type; whatever has no type of its own there is ``jsonb``.
        nullable: Whether the field may be None.
        comment: The field's description, from ``msgspec.Meta(description=…)``; empty without one.
        is_enum: Whether the field's values are members of an enumeration, stored by their values.
        is_naive: Whether it is a time that may lack its time zone, which no column can hold.
    """

    name: str
    sql: str
    nullable: bool
    comment: str = ""
    is_enum: bool = False
    is_naive: bool = False


def fields_of(event: type[msgspec.Struct]) -> tuple[Field, ...]:
    """The fields of an event in the order of their definition.

    Raises:
        TypeError: A field's type cannot be decoded.
    """
    info = inspect.type_info(event)
    assert isinstance(info, inspect.StructType)
    return tuple(_field(field.name, field.type) for field in info.fields)


def _field(name: str, declared: inspect.Type) -> Field:
    core, nullable, comment = _core(declared)
    return Field(
        name,
        _sql(core),
        nullable,
        comment,
        is_enum=isinstance(core, inspect.EnumType) and _sql(core) != "jsonb",
        is_naive=isinstance(core, inspect.DateTimeType) and core.tz is not True,
    )


def _core(declared: inspect.Type) -> tuple[inspect.Type, bool, str]:
    """The type without its annotations and without None, whether None was in it, and its description."""
    if isinstance(declared, inspect.Metadata):
        core, nullable, comment = _core(declared.type)
        return core, nullable, (declared.extra_json_schema or {}).get("description", comment)
    if isinstance(declared, inspect.UnionType):
        members = [member for member in declared.types if not isinstance(member, inspect.NoneType)]
        nullable = len(members) < len(declared.types)
        if len(members) == 1:
            core, _, comment = _core(members[0])
            return core, nullable, comment
        if {type(member) for member in members} == {inspect.IntType, inspect.FloatType}:
            return inspect.FloatType(), nullable, ""
        return declared, nullable, ""
    return declared, isinstance(declared, inspect.NoneType | inspect.AnyType), ""


def _sql(core: inspect.Type) -> str:
    if isinstance(core, inspect.EnumType):
        return _sql_of_values(member.value for member in core.cls)
    if isinstance(core, inspect.LiteralType):
        return _sql_of_values(core.values)
    return _SQL.get(type(core), "jsonb")


def _sql_of_values(values: Iterable[object]) -> str:
    kinds = {type(value) for value in values}
    return "text" if kinds == {str} else "bigint" if kinds == {int} else "jsonb"
