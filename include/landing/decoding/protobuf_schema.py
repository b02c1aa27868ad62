"""Whether the messages of a Protobuf schema fit the struct of a stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec import inspect

from include.landing.decoding.misfit import (
    ANYTHING,
    BYTES,
    OBJECTS,
    TEXT,
    WHOLE,
    Alternative,
    Misfit,
    alternatives,
    name_of,
)

TIMESTAMP, DURATION = "google.protobuf.Timestamp", "google.protobuf.Duration"
WRAPPERS = frozenset(
    f"google.protobuf.{name}Value"
    for name in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)
JSON_TYPES = frozenset(f"google.protobuf.{name}" for name in ("Struct", "Value", "ListValue"))
"""Messages that hold any JSON."""

_REAL = (inspect.FloatType, inspect.DecimalType)
_ENUM = (inspect.StrType, inspect.IntType, inspect.EnumType, inspect.LiteralType)
_LISTS = (inspect.ListType, inspect.SetType, inspect.FrozenSetType, inspect.VarTupleType)
_MAX_DEPTH = 20


def is_map(field: Any) -> bool:
    """Whether a field is a map."""
    return bool(field.message_type is not None and field.message_type.GetOptions().map_entry)


def by_encoded_name(message: Any) -> dict[str, Any]:
    """The fields of a message by their names, and by those that they have in JSON."""
    fields = list(message.fields)
    return {each.json_name: each for each in fields} | {each.name: each for each in fields}


def misfits(message: Any, declared: inspect.Type, path: str = "", depth: int = 0) -> Iterator[Misfit]:
    """Where a message does not fit a struct."""
    if not isinstance(declared, inspect.StructType) or depth > _MAX_DEPTH:
        return
    known = by_encoded_name(message)
    for each in declared.fields:
        name = each.encode_name
        inner = f"{path}.{name}" if path else name
        field = known.get(name)
        if field is not None:
            yield from _field_misfits(field, each, inner, depth)
        elif each.required:
            reason = "the schema does not have this field, and the definition gives it no default"
            yield Misfit(inner, reason, not depth)


def _field_misfits(field: Any, each: inspect.Field, path: str, depth: int) -> Iterator[Misfit]:
    options = alternatives(each.type)
    if any(isinstance(option.type, ANYTHING) for option in options):
        return
    fitting = [option for option in options if fits(field, option)]
    if not fitting:
        reason = f"the schema has {described(field)}, the definition {name_of(each.type)}"
        yield Misfit(path, reason, not depth and not (field.has_presence and _takes_none(options)))
        return
    if field.has_presence and each.required and not _takes_none(options):
        yield Misfit(path, "the schema allows records without this field, the definition does not", False)
    if field.message_type is not None and not is_map(field) and not field.is_repeated:
        structs = [option.type for option in fitting if isinstance(option.type, inspect.StructType)]
        if structs:
            yield from misfits(field.message_type, structs[0], path, depth + 1)


def fits(field: Any, option: Alternative) -> bool:
    """Whether the values of a field fit one type of the struct."""
    if is_map(field):
        return isinstance(option.type, OBJECTS)
    if field.is_repeated:
        return isinstance(option.type, _LISTS)
    if field.message_type is not None:
        name = field.message_type.full_name
        if name == TIMESTAMP:
            return isinstance(option.type, inspect.DateTimeType)
        if name == DURATION:
            return isinstance(option.type, inspect.TimeDeltaType)
        if name in WRAPPERS:
            return fits(field.message_type.fields_by_name["value"], option)
        return name in JSON_TYPES or isinstance(option.type, OBJECTS)
    if option.epoch is not None:
        return field.type not in (field.TYPE_BOOL, field.TYPE_BYTES, field.TYPE_ENUM)
    return isinstance(option.type, _accepted(field))


def described(field: Any) -> str:
    """The type of a field as a message names it."""
    inner = field.message_type or field.enum_type
    kind = _NAMES.get(field.type, "a number") if inner is None else "a map" if is_map(field) else inner.full_name
    return f"repeated {kind}" if field.is_repeated and not is_map(field) else kind


_NAMES = {1: "double", 2: "float", 8: "bool", 9: "string", 12: "bytes"}


def _accepted(field: Any) -> tuple[type[inspect.Type], ...]:
    by_type: Mapping[int, tuple[type[inspect.Type], ...]] = {
        field.TYPE_DOUBLE: _REAL,
        field.TYPE_FLOAT: _REAL,
        field.TYPE_BOOL: (inspect.BoolType,),
        field.TYPE_STRING: TEXT,
        field.TYPE_BYTES: BYTES,
        field.TYPE_ENUM: _ENUM,
    }
    return by_type.get(field.type, WHOLE)


def _takes_none(options: Iterable[Alternative]) -> bool:
    return any(isinstance(option.type, inspect.NoneType) for option in options)


def is_text(option: Alternative) -> bool:
    """Whether a type of the struct takes the name of an enum's value, and not only its number."""
    declared = option.type
    if isinstance(declared, inspect.EnumType):
        return any(isinstance(member.value, str) for member in declared.cls)
    if isinstance(declared, inspect.LiteralType):
        return any(isinstance(value, str) for value in declared.values)
    return isinstance(declared, (inspect.StrType, *ANYTHING))
