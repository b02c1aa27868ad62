"""Events from Avro: its types, batches compared with single values, and values and schemas that do not fit."""

from __future__ import annotations

import io
import json
import math
import random
import re
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any
from uuid import UUID

import fastavro
import msgspec
import pytest

from include.error_codes import Code
from include.landing.decoder import Decoder, StopReason
from include.landing.decoding import avro, framed
from include.landing.decoding.avro import AvroPlan
from include.landing.decoding.framed import FramedDecoder
from include.landing.decoding.misfit import Incompatible
from include.schemas import framing
from include.schemas.framing import HEADER, SchemaKey
from include.schemas.registry import RegistryUnavailable, SchemaMissing
from include.schemas.schema import Schema
from include.streams.definition import EpochMillis, EpochSeconds, Instant, Stream, Zone

NOW = datetime(2026, 1, 15, 10, 0, 0, 123456, tzinfo=UTC)


def schema_of(*fields: Any, name: str = "E", **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": each[0], "type": each[1]} for each in fields], **more}


def long(logical: str) -> dict[str, str]:
    return {"type": "long", "logicalType": logical}


def plan(schema: Any, event: type[msgspec.Struct], **references: Any) -> AvroPlan:
    return AvroPlan(Schema("AVRO", json.dumps(schema), {k: json.dumps(v) for k, v in references.items()}), event)


def encoded(schema: Any, *records: Any, **references: Any) -> list[bytes]:
    named: dict[str, Any] = {}
    for each in references.values():
        fastavro.parse_schema(each, named)
    parsed = fastavro.parse_schema(schema, named)
    values = []
    for record in records:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, parsed, record)
        values.append(out.getvalue())
    return values


def struct(*fields: Any, **options: Any) -> Any:
    return msgspec.defstruct("Event", list(fields), **options)


def only(schema: Any, kind: Any, value: Any) -> Any:
    """The value of a field, decoded alone; also from a batch, which must give the same."""
    whole = schema_of(("x", schema))
    event = struct(("x", kind))
    values = encoded(whole, {"x": value})
    made = plan(whole, event)
    (found,), errors = made.events(values, 0, [b""])
    assert not errors, errors
    many, errors = made.events(values * 100, 0, [])
    assert not errors and many == [found] * 100
    return found.x


class Color(Enum):
    RED = "RED"
    BLUE = "BLUE"


class Place(msgspec.Struct):
    lat: float
    name: str | None = None


PLACE = schema_of(("lat", "double"), ("name", ["null", "string"]), name="Place")


