"""Events from Protobuf: schemas from text, batches compared with single values, and what does not fit."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

import msgspec
import pytest
from google.protobuf import message_factory

from include.landing.decoding import protobuf
from include.landing.decoding.misfit import Incompatible
from include.landing.decoding.protobuf import ProtobufPlan
from include.landing.decoding.protobuf_batch import ProtobufBatch
from include.schemas import protobuf as schemas
from include.schemas.schema import InvalidSchema, Schema
from include.streams.definition import EpochMillis, Instant

NOW = datetime(2026, 1, 15, 10, 0, 0, 123456, tzinfo=UTC)
TEXT = """
syntax = "proto3";
package shop;
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";

// The first message is another one.
message Ignored { int64 x = 1; }

message Order {
  option deprecated = false;
  reserved 40 to 50, 60;
  reserved "old";
  enum Color { RED = 0; BLUE = 1; NEGATIVE = -3; }
  message Place { double lat = 1; optional string name = 2; }
  string id = 1;
  google.protobuf.Timestamp at = 2;
  Color color = 3;
  Place place = 4;
  optional double maybe = 5;
  int32 i32 = 6; uint32 u32 = 7; uint64 u64 = 8; sint32 s32 = 9; sint64 s64 = 10;
  fixed32 f32 = 11; fixed64 f64 = 12; sfixed32 sf32 = 13; sfixed64 sf64 = 14;
  float real = 15; bool truth = 16; bytes data = 17;
  oneof kind { string left = 18; int64 right = 19; }
  string unknown_text = 20;
  int64 camel_case = 21;
  string more = 22;
}

