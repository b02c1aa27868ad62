"""Unusual events: each lands so that clients can read it and ``verify`` proves it, or is kept with its reason."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID, uuid4

import msgspec
import pytest

from include.error_codes import Code
from include.kafka import topics
from include.landing import proof, retry, status
from include.landing import replay as replays
from include.landing.choice import Choice
from include.landing.decoder import MAX_DEPTH
from include.landing.drain import Drained, drain
from include.streams import produce
from include.streams.definition import Instant, Stream
from tests.errors import raises
from tests.integration.landing import event, kept_aside, one_disposition_each, rows, send, stream

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

__all__ = ["stream"]

DISPOSITIONS = ("landed", "dead_letters", "quarantined")
NOW = datetime.now(UTC).replace(microsecond=0)


def dispositions(connection: Connection) -> list[tuple[Any, ...]]:
    """The disposition of every record, with its reason. It also reads every row as a client does."""
    rows(connection, "SELECT * FROM landing.readings")
    rows(connection, "SELECT * FROM millrace.dead_letter")
    return rows(
        connection,
        "SELECT kafka_partition, kafka_offset, 'landed', '', '' FROM landing.readings UNION ALL "
        "SELECT kafka_partition, kafka_offset, disposition, reason, coalesce(sqlstate, '') FROM millrace.dead_letter "
        "ORDER BY 1, 2",
    )


def settle(connection: Connection, stream: Stream, values: Iterable[bytes | None] = ()) -> Drained:
    """Sends and lands values. Clients can read them, ``verify`` proves them, a replay and a retry change nothing."""
    send(stream, values)
    drained = drain(stream, "test")
    while status.of(stream, connection).lag:
        # On a busy machine the first event can take longer than the quiet time.
        again = drain(stream, "test")
        drained = Drained(
            *(getattr(drained, disposition) + getattr(again, disposition) for disposition in DISPOSITIONS)
        )
    found = dispositions(connection)
    assert proof.prove(connection, stream).wrong == []
    replays.replay(connection, stream, replays.Wanted(), "test")
    assert dispositions(connection) == found
    assert retry.retry(connection, stream)[0] == 0
    assert proof.prove(connection, stream).wrong == []
    one_disposition_each(connection, stream)
    return drained


class Timed(msgspec.Struct):
    """An event with times of every type."""

    ts: Instant
    text: str = ""
    at: Instant | None = None
    day: date | None = None
    many: list[Instant] = []
    lasts: timedelta | None = None
    extra: Any = None


UNREADABLE = [
    *("0001-01-01T00:00:00+05:30", "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-05:00"),
    # Readable in UTC, but not in every time zone.
    *("0001-01-01T00:00:00Z", "0001-01-01T15:59:59Z", "9999-12-31T23:59:59Z", "9999-12-31T08:00:00Z"),
]


def test_a_time_that_clients_cannot_read_is_a_dead_letter(stream: Stream, warehouse: Connection) -> None:
    stream = replace(stream, event=Timed)
    ends = ["0001-01-01T16:00:00Z", "9999-12-31T07:59:59.999999Z"]
    good = [
        *(event(at=text) for text in ends),
        event(day="0001-01-01", lasts="-P999999999D"),
        event(day="9999-12-31", lasts="PT0.000001S"),
        event(extra={"at": UNREADABLE}),
        event(many=UNREADABLE),
    ]
    drained = settle(warehouse, stream, [*good, *(event(at=text) for text in UNREADABLE)])
    assert (drained.landed, drained.dead_letters, drained.quarantined) == (len(good), len(UNREADABLE), 0)
    for zone in ("<-15:59>+15:59", "America/New_York", "<+15:59>-15:59"):
        with warehouse.cursor() as cursor:
            cursor.execute("SET LOCAL timezone = %s", (zone,))
            cursor.execute(f"SELECT * FROM landing.{stream.name}")
            assert len(cursor.fetchall()) == len(good)
        warehouse.rollback()
    for _, reason in kept_aside(warehouse).values():
        assert (
            reason == "at: the time is outside of the years 1 to 9999 in some time zone, so clients could not read it"
        )


def test_an_event_time_that_clients_cannot_read_is_quarantined(stream: Stream, warehouse: Connection) -> None:
    drained = settle(warehouse, stream, [event(ts=datetime.fromisoformat(text)) for text in UNREADABLE])
    assert (drained.landed, drained.quarantined) == (0, len(UNREADABLE))
    assert rows(warehouse, "SELECT DISTINCT event_time FROM millrace.dead_letter") == [(None,)]


MILLISECONDS = int(NOW.timestamp() * 1000)


@pytest.fixture
def timed_by_producers(stream: Stream, topic: Callable[..., str]) -> Stream:
    """A stream whose topic accepts any timestamp of its producers."""
    name = topic("readings")
    config = {
        "message.timestamp.type": "CreateTime",
        "message.timestamp.after.max.ms": str(2**63 - 1),
        "retention.ms": "-1",
    }
    topics.create(name, partitions=1, config=config)
    return replace(stream, topic=name)


@pytest.mark.parametrize(
    ("stamp", "reason"),
    [
        (MILLISECONDS * 1_000, "its producer may count in another unit"),
        (MILLISECONDS * 1_000_000, "its producer may count in another unit"),
        (2**63 - 1, "its producer may count in another unit"),
        (253_402_300_800_000, "is outside of the years 1 to 9999"),
        (-1, "has no timestamp in Kafka"),
        (1, "newer than the record; early='1 hour'"),
        (253_402_200_000_000, "older than the record; late='7 days'"),
    ],
    ids=["microseconds", "nanoseconds", "the last", "the year 10000", "none", "1970", "the year 9999"],
)
def test_a_record_with_an_invalid_timestamp_is_quarantined(
    timed_by_producers: Stream, warehouse: Connection, stamp: int, reason: str
) -> None:
    stream = timed_by_producers
    send(stream, [event("waits")], timestamp=stamp)
    assert status.of(stream, warehouse).lag == 1
    send(stream, [event("good")], timestamp=MILLISECONDS)
    drained = settle(warehouse, stream)
    assert (drained.landed, drained.quarantined) == (1, 1)
    assert reason in kept_aside(warehouse)[0][1]


def test_many_records_with_invalid_timestamps_stop_the_stream(
    timed_by_producers: Stream, warehouse: Connection
) -> None:
    from include.landing import recovery
    from include.landing.recovery import AllRecordsRejected

    stream = timed_by_producers
    send(stream, [event()] * 150, timestamp=MILLISECONDS * 1_000)
    with raises(Code.ALL_RECORDS_REJECTED, "may count in another unit", "accept readings bad", kind=AllRecordsRejected):
        drain(stream, "test")
    recovery.accept(warehouse, stream, Choice.BAD, "somebody")
    assert settle(warehouse, stream).quarantined == 150


@pytest.mark.parametrize("moment", ["0001-01-01T20:00:00+00:00", "9999-12-31T06:00:00+00:00"])
def test_an_event_at_the_end_of_the_calendar_is_quarantined(
    timed_by_producers: Stream, warehouse: Connection, moment: str
) -> None:
    """Its record has the same timestamp, but the calendar has no whole partition of seven days there."""
    stream = replace(timed_by_producers, partition="7 days")
    at = datetime.fromisoformat(moment)
    stamp = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    send(stream, [event("end", at)], timestamp=stamp)
    send(stream, [event("good")], timestamp=MILLISECONDS)
    drained = settle(warehouse, stream)
    assert (drained.landed, drained.quarantined) == (1, 1)
    assert "too close to the calendar's end for a partition of 7 days" in kept_aside(warehouse)[0][1]


class Lookup(BaseException):
    """An error that is not an Exception, and whose message raises another one."""

    def __str__(self) -> str:
        raise ValueError("no message")


def endlessly() -> None:
    endlessly()


class Hooked(msgspec.Struct):
    """An event whose record chooses what the definition's own code does."""

    ts: Instant | None
    text: str = ""
    number: int | None = 0
    side: Literal["left", "right"] = "left"
    extra: Any = None
    does: str = ""

    def __post_init__(self) -> None:
        raised = {
            "key": KeyError("missing"),
            "type": TypeError("wrong type"),
            "value": ValueError("wrong value"),
            "assert": AssertionError("not so"),
            "attribute": AttributeError("no such"),
            "stop": StopIteration("enough"),
            "exit": SystemExit(3),
            "generator": GeneratorExit(),
            "lookup": Lookup(),
            "empty": Exception(),
        }
        if self.does in raised:
            raise raised[self.does]
        if self.does == "divide":
            self.number = 1 // 0
        elif self.does == "endlessly":
            endlessly()
        elif self.does == "memory":
            self.extra = bytes(10**17)
        elif self.does == "no time":
            self.ts = None
        elif self.does == "naive time":
            self.ts = datetime(2026, 1, 1)
        elif self.does == "text as time":
            self.ts = "2026-01-01T00:00:00Z"  # type: ignore[assignment]
        elif self.does == "text as number":
            self.number = "seven"  # type: ignore[assignment]
        elif self.does == "object":
            self.extra = object()
        elif self.does == "circle":
            self.extra = [self.extra]
            self.extra.append(self.extra)
        elif self.does == "surrogate":
            self.text = "\ud800"


