"""The rows in a sample of Debezium's change events: their columns, their key and their times."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from include.streams.change_events import PLACEHOLDER, TIME
from include.streams.profiling.envelope import Event
from include.streams.profiling.event_time import EventTime, of_moments
from include.streams.profiling.key import Key
from include.streams.profiling.schema import Decoded
from include.streams.profiling.types import (
    ANY,
    BOOL,
    FLOAT,
    INSTANT,
    INT,
    STR,
    UUID,
    Choice,
    Field,
    OfSource,
    Plain,
    Seen,
    Struct,
    Type,
    Unscaled,
    fields_of,
)

_ROWS = frozenset("cru")
_POSITION = "lsn"
_NAMED: dict[str, Type] = {
    "io.debezium.time.Date": Plain("ConnectDate"),
    "org.apache.kafka.connect.data.Date": Plain("ConnectDate"),
    "io.debezium.time.Time": Plain("ConnectTime"),
    "org.apache.kafka.connect.data.Time": Plain("ConnectTime"),
    "io.debezium.time.MicroTime": Plain("MicroTime"),
    "io.debezium.time.NanoTime": Plain("NanoTime"),
    "io.debezium.time.Timestamp": Plain("ConnectTimestamp"),
    "org.apache.kafka.connect.data.Timestamp": Plain("ConnectTimestamp"),
    "io.debezium.time.MicroTimestamp": Plain("MicroTimestamp"),
    "io.debezium.time.NanoTimestamp": Plain("NanoTimestamp"),
    "io.debezium.time.ZonedTimestamp": INSTANT,
    "io.debezium.data.VariableScaleDecimal": Plain("VariableDecimal"),
    "io.debezium.data.Json": Plain("JsonText"),
    "io.debezium.data.Uuid": UUID,
}
_TYPES: dict[str, Type] = {
    **dict.fromkeys(("int8", "int16", "int32", "int64"), INT),
    **dict.fromkeys(("float", "float32", "double", "float64"), FLOAT),
    "boolean": BOOL,
    "string": STR,
    "bytes": Plain("bytes"),
}
_DECIMAL = "org.apache.kafka.connect.data.Decimal"
# What can be part of the key of a current state.
_KEYS = (INT, STR, BOOL, UUID, INSTANT, Plain("ConnectDate"))


@dataclass(frozen=True)
class Rows:
    """What the change events of a sample show of their table.

    Attributes:
        fields: The columns, and the position in the source's log.
        key: The columns of the primary key, if the current state can be kept by it.
        note: What the Kafka keys are.
        time: The event time, that of the change.
    """

    fields: tuple[Field, ...]
    key: tuple[str, ...]
    note: str
    time: EventTime


def rows(events: Sequence[Event], decoded: Decoded | None = None) -> Rows | None:
    """The table of change events; None if no event of the sample has a row.

    Args:
        decoded: The records that name schemas of a registry, if the events do.
    """
    changes = [(event, change) for event in events if (change := _change(event.fields))]
    images = [
        Seen(row, event.record.stamp)
        for event, change in changes
        if (row := change.get("after") if change.get("op") in _ROWS else None)
    ] or [Seen(row, event.record.stamp) for event, change in changes if (row := change.get("before"))]
    if not images:
        return None
    schema = _columns(events)
    known = [Seen({n: v for n, v in each.value.items() if not _is_unknown(v)}, each.stamp) for each in images]
    found = fields_of(known) if decoded is None else _of_registry(decoded).fields_in(known)
    fields = tuple(_typed(field, known, schema.get(field.name)) for field in found)
    missing = [name for name in schema if name not in {field.name for field in fields}]
    fields += tuple(_of_schema(schema[name], len(known)) for name in missing)
    names, note = _key(events, fields)
    fields = tuple(_with_null(field, names, schema.get(field.name)) for field in fields)
    if _POSITION not in {field.name for field in fields}:
        fields += tuple(_positions(changes))
    return Rows(fields, names, note, _time(changes))


def key(found: Rows) -> Key:
    """The keys of the sample, as a profile has them."""
    return Key(found.key[0] if len(found.key) == 1 else None, found.note)


def _of_registry(decoded: Decoded) -> Decoded:
    """What the schemas of a registry say about the columns."""
    images = [field.type for field in decoded.fields if field.name == "after" and isinstance(field.type, Struct)]
    return replace(decoded, fields=images[0].fields if images else ())


def _change(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    payload = fields.get("payload")
    found = payload if isinstance(payload, dict) else fields
    return found if found.get("op") else {}


def _is_unknown(value: Any) -> bool:
    return value in (PLACEHOLDER, [PLACEHOLDER], base64.b64encode(PLACEHOLDER.encode()).decode(), PLACEHOLDER.encode())


def _columns(events: Sequence[Event]) -> dict[str, Mapping[str, Any]]:
    """The columns of the newest schema in the events by name; none if they have no schema."""
    for event in reversed(events):
        schema = event.fields.get("schema")
        parts = schema.get("fields") if isinstance(schema, dict) else None
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict) and part.get("field") == "after" and part.get("fields"):
                return {each["field"]: each for each in part["fields"]}
    return {}


def _typed(field: Field, known: Sequence[Seen], column: Mapping[str, Any] | None) -> Field:
    """A column, with its type in the schema, if there is one."""
    declared = None if column is None else _declared(column)
    if declared is not None:
        return replace(field, type=declared, notes=())
    values = [value for each in known if (value := each.value.get(field.name)) is not None]
    if values and all(isinstance(value, dict) and value.keys() == {"scale", "value"} for value in values):
        return replace(field, type=Plain("VariableDecimal"), notes=())
    if isinstance(field.type, Choice):
        # A value that the sample does not have must not be missing in the current state.
        return replace(field, type=STR, notes=())
    return field


def _of_schema(column: Mapping[str, Any], objects: int) -> Field:
    declared = _declared(column)
    return Field(str(column["field"]), declared or ANY, objects, objects, 0, ())


def _declared(column: Mapping[str, Any]) -> Type | None:
    name = column.get("name")
    if name == _DECIMAL:
        parameters = column.get("parameters")
        return Unscaled(int(parameters["scale"])) if isinstance(parameters, dict) and "scale" in parameters else None
    if isinstance(name, str) and name in _NAMED:
        return _NAMED[name]
    return _TYPES.get(str(column.get("type")))


def _with_null(field: Field, key: Sequence[str], column: Mapping[str, Any] | None) -> Field:
    """A column that allows null unless it is part of the key, or the schema says that it does not."""
    if field.name in key or (column is not None and not column.get("optional", False)):
        return replace(field, present=field.objects, nulls=0)
    return replace(field, optional=True)


def _key(events: Sequence[Event], fields: Sequence[Field]) -> tuple[tuple[str, ...], str]:
    """The columns that the Kafka keys name, if the current state can be kept by them, and what the keys are."""
    if any((event.record.key or b"").startswith(b"\0") for event in events):
        return (), (
            "The Kafka keys name schemas of a registry. For the current state, name the primary key: "
            'key="id", current=True.'
        )
    types = {field.name: field.type for field in fields}
    names: set[tuple[str, ...]] = set()
    for event in events:
        try:
            found = msgspec.json.decode(event.record.key or b"")
        except msgspec.DecodeError:
            found = None
        if isinstance(found, dict) and isinstance(found.get("payload"), dict):
            found = found["payload"]
        names.add(tuple(found) if isinstance(found, dict) else ())
    if len(names) != 1 or not (columns := next(iter(names))) or not set(columns) <= types.keys():
        return (), "The Kafka keys do not name the primary key, so the stream has no current state."
    if unfit := [name for name in columns if types[name] not in _KEYS]:
        return (), f"The primary key has {', '.join(unfit)}, by which no current state can be kept."
    return columns, f"The primary key is {', '.join(columns)}, in every Kafka key."


def _positions(changes: Sequence[tuple[Event, Mapping[str, Any]]]) -> Iterator[Field]:
    """The position in PostgreSQL's log, if the source is PostgreSQL."""
    found = [source.get(_POSITION) for _, change in changes if isinstance(source := change.get("source"), dict)]
    if any(isinstance(each, int) for each in found):
        note = "the position in the source's log"
        yield Field(_POSITION, OfSource(_POSITION, INT), len(found), len(found), 0, (note,), optional=True)


def _time(changes: Sequence[tuple[Event, Mapping[str, Any]]]) -> EventTime:
    moments = []
    for event, change in changes:
        blocks = [block for block in (change.get("source"), change) if isinstance(block, dict)]
        stamp = next((block["ts_ms"] for block in blocks if block.get("ts_ms")), None)
        if stamp is not None:
            moments.append((int(stamp) * 1_000, event.record.stamp))
    return of_moments(TIME, moments)