message Lists {
  repeated int64 numbers = 1;
  map<string, Order.Place> places = 2;
  repeated Order.Place many = 3;
  google.protobuf.StringValue wrapped = 4;
  Lists inner = 5;
}
"""
ORDER, LISTS = b"\2\2", b"\2\4"


class Color(Enum):
    RED = "RED"
    BLUE = "BLUE"
    NEGATIVE = "NEGATIVE"


class Place(msgspec.Struct):
    lat: float
    name: str | None = None


class Order(msgspec.Struct, kw_only=True):
    id: str
    at: Instant | None
    color: Color
    place: Place | None = None
    maybe: float | None = None
    i32: int
    u32: int
    u64: int
    s32: int
    s64: int
    f32: int
    f64: int
    sf32: int
    sf64: int
    real: float
    truth: bool
    data: bytes
    left: str | None = None
    right: int | None = None
    camel: int = msgspec.field(name="camelCase", default=5)
    more: str = "default"
    color_again: Any = None


class Lists(msgspec.Struct):
    numbers: list[int]
    places: dict[str, Place]
    many: list[Place]
    wrapped: str | None = None
    inner: Lists | None = None


def schema(text: str = TEXT, **references: str) -> Schema:
    return Schema("PROTOBUF", text, {f"{name}.proto": each for name, each in references.items()})


def made(indexes: tuple[int, ...]) -> Any:
    return message_factory.GetMessageClass(schemas.ProtobufFile(schema()).message(indexes))


def order(rng: random.Random) -> Any:
    found = made_order()
    for name, bits, is_signed in [
        ("i32", 32, True),
        ("u32", 32, False),
        ("u64", 64, False),
        ("s32", 32, True),
        ("s64", 64, True),
        ("f32", 32, False),
        ("f64", 64, False),
        ("sf32", 32, True),
        ("sf64", 64, True),
        ("camel_case", 64, True),
    ]:
        # A bigint has 64 bits with a sign, and msgspec decodes more.
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if is_signed else (0, 2**bits - 1)
        setattr(found, name, rng.choice([0, 1, low, high, rng.randint(low, high)]))
    found.id = "ü" * rng.randrange(200)
    if rng.random() < 0.7:
        found.at.FromDatetime(NOW.replace(tzinfo=None) + timedelta(microseconds=rng.randrange(-(10**16), 10**16)))
    found.color = rng.choice([0, 1, -3])
    if rng.random() < 0.5:
        found.place.lat = rng.choice([0.0, 1.5])
        if rng.random() < 0.5:
            found.place.name = rng.choice(["", "x"])
    if rng.random() < 0.5:
        found.maybe = rng.choice([0.0, -2.5])
    found.real, found.truth, found.data = rng.random(), rng.random() < 0.5, rng.randbytes(rng.randrange(4))
    if rng.random() < 0.3:
        found.left = rng.choice(["", "left"])
    elif rng.random() < 0.5:
        found.right = rng.choice([0, 7])
    found.unknown_text = rng.choice(["", "unknown"])
    found.more = rng.choice(["", "more"])
    return found


_ORDER: list[Any] = []


def made_order() -> Any:
    if not _ORDER:
        _ORDER.append(made((1,)))
    return _ORDER[0]()


def alone(plan: ProtobufPlan, value: bytes) -> tuple[Any, str]:
    (event,), errors = plan.events([value], 0 if value is None else 5, [b""])
    return event, str(errors.get(0, ""))


both = pytest.mark.parametrize(
    ("text", "indexes"),
    [(TEXT, ORDER), (TEXT.replace("message Ignored { int64 x = 1; }", ""), b"\0")],
    ids=["second message", "first message"],
)


@both
@pytest.mark.parametrize("seed", range(5))
def test_a_batch_gives_the_events_of_its_values_alone(seed: int, text: str, indexes: bytes) -> None:
    rng = random.Random(seed)
    plan = ProtobufPlan(schema(text), Order)
    messages = [order(rng) for _ in range(500)]
    values = [b"12345" + indexes + each.SerializeToString() for each in messages]
    events, errors = plan.events(values, 5, [])
    assert not errors
    assert events == [alone(plan, value)[0] for value in values]
    for message, event in zip(messages, events, strict=True):
        assert (event.id, event.u64, event.sf32, event.camel) == (
            message.id,
            message.u64,
            message.sf32,
            message.camel_case,
        )
        assert event.maybe == (message.maybe if message.HasField("maybe") else None)
        assert event.more == message.more
        assert (event.at is None) == (not message.HasField("at"))


@both
@pytest.mark.parametrize("seed", range(20))
def test_a_batch_with_damaged_values_gives_the_events_and_errors_of_its_values_alone(
    seed: int, text: str, indexes: bytes
) -> None:
    rng = random.Random(seed)
    values = [b"12345" + indexes + order(rng).SerializeToString() for _ in range(300)]
    for at in range(0, len(values), 3):
        value = bytearray(values[at])
        # Some have other message indexes.
        begin = 5 + len(indexes) * (rng.random() < 0.9)
        kind = rng.randrange(5)
        if kind == 0:
            value = value[: rng.randrange(begin, len(value))]
        elif kind == 1:
            value += rng.randbytes(3)
        elif kind == 2:
            value += value[begin:]
        else:
            for _ in range(kind):
                value[rng.randrange(begin, len(value))] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        values[at] = bytes(value)
    plan = ProtobufPlan(schema(text), Order)
    events, errors = plan.events(values, 5, [])
    for at, damaged in enumerate(values):
        event, error = alone(plan, damaged)
        assert (repr(events[at]), str(errors.get(at, ""))) == (repr(event), error)
    assert errors


def test_messages_without_lists_are_read_in_batches() -> None:
    for text, index in ((TEXT, 1), (TEXT.replace("message Ignored { int64 x = 1; }", ""), 0)):
        found = ProtobufPlan(schema(text), Order)._message((index,))
        assert not isinstance(found, InvalidSchema) and found.batch is not None
    assert ProtobufBatch.of(schemas.ProtobufFile(schema()).message((2,)), Lists) is None


def test_lists_maps_wrappers_and_messages_inside_themselves() -> None:
    message = made((2,))()
    message.numbers.extend([1, -2])
    message.places["a"].lat = 1.5
    message.many.add(lat=2.5, name="x")
    message.wrapped.value = "w"
    message.inner.numbers.append(3)
    plan = ProtobufPlan(schema(), Lists)
    event, error = alone(plan, b"12345" + LISTS + message.SerializeToString())
    assert not error
    assert event == Lists([1, -2], {"a": Place(1.5)}, [Place(2.5, "x")], "w", Lists([3], {}, []))


def test_message_indexes_choose_the_message_also_from_a_header() -> None:
    text = 'syntax = "proto3"; message A { int64 x = 1; message In { int64 y = 1; } } message B { int64 x = 1; }'
    event = msgspec.defstruct("E", [("x", int, -1), ("y", int, -1)])
    plan = ProtobufPlan(schema(text), event)
    events, errors = plan.events([b"\x08\7"] * 4, 0, [b"", b"\0", b"\2\2", b"\4\0\0"])
    assert not errors and [(each.x, each.y) for each in events] == [(7, -1), (7, -1), (7, -1), (-1, 7)]
    events, errors = plan.events([b"12345\0\x08\7", b"12345\2\2\x08\7", b"12345\2\x08", b"12345"], 5, [])
    assert [each and each.x for each in events] == [7, 7, None, None]
    assert str(errors[2]) == "it has no message with the indexes 4"
    assert "message indexes" in str(errors[3])


def test_errors_name_the_field() -> None:
    text = 'syntax = "proto3"; message A { int64 x = 1; string name = 2; }'
    plan = ProtobufPlan(schema(text), msgspec.defstruct("E", [("x", int), ("name", str)]))
    for data, reason in [
        (b"\x08", "field 'x': the bytes are not a A"),
        (b"\x12\5ab", "field 'name': the bytes are not a A"),
        (b"\x12\2\xff\xff", "field 'name': the bytes are not a A"),
    ]:
        _, error = alone(plan, b"12345\0" + data)
        assert error.startswith(reason)


def test_schemas_may_refer_to_others() -> None:
    other = 'syntax = "proto3"; package geo; message Point { double lat = 1; }'
    text = 'syntax = "proto3"; import "geo.proto"; message A { geo.Point at = 1; }'
    plan = ProtobufPlan(schema(text, geo=other), msgspec.defstruct("E", [("at", Place)]))
    event, error = alone(plan, b"12345\0\x0a\x09\x09" + bytes(6) + b"\xf8\x3f")
    assert not error and event.at == Place(1.5)


def test_times_as_numbers() -> None:
    text = 'syntax = "proto2"; message A { required int64 ts = 1; optional string name = 2 [default = "none"]; }'
    plan = ProtobufPlan(schema(text), msgspec.defstruct("E", [("ts", EpochMillis), ("name", str, "mine")]))
    event, error = alone(plan, b"12345\0\x08\7")
    assert not error and (event.ts, event.name) == (7, "mine")
    assert alone(plan, b"12345\0")[1]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ([("y", int)], "field 'y': the schema does not have this field"),
        ([("x", str)], "field 'x': the schema has a number, the definition str"),
        ([("at", int)], "field 'at': the schema has google.protobuf.Timestamp, the definition int"),
        ([("many", int)], "field 'many': the schema has repeated string, the definition int"),
    ],
)
def test_a_schema_of_which_no_record_can_land_is_incompatible(fields: Any, reason: str) -> None:
    text = """syntax = "proto3"; import "google/protobuf/timestamp.proto";
        message A { int64 x = 1; google.protobuf.Timestamp at = 2; repeated string many = 3; }"""
    with pytest.raises(Incompatible) as caught:
        ProtobufPlan(schema(text), msgspec.defstruct("E", fields))
    assert reason in str(caught.value)


def test_a_field_that_may_be_missing_is_a_remark() -> None:
    text = 'syntax = "proto3"; message A { optional int64 x = 1; }'
    (found,) = protobuf.misfits(schema(text), msgspec.defstruct("E", [("x", int)]))
    assert (found.path, found.is_fatal) == ("x", False)


@pytest.mark.parametrize("text", ["", "{}", 'syntax = "proto3"; message A { Missing x = 1; }', 'syntax = "proto9";'])
def test_text_that_is_not_a_schema_is_invalid(text: str) -> None:
    with pytest.raises(InvalidSchema):
        ProtobufPlan(schema(text), msgspec.defstruct("E", [("x", int)]))
