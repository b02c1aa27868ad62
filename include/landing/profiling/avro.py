"""The fields of an Avro schema, as the struct of a stream declares them."""

from __future__ import annotations

from collections.abc import Sequence

from include.landing.decoding import avro_schema
from include.landing.decoding.avro_schema import LOCAL_TIMESTAMPS, TIMESTAMPS, AvroType
from include.landing.decoding.misfit import Incompatible
from include.schemas.schema import Schema
from include.streams.profiling.schema import stated
from include.streams.profiling.types import (
    ANY,
    BOOL,
    BYTES,
    DATE,
    DECIMAL,
    FLOAT,
    INSTANT,
    INT,
    STR,
    TIME,
    UUID,
    Choice,
    DictOf,
    Field,
    ListOf,
    Struct,
    Type,
    Typed,
)

MAX_SYMBOLS = 50
"""An enum with more symbols is declared as a text."""

LOCAL = (
    "times without a time zone, as numbers; declare the zone as in Annotated[datetime, Zone('Europe/Berlin')], which "
    "makes them a timestamptz"
)
_PLAIN: dict[str, Type] = {
    "boolean": BOOL,
    "int": INT,
    "long": INT,
    "float": FLOAT,
    "double": FLOAT,
    "string": STR,
    "bytes": BYTES,
    "fixed": BYTES,
}
_LOGICAL: dict[str, Type] = {
    **dict.fromkeys(TIMESTAMPS, INSTANT),
    "date": DATE,
    "time-millis": TIME,
    "time-micros": TIME,
    "uuid": UUID,
    "decimal": DECIMAL,
}


def fields_of(schema: Schema) -> tuple[Field, ...]:
    """The fields of the records of an Avro schema.

    Raises:
        Incompatible: It is not a schema of records.
    """
    found = avro_schema.parse(schema.text, schema.references)
    if found.kind != "record":
        raise Incompatible(f"its values are not records but of type {avro_schema.described(found)}")
    return _record(found, ())


def _record(record: AvroType, outer: tuple[AvroType, ...]) -> tuple[Field, ...]:
    return tuple(_field(name, each, (*outer, record)) for name, each in record.fields)


def _field(name: str, found: AvroType, outer: tuple[AvroType, ...]) -> Field:
    branches = found.items if found.kind == "union" else [found]
    (declared, notes), optional = _several(branches, outer), any(each.kind == "null" for each in branches)
    return stated(name, declared, notes, optional=optional)


def _several(branches: Sequence[AvroType], outer: tuple[AvroType, ...]) -> Typed:
    """The type of the branches of a union that are not null."""
    branches = [each for each in branches if each.kind != "null"]
    if not branches:
        return ANY, ("always null by the schema",)
    if len(branches) == 1:
        return _one(branches[0], outer)
    if all(each.kind in ("int", "long", "float", "double") and not each.logical for each in branches):
        return (FLOAT if any(each.kind in ("float", "double") for each in branches) else INT), ()
    return ANY, (f"{' or '.join(map(avro_schema.described, branches))} by the schema",)


def _one(found: AvroType, outer: tuple[AvroType, ...]) -> Typed:
    if any(found is each for each in outer):
        return ANY, ("by the schema, it contains itself",)
    match found.kind:
        case "record":
            return Struct(_record(found, outer)), ()
        case "array" | "map":
            item = _field("", found.items[0], outer)
            inside = ListOf if found.kind == "array" else DictOf
            return inside(item.type, item.optional), item.notes
        case "enum":
            if len(found.symbols) > MAX_SYMBOLS:
                return STR, (f"one of {len(found.symbols)} symbols of the schema",)
            return Choice(found.symbols), ("an enum of the schema",)
    if found.logical in LOCAL_TIMESTAMPS:
        return INT, (LOCAL,)
    return _LOGICAL.get(found.logical) or _PLAIN[found.kind], ()