class HookedEvent(Hooked):
    ts: Instant


RAISED = {
    "key": "KeyError: 'missing'",
    "type": "ValidationError: wrong type",
    "value": "ValidationError: wrong value",
    "assert": "AssertionError: not so",
    "attribute": "AttributeError: no such",
    "stop": "StopIteration",
    "exit": "SystemExit: 3",
    "generator": "GeneratorExit",
    "lookup": "Lookup: ",
    "empty": "Exception",
    "divide": "ZeroDivisionError: ",
    "endlessly": "RecursionError: ",
    "memory": "MemoryError",
    "no time": "ts: ",
    "naive time": "ts: ",
    "text as time": "ts: ",
    "text as number": "number: ",
    "object": "extra: ",
    "circle": "extra: ",
    "surrogate": "text: ",
}


def test_any_error_of_a_definitions_code_is_a_dead_letter(stream: Stream, warehouse: Connection) -> None:
    stream = replace(stream, event=HookedEvent)
    good = [event(f"good {number}") for number in range(len(RAISED) + 1)]
    bad = [event(does=does) for does in RAISED]
    values = [value for pair in zip(good, bad, strict=False) for value in pair]
    drained = settle(warehouse, stream, [*values, good[-1]])
    assert (drained.landed, drained.dead_letters) == (len(good), len(bad))
    for (_, reason), expected in zip(kept_aside(warehouse).values(), RAISED.values(), strict=True):
        assert reason.startswith(expected)
    found = rows(warehouse, "SELECT text FROM landing.readings ORDER BY kafka_offset")
    assert [text for (text,) in found] == [f"good {number}" for number in range(len(good))]


