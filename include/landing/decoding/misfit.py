"""Where a schema does not fit the struct of a stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import inspect

from include.schemas.schema import InvalidSchema
from include.streams.times import Epoch, notation_of

# What a struct may declare for the types of a schema.
TEXT = (
    inspect.StrType,
    inspect.DateTimeType,
    inspect.DateType,
    inspect.TimeType,
    inspect.TimeDeltaType,
    inspect.UUIDType,
    inspect.DecimalType,
    inspect.EnumType,
    inspect.LiteralType,
)
BYTES = (inspect.BytesType, inspect.ByteArrayType, inspect.MemoryViewType, inspect.UUIDType)
WHOLE = (inspect.IntType, inspect.FloatType, inspect.DecimalType, inspect.EnumType, inspect.LiteralType)
LISTS = (inspect.ListType, inspect.SetType, inspect.FrozenSetType, inspect.VarTupleType, inspect.TupleType)
OBJECTS = (inspect.StructType, inspect.DictType, inspect.TypedDictType, inspect.DataclassType)


@dataclass(frozen=True)
class Misfit:
    """One difference between a schema and the struct.

    Attributes:
        path: The field, such as ``place.lat``; empty for the whole record.
        reason: What does not fit.
        is_fatal: Whether no record of the schema can land; otherwise only some records cannot.
    """

    path: str
    reason: str
    is_fatal: bool = True

    def __str__(self) -> str:
        return f"field {self.path!r}: {self.reason}" if self.path else self.reason


class Incompatible(InvalidSchema):
    """No record of a schema can become an event."""


@dataclass(frozen=True)
class Alternative:
    """One of the types that a field allows.

    Attributes:
        type: The type, without annotations, and not a union.
        epoch: The unit, if the field holds a time as a number.
    """

    type: inspect.Type
    epoch: Epoch | None = None


ANYTHING = (inspect.AnyType, inspect.RawType, inspect.CustomType)
"""The types that take every value."""


def alternatives(declared: inspect.Type) -> tuple[Alternative, ...]:
    """The types that a field allows, one by one."""
    if isinstance(declared, inspect.Metadata):
        notation = notation_of(declared.extra)
        if isinstance(notation, Epoch):
            return (Alternative(inspect.IntType(), notation),)
        return alternatives(declared.type)
    if isinstance(declared, inspect.UnionType):
        return tuple(each for member in declared.types for each in alternatives(member))
    return (Alternative(declared),)


def name_of(declared: inspect.Type) -> str:
    """A type as a definition names it."""
    found = alternatives(declared)
    return " | ".join(dict.fromkeys(map(_name, found)))


def require(misfits: Sequence[Misfit]) -> None:
    """Raises Incompatible if no record can land."""
    fatal = [each for each in misfits if each.is_fatal]
    if fatal:
        raise Incompatible("; ".join(map(str, fatal)))


def _name(found: Alternative) -> str:
    if found.epoch is not None:
        return f"a time in {found.epoch.unit}"
    if isinstance(found.type, inspect.StructType | inspect.EnumType):
        return found.type.cls.__name__
    name = type(found.type).__name__.removesuffix("Type").lower()
    return {"none": "None", "uuid": "UUID", "decimal": "Decimal"}.get(name, name)
