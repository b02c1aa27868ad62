"""What a stream definition may say, and the sentence that answers what it may not."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from random import Random
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pytest

from cli.scaffold import stream as new
from include.definitions import InvalidDefinition
from include.errors import UserError
from include.streams import definitions
from include.streams.definition import Instant, Stream
from include.streams.field import fields_of


class Color(Enum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


class Place(msgspec.Struct):
    lat: float


class Everything(msgspec.Struct):
    text: str
    integer: int
    real: float
    truth: bool
    ts: Instant
    day: date
    raw: bytes
    id: UUID
    amount: Decimal
    color: Color
    level: Level
    side: Literal["left", "right"]
    either: int | float
    place: Place
    tags: list[str]
    anything: Any
    maybe: Annotated[float | None, msgspec.Meta(description="Perhaps")] = None


class Naive(msgspec.Struct):
    ts: datetime


class Reserved(msgspec.Struct):
    ts: Instant
    kafka_offset: int


class Undecodable(msgspec.Struct):
    ts: Instant
    odd: int | Level


class Foreign:
    """A type that no JSON is decoded to."""


class Node(msgspec.Struct):
    """A struct that holds itself."""

    children: list[Node] = []
    odd: Foreign | None = None


def event(*fields: Any, **options: Any) -> type[msgspec.Struct]:
    """An event with a time and some other fields: names with types, perhaps with defaults."""
    return msgspec.defstruct("Event", [("ts", Instant), *fields], kw_only=True, **options)


GOOD = Stream(name="everything", event=Everything, event_time="ts")


def test_fields_become_columns() -> None:
    assert {field.name: field.sql for field in GOOD.fields} == {
        "text": "text",
        "integer": "bigint",
        "real": "double precision",
        "truth": "boolean",
        "ts": "timestamp with time zone",
        "day": "date",
        "raw": "bytea",
        "id": "uuid",
        "amount": "numeric",
        "color": "text",
        "level": "bigint",
        "side": "text",
        "either": "double precision",
        "place": "jsonb",
        "tags": "jsonb",
        "anything": "jsonb",
        "maybe": "double precision",
    }
    assert [field.name for field in GOOD.fields if field.nullable] == ["anything", "maybe"]
    assert GOOD.fields[-1].comment == "Perhaps"


def test_spans_are_durations() -> None:
    stream = replace(GOOD, partition="6 hours", keep="30 days", late="1 week", early="90 seconds")
    assert (stream.width, stream.retention) == (timedelta(hours=6), timedelta(days=30))
    assert (stream.lateness, stream.earliness) == (timedelta(days=7), timedelta(seconds=90))
    assert GOOD.topic == "everything"


@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        ({"name": "Vehicle Positions"}, "name", "lower-case letters"),
        ({"name": "a" * 49}, "name", "48 characters"),
        ({"name": "doors_20261125"}, "name", "a day at the end"),
        ({"name": "doors_20261125_0600"}, "name", "a day at the end"),
        ({"event": dict}, "event", "is not a msgspec.Struct"),
        ({"name": "doors_pkey"}, "name", "nor _pkey"),
        ({"name": "doors_pkey1"}, "name", "nor _pkey"),
        ({"name": None}, "name", "lower-case letters"),
        ({"name": "Straße"}, "name", "lower-case letters"),
        ({"event": None}, "event", "is not a msgspec.Struct"),
        ({"event": list[int]}, "event", "is not a msgspec.Struct"),
        ({"event": msgspec.Struct}, "event_time", "has no field 'ts'"),
        ({"event": Undecodable}, "event", "cannot be decoded"),
        ({"event": event(("odd", "int ++"))}, "event", "cannot be decoded: "),
        ({"event": event(("odd", "Missing"))}, "event", "cannot be decoded: NameError"),
        ({"event": event(("odd", Foreign))}, "event.odd", "no JSON can be decoded to Foreign"),
        ({"event": event(("odd", dict[str, list[Foreign | None]]))}, "event.odd", "no JSON can be decoded to Foreign"),
        ({"event": event(("odd", Node))}, "event.odd", "no JSON can be decoded to Foreign"),
        ({"event": event(("odd", complex))}, "event.odd", "no JSON can be decoded to complex"),
        ({"event": event(("odd", msgspec.UnsetType))}, "event.odd", "no JSON can be decoded to UnsetType"),
        ({"event": event(("odd", msgspec.msgpack.Ext))}, "event.odd", "no JSON can be decoded to msgspec.msgpack.Ext"),
        (
            {"event": event(("odd", msgspec.Raw | None))},
            "event.odd",
            "no JSON can be decoded to msgspec.Raw in a union",
        ),
        ({"event": event(("x" * 64, int))}, f"event.{'x' * 64}", "takes 64 bytes"),
        ({"event": event(("é" * 32, int))}, f"event.{'é' * 32}", "takes 64 bytes"),
        ({"event": event(("tableoid", int))}, "event.tableoid", "PostgreSQL has a column of that name"),
        ({"event": event(("ctid", str))}, "event.ctid", "PostgreSQL has a column of that name"),
        ({"event": event(*((f"f{n}", str) for n in range(1_597)))}, "event", "1,598 fields, and a table .* 1,597"),
        ({"event": event(*((f"f{n}", int) for n in range(1_015)))}, "event", "take 8,168 bytes in every row"),
        ({"event_time": 5}, "event_time", "has no field 5"),
        ({"event_time": None}, "event_time", "has no field None"),
        ({"event": event(("at", Instant, None)), "event_time": "at"}, "event_time", "not always a moment"),
        (
            {"event": event(("at", Instant | msgspec.UnsetType, msgspec.UNSET)), "event_time": "at"},
            "event_time",
            "not a",
        ),
        ({"event": Reserved}, "event.kafka_offset", "names with 'kafka_'"),
        ({"event": Naive}, "event.ts", "Declare it as Instant"),
        ({"event_time": "when"}, "event_time", "has no field 'when'"),
        ({"event_time": "day"}, "event_time", "not always a moment"),
        ({"partition": "5 hours"}, "partition", "divide the days"),
        ({"partition": "1 month"}, "partition", "no duration"),
        ({"keep": "3 days"}, "keep", 'Write at least "9 days"'),
        ({"late": "soon"}, "late", "no duration"),
        ({"early": "0 days"}, "early", "no duration"),
        ({"keep": "1000000 days"}, "keep", 'Write "500000 days" at most'),
        ({"late": "365001 days", "keep": "400000 days"}, "late", 'Write "365000 days" at most'),
        ({"early": "999999999 days"}, "early", 'Write "365000 days" at most'),
        ({"early": "99999999999 days"}, "early", "no duration"),
        ({"partition": "36501 days", "keep": "100000 days"}, "partition", 'Write "36500 days" at most'),
        ({"window": "366 days"}, "window", 'Write "365 days" at most'),
        ({"quiet": "366 days"}, "quiet", 'Write "365 days" at most'),
        *(({field: None}, field, "no duration") for field in ("partition", "keep", "late", "early", "window", "quiet")),
        ({"keep": timedelta(days=90)}, "keep", "no duration"),
        ({"key": "nothing"}, "key", "no field 'nothing'"),
        ({"key": ["text"]}, "key", "no field"),
        ({"topic": "^foo.*"}, "topic", "reads one topic, not a pattern"),
        ({"topic": "two topics"}, "topic", "cannot be the name"),
        ({"topic": "a,b"}, "topic", "cannot be the name"),
        ({"topic": "ä"}, "topic", "cannot be the name"),
        ({"topic": "a\n"}, "topic", "cannot be the name"),
        ({"topic": ".."}, "topic", "cannot be the name"),
        ({"topic": "a" * 250}, "topic", "249 characters at most"),
        ({"topic": 5}, "topic", "cannot be the name"),
        ({"topic": ["a", "b"]}, "topic", "cannot be the name"),
        ({"kafka_partitions": 0}, "kafka_partitions", "Write 1 to 10,000"),
        ({"kafka_partitions": 10_001}, "kafka_partitions", "too many"),
        ({"kafka_partitions": "4"}, "kafka_partitions", "not a whole number"),
        ({"drains": 0}, "drains", "Write 1 to 1,000"),
        ({"drains": 1.5}, "drains", "1.5 is not a whole number"),
        ({"drains": True}, "drains", "True is not a whole number"),
        ({"drains": None}, "drains", "None is not a whole number"),
        ({"drains": 1_001}, "drains", "too many"),
        ({"simulate": "events"}, "simulate", "not a function"),
    ],
)
def test_what_cannot_be_names_the_field_and_the_fix(changes: dict[str, Any], field: str, says: str) -> None:
    with pytest.raises(InvalidDefinition, match=says) as raised:
        replace(GOOD, **changes)
    assert raised.value.field == field
    assert str(raised.value).startswith(f"{field}: ")


def test_what_can_be_at_most() -> None:
    """The ends of what is accepted, and types that msgspec decodes although they look foreign."""
    fine: list[dict[str, Any]] = [
        {"name": "a" * 48},
        {"name": "doors_pkey_x"},
        {"topic": "a" * 249},
        {"topic": "A.b_c-1"},
        {"topic": ""},
        {"keep": "500000 days", "late": "365000 days", "early": "365000 days", "partition": "36500 days"},
        {"event": event(("x" * 63, int), ("oid", int), ("CTID", int), ("class", str), ("select", str))},
        {"event": event(("é" * 31, int), ("anything", object), ("raw", msgspec.Raw))},
        {"event": event(*((f"f{n}", int) for n in range(1_014)))},
        {"event": event(*((f"f{n}", int | None) for n in range(1_596)))},
        {"event": event(("description", Annotated[int, msgspec.Meta(description="a\0\ud800b")]))},
    ]
    for changes in fine:
        replace(GOOD, **changes)


def test_what_may_be_missing_is_nullable() -> None:
    fields = fields_of(
        event(
            ("unset", int | msgspec.UnsetType, msgspec.UNSET),
            ("both", int | msgspec.UnsetType | None, msgspec.UNSET),
            ("sloppy", int, None),
            ("side", Literal["left", None]),
            ("mixed", Literal[1, "a", None]),
            ("anything", object),
            ("default", int, 5),
            ("made", list[int], msgspec.field(default_factory=list)),
        )
    )
    assert [(field.name, field.sql) for field in fields if field.nullable] == [
        ("unset", "bigint"),
        ("both", "bigint"),
        ("sloppy", "bigint"),
        ("side", "text"),
        ("mixed", "jsonb"),
        ("anything", "jsonb"),
    ]


def test_every_shipped_stream_is_valid_and_simulates_what_it_decodes() -> None:
    found = definitions.find()
    assert not found.broken
    assert {"payments", "sensor_readings", "vehicle_positions"} <= set(found.valid)
    for stream in found.valid.values():
        assert stream.simulate is not None
        events = stream.simulate(Random(1))
        for event in (next(events) for _ in range(50)):
            assert msgspec.json.decode(msgspec.json.encode(event), type=stream.event) == event
        assert all(field.comment for field in fields_of(stream.event))


def test_a_broken_file_harms_only_itself(tmp_path: Path) -> None:
    new.write("good", tmp_path)
    source = (tmp_path / "good.py").read_text()
    broken = {
        "late": source.replace('name="good"', 'name="late"').replace('"7 days"', '"7 dayz"'),
        "syntax": "stream = Stream(",
        "crash": "stream = 1 / 0",
        "exit": "import sys\nsys.exit('no')",
        "key": "stream = {}['stream']",
        "empty": "",
        "twin": source,
    }
    for name, text in broken.items():
        (tmp_path / f"{name}.py").write_text(text)
    found = definitions.find(tmp_path)
    assert list(found.valid) == ["good"]
    errors = {Path(file).stem: str(error) for file, error in found.broken.items()}
    assert f"{tmp_path}/late.py: late: '7 dayz' is no duration. Write a number" in errors["late"]
    assert "syntax.py, line 1:" in errors["syntax"]
    assert "crash.py, line 1: ZeroDivisionError" in errors["crash"]
    assert "exit.py, line 2: SystemExit: no." in errors["exit"]
    assert "key.py, line 1: KeyError: 'stream'." in errors["key"]
    assert "there is no 'stream' in it" in errors["empty"]
    assert "the name 'good' is taken by" in errors["twin"]


def test_a_new_stream_works_at_once(tmp_path: Path) -> None:
    new.write("door_openings", tmp_path)
    stream = definitions.find(tmp_path).valid["door_openings"]
    assert stream.event.__name__ == "DoorOpenings"
    assert stream.simulate is not None
    assert next(stream.simulate(Random(1))).ts.tzinfo is not None


@pytest.mark.parametrize("name", ["instant", "stream", "meta", "true", "class", "events"])
def test_a_new_stream_may_be_called_like_what_its_file_uses(tmp_path: Path, name: str) -> None:
    new.write(name, tmp_path)
    found = definitions.find(tmp_path)
    assert (list(found.valid), found.broken) == ([name], {})


@pytest.mark.parametrize("name", ["Doors", "doors_20261125", "2doors", "../doors", "definition", ""])
def test_a_new_stream_needs_a_free_and_usable_name(name: str) -> None:
    with pytest.raises(UserError, match=r"cannot name a stream|is taken"):
        new.write(name)
