"""Avro schemas as trees, and whether they fit the struct of a stream.

The Avro specification 1.12 describes the types. Named types are copied to each place where they are used, except inside
themselves. So every place can be read in the form that the struct needs there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from msgspec import inspect

from include.landing.decoding.misfit import (
    ANYTHING,
    BYTES,
    LISTS,
    OBJECTS,
    TEXT,
    WHOLE,
    Alternative,
    Incompatible,
    Misfit,
    alternatives,
    name_of,
)
from include.streams.times import MICROSECONDS, MILLISECONDS, NANOSECONDS

MAX_TYPES = 20_000
"""The most types that a schema may have, counting each use of a named type."""

PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
TIMESTAMPS = {
    "timestamp-millis": MILLISECONDS,
    "timestamp-micros": MICROSECONDS,
    "timestamp-nanos": NANOSECONDS,
}
LOCAL_TIMESTAMPS = {f"local-{name}": unit for name, unit in TIMESTAMPS.items()}
# Which types a logical type belongs to; with any other, the specification ignores it.
_LOGICAL: Mapping[str, frozenset[str]] = {
    **dict.fromkeys((*TIMESTAMPS, *LOCAL_TIMESTAMPS, "time-micros"), frozenset({"long"})),
    "date": frozenset({"int"}),
    "time-millis": frozenset({"int"}),
    "decimal": frozenset({"bytes", "fixed"}),
    "uuid": frozenset({"string", "fixed"}),
}
_FITS: Mapping[str, tuple[type[inspect.Type], ...]] = {
    "null": (inspect.NoneType,),
    "boolean": (inspect.BoolType,),
    "int": WHOLE,
    "long": WHOLE,
    "float": (inspect.FloatType, inspect.DecimalType),
    "double": (inspect.FloatType, inspect.DecimalType),
    "string": TEXT,
    "enum": TEXT,
    "bytes": BYTES,
    "fixed": BYTES,
    "array": LISTS,
    "map": OBJECTS,
    "record": OBJECTS,
}
_LOGICAL_FITS: Mapping[str, tuple[type[inspect.Type], ...]] = {
    **dict.fromkeys((*TIMESTAMPS, *LOCAL_TIMESTAMPS), (inspect.DateTimeType,)),
    "date": (inspect.DateType,),
    "time-millis": (inspect.TimeType,),
    "time-micros": (inspect.TimeType,),
    "decimal": (inspect.DecimalType, inspect.FloatType),
    "uuid": (inspect.UUIDType,),
}


@dataclass(eq=False)
class AvroType:
    """One place in a schema.

    Attributes:
        kind: The name of a primitive type, or ``record``, ``enum``, ``fixed``, ``array``, ``map`` or ``union``.
        logical: The logical type, unless the struct takes the value without it.
        fields: Of a record.
        symbols: Of an enum.
        items: The types inside: of an array or map its only one, of a union its branches.
        size: Of a fixed, in bytes.
        scale, precision: Of a decimal.
        is_recursive: Of a record: whether it contains itself.
    """

    kind: str
    logical: str = ""
    fields: list[tuple[str, AvroType]] = field(default_factory=list)
    symbols: tuple[str, ...] = ()
    items: list[AvroType] = field(default_factory=list)
    size: int = 0
    scale: int = 0
    precision: int = 0
    is_recursive: bool = False

    def within(self) -> Iterator[AvroType]:
        """This type and all types inside it, each once."""
        todo, seen = [self], set[int]()
        while todo:
            each = todo.pop()
            if id(each) not in seen:
                seen.add(id(each))
                yield each
                todo += [*each.items, *(inner for _, inner in each.fields)]


def parse(text: str, references: Mapping[str, str]) -> AvroType:
    """A schema as a tree.

    Args:
        references: The schemas that it refers to, each after those that it refers to itself.

    Raises:
        Incompatible: It is not an Avro schema.
    """
    import fastavro

    named: dict[str, Any] = {}
    try:
        for reference in references.values():
            fastavro.parse_schema(json.loads(reference), named)
        parsed = fastavro.parse_schema(json.loads(text), named)
    except Exception as error:  # fastavro raises errors of many kinds
        raise Incompatible(f"it is not a valid Avro schema: {type(error).__name__}: {error}") from error
    return _Parser(named).parse(parsed)


class _Parser:
    def __init__(self, named: Mapping[str, Any]) -> None:
        self._named = named
        self._open: dict[str, AvroType] = {}
        self._count = 0

    def parse(self, schema: Any) -> AvroType:
        self._count += 1
        if self._count > MAX_TYPES:
            raise Incompatible(f"it has more than {MAX_TYPES:,} types")
        if isinstance(schema, list):
            return AvroType("union", items=[self.parse(branch) for branch in schema])
        if isinstance(schema, str):
            return AvroType(schema) if schema in PRIMITIVES else self._reference(schema)
        kind = schema["type"]
        if not isinstance(kind, str):
            return self.parse(kind)
        logical = schema.get("logicalType", "")
        logical = logical if isinstance(logical, str) and kind in _LOGICAL.get(logical, ()) else ""
        if kind in ("record", "error"):
            return self._record(schema)
        if kind == "array":
            return AvroType(kind, items=[self.parse(schema["items"])])
        if kind == "map":
            return AvroType(kind, items=[self.parse(schema["values"])])
        if kind == "enum":
            return AvroType(kind, symbols=tuple(schema["symbols"]))
        if kind in PRIMITIVES or kind == "fixed":
            scale, precision = schema.get("scale", 0), schema.get("precision", 0)
            return AvroType(kind, logical, size=schema.get("size", 0), scale=scale, precision=precision)
        return self._reference(kind)

    def _reference(self, name: str) -> AvroType:
        if name in self._open:
            self._open[name].is_recursive = True
            return self._open[name]
        return self.parse(self._named[name])

    def _record(self, schema: Mapping[str, Any]) -> AvroType:
        name = schema["name"]
        record = self._open[name] = AvroType("record")
        record.fields = [(each["name"], self.parse(each["type"])) for each in schema["fields"]]
        del self._open[name]
        return record


def misfits(found: AvroType, declared: inspect.Type, path: str = "", *, always: bool = True) -> list[Misfit]:
    """Where a schema does not fit a struct. Removes the logical types of values that the struct takes without them.

    Args:
        path: The place in the record.
        always: Whether every record has a value there.
    """
    return list(_Fit().of(found, declared, path, always))


class _Fit:
    def __init__(self) -> None:
        self._seen: set[tuple[int, int]] = set()

    def of(self, found: AvroType, declared: inspect.Type, path: str, always: bool) -> Iterator[Misfit]:
        if (id(found), id(declared)) in self._seen:
            return
        if found.is_recursive:
            self._seen.add((id(found), id(declared)))
        if found.kind == "union":
            yield from self._union(found, declared, path, always)
            return
        options = alternatives(declared)
        if any(isinstance(option.type, ANYTHING) for option in options):
            return
        fitting = next((option for option in options if _fits(found, option)), None)
        if fitting is None and (fitting := next((option for option in options if _fits_plain(found, option)), None)):
            found.logical = ""
        if fitting is None:
            yield Misfit(path, f"the schema has {described(found)}, the definition {name_of(declared)}", always)
        elif found.kind == "record":
            yield from self._record(found, fitting.type, path, always)
        elif found.kind == "array":
            item = getattr(fitting.type, "item_type", inspect.AnyType())
            yield from self.of(found.items[0], item, f"{path}[]", False)
        elif found.kind == "map" and isinstance(fitting.type, inspect.DictType):
            yield from self.of(found.items[0], fitting.type.value_type, f"{path}[]", False)

    def _union(self, found: AvroType, declared: inspect.Type, path: str, always: bool) -> Iterator[Misfit]:
        branches = [(branch, list(self.of(branch, declared, path, True))) for branch in found.items]
        others = [wrong for branch, wrong in branches if branch.kind != "null"]
        none_fits = all(any(each.is_fatal for each in wrong) for wrong in others)
        for branch, wrong in branches:
            if branch.kind == "null" and wrong:
                yield Misfit(path, "the schema allows null, the definition does not", always and not others)
                continue
            for each in wrong:
                yield Misfit(each.path, each.reason, each.is_fatal and always and none_fits)

    def _record(self, found: AvroType, declared: inspect.Type, path: str, always: bool) -> Iterator[Misfit]:
        if isinstance(declared, inspect.DictType):
            for name, inner in found.fields:
                yield from self.of(inner, declared.value_type, _joined(path, name), always)
            return
        known = dict(found.fields)
        fields = {getattr(each, "encode_name", each.name): each for each in getattr(declared, "fields", ())}
        for name, each in fields.items():
            if name in known:
                yield from self.of(known[name], each.type, _joined(path, name), always)
            elif each.required:
                reason = "the schema does not have this field, and the definition gives it no default"
                yield Misfit(_joined(path, name), reason, always)
        for name, inner in found.fields:
            parts = list(inner.within()) if name not in fields else []
            # A type that contains itself may also be the type of a field that the struct has.
            for part in parts if not any(each.is_recursive for each in parts) else ():
                part.logical = ""
        if isinstance(declared, inspect.StructType):
            if declared.tag_field is not None and declared.tag_field not in known:
                yield Misfit(_joined(path, declared.tag_field), "the schema does not have this field, the tag", always)
            if declared.forbid_unknown_fields and (unknown := known.keys() - fields.keys() - {declared.tag_field}):
                yield Misfit(path, f"the definition forbids unknown fields: {', '.join(sorted(unknown))}", always)


def described(found: AvroType) -> str:
    """A type as a message names it."""
    return f"{found.kind} with {found.logical}" if found.logical else found.kind


def _fits(found: AvroType, option: Alternative) -> bool:
    """Whether a value of the schema, with its logical type, fits."""
    if option.epoch is not None:
        return not found.logical and found.kind in ("int", "long", "float", "double", "string")
    if found.logical in LOCAL_TIMESTAMPS:
        return isinstance(option.type, inspect.DateTimeType) and option.type.tz is not True
    if found.logical:
        return isinstance(option.type, _LOGICAL_FITS[found.logical])
    return isinstance(option.type, _FITS[found.kind])


def _fits_plain(found: AvroType, option: Alternative) -> bool:
    """Whether a value of the schema fits if its logical type is ignored."""
    if not found.logical:
        return False
    if option.epoch is not None:
        return TIMESTAMPS.get(found.logical) == option.epoch
    wanted = (inspect.IntType,) if found.kind in ("int", "long") else _FITS[found.kind]
    return isinstance(option.type, wanted)


def fastavro_schema(found: AvroType) -> Any:
    """The schema for fastavro. It must not be recursive."""
    return _written(found, count())


def _written(found: AvroType, numbers: Iterator[int]) -> Any:
    own: dict[str, Any] = {"type": found.kind}
    if found.logical:
        own |= {"logicalType": found.logical, "scale": found.scale, "precision": found.precision or 1}
    match found.kind:
        case "union":
            return [_written(each, numbers) for each in found.items]
        case "record":
            fields = [{"name": name, "type": _written(each, numbers)} for name, each in found.fields]
            return own | {"name": f"r{next(numbers)}", "fields": fields}
        case "enum":
            return own | {"name": f"e{next(numbers)}", "symbols": list(found.symbols)}
        case "fixed":
            return own | {"name": f"f{next(numbers)}", "size": found.size}
        case "array":
            return own | {"items": _written(found.items[0], numbers)}
        case "map":
            return own | {"values": _written(found.items[0], numbers)}
    return own


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
