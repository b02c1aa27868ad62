"""What the schemas of a topic's records say about its events, and what the sample adds to it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from include.schemas.schema import Format
from include.streams.profiling.types import (
    ANY,
    DECIMAL,
    FLOAT,
    INT,
    STR,
    Choice,
    DictOf,
    Epoch,
    Field,
    ListOf,
    Seen,
    Struct,
    Type,
    Typed,
    fields_of,
    type_of,
)

Place = tuple[int, int]
"""The partition and the offset of a record."""


@dataclass(frozen=True)
class Decoded:
    """The records of a sample that name schemas of a registry.

    Attributes:
        format: How they are encoded.
        registry: The connection to the registry.
        schemas: The names of the schemas, the newest first.
        fields: What the schemas say about the fields.
        values: For each record the fields of its event, or why it is not an event.
    """

    format: Format
    registry: str
    schemas: Sequence[str]
    fields: Sequence[Field]
    values: Mapping[Place, dict[str, Any] | str]

    def fields_in(self, events: Sequence[Seen]) -> tuple[Field, ...]:
        """The fields of the events, with what the sample shows about them."""
        if self.format is Format.JSON_SCHEMA:
            return _completed(fields_of(events), self.fields)
        return _observed(self.fields, events)


def stated(name: str, declared: Type, notes: tuple[str, ...] = (), *, optional: bool = False) -> Field:
    """A field of a schema, of which no value is known yet."""
    return Field(name, declared, 0, 0, 0, notes, optional)


def merged(several: Iterable[Sequence[Field]]) -> tuple[Field, ...]:
    """The fields of several schemas, the newest first: a field that one of them does not have may be missing."""
    found: tuple[Field, ...] | None = None
    for fields in several:
        found = tuple(fields) if found is None else _merged_fields(found, fields)
    return found or ()


def merged_types(one: Type, other: Type) -> Typed:
    """The type that takes the values of two."""
    match one, other:
        case _ if one == other:
            return one, ()
        case Struct(), Struct():
            return Struct(_merged_fields(one.fields, other.fields)), ()
        case ListOf(), ListOf():
            item, notes = merged_types(one.item, other.item)
            return ListOf(item, one.has_nulls or other.has_nulls), notes
        case DictOf(), DictOf():
            value, notes = merged_types(one.value, other.value)
            return DictOf(value, one.has_nulls or other.has_nulls), notes
        case Choice(), Choice():
            return Choice(tuple(dict.fromkeys((*one.values, *other.values)))), ()
        case (Choice(), _) | (_, Choice()) if STR in (one, other):
            return STR, ()
    if one in (INT, FLOAT) and other in (INT, FLOAT):
        return FLOAT, ()
    return ANY, ("different types in the schemas",)


def _merged_fields(newer: Sequence[Field], older: Sequence[Field]) -> tuple[Field, ...]:
    others = {field.name: field for field in older}
    found = []
    for field in newer:
        other = others.pop(field.name, None)
        if other is None:
            found.append(replace(field, optional=True))
            continue
        declared, notes = merged_types(field.type, other.type)
        listed = tuple(dict.fromkeys((*field.notes, *other.notes, *notes)))
        found.append(replace(field, type=declared, notes=listed, optional=field.optional or other.optional))
    return (*found, *(replace(field, optional=True) for field in others.values()))


def _observed(fields: Sequence[Field], objects: Sequence[Seen], *, nested: bool = False) -> tuple[Field, ...]:
    """The fields of a schema with what the values of a sample show about them."""
    found = []
    for field in fields:
        seen = [Seen(each.value[field.name], each.stamp) for each in objects if field.name in each.value]
        values = [each for each in seen if each.value is not None]
        declared, notes = _refined(field.name, field.type, values, nested)
        found.append(
            replace(
                field,
                type=declared,
                objects=len(objects),
                present=len(seen),
                nulls=len(seen) - len(values),
                notes=(*field.notes, *notes),
            )
        )
    return tuple(found)


def _refined(name: str, declared: Type, values: Sequence[Seen], nested: bool) -> Typed:
    """A type of a schema, or a narrower one if all values have it."""
    match declared:
        case Struct():
            objects = [each for each in values if isinstance(each.value, dict)]
            return Struct(_observed(declared.fields, objects, nested=True)), ()
        case ListOf():
            items = [Seen(item, each.stamp) for each in values for item in each.value if item is not None]
            item, notes = _refined(name, declared.item, items, True)
            return replace(declared, item=item), tuple(f"items: {note}" for note in notes)
        case DictOf():
            items = [Seen(item, each.stamp) for each in values for item in each.value.values() if item is not None]
            return replace(declared, value=_refined(name, declared.value, items, True)[0]), ()
    if not values or declared not in (STR, INT, FLOAT):
        return declared, ()
    if declared == STR:
        return (
            type_of(name, values, nested=nested) if all(isinstance(each.value, str) for each in values) else (STR, ())
        )
    numbers = [Seen(_exact(each.value), each.stamp) for each in values]
    if any(number.value is None for number in numbers):
        return declared, ()
    found, notes = type_of(name, numbers, nested=nested)
    if isinstance(found, Epoch) or (nested and any("since 1970" in note for note in notes)):
        return (declared if nested else found), notes
    return (DECIMAL, notes) if declared == INT and found == DECIMAL else (declared, ())


def _exact(number: Any) -> int | Decimal | None:
    """A number as the JSON of a topic would have it; None if it is not one."""
    if isinstance(number, float):
        return Decimal(repr(number)) if math.isfinite(number) else None
    return number if isinstance(number, int) and not isinstance(number, bool) else None


def _completed(seen: Sequence[Field], stated_fields: Sequence[Field]) -> tuple[Field, ...]:
    """The fields of JSON objects, with what their JSON Schema says about them."""
    known = {field.name: field for field in stated_fields}
    objects = max((field.objects for field in seen), default=0)
    found = []
    for field in seen:
        other = known.pop(field.name, None)
        found.append(field if other is None else _stated_field(field, other))
    return (*found, *(replace(field, objects=objects, optional=True) for field in known.values()))


def _stated_field(seen: Field, other: Field) -> Field:
    declared = _stated_type(seen.type, other.type, seen.present > seen.nulls)
    notes = seen.notes if declared == seen.type or isinstance(declared, Struct) else other.notes
    return replace(seen, type=declared, notes=notes, optional=other.optional)


def _stated_type(seen: Type, other: Type, has_values: bool) -> Type:
    """The type of values whose JSON Schema states a type."""
    match seen, other:
        case _ if other == ANY:
            return seen
        case _ if not has_values:
            return other
        case Struct(), Struct():
            return Struct(_completed(seen.fields, other.fields))
        case ListOf(), ListOf():
            return replace(seen, item=_stated_type(seen.item, other.item, seen.item != ANY))
        case DictOf(), DictOf():
            return replace(seen, value=_stated_type(seen.value, other.value, seen.value != ANY))
        case Struct(), DictOf():
            return other
        case (Choice(), Choice()):
            return other if set(seen.values) <= set(other.values) else seen
    if (seen == STR and isinstance(other, Choice)) or (seen == INT and other == FLOAT):
        return other
    return seen