@pytest.mark.parametrize(
    ("schema", "kind", "sent", "expected"),
    [
        ("string", str, "Zoë \0", "Zoë \0"),
        ("string", Instant, "2026-01-15T10:00:00.123456Z", NOW),
        ("string", Instant, "2026-01-15 10:00+00", NOW.replace(microsecond=0)),
        ("string", Decimal, "1.50", Decimal("1.50")),
        ("int", int, -(2**31), -(2**31)),
        ("long", int, -(2**63), -(2**63)),
        ("long", int, 2**63 - 1, 2**63 - 1),
        ("long", float, 3, 3.0),
        ("float", float, 1.5, 1.5),
        ("double", float, -0.1, -0.1),
        ("double", float, math.inf, math.inf),
        ("boolean", bool, True, True),
        ("bytes", bytes, b"\0\xff", b"\0\xff"),
        ({"type": "fixed", "name": "F", "size": 3}, bytes, b"abc", b"abc"),
        ({"type": "enum", "name": "C", "symbols": ["RED", "BLUE"]}, Color, "BLUE", Color.BLUE),
        ({"type": "enum", "name": "C", "symbols": ["RED", "BLUE"]}, str, "BLUE", "BLUE"),
        (["null", "string"], str | None, None, None),
        (["string", "null"], str | None, "x", "x"),
        (["null", "long", "string"], int | str | None, "x", "x"),
        (long("timestamp-millis"), Instant, NOW.replace(microsecond=123000), NOW.replace(microsecond=123000)),
        (long("timestamp-micros"), Instant, NOW, NOW),
        (long("timestamp-micros"), Instant, datetime(1, 1, 2, tzinfo=UTC), datetime(1, 1, 2, tzinfo=UTC)),
        (long("timestamp-millis"), EpochMillis, 1768471200123, 1768471200123),
        ("long", EpochSeconds, 1768471200, 1768471200),
        (["null", long("timestamp-micros")], Instant | None, NOW, NOW),
        (
            long("local-timestamp-micros"),
            Annotated[datetime, Zone("Europe/Berlin")],
            NOW.replace(tzinfo=None),
            NOW.replace(tzinfo=None),
        ),
        ({"type": "int", "logicalType": "date"}, date, date(2026, 1, 15), date(2026, 1, 15)),
        ({"type": "int", "logicalType": "date"}, date, date(1, 1, 1), date(1, 1, 1)),
        ({"type": "int", "logicalType": "date"}, int, 5, 5),
        ({"type": "int", "logicalType": "time-millis"}, time, time(10, 0, 1), time(10, 0, 1)),
        (long("time-micros"), time, time(10, 0, 1, 5), time(10, 0, 1, 5)),
        (
            {"type": "bytes", "logicalType": "decimal", "precision": 40, "scale": 2},
            Decimal,
            Decimal("-12345678901234567890123456789012345678.25"),
            Decimal("-12345678901234567890123456789012345678.25"),
        ),
        ({"type": "string", "logicalType": "uuid"}, UUID, UUID(int=5), UUID(int=5)),
        ({"type": "string", "logicalType": "uuid"}, str, UUID(int=5), str(UUID(int=5))),
        (PLACE, Place, {"lat": 1.0, "name": None}, Place(1.0)),
        (["null", PLACE], Place | None, {"lat": 1.0, "name": "x"}, Place(1.0, "x")),
        (["null", PLACE], Place | None, None, None),
        (PLACE, Any, {"lat": 1.0, "name": "x"}, {"lat": 1.0, "name": "x"}),
        ({"type": "array", "items": PLACE}, list[Place], [{"lat": 1.0, "name": None}], [Place(1.0)]),
        ({"type": "map", "values": "long"}, dict[str, int], {"a": 1}, {"a": 1}),
        ({"type": "array", "items": ["null", "long"]}, Any, [1, None], [1, None]),
    ],
)
def test_every_type_becomes_the_value_that_json_would_give(schema: Any, kind: Any, sent: Any, expected: Any) -> None:
    assert only(schema, kind, sent) == expected


class Flat(msgspec.Struct, kw_only=True, rename="camel"):
    a_text: str
    number: int
    at: Instant
    real: Annotated[float, msgspec.Meta(ge=0)]
    maybe: float | None = None
    color: Color | None = None
    day: date | None = None
    place: Place | None = None
    data: bytes = b""
    more: str = "default"


FLAT = schema_of(
    ("aText", "string"),
    ("unknownText", ["null", "string"]),
    ("number", "long"),
    ("unknownPlace", {**PLACE, "name": "Other"}),
    ("at", long("timestamp-millis")),
    ("unknownReal", "float"),
    ("real", "double"),
    ("maybe", ["null", "double"]),
    ("color", ["null", {"type": "enum", "name": "Color", "symbols": ["RED", "BLUE"]}]),
    ("day", [{"type": "int", "logicalType": "date"}, "null"]),
    ("place", ["null", PLACE]),
    ("data", "bytes"),
)


def flat(rng: random.Random) -> dict[str, Any]:
    return {
        "aText": "ü" * rng.randrange(300),
        "unknownText": rng.choice([None, "x" * 20]),
        "number": rng.choice([0, -1, 63, 64, -65, 2**31, 2**49 - 1, 2**56, -(2**55) - 1, 2**63 - 1, -(2**63)]),
        "unknownPlace": {"lat": rng.random(), "name": "y"},
        "at": NOW.replace(microsecond=0) + timedelta(milliseconds=rng.randrange(-(10**13), 10**13)),
        "unknownReal": 0.5,
        "real": rng.random(),
        "maybe": rng.choice([None, 1.5]),
        "color": rng.choice([None, "RED", "BLUE"]),
        "day": rng.choice([None, date(2026, 1, 15) + timedelta(rng.randrange(-9999, 9999))]),
        "place": rng.choice([None, {"lat": 1.0, "name": None}, {"lat": 2.0, "name": "z"}]),
        "data": rng.randbytes(rng.randrange(5)),
    }