def nested(levels: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    """A record whose JSON is nested to a depth."""
    return event(extra="@").replace(b'"@"', opening * (levels - 1) + b"1" + closing * (levels - 1))


def test_nesting_has_one_declared_limit(stream: Stream, warehouse: Connection) -> None:
    """Drain, replay, retry and ``verify`` agree, at any depth of the call stack."""
    good = [
        nested(MAX_DEPTH),
        nested(MAX_DEPTH, b'{"a":', b"}"),
        event("[" * 5_000, extra=['"' + "{" * 5_000, "\\" * 3 + '"[' * 600]),
        event(extra=[[[]]] * 2_000),
    ]
    unknown = event(unknown="@").replace(b'"@"', b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    bad = [
        nested(MAX_DEPTH + 1),
        nested(MAX_DEPTH + 1, b'{"a":', b"}"),
        nested(960),
        nested(994),
        nested(100_000),
        unknown,
    ]
    drained = settle(warehouse, stream, [*good, *bad])
    assert (drained.landed, drained.dead_letters) == (len(good), len(bad))
    assert {reason for _, reason in kept_aside(warehouse).values()} == {
        f"ValidationError: nested deeper than {MAX_DEPTH} levels"
    }

    def prove(calls: int) -> list[str]:
        return prove(calls - 1) if calls else proof.prove(warehouse, stream).wrong

    assert prove(300) == []


class Exact(msgspec.Struct):
    """An event with exact JSON and numbers."""

    ts: Instant
    text: str = ""
    raw: msgspec.Raw = msgspec.Raw(b"0")
    raws: list[msgspec.Raw] = []
    extra: Any = None
    amount: Decimal | None = None
    either: int | float | None = None
    many: set[str] = set()
    few: frozenset[int] | None = None


def exactly(field: str, text: str) -> bytes:
    """A record with a field given as JSON text."""
    return msgspec.json.encode({"ts": NOW, field: "@"}).replace(b'"@"', text.encode())


def test_numbers_are_compared_as_postgresql_stores_them(stream: Stream, warehouse: Connection) -> None:
    stream = replace(stream, event=Exact)
    numbers = ["1e400", "-1E+400", "1e-400", "0.1000", "-0", "-0.0", "1e4299", "9" * 4_300, "123456789012345678901.5"]
    good = [
        *(
            exactly("raw", text)
            for text in [*numbers, '"1e9999"', '"\\"1e9999"', "null", '{"a":1,"a":1e400}', "[1e400 ]"]
        ),
        *(exactly("raws", f"[{text}]") for text in numbers),
        *(
            exactly("extra", text)
            for text in ("1e300", "1.7976931348623157e308", "5e-324", "-0.0", "9" * 300, "[1, true]")
        ),
        *(
            exactly("amount", text)
            for text in ('"NaN"', '"sNaN"', '"-NaN123"', '"Infinity"', '"-Infinity"', "0.10", '"1E-16383"')
        ),
        *(exactly("either", text) for text in ("1", "1.5", "9007199254740992", "1e308")),
        exactly("many", json.dumps([f"member {number}" for number in range(50)])),
        exactly("few", "[3, 1, 2]"),
    ]
    bad = [
        *(exactly("raw", text) for text in ("1e4300", "9" * 4_301, "1e99999", "1e99999999999999999999", '"\\u0000"')),
        *(exactly("raw", text) for text in ('"\\ud800"', "1e-20000")),
        exactly("raws", "[0, [1e5000]]"),
        exactly("amount", '"1E-16384"'),
        exactly("either", "9007199254740993"),
    ]
    drained = settle(warehouse, stream, [*good, *bad])
    aside = kept_aside(warehouse)
    assert (drained.landed, drained.dead_letters) == (len(good), len(bad)), aside
    assert aside[len(good)][1] == "raw: a number has more than 4,300 digits, and clients could not read it"


def test_a_row_with_different_json_is_found(stream: Stream, warehouse: Connection) -> None:
    stream = replace(stream, event=Exact)
    settle(warehouse, stream, [exactly("extra", text) for text in ("1", "[1]", '{"a":1e300}', '"1"')])
    for offset, other in enumerate(("true", "[1.0000000001]", '{"a":1e301}', "1")):
        with warehouse.cursor() as cursor:
            cursor.execute("UPDATE landing.readings SET extra = %s WHERE kafka_offset = %s", (other, offset))
        warehouse.commit()
        (wrong,) = proof.prove(warehouse, stream).wrong
        assert "rows that differ from their records" in wrong
        assert wrong.endswith(", ".join(map(str, range(offset + 1))))


Wide = msgspec.defstruct("Wide", [("ts", Instant), *((f"n{number}", int | None, None) for number in range(1_030))])


def test_a_row_too_large_for_a_page_is_a_dead_letter(stream: Stream, warehouse: Connection) -> None:
    """1,030 numbers take 8,240 bytes. PostgreSQL's error names a later row than the refused one."""
    stream = replace(stream, event=Wide)
    too_large = msgspec.json.encode({"ts": NOW} | {f"n{number}": number for number in range(1_030)})
    bad = [0, 3, 40, 79]
    drained = settle(warehouse, stream, [too_large if number in bad else event(n1=number) for number in range(80)])
    assert (drained.landed, drained.dead_letters) == (76, 4)
    found = rows(warehouse, "SELECT kafka_offset, sqlstate, reason FROM millrace.dead_letter ORDER BY 1")
    assert [row[:2] for row in found] == [(number, "54000") for number in bad]
    assert "row is too big" in found[0][2]


GOOD_TIMES = [
    "{day}T10:00Z",
    "{day}T10:00+01:00",
    "{day}T10:00:00+00",
    "{day}T10:00-03",
    "{day}T10:00+0100",
    "{day}T10Z",
    "{day} 10:00Z",
    "{day}t10:00z",
    "{day}T10:00:00,5Z",
    "{day}T10:00:00,123456789+00",
    "{basic}T100000Z",
    "{basic}T1000+0100",
    "{basic}T100000.25Z",
]
BAD_TIMES = [
    "{day}",
    "{day}T10:00",
    "{day}T24:00Z",
    "{day}T10:60Z",
    "{day}T10:00:60Z",
    "{day}T1000Z",
    "{basic}T10:00Z",
    "{day}T10:00+24",
    "{day}T10:00+01:00:30",
    "{day}T10:00Z ",
    "{day}T10:00 Z",
    "{day}T10:00.5Z",
    "{day}_10:00Z",
    "{day}T\u0661\u0660:00Z",
    "",
    "now",
]


def test_times_of_iso_8601_land_as_their_moment(stream: Stream, warehouse: Connection) -> None:
    stream = replace(stream, event=Timed)
    day, basic = f"{NOW - timedelta(days=1):%Y-%m-%d}", f"{NOW - timedelta(days=1):%Y%m%d}"
    good = [text.format(day=day, basic=basic) for text in GOOD_TIMES]
    bad = [text.format(day=day, basic=basic) for text in BAD_TIMES]
    sent = [event(text=text, at=text, many=[text], extra=[text]) for text in good]
    sent += [json.dumps({"text": text, "ts": text}).encode() for text in good]
    drained = settle(warehouse, stream, [*sent, *(event(at=text) for text in bad)])
    assert (drained.landed, drained.dead_letters) == (2 * len(good), len(bad)), kept_aside(warehouse)
    found = rows(warehouse, "SELECT text, coalesce(at, ts), many, extra FROM landing.readings ORDER BY kafka_offset")
    for text, at, many, extra in found:
        expected = datetime.fromisoformat(text.replace("t", "T").replace("z", "Z"))
        assert abs(at - expected) <= timedelta(microseconds=1), text
        assert [datetime.fromisoformat(each) for each in many] in ([at], [])
        assert extra in ([text], None)
    assert {reason for _, reason in kept_aside(warehouse).values()} >= {
        "ValidationError: Invalid RFC3339 encoded datetime - at `$.at`"
    }


class Unset(msgspec.Struct):
    ts: Instant
    text: str | msgspec.UnsetType = msgspec.UNSET
    number: int | msgspec.UnsetType | None = msgspec.UNSET
    side: Literal["left", None] = "left"
    sloppy: int = None  # type: ignore[assignment]
    anything: object = None


def test_unset_and_none_land_as_null(stream: Stream, warehouse: Connection) -> None:
    stream = replace(stream, event=Unset)
    moment = NOW.isoformat()
    values = [{"ts": moment}, {"ts": moment, "text": "x", "number": None, "side": None, "sloppy": 1, "anything": [1]}]
    assert settle(warehouse, stream, [json.dumps(value).encode() for value in values]).landed == 2
    found = rows(warehouse, "SELECT text, number, side, sloppy, anything FROM landing.readings ORDER BY kafka_offset")
    assert found == [(None, None, "left", None, None), ("x", None, None, 1, [1])]


def test_rows_that_are_older_than_the_limits_can_be_proven(stream: Stream, warehouse: Connection) -> None:
    """Such as a time of the year 1 BC, which an earlier release landed."""
    stream = replace(stream, event=Timed)
    settle(warehouse, stream, [event(at="0001-01-02T00:00:00Z")])
    with warehouse.cursor() as cursor:
        cursor.execute("UPDATE landing.readings SET at = '0001-12-31 18:30:00+00 BC'")
    warehouse.commit()
    assert "rows that differ" in proof.prove(warehouse, stream).wrong[0]


class Stamped(msgspec.Struct):
    ts: Instant
    text: str = ""
    received: Instant = msgspec.field(default_factory=lambda: datetime.now(UTC))
    id: UUID = msgspec.field(default_factory=uuid4)
    ids: list[UUID] = msgspec.field(default_factory=lambda: [uuid4()])


def test_random_and_current_values_are_not_compared(stream: Stream, warehouse: Connection) -> None:
    stream = replace(stream, event=Stamped)
    settle(warehouse, stream, [event(), event("other", received=NOW, id=UUID(int=1))])
    with warehouse.cursor() as cursor:
        cursor.execute("UPDATE landing.readings SET received = now(), id = gen_random_uuid()")
    warehouse.commit()
    (wrong,) = proof.prove(warehouse, stream).wrong
    assert wrong.endswith("rows that differ from their records: 1")


def broken(random: Random) -> Iterator[Any]:
    yield Timed(NOW)
    yield {"event": 1}["events"]


def ending(random: Random) -> Iterator[Any]:
    yield Timed(NOW)


def unlike(random: Random) -> Iterator[Any]:
    yield {"ts": NOW}


def unencodable(random: Random) -> Iterator[Any]:
    yield Timed(NOW, extra=object())


@pytest.mark.parametrize(
    ("simulate", "reason"),
    [
        (broken, "raised KeyError: 'events' ("),
        (ending, "ended"),
        (unlike, "raised AttributeError: 'dict' object has no attribute 'text'"),
        (unencodable, "raised TypeError: Encoding objects of type object is unsupported"),
        (dict, "raised TypeError: 'Random' object is not iterable"),
        (lambda random: None, "raised TypeError: 'NoneType' object is not iterable"),
        (lambda: None, "takes 0 positional arguments"),
    ],
)
def test_any_error_of_a_simulation_is_reported(stream: Stream, simulate: Any, reason: str) -> None:
    stream = replace(stream, event=Timed, key="text", simulate=simulate)
    with raises(Code.SIMULATION_FAILED, "readings", reason) as caught:
        produce.produce(stream, events=5)
    assert simulate is not broken or "test_landing_events.py, line " in str(caught)
