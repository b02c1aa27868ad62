"""The fields of a Protobuf message, as the struct of a stream declares them."""

from __future__ import annotations

from typing import Any

from include.landing.decoding import protobuf_schema
from include.landing.decoding.protobuf_schema import DURATION as DURATION_MESSAGE
from include.landing.decoding.protobuf_schema import TIMESTAMP, WRAPPERS
from include.landing.profiling.avro import MAX_SYMBOLS
from include.streams.profiling.schema import stated
from include.streams.profiling.types import (
    ANY,
    BOOL,
    BYTES,
    DURATION,
    FLOAT,
    INSTANT,
    INT,
    STR,
    Choice,
    DictOf,
    Field,
    ListOf,
    Struct,
    Type,
    Typed,
)

_ANY_OBJECT, _ANY_LIST = "google.protobuf.Struct", "google.protobuf.ListValue"


def fields_of(message: Any, outer: tuple[str, ...] = ()) -> tuple[Field, ...]:
    """The fields of the messages of a type.

    Args:
        message: Its descriptor.
        outer: The full names of the messages that it is inside of.
    """
    return tuple(_field(field, (*outer, message.full_name)) for field in message.fields)


def _field(field: Any, outer: tuple[str, ...]) -> Field:
    declared, notes = _type(field, outer)
    group = field.containing_oneof
    if group is not None and len(group.fields) > 1:
        notes = (*notes, f"one of {', '.join(each.name for each in group.fields)}")
    is_optional = field.has_presence and not getattr(field, "is_required", False)
    return stated(field.name, declared, notes, optional=is_optional)


def _type(field: Any, outer: tuple[str, ...]) -> Typed:
    if protobuf_schema.is_map(field):
        key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
        if key.type != key.TYPE_STRING:
            return ANY, (f"a map whose keys are {_kind(key)}",)
        inside, notes = _one(value, outer)
        return DictOf(inside), notes
    inside, notes = _one(field, outer)
    return (ListOf(inside) if field.is_repeated else inside), notes


def _kind(field: Any) -> str:
    return "booleans" if field.type == field.TYPE_BOOL else "whole numbers"


def _one(field: Any, outer: tuple[str, ...]) -> Typed:
    """The type of one value of a field."""
    if field.enum_type is not None:
        names = tuple(value.name for value in field.enum_type.values)
        if len(names) > MAX_SYMBOLS:
            return STR, (f"one of {len(names)} names of the schema",)
        return Choice(names), ("an enum of the schema",)
    if field.message_type is None:
        return _scalar(field), ()
    name = field.message_type.full_name
    if name in WRAPPERS:
        return _scalar(field.message_type.fields_by_name["value"]), ()
    known: dict[str, Type] = {
        TIMESTAMP: INSTANT,
        DURATION_MESSAGE: DURATION,
        _ANY_OBJECT: DictOf(ANY),
        _ANY_LIST: ListOf(ANY),
        "google.protobuf.Value": ANY,
    }
    if name in known:
        return known[name], ("any JSON",) if known[name] == ANY else ()
    if name in outer:
        return ANY, ("by the schema, it contains itself",)
    return Struct(fields_of(field.message_type, outer)), ()


def _scalar(field: Any) -> Type:
    by_type: dict[int, Type] = {
        field.TYPE_DOUBLE: FLOAT,
        field.TYPE_FLOAT: FLOAT,
        field.TYPE_BOOL: BOOL,
        field.TYPE_STRING: STR,
        field.TYPE_BYTES: BYTES,
    }
    return by_type.get(field.type, INT)