@pytest.mark.parametrize("seed", range(5))
def test_a_batch_gives_the_events_of_its_values_alone(seed: int) -> None:
    rng = random.Random(seed)
    records = [flat(rng) for _ in range(500)]
    made = plan(FLAT, Flat)
    assert made._batch is not None
    values = [b"12345" + value for value in encoded(FLAT, *records)]
    events, errors = made.events(values, 5, [])
    assert not errors
    alone = [made.events([value], 5, [])[0][0] for value in values]
    assert events == alone
    known = {name for name in records[0] if not name.startswith("unknown")}
    texts = [msgspec.json.encode({name: record[name] for name in known}) for record in records]
    assert events == Decoder(Flat).events(texts)[0]


@pytest.mark.parametrize("seed", range(20))
def test_a_batch_with_damaged_values_gives_the_events_and_errors_of_its_values_alone(seed: int) -> None:
    rng = random.Random(seed)
    values = encoded(FLAT, *(flat(rng) for _ in range(300)))
    for at in range(0, len(values), 3):
        value = bytearray(values[at])
        kind = rng.randrange(4)
        if kind == 0:
            value = value[: rng.randrange(len(value))]
        elif kind == 1:
            value += rng.randbytes(3)
        else:
            for _ in range(kind):
                value[rng.randrange(len(value))] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        values[at] = bytes(value)
    made = plan(FLAT, Flat)
    assert made._batch is not None
    events, errors = made.events(values, 0, [])
    for at, damaged in enumerate(values):
        (event,), alone = made.events([damaged], 0, [])
        assert (at in errors) == bool(alone), (at, errors.get(at), alone)
        # NaN does not equal itself.
        assert repr(events[at]) == repr(event)
        assert str(errors.get(at, "")) == str(alone.get(0, ""))
    assert errors


def test_errors_name_the_field() -> None:
    schema = schema_of(("place", PLACE), ("at", long("timestamp-millis")))
    event = struct(("place", Place), ("at", Instant))
    made = plan(schema, event)
    (value,) = encoded(schema, {"place": {"lat": 1.0, "name": "abc"}, "at": NOW})
    for data, reason in [
        (value[:10], "field 'place.name': the schema needs 3 bytes here, and 0 are left"),
        (value[:3], "field 'place.lat': the schema needs 8 bytes here, and 3 are left"),
        (value + b"x", "1 bytes are left after the last field"),
        (value[:13] + b"\xff" * 10 + b"\1", "field 'at': the number has more than 10 bytes"),
        (value[:13] + b"\xff" * 8 + b"\x7f", "field 'at': .* is not a timestamp-millis: .*"),
    ]:
        (_,), errors = made.events([data], 0, [])
        assert re.fullmatch(reason, str(errors[0]))


def test_constraints_of_the_struct_hold() -> None:
    schema = schema_of(("real", "double"))
    made = plan(schema, struct(("real", Annotated[float, msgspec.Meta(ge=0)])))
    values = encoded(schema, *({"real": float(number - 3)} for number in range(100)))
    events, errors = made.events(values, 0, [])
    assert [event and event.real for event in events] == [None] * 3 + [float(number) for number in range(97)]
    assert {at: str(error) for at, error in errors.items()} == dict.fromkeys(
        range(3), "Expected `float` >= 0.0 - at `$.real`"
    )


def test_a_schema_may_refer_to_others() -> None:
    schema = schema_of(("here", "Place"), ("there", ["null", "Place"]))
    event = struct(("here", Place), ("there", Place | None))
    (value,) = encoded(schema, {"here": {"lat": 1.0, "name": None}, "there": {"lat": 2.0, "name": "x"}}, place=PLACE)
    (found,), errors = plan(schema, event, place=PLACE).events([value], 0, [])
    assert not errors and found == event(Place(1.0), Place(2.0, "x"))


class Node(msgspec.Struct):
    value: int
    next: Node | None = None


NODE = schema_of(("value", "long"), ("next", ["null", "Node"]), name="Node")


