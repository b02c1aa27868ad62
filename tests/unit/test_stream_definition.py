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

from include.definitions import Invalid
from include.errors import UserError
from include.streams import definitions, new
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
        ({"event": dict}, "event", "no msgspec.Struct"),
        ({"event": Undecodable}, "event", "cannot be decoded"),
        ({"event": Reserved}, "event.kafka_offset", "names with 'kafka_'"),
        ({"event": Naive}, "event.ts", "Declare it as Instant"),
        ({"event_time": "when"}, "event_time", "has no field 'when'"),
        ({"event_time": "day"}, "event_time", "not always a moment"),
        ({"partition": "5 hours"}, "partition", "divide the days"),
        ({"partition": "1 month"}, "partition", "no duration"),
        ({"keep": "3 days"}, "keep", 'Write at least "9 days"'),
        ({"late": "soon"}, "late", "no duration"),
        ({"early": "0 days"}, "early", "no duration"),
        ({"key": "nothing"}, "key", "no field 'nothing'"),
        ({"kafka_partitions": 0}, "kafka_partitions", "Write 1 or more"),
        ({"drains": 0}, "drains", "Write 1 or more"),
    ],
)
def test_what_cannot_be_names_the_field_and_the_fix(changes: dict[str, Any], field: str, says: str) -> None:
    with pytest.raises(Invalid, match=says) as raised:
        replace(GOOD, **changes)
    assert raised.value.field == field
    assert str(raised.value).startswith(f"{field}: ")


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
