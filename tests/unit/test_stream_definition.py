"""The fields of a stream's definition, and the errors of invalid ones."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
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
from include.error_codes import Code
from include.landing import spans
from include.streams import definitions
from include.streams.definition import (
    RECORD_TIMESTAMP,
    EpochMicros,
    EpochMillis,
    EpochNanos,
    EpochSeconds,
    Instant,
    Stream,
    Zone,
)
from include.streams.field import fields_of
from include.streams.indexes import indexes_of
from include.streams.period import Period
from include.streams.times import Epoch, LocalTime
from tests.errors import raises


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
    """A type that msgspec cannot decode from JSON."""


class Node(msgspec.Struct):
    """A struct that contains itself."""

    children: list[Node] = []
    odd: Foreign | None = None


class Numbered(msgspec.Struct):
    """Times in all notations."""

    s: EpochSeconds
    ms: Annotated[EpochMillis, msgspec.Meta(description="When")]
    us: EpochMicros | None
    ns: Annotated[EpochNanos | None, msgspec.Meta(description="Perhaps")] = None
    unset: EpochMillis | msgspec.UnsetType = msgspec.UNSET
    local: Annotated[datetime, Zone("Europe/Berlin")] = datetime(2026, 1, 1)
    many: list[EpochMillis] = []


def event(*fields: Any, **options: Any) -> type[msgspec.Struct]:
    """An event with a time and other fields: names and types, optionally defaults."""
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


def test_durations_are_parsed() -> None:
    stream = replace(GOOD, partition="6 hours", keep="30 days", late="1 week", early="90 seconds")
    assert (stream.period, stream.retention) == (Period(timedelta(hours=6)), timedelta(days=30))
    assert (stream.lateness, stream.earliness) == (timedelta(days=7), timedelta(seconds=90))
    assert GOOD.topic == "everything"


@pytest.mark.parametrize(
    ("partition", "months", "longest"),
    [("1 month", 1, 31), ("3months", 3, 93), ("6 months", 6, 186), ("12 months", 12, 366), ("10 years", 120, 3_660)],
)
def test_partitions_span_months_and_years(partition: str, months: int, longest: int) -> None:
    stream = replace(GOOD, partition=partition, keep="4000 days")
    assert (stream.period, stream.period.longest) == (Period(None, months), timedelta(days=longest))
    assert stream.period.interval == f"{months} months"


@pytest.mark.parametrize(
    ("keep", "now", "cut_off"),
    [
        ("13 months", datetime(2026, 3, 31, 5, tzinfo=UTC), datetime(2025, 2, 28, 5, tzinfo=UTC)),
        ("1 month", datetime(2026, 1, 15, tzinfo=UTC), datetime(2025, 12, 15, tzinfo=UTC)),
        ("7 years", datetime(2028, 2, 29, tzinfo=UTC), datetime(2021, 2, 28, tzinfo=UTC)),
        ("90 days", datetime(2026, 3, 31, tzinfo=UTC), datetime(2025, 12, 31, tzinfo=UTC)),
    ],
)
def test_keep_may_be_months_and_years(keep: str, now: datetime, cut_off: datetime) -> None:
    assert spans.cut_off(replace(GOOD, keep=keep), now) == cut_off


@pytest.mark.parametrize("keep", ["0 months", "1 months ago", "1000000 years", "20000 months"])
def test_a_keep_that_is_not_a_length_is_an_error(keep: str) -> None:
    with pytest.raises(InvalidDefinition) as wrong:
        replace(GOOD, keep=keep)
    assert wrong.value.field == "keep"


def test_a_month_of_keep_may_have_28_days() -> None:
    with pytest.raises(InvalidDefinition):
        replace(GOOD, keep="1 month", late="28 days")
    assert replace(GOOD, keep="1 month", late="27 days").retention == timedelta(days=31)


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"indexes": "text"}, "indexes", "('user',)"),
        ({"indexes": ("nothing",)}, "indexes", "'nothing'"),
        ({"indexes": (("text", "text"),)}, "indexes", "different"),
        ({"indexes": ((),)}, "indexes", "1 to 32"),
        ({"indexes": ("text", ("text",))}, "indexes", "twice"),
        ({"indexes": ("more",)}, "indexes", "GIN"),
        ({"brin": "ts"}, "brin", "'ts'"),
        ({"storage": 90}, "storage", "90"),
        ({"storage": {"fill": 90}}, "storage", "'fill'"),
        ({"storage": {"fillfactor": None}}, "storage", "None"),
    ],
)
def test_an_invalid_index_is_named(changes: dict[str, Any], field: str, value: str) -> None:
    with raises(Code.INVALID_DEFINITION, value.replace("'user'", '"user"'), kind=InvalidDefinition) as caught:
        Stream(**{"name": "searched", "event": Searched, "event_time": "ts", **changes})
    assert isinstance(caught.error, InvalidDefinition) and caught.error.field == field


class Searched(msgspec.Struct):
    ts: Instant
    text: str
    more: dict[str, Any]


def test_indexes_have_names_that_stay() -> None:
    stream = Stream(
        name="a" * 48, event=Searched, event_time="ts", indexes=("text", ("text", "ts", "kafka_offset")), brin=True
    )
    names = [index.name_for(stream.name) for index in indexes_of(stream)]
    assert names == [f"{'a' * 48}_{each}_ix" for each in ("cfabc410", "d0c4469b", "3e1f9cff")]
    assert len(set(names)) == 3 and max(map(len, names)) <= 63


class Daily(msgspec.Struct):
    day: date
    other: date
    maybe: date | None = None


def test_a_date_may_be_the_event_time() -> None:
    stream = Stream(name="daily", event=Daily, event_time="day")
    assert [field.sql for field in stream.fields] == ["timestamp with time zone", "date", "date"]
    with pytest.raises(InvalidDefinition):
        replace(stream, event_time="maybe")


def test_forever_and_any_set_no_limit() -> None:
    stream = replace(GOOD, keep="forever", late="any")
    assert (stream.retention, stream.lateness, stream.earliness) == (None, None, timedelta(hours=1))
    assert replace(GOOD, keep="forever", partition="100 years").lateness == timedelta(days=7)


def test_times_in_every_notation_become_timestamps() -> None:
    found = {field.name: field for field in fields_of(Numbered)}
    assert {field.sql for field in found.values()} == {"timestamp with time zone", "jsonb"}
    assert found["many"].sql == "jsonb"
    assert [field.name for field in found.values() if field.nullable] == ["us", "ns", "unset"]
    assert (found["ms"].comment, found["ns"].comment) == ("When", "Perhaps")
    units = [field.notation.unit for field in found.values() if isinstance(field.notation, Epoch)]
    assert units == ["seconds", "milliseconds", "microseconds", "nanoseconds", "milliseconds"]
    assert found["local"].notation == LocalTime("Europe/Berlin")
    for name in ("s", "ms", "local"):
        assert Stream(name="numbered", event=Numbered, event_time=name).event_time == name


def test_a_stream_of_events_without_a_time_uses_the_timestamps_of_records() -> None:
    stream = Stream(name="places", event=Place, event_time=RECORD_TIMESTAMP)
    assert [(field.name, field.sql, field.nullable) for field in stream.record_fields] == [
        ("kafka_timestamp", "timestamp with time zone", False)
    ]
    assert GOOD.record_fields == ()


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"name": "Vehicle Positions"}, "name", "'Vehicle Positions'"),
        ({"name": "a" * 49}, "name", "48 characters"),
        ({"name": "doors_20261125"}, "name", "must not end in a date"),
        ({"name": "doors_20261125_0600"}, "name", "must not end in a date"),
        ({"event": dict}, "event", "<class 'dict'>"),
        ({"name": "doors_pkey"}, "name", "or _pkey"),
        ({"name": "doors_pkey1"}, "name", "or _pkey"),
        ({"name": None}, "name", "None"),
        ({"name": "Straße"}, "name", "'Straße'"),
        ({"event": None}, "event", "None"),
        ({"event": list[int]}, "event", "list[int]"),
        ({"event": msgspec.Struct}, "event_time", "'ts'"),
        ({"event": Undecodable}, "event", "Undecodable"),
        ({"event": event(("odd", "int ++"))}, "event", "Event: "),
        ({"event": event(("odd", "Missing"))}, "event", "Event: NameError"),
        ({"event": event(("odd", Foreign))}, "event.odd", "JSON to Foreign"),
        ({"event": event(("odd", dict[str, list[Foreign | None]]))}, "event.odd", "JSON to Foreign"),
        ({"event": event(("odd", Node))}, "event.odd", "JSON to Foreign"),
        ({"event": event(("odd", complex))}, "event.odd", "JSON to complex"),
        ({"event": event(("odd", msgspec.UnsetType))}, "event.odd", "JSON to UnsetType"),
        ({"event": event(("odd", msgspec.msgpack.Ext))}, "event.odd", "JSON to msgspec.msgpack.Ext"),
        (
            {"event": event(("odd", msgspec.Raw | None))},
            "event.odd",
            "JSON to msgspec.Raw in a union",
        ),
        ({"event": event(("x" * 64, int))}, f"event.{'x' * 64}", "64 bytes"),
        ({"event": event(("é" * 32, int))}, f"event.{'é' * 32}", "64 bytes"),
        ({"event": event(("tableoid", int))}, "event.tableoid", "system column"),
        ({"event": event(("ctid", str))}, "event.ctid", "system column"),
        (
            {"event": event(*((f"f{n}", str) for n in range(1_597)))},
            "event",
            "1,598 fields; a table has room for 1,597",
        ),
        ({"event": event(*((f"f{n}", int) for n in range(1_015)))}, "event", "8,168 bytes"),
        ({"event_time": 5}, "event_time", "5"),
        ({"event_time": None}, "event_time", "None"),
        ({"event": event(("at", Instant, None)), "event_time": "at"}, "event_time", "'at'"),
        (
            {"event": event(("at", Instant | msgspec.UnsetType, msgspec.UNSET)), "event_time": "at"},
            "event_time",
            "'at'",
        ),
        ({"event": Reserved}, "event.kafka_offset", "'kafka_'"),
        ({"event": Naive}, "event.ts", "Instant"),
        ({"event_time": "when"}, "event_time", "'when'"),
        ({"partition": "5 hours"}, "partition", "'5 hours'"),
        ({"partition": "5 months"}, "partition", "'5 months' does not divide years evenly"),
        ({"partition": "18 months"}, "partition", "'18 months' does not divide years evenly"),
        ({"partition": "0 months"}, "partition", "'0 months'"),
        ({"partition": "101 years"}, "partition", 'Write "100 years" or less'),
        ({"partition": "1 month", "keep": "37 days"}, "keep", '"39 days"'),
        ({"partition": "1 year", "keep": "366 days"}, "keep", '"374 days"'),
        ({"late": "any"}, "keep", 'Write "forever"'),
        ({"keep": "always"}, "keep", 'months, years or "forever"'),
        ({"late": "forever"}, "late", 'Or write "any"'),
        ({"event": Numbered, "event_time": "us"}, "event_time", "EpochMillis"),
        ({"event": event(("odd", Annotated[Instant, Zone("Europe/Berlin")]))}, "event.odd", "Zone has no effect"),
        ({"event": event(("odd", Annotated[str, Zone("Europe/Berlin")]))}, "event.odd", "Zone has no effect"),
        ({"event": event(("odd", 'Annotated[datetime, Zone("Europe/Berln")]'))}, "event", "'Europe/Berln' is not a"),
        (
            {"event": event(*((f"f{n}", str) for n in range(1_596))), "event_time": RECORD_TIMESTAMP},
            "event",
            "1,597 fields; a table has room for 1,596",
        ),
        ({"keep": "3 days"}, "keep", '"9 days"'),
        ({"late": "soon"}, "late", "'soon'"),
        ({"early": "0 days"}, "early", "'0 days'"),
        ({"keep": "1000000 days"}, "keep", 'Write "500000 days" or less'),
        ({"late": "365001 days", "keep": "400000 days"}, "late", 'Write "365000 days" or less'),
        ({"early": "999999999 days"}, "early", 'Write "365000 days" or less'),
        ({"early": "99999999999 days"}, "early", "'99999999999 days'"),
        ({"partition": "36501 days", "keep": "100000 days"}, "partition", 'Write "36500 days" or less'),
        ({"window": "366 days"}, "window", 'Write "365 days" or less'),
        ({"quiet": "366 days"}, "quiet", 'Write "365 days" or less'),
        *(
            ({field: None}, field, "None is not a duration")
            for field in ("partition", "keep", "late", "early", "window", "quiet")
        ),
        ({"keep": timedelta(days=90)}, "keep", "datetime.timedelta(days=90)"),
        ({"key": "nothing"}, "key", "'nothing'"),
        ({"key": ["text"]}, "key", "['text']"),
        ({"topic": "^foo.*"}, "topic", "To read several topics, write topics="),
        ({"topic": "two topics"}, "topic", "'two topics'"),
        ({"topic": "a,b"}, "topic", "'a,b'"),
        ({"topic": "ä"}, "topic", "'ä'"),
        ({"topic": "a\n"}, "topic", r"'a\n'"),
        ({"topic": ".."}, "topic", "'..'"),
        ({"topic": "a" * 250}, "topic", "up to 249"),
        ({"topic": 5}, "topic", "5"),
        ({"topic": ["a", "b"]}, "topic", "['a', 'b']"),
        ({"kafka_partitions": 0}, "kafka_partitions", "Write 1 to 10,000"),
        ({"kafka_partitions": 10_001}, "kafka_partitions", "10,001"),
        ({"kafka_partitions": "4"}, "kafka_partitions", "'4'"),
        ({"drains": 0}, "drains", "Write 1 to 1,000"),
        ({"drains": 1.5}, "drains", "1.5"),
        ({"drains": True}, "drains", "True"),
        ({"drains": None}, "drains", "None"),
        ({"drains": 1_001}, "drains", "1,001"),
        ({"simulate": "events"}, "simulate", "'events'"),
    ],
)
def test_an_invalid_field_is_named_with_its_value_and_a_remedy(changes: dict[str, Any], field: str, value: str) -> None:
    with raises(Code.INVALID_DEFINITION, value, kind=InvalidDefinition) as caught:
        replace(GOOD, **changes)
    assert str(caught).startswith(f"{field}: ")
    assert caught.error.remedy


def test_limits_are_accepted() -> None:
    """The largest values, and types that msgspec decodes although they look unusual."""
    accepted: list[dict[str, Any]] = [
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
    for changes in accepted:
        replace(GOOD, **changes)


def test_a_field_that_may_be_missing_is_nullable() -> None:
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


def test_every_shipped_stream_is_valid_and_decodes_its_simulation() -> None:
    found = definitions.find()
    assert not found.broken
    assert {"payments", "sensor_readings", "vehicle_positions"} <= set(found.valid)
    for stream in found.valid.values():
        assert stream.simulate is not None
        events = stream.simulate(Random(1))
        for event in (next(events) for _ in range(50)):
            assert msgspec.json.decode(msgspec.json.encode(event), type=stream.event) == event
        assert all(field.comment for field in fields_of(stream.event))


def test_a_broken_file_does_not_affect_the_others(tmp_path: Path) -> None:
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
    codes = {Path(file).stem: error.code for file, error in found.broken.items()}
    assert codes == {
        "late": Code.INVALID_DEFINITION,
        **dict.fromkeys(("syntax", "crash", "exit", "key"), Code.BROKEN_DEFINITION),
        "empty": Code.DEFINITION_MISSING,
        "twin": Code.DEFINITION_EXISTS,
    }
    errors = {Path(file).stem: str(error) for file, error in found.broken.items()}
    assert f"{tmp_path}/late.py: late: '7 dayz'" in errors["late"]
    assert "syntax.py, line 1:" in errors["syntax"]
    assert "crash.py, line 1 raised ZeroDivisionError" in errors["crash"]
    assert "exit.py, line 2 raised SystemExit: no." in errors["exit"]
    assert "key.py, line 1 raised KeyError: 'stream'." in errors["key"]
    assert "'stream'" in errors["empty"]
    assert "'good'" in errors["twin"] and "good.py" in errors["twin"]


def test_a_new_stream_works_without_changes(tmp_path: Path) -> None:
    new.write("door_openings", tmp_path)
    stream = definitions.find(tmp_path).valid["door_openings"]
    assert stream.event.__name__ == "DoorOpenings"
    assert stream.simulate is not None
    assert next(stream.simulate(Random(1))).ts.tzinfo is not None


@pytest.mark.parametrize("name", ["instant", "stream", "meta", "true", "class", "events"])
def test_a_new_stream_may_have_the_name_of_an_import(tmp_path: Path, name: str) -> None:
    new.write(name, tmp_path)
    found = definitions.find(tmp_path)
    assert (list(found.valid), found.broken) == ([name], {})


@pytest.mark.parametrize("name", ["Doors", "doors_20261125", "2doors", "../doors", "definition", "profiling", ""])
def test_a_new_stream_needs_a_valid_name_that_is_not_taken(name: str) -> None:
    with raises(Code.DEFINITION_EXISTS if name in ("definition", "profiling") else Code.INVALID_NAME, repr(name)):
        new.write(name)