def test_a_schema_may_contain_itself_up_to_a_limit() -> None:
    made = plan(NODE, Node)
    (found,), errors = made.events([b"\2\2\4\0"], 0, [])
    assert not errors and found == Node(1, Node(2))
    (_,), errors = made.events([b"\2\2" * 100_000 + b"\4\0"], 0, [])
    assert str(errors[0]) == "nested deeper than 100 levels"


def test_an_array_of_nothing_is_limited() -> None:
    schema = schema_of(("many", {"type": "array", "items": "null"}))
    made = plan(schema, struct(("many", list[None])))
    (found,), errors = made.events(encoded(schema, {"many": [None, None]}), 0, [])
    assert not errors and found.many == [None, None]
    (_,), errors = made.events([b"\xfe\xff\xff\xff\xff\xff\x0f\0"], 0, [])
    assert "items without bytes" in str(errors[0])


@pytest.mark.parametrize(
    ("fields", "event", "reason"),
    [
        ([("a", "long")], struct(("a", int), ("b", int)), "field 'b': the schema does not have this field"),
        ([("a", "string")], struct(("a", int)), "field 'a': the schema has string, the definition int"),
        ([("a", "double")], struct(("a", int)), "field 'a': the schema has double, the definition int"),
        ([("a", ["null", "string"])], struct(("a", int | None)), "the schema has string, the definition int | None"),
        ([("a", "null")], struct(("a", int)), "the schema has null"),
        ([("a", PLACE)], struct(("a", struct(("lon", float)))), "field 'a.lon': the schema does not have"),
        ([("a", long("timestamp-millis"))], struct(("a", EpochSeconds)), "timestamp-millis, the definition a time in"),
        ([("a", long("local-timestamp-millis"))], struct(("a", Instant)), "local-timestamp-millis, the definition dat"),
        ([("a", "long"), ("b", "long")], struct(("a", int), forbid_unknown_fields=True), "forbids unknown fields: b"),
    ],
)
def test_a_schema_of_which_no_record_can_land_is_incompatible(fields: Any, event: Any, reason: str) -> None:
    with pytest.raises(Incompatible) as caught:
        plan(schema_of(*fields), event)
    assert reason in str(caught.value)


def test_a_schema_of_which_some_records_cannot_land_is_compatible_with_remarks() -> None:
    schema = schema_of(("a", ["null", "long", "string"]), ("b", {"type": "array", "items": "string"}))
    event = struct(("a", int), ("b", list[int]))
    found = avro.misfits(Schema("AVRO", json.dumps(schema)), event)
    assert {(each.path, each.is_fatal) for each in found} == {("a", False), ("b[]", False)}
    (_, good), errors = plan(schema, event).events(encoded(schema, {"a": None, "b": []}, {"a": 5, "b": []}), 0, [])
    assert good.a == 5 and str(errors[0]) == "Expected `int`, got `null` - at `$.a`"


@pytest.mark.parametrize("text", ["", "{", '"nothing"', '{"type": "record"}', "5"])
def test_text_that_is_not_a_schema_is_incompatible(text: str) -> None:
    with pytest.raises(Incompatible):
        AvroPlan(Schema("AVRO", text), struct(("a", int)))


def test_types_of_a_schema_are_limited() -> None:
    inner: Any = "long"
    for depth in range(20):
        inner = schema_of(("a", inner), ("b", f"r{depth - 1}" if depth else "long"), name=f"r{depth}")
    with pytest.raises(Incompatible, match="more than 20,000 types"):
        plan(inner, struct(("a", Any), ("b", Any)))


class FakeRegistry:
    """A registry with schemas in memory."""

    def __init__(self, schemas: dict[SchemaKey, Schema]) -> None:
        self.schemas, self.asked = schemas, list[SchemaKey]()
        self.is_down = False

    def subjects(self, key: SchemaKey) -> tuple[str, ...]:
        return self.schemas[key].subjects

    def schema(self, key: SchemaKey) -> Schema:
        self.asked.append(key)
        if self.is_down:
            raise RegistryUnavailable("The registry is down.", code=Code.REGISTRY_UNAVAILABLE)
        if key not in self.schemas:
            raise SchemaMissing(str(key))
        return self.schemas[key]


class Reading(msgspec.Struct):
    ts: Instant
    number: int = 0


READING = schema_of(("ts", long("timestamp-micros")), ("number", "long"), name="Reading")
STREAM = Stream(name="readings", event=Reading, event_time="ts", format="avro")
GUID = UUID(int=77)


def decoder_of(registry: FakeRegistry) -> FramedDecoder:
    found = FramedDecoder(STREAM)
    found._registry = registry  # type: ignore[assignment]
    return found


def reading(number: int, key: int = 1) -> bytes:
    return framing.prefix(key) + encoded(READING, {"ts": NOW, "number": number})[0]


def test_records_of_several_schemas_keep_their_order() -> None:
    older = schema_of(("ts", long("timestamp-millis")), name="Old")
    registry = FakeRegistry(
        {
            1: Schema("AVRO", json.dumps(READING)),
            2: Schema("AVRO", json.dumps(older)),
            GUID: Schema("AVRO", json.dumps(READING)),
        }
    )
    values = [reading(1), framing.prefix(2) + encoded(older, {"ts": NOW})[0], reading(2), reading(3)[5:], b"{}", b""]
    headers: list[Any] = [None, [], [("x", b"")], [(HEADER, b"\1" + GUID.bytes)], None, None]
    events, bad = decoder_of(registry).events(values, headers)
    assert [event.number for event in events] == [1, 0, 2, 3]
    assert set(bad) == {4, 5} and "begins with 7b 7d" in bad[4]
    assert registry.asked == [1, 2, GUID]


def test_a_record_that_does_not_fit_names_schema_subject_and_field() -> None:
    registry = FakeRegistry({7: Schema("AVRO", json.dumps(READING), subjects=("readings-value version 3",))})
    events, bad = decoder_of(registry).events([reading(1, 7)[:-1], reading(2, 7)])
    assert [event.number for event in events] == [2]
    assert bad == {
        0: "schema id 7 (readings-value version 3): Unreadable: field 'number': the value ends before this number does"
    }
    assert not isinstance(bad[0], StopReason)


def test_an_unknown_schema_stops_and_is_asked_for_again() -> None:
    registry = FakeRegistry({})
    decoder = decoder_of(registry)
    _, bad = decoder.events([reading(1)])
    stop = bad[0]
    assert isinstance(stop, StopReason) and stop.code is Code.SCHEMA_UNKNOWN
    assert stop == "the schema registry of connection 'millrace_registry' does not have schema id 1"
    registry.schemas[1] = Schema("AVRO", json.dumps(READING))
    assert decoder.events([reading(1)])[0] == [Reading(NOW, 1)]


def test_a_schema_that_does_not_fit_stops() -> None:
    registry = FakeRegistry({1: Schema("AVRO", json.dumps(schema_of(("number", "long")))), 2: Schema("JSON", "{}")})
    _, bad = decoder_of(registry).events([reading(1), reading(1, 2)])
    for at, reason in enumerate(["field 'ts': the schema does not have this field", "it is a schema of JSON"]):
        stop = bad[at]
        assert isinstance(stop, StopReason) and stop.code is Code.SCHEMA_INCOMPATIBLE and reason in stop


def test_a_registry_that_is_down_is_an_error_and_changes_nothing() -> None:
    registry = FakeRegistry({1: Schema("AVRO", json.dumps(READING))})
    decoder = decoder_of(registry)
    registry.is_down = True
    with pytest.raises(RegistryUnavailable):
        decoder.events([reading(1)])
    registry.is_down = False
    assert decoder.events([reading(1)])[0] == [Reading(NOW, 1)]
    registry.is_down = True
    assert decoder.events([reading(2)])[0] == [Reading(NOW, 2)]


def test_schemas_are_remembered_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framed, "MAX_SCHEMAS", 3)
    registry = FakeRegistry(dict.fromkeys(range(10), Schema("AVRO", json.dumps(READING))))
    decoder = decoder_of(registry)
    for _ in range(2):
        events, bad = decoder.events([reading(key, key) for key in range(10)])
        assert [event.number for event in events] == list(range(10)) and not bad
        assert len(decoder._known) == 3
