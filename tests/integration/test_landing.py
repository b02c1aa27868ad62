"""Landing on a real broker and server: every record once, in the table or kept aside with its reason."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import pytest

from include.airflow.backlog import BacklogTrigger
from include.errors import NonRetryableError, UserError
from include.kafka import client, position, topics
from include.kafka.position_errors import Fenced, OffsetsGone, TopicMissing, TopicRecreated
from include.landing import incarnation, maintenance, partitions, recovery, retry, status, table
from include.landing.batch import Preparer
from include.landing.drain import Drain, Drained, drain
from include.landing.recovery import AllRecordsRejected
from include.streams import produce
from include.streams.definition import Instant, Stream
from include.warehouse.connection import connect

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

NOW = datetime.now(UTC).replace(microsecond=123456)
ROOT = Path(__file__).resolve().parents[2]


class Reading(msgspec.Struct):
    """A reading of a test."""

    ts: Instant
    text: str
    number: int = 0
    real: float | None = None
    extra: Any = None
    amount: Annotated[Decimal | None, msgspec.Meta(description="How much")] = None


@pytest.fixture
def stream(warehouse: Connection, topic: Callable[..., str]) -> Stream:
    """A stream whose topic is empty and whose table does not exist yet."""
    name = topic("readings")
    stream = Stream(
        name="readings",
        topic=name,
        event=Reading,
        event_time="ts",
        quiet="1 second",
        window="1 minute",
        kafka_partitions=3,
    )
    produce.make_topic(stream)
    return stream


def send(stream: Stream, values: Iterable[bytes | None], partition: int = 0, **options: Any) -> None:
    """Sends values to a partition, in order."""
    producer = client.producer()
    for value in values:
        producer.produce(stream.topic, value, partition=partition, **options)
        producer.poll(0)
    assert producer.flush(20) == 0


def event(text: str = "x", ts: datetime = NOW, **fields: Any) -> bytes:
    return msgspec.json.encode({"ts": ts, "text": text, **fields})


def rows(connection: Connection, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """What a query finds; in a transaction of its own."""
    with connection.cursor() as cursor:
        cursor.execute(query, parameters)
        found = cursor.fetchall()
    connection.rollback()
    return found


def patient(stream: Stream) -> Stream:
    """The stream for a drain that ends otherwise than by its topic's being quiet, which a busy machine soon is."""
    return replace(stream, quiet="30 seconds")


def landed(connection: Connection) -> list[tuple[Any, ...]]:
    return rows(connection, "SELECT kafka_partition, kafka_offset, text FROM landing.readings ORDER BY 1, 2")


def kept_aside(connection: Connection) -> dict[int, tuple[str, str]]:
    found = rows(connection, "SELECT kafka_offset, disposition, reason FROM millrace.dead_letter ORDER BY 1")
    return {offset: (disposition, reason) for offset, disposition, reason in found}


def one_fate_each(connection: Connection, stream: Stream) -> None:
    """The promise: below the position every offset has one disposition, and the ledger says the same."""
    ends = {
        p: s.position.next_offset for p, s in position.read_positions(connection, stream.reader, stream.topic).items()
    }
    fates = rows(
        connection,
        "SELECT kafka_incarnation, kafka_partition, kafka_offset FROM landing.readings UNION ALL "
        "SELECT kafka_incarnation, kafka_partition, kafka_offset FROM millrace.dead_letter",
    )
    assert len(fates) == len(set(fates)), "a record has two fates"
    assert all(offset < ends[partition] for _, partition, offset in fates)
    ledger = rows(
        connection,
        "SELECT kafka_partition, first_offset, next_offset, landed + dead_letters + quarantined, skipped + no_records "
        "FROM millrace.landing_ledger WHERE stream = %s ORDER BY 1, 2",
        stream.name,
    )
    reached = dict.fromkeys(ends, 0)
    for partition, first, next_offset, _, _ in ledger:
        assert first == reached[partition], "the ledger has a gap or an overlap"
        reached[partition] = next_offset
    assert reached == ends
    assert sum(entry[3] for entry in ledger) == len(fates)


HAZARDS = [
    "",
    "\\N",
    "\\",
    "a\tb\nc\rd\\t",
    "NULL",
    "null",
    '"quoted", comma',
    "é😀\u2028\u00a0",
    "\x01\x7f\x1f",
    "x" * 300_000,
    "\\.",
    "'; DROP TABLE landing.readings; --",
]


def test_texts_come_through_as_they_are(stream: Stream, warehouse: Connection) -> None:
    send(stream, [event(text, extra={"deep": [text, None]}) for text in HAZARDS])
    assert drain(stream, "test").landed == len(HAZARDS)
    found = rows(warehouse, "SELECT text, extra FROM landing.readings ORDER BY kafka_offset")
    assert found == [(text, {"deep": [text, None]}) for text in HAZARDS]
    one_fate_each(warehouse, stream)


def test_numbers_times_and_nulls_come_through_as_they_are(stream: Stream, warehouse: Connection) -> None:
    odd = NOW.astimezone().replace(tzinfo=UTC)
    send(
        stream,
        [
            event(number=2**63 - 1, real=-0.0, amount="12345678901234567890.0001", extra=""),
            event(number=-(2**63), real=5e-324, amount="-0.000000000100", extra=None),
            event(real=None, amount="1E+20", extra={}, ts=odd + timedelta(microseconds=1)),
            event(real=1.7976931348623157e308, amount="NaN"),
        ],
    )
    drain(stream, "test")
    found = rows(
        warehouse, "SELECT number, real, amount::text, extra::text, ts FROM landing.readings ORDER BY kafka_offset"
    )
    assert [row[:4] for row in found] == [
        (2**63 - 1, -0.0, "12345678901234567890.0001", '""'),
        (-(2**63), 5e-324, "-0.000000000100", None),
        (0, None, "100000000000000000000", "{}"),
        (0, 1.7976931348623157e308, "NaN", None),
    ]
    assert found[0][4] == NOW
    assert found[2][4] == odd + timedelta(microseconds=1)


BAD = {
    b"": "truncated",
    b"not json": "malformed",
    b'{"ts": "2026-01-01T00:00:00Z"}': "missing required field `text`",
    event().replace(b'"x"', b'"\xff\xfe"'): "utf-8",
    event().replace(b'"x"', b"7"): "Expected `str`, got `int`",
    event().replace(b"Z", b"").replace(b"+00:00", b""): "timezone component",
    event(real=1).replace(b'"real":1', b'"real":NaN'): "malformed",
    event(real=1).replace(b'"real":1', b'"real":1e999'): "out of range",
    event(number=2**63): "number: ",
    event("nul \0 here"): "text: PostgreSQL's texts cannot hold a NUL character",
    event(extra={"deep": "nul \0"}): "extra: PostgreSQL's jsonb cannot hold a NUL character",
    b"[" * 5000: "Error",
    event(amount="1E+200000"): "amount: ",
}


@pytest.mark.parametrize("place", ["first", "middle", "last", "alone"])
def test_a_bad_record_is_kept_and_the_others_land(stream: Stream, warehouse: Connection, place: str) -> None:
    good = [event(f"good-{number}") for number in range(4)]
    before = {"first": 0, "middle": 2, "last": 4, "alone": 0}[place]
    after = [] if place == "alone" else good[before:]
    send(stream, [*good[:before], *BAD, *after])
    drained = drain(stream, "test")
    assert (drained.landed, drained.dead_letters) == (before + len(after), len(BAD))
    letters = rows(warehouse, "SELECT value, reason, key, headers FROM millrace.dead_letter ORDER BY kafka_offset")
    for (value, reason, _, _), (bad, says) in zip(letters, BAD.items(), strict=True):
        assert bytes(value) == bad
        assert says in reason
    assert [text for _, _, text in landed(warehouse)] == [f"good-{number}" for number in range(before + len(after))]
    one_fate_each(warehouse, stream)


def test_a_dead_letter_keeps_key_headers_and_time(stream: Stream, warehouse: Connection) -> None:
    send(stream, [b"bad"], partition=2, key=b"\0key", headers=[("trace", b"\xff"), ("empty", None), ("nul\0", b"")])
    drain(stream, "test")
    ((partition, offset, disposition, key, headers, appended, stated),) = rows(
        warehouse,
        "SELECT kafka_partition, kafka_offset, disposition, key, headers, appended_at, sqlstate "
        "FROM millrace.dead_letter",
    )
    assert (partition, offset, disposition, bytes(key), stated) == (2, 0, "dead letter", b"\0key", None)
    assert headers[:2] == [["trace", "/w=="], ["empty", None]]
    assert abs(appended - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_tombstone_is_skipped_and_counted(stream: Stream, warehouse: Connection) -> None:
    send(stream, [event("a"), None, event("b")])
    assert drain(stream, "test").landed == 2
    assert rows(warehouse, "SELECT skipped FROM millrace.landing_ledger WHERE skipped > 0") == [(1,)]
    assert not kept_aside(warehouse)
    one_fate_each(warehouse, stream)


def test_what_is_too_late_or_too_early_is_quarantined(stream: Stream, warehouse: Connection) -> None:
    stream = replace(stream, late="2 days", early="1 hour")
    now, minute = datetime.now(UTC), timedelta(minutes=1)
    shifts = [
        -timedelta(days=2) - minute,
        -timedelta(days=2) + minute,
        timedelta(0),
        timedelta(hours=1) - minute,
        timedelta(hours=1) + minute,
        timedelta(days=365 * 30),
        -timedelta(days=365 * 30),
    ]
    send(stream, [event(str(number), now + shift) for number, shift in enumerate(shifts)])
    drained = drain(stream, "test")
    assert (drained.landed, drained.quarantined) == (3, 4)
    assert [offset for _, offset, _ in landed(warehouse)] == [1, 2, 3]
    aside = kept_aside(warehouse)
    assert {disposition for disposition, _ in aside.values()} == {"quarantined"}
    assert "older than the record; late='2 days'" in aside[0][1]
    assert "newer than the record; early='1 hour'" in aside[5][1]
    assert len(partitions.listed(warehouse, "readings")) <= 4, "a far date makes no partition"
    one_fate_each(warehouse, stream)


def test_partitions_are_half_open_utc(stream: Stream, warehouse: Connection) -> None:
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    tick = timedelta(microseconds=1)
    send(stream, [event("before", midnight - tick), event("at", midnight), event("after", midnight + tick)])
    drain(stream, "test")
    found = rows(warehouse, "SELECT tableoid::regclass::text, text FROM landing.readings ORDER BY kafka_offset")
    yesterday = f"landing.readings_{midnight - timedelta(days=1):%Y%m%d}"
    today = f"landing.readings_{midnight:%Y%m%d}"
    assert found == [(yesterday, "before"), (today, "at"), (today, "after")]


def test_markers_and_aborted_records_move_the_position(stream: Stream, warehouse: Connection) -> None:
    producer = client.producer(transactional_id=stream.topic)
    producer.init_transactions(20)

    def transact(*values: bytes, commit: bool) -> None:
        producer.begin_transaction()
        for value in values:
            producer.produce(stream.topic, value, partition=0)
        producer.flush(20)
        (producer.commit_transaction if commit else producer.abort_transaction)(20)

    transact(event("a"), event("b"), commit=True)
    transact(event("never"), commit=False)
    assert drain(stream, "test").landed == 2
    assert drain(stream, "test").batches == 0, "nothing is read twice"
    transact(event("never"), event("never"), commit=False)
    drained = drain(stream, "test")
    assert (drained.landed, drained.batches) == (0, 1), "a drain that meets only markers still moves the position"
    stored = position.read_positions(warehouse, stream.reader, stream.topic)[0]
    assert stored.position.next_offset == topics.extents(stream.topic, [0])[0].end == 8
    assert sum(count for (count,) in rows(warehouse, "SELECT no_records FROM millrace.landing_ledger")) == 6
    one_fate_each(warehouse, stream)


def test_an_open_transaction_holds_back_what_follows_and_shows(stream: Stream, warehouse: Connection) -> None:
    producer = client.producer(transactional_id=stream.topic)
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(stream.topic, event("open"), partition=0)
    producer.flush(20)
    send(stream, [event("behind")])
    assert drain(stream, "test").landed == 0
    stored = status.of(stream, warehouse)
    assert stored.lag == 0
    assert stored.blocked_since is not None
    assert abs(stored.blocked_since - datetime.now(UTC)) < timedelta(minutes=1)
    producer.commit_transaction(20)
    assert drain(stream, "test").landed == 2
    assert status.of(stream, warehouse).blocked_since is None
    one_fate_each(warehouse, stream)


def test_status_tells_lag_and_age_of_what_waits(stream: Stream, warehouse: Connection) -> None:
    assert (status.of(stream, warehouse).lag, status.of(stream, warehouse).behind_s) == (0, 0.0)
    send(stream, [event()] * 5, partition=1)
    time.sleep(1)
    waiting = status.of(stream, warehouse)
    assert waiting.lag == 5
    assert 1 <= waiting.behind_s < 60
    drain(stream, "test")
    done = status.of(stream, warehouse)
    assert (done.lag, done.behind_s, done.landed, done.newest_event) == (0, 0.0, 5, NOW)


def test_a_zombie_writes_nothing(stream: Stream, warehouse: Connection) -> None:
    send(stream, [event(str(number)) for number in range(10)])
    topic = topics.describe(stream.topic)
    with closing(connect("zombie")) as other:
        table.bring_up_to_date(other, stream)
        old = position.claim(other, stream.reader, topic, topic.partitions, "zombie")
        zombie = Drain(stream, topic, other, old, client.admin(), client.consumer())
        assert drain(stream, "successor").landed == 10
        with pytest.raises(Fenced):
            zombie.run(time.monotonic() + 10)
    assert len(landed(warehouse)) == 10
    one_fate_each(warehouse, stream)


def test_drains_share_the_partitions(stream: Stream, warehouse: Connection) -> None:
    stream = replace(stream, drains=2)
    for partition in range(3):
        send(stream, [event()] * (partition + 1), partition=partition)
    assert [drain(stream, "test", share).landed for share in (0, 1)] == [1 + 3, 2]
    one_fate_each(warehouse, stream)


def test_new_partitions_of_the_topic_begin_at_0(stream: Stream, warehouse: Connection) -> None:
    from confluent_kafka.admin import NewPartitions

    send(stream, [event("old")])
    drain(stream, "test")
    brokers = client.admin()
    brokers.create_partitions([NewPartitions(stream.topic, 4)])[stream.topic].result()
    send(stream, [event("new")], partition=3)
    assert drain(stream, "test").landed == 1
    one_fate_each(warehouse, stream)


def test_a_recreated_topic_is_a_named_stop(stream: Stream, warehouse: Connection) -> None:
    send(stream, [event()])
    drain(stream, "test")
    recreate(stream)
    send(stream, [event()])
    with pytest.raises(TopicRecreated):
        drain(stream, "test")
    assert len(landed(warehouse)) == 1
    assert incarnation.number(warehouse, topics.describe(stream.topic)) == 2


class Grown(Reading):
    """A reading of a test, with more."""

    more: Annotated[str | None, msgspec.Meta(description="More of it")] = None


class Shrunk(msgspec.Struct):
    ts: Instant
    number: int = 0


class Retyped(msgspec.Struct):
    ts: Instant
    text: int


class Demanding(Reading):
    must: int = 0


def test_a_table_follows_its_definition(stream: Stream, warehouse: Connection) -> None:
    send(stream, [event("before")])
    drain(stream, "test")
    grown = replace(stream, event=Grown)
    assert [change.says for change in table.changes(warehouse, grown)] == ["add the column landing.readings.more, text"]
    send(stream, [event("after", more="much")])
    drain(grown, "test")
    assert not table.changes(warehouse, grown)
    shrunk = replace(stream, event=Shrunk)
    assert [change.says for change in table.changes(warehouse, shrunk)] == ["let landing.readings.text be null"]
    send(stream, [event("unread", number=7)])
    drain(shrunk, "test")
    found = rows(warehouse, "SELECT text, more, number FROM landing.readings ORDER BY kafka_offset")
    assert found == [("before", None, 0), ("after", "much", 0), (None, None, 7)]
    comments = rows(
        warehouse,
        "SELECT col_description('landing.readings'::regclass, attnum) FROM pg_attribute "
        "WHERE attrelid = 'landing.readings'::regclass AND attname IN ('amount', 'more')",
    )
    assert {comment for (comment,) in comments} == {"How much", "More of it"}


@pytest.mark.parametrize(
    ("event_type", "says"), [(Retyped, "it is bigint in the definition and text"), (Demanding, "new")]
)
def test_what_would_reinterpret_rows_is_refused(
    stream: Stream, warehouse: Connection, event_type: type[msgspec.Struct], says: str
) -> None:
    send(stream, [event()])
    drain(stream, "test")
    with pytest.raises(UserError, match=says):
        drain(replace(stream, event=event_type), "test")
    assert len(landed(warehouse)) == 1


def test_partitions_change_their_width_without_losing_rows(stream: Stream, warehouse: Connection) -> None:
    noon = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=2)
    send(stream, [event("daily", noon)])
    drain(stream, "test")
    hourly = replace(stream, partition="1 hour")
    send(stream, [event("same day", noon + timedelta(hours=1)), event("next day", noon + timedelta(days=1))])
    drain(hourly, "test")
    weekly = replace(stream, partition="7 days")
    send(stream, [event("same week", noon + timedelta(hours=20))])
    drain(weekly, "test")
    assert len(landed(warehouse)) == 4
    one_fate_each(warehouse, stream)


def test_upkeep_makes_partitions_ahead_and_drops_the_old_alone(stream: Stream, warehouse: Connection) -> None:
    made, dropped = maintenance.maintain(warehouse, stream)
    assert (len(made), dropped) == (maintenance.PARTITIONS_AHEAD + 1, [])
    assert maintenance.maintain(warehouse, stream) == ([], [])
    now = datetime.now(UTC)
    send(stream, [event("old", now - timedelta(days=5)), event("new", now)])
    drain(stream, "test")
    old = partitions.ahead(stream, now - timedelta(days=5), 0)[0]
    assert maintenance.drop_until(warehouse, stream, old.end - timedelta(microseconds=1)) == []
    assert maintenance.drop_until(warehouse, stream, old.end) == [partitions.name_of(stream, old)]
    assert [text for _, _, text in landed(warehouse)] == ["new"]


def test_a_detachment_that_was_interrupted_is_finished(stream: Stream, warehouse: Connection) -> None:
    made, _ = maintenance.maintain(warehouse, stream)
    with closing(connect("reader")) as reader:
        rows(warehouse, "SELECT 1")
        reader.cursor().execute("SELECT count(*) FROM landing.readings")
        warehouse.autocommit = True
        with pytest.raises(Exception, match="statement timeout"):
            warehouse.cursor().execute("SET statement_timeout = '1s'")
            warehouse.cursor().execute(f"ALTER TABLE landing.readings DETACH PARTITION landing.{made[0]} CONCURRENTLY")
    warehouse.autocommit = False
    everything = datetime.now(UTC) + timedelta(days=30)
    assert maintenance.drop_until(warehouse, stream, everything) == made


def test_tables_that_only_look_like_partitions_are_left_alone(stream: Stream, warehouse: Connection) -> None:
    """A partition that somebody has detached to keep it, and a table of one's own."""
    maintenance.maintain(warehouse, stream)
    day = datetime.now(UTC) - timedelta(days=5)
    send(stream, [event("archived", day)])
    drain(stream, "test")
    [archived] = [partitions.name_of(stream, span) for span in partitions.ahead(stream, day, 0)]
    with warehouse.cursor() as cursor:
        cursor.execute(f"ALTER TABLE landing.readings DETACH PARTITION landing.{archived}")
        cursor.execute("CREATE TABLE landing.readings_20010101 AS SELECT 42 AS answer")
    warehouse.commit()
    assert maintenance.maintain(warehouse, stream)[1] == []
    send(stream, [event("late", day)])
    with pytest.raises(NonRetryableError, match=f"there is a table of that name already.*landing.{archived} RENAME TO"):
        drain(stream, "test")
    assert rows(warehouse, f"SELECT text FROM landing.{archived}") == [("archived",)]
    assert rows(warehouse, "SELECT answer FROM landing.readings_20010101") == [(42,)]
    with warehouse.cursor() as cursor:
        cursor.execute(f"ALTER TABLE landing.{archived} RENAME TO archive")
    warehouse.commit()
    assert drain(stream, "test").landed == 1


CHILD = """
import json, sys
sys.path.insert(0, {root!r})
from dataclasses import replace
from tests.integration.test_landing import Reading, Stream
from include.landing.drain import drain
drain(Stream(**json.loads(sys.argv[1]), event=Reading, event_time="ts"), "child")
"""


def test_a_drain_that_is_killed_loses_nothing_and_repeats_nothing(stream: Stream, warehouse: Connection) -> None:
    total = 100_000
    for partition in range(3):
        send(
            stream,
            (event(f"{partition}-{number}") for number in range(total // 3 + (partition < total % 3))),
            partition,
        )
    settings = json.dumps({"name": stream.name, "topic": stream.topic, "quiet": "5 seconds"})
    kills = 0
    while kills < 3:
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD.format(root=str(ROOT)), settings], env=os.environ, stderr=subprocess.DEVNULL
        )
        goal = (kills + 1) * 20_000
        deadline = time.monotonic() + 60
        while child.poll() is None and time.monotonic() < deadline and _count(warehouse) < goal:
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        child.wait()
        kills += 1
    killed_at = _count(warehouse)
    assert killed_at > 0
    assert killed_at + drain(stream, "test").landed == total
    texts = rows(warehouse, "SELECT count(*), count(DISTINCT text) FROM landing.readings")
    assert texts == [(total, total)]
    one_fate_each(warehouse, stream)


def _count(connection: Connection) -> int:
    found = rows(connection, "SELECT coalesce(sum(landed), 0) FROM millrace.landing_ledger")
    return int(found[0][0])


def test_counts_and_reason_of_a_window(stream: Stream) -> None:
    send(stream, [event(), b"bad"])
    assert drain(stream, "test") == Drained(1, 1, 0, 1, "nothing came for 1 second")
    assert drain(replace(stream, window="2 seconds", quiet="1 hour"), "test").reason == "the window is over"


def refusing(connection: Connection, stream: Stream, check: str = "number >= 0") -> None:
    """Makes the stream's table refuse rows, as its owner may."""
    table.bring_up_to_date(connection, stream)
    connection.cursor().execute(f"ALTER TABLE landing.readings ADD CONSTRAINT mine CHECK ({check})")
    connection.commit()


def test_rows_that_postgresql_refuses_are_kept_and_the_others_land(stream: Stream, warehouse: Connection) -> None:
    refusing(warehouse, stream)
    numbers = [-1, 0, 1, -2, -3, 2, b"bad", 3, -4]
    send(stream, [number if isinstance(number, bytes) else event(number=number) for number in numbers])
    drained = drain(stream, "test")
    assert (drained.landed, drained.dead_letters) == (4, 5)
    letters = rows(warehouse, "SELECT kafka_offset, sqlstate, reason, value FROM millrace.dead_letter ORDER BY 1")
    assert [(offset, state) for offset, state, _, _ in letters] == [
        (0, "23514"),
        (3, "23514"),
        (4, "23514"),
        (6, None),
        (8, "23514"),
    ]
    assert "mine" in letters[0][2]
    assert bytes(letters[0][3]) == event(number=-1)
    one_fate_each(warehouse, stream)


TRIGGER = """
    CREATE FUNCTION landing.positive() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN NEW.number = abs(NEW.number); RETURN NEW; END';
    CREATE TRIGGER positive BEFORE INSERT ON landing.readings FOR EACH ROW EXECUTE FUNCTION landing.positive();
"""


@pytest.mark.parametrize("also", ["", TRIGGER], ids=["screened", "searched"])
def test_rows_that_postgresql_refuses_without_naming_them(stream: Stream, warehouse: Connection, also: str) -> None:
    """A foreign key is checked after the COPY, and a duplicate shows only beside the other one."""
    table.bring_up_to_date(warehouse, stream)
    warehouse.cursor().execute(
        "CREATE TABLE landing.known (number bigint PRIMARY KEY); "
        "INSERT INTO landing.known SELECT generate_series(0, 9);"
        "ALTER TABLE landing.readings ADD FOREIGN KEY (number) REFERENCES landing.known;"
        "CREATE UNIQUE INDEX ON landing.readings (text, ts);" + also
    )
    warehouse.commit()
    send(stream, [event(str(number), number=number) for number in range(12)] + [event("1", number=1)])
    assert drain(stream, "test").landed == 10
    states = rows(
        warehouse, "SELECT kafka_offset, sqlstate, reason ~ 'constraint' FROM millrace.dead_letter ORDER BY 1"
    )
    assert states == [(10, "23503", True), (11, "23503", True), (12, "23505", True)]
    one_fate_each(warehouse, stream)


def test_rows_that_a_trigger_mends_are_not_refused(stream: Stream, warehouse: Connection) -> None:
    """Constraints are applied to what the trigger makes of a row."""
    refusing(warehouse, stream, "number >= 0 AND number <> 7")
    warehouse.cursor().execute(TRIGGER)
    warehouse.commit()
    send(stream, [event(number=number) for number in (1, -2, 7, 3, -7)])
    assert (drain(stream, "test").landed, list(kept_aside(warehouse))) == (3, [2, 4])
    one_fate_each(warehouse, stream)


def test_one_percent_of_refused_rows_does_not_slow_the_others_to_a_crawl(
    stream: Stream,
    warehouse: Connection,
    monkeypatch: pytest.MonkeyPatch,
    alone: Callable[[], AbstractContextManager[None]],
) -> None:
    """From decoding to COMMIT, without the waiting for records."""
    refusing(warehouse, stream)
    spent: list[float] = []
    for owner, name in ((Preparer, "prepare"), (Drain, "_write")):
        monkeypatch.setattr(owner, name, timed(getattr(owner, name), spent))

    def seconds(bad: int) -> float:
        send(stream, (event(number=-1 if number % 100 < bad else number) for number in range(20_000)))
        spent.clear()
        assert drain(stream, "test").landed == 20_000 - 200 * bad
        return sum(spent)

    seconds(0)
    with alone():
        # All records are there already, nothing else takes time, and all other tests wait for this one.
        monkeypatch.setattr(Stream, "quiet_s", 0.5)
        clean, dirty = map(min, zip(*((seconds(0), seconds(1)) for _ in range(4)), strict=True))
    print(f"20,000 rows: {clean:.3f} s clean, {dirty:.3f} s with 1 % refused")
    assert dirty <= 2 * clean
    one_fate_each(warehouse, stream)


def timed(call: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    def run(*arguments: Any) -> Any:
        started = time.perf_counter()
        try:
            return call(*arguments)
        finally:
            spent.append(time.perf_counter() - started)

    return run


@pytest.mark.parametrize("by", ["decoding", "postgresql"])
def test_nothing_but_bad_records_stops_and_marks_nothing_as_done(
    stream: Stream, warehouse: Connection, by: str
) -> None:
    refusing(warehouse, stream)
    send(stream, [event("good")])
    drain(stream, "test")
    send(stream, [b"bad" if by == "decoding" else event(number=-1)] * 500)
    with pytest.raises(AllRecordsRejected, match="accept readings bad") as stop:
        drain(patient(stream), "test")
    assert "None of 500 records" in stop.value.what
    assert not kept_aside(warehouse)
    assert position.read_positions(warehouse, stream.reader, stream.topic)[0].position.next_offset == 1
    assert recovery.accept(warehouse, stream, "bad", "somebody")
    assert drain(stream, "test").dead_letters == 500
    one_fate_each(warehouse, stream)


def test_a_recreated_topic_goes_on_once_somebody_accepts_it(stream: Stream, warehouse: Connection) -> None:
    send(stream, [event("old")])
    drain(stream, "test")
    recreate(stream)
    send(stream, [event("new")])
    with pytest.raises(TopicRecreated, match=r"\./millrace accept readings recreated"):
        drain(stream, "test")
    recovery.accept(warehouse, stream, "recreated", "somebody")
    assert drain(stream, "test").landed == 1
    found = rows(warehouse, "SELECT kafka_incarnation, kafka_offset, text FROM landing.readings ORDER BY 1")
    assert found == [(1, 0, "old"), (2, 0, "new")]
    gaps = rows(
        warehouse, "SELECT choice, kafka_partition, first_offset, next_offset, accepted_by FROM millrace.landing_gap"
    )
    assert gaps == [("recreated", p, int(p == 0), None, "somebody") for p in range(3)]
    with pytest.raises(UserError, match="There is nothing to accept as 'recreated'"):
        recovery.accept(warehouse, stream, "recreated", "somebody")


def test_a_topic_recreated_under_a_drain_lands_nothing_under_the_old_name(
    stream: Stream, warehouse: Connection
) -> None:
    send(stream, [event("old")] * 10)
    outcome: list[BaseException] = []

    def run() -> None:
        try:
            drain(replace(stream, quiet="30 seconds"), "test")
        except BaseException as error:
            outcome.append(error)

    draining = threading.Thread(target=run)
    draining.start()
    deadline = time.monotonic() + 20
    while _count(warehouse) < 10 and time.monotonic() < deadline:
        time.sleep(0.05)
    recreate(stream)
    send(stream, [event("new")] * 20)
    draining.join(20)
    assert isinstance(outcome[0], TopicRecreated | TopicMissing)
    assert {text for _, _, text in landed(warehouse)} == {"old"}


def test_what_retention_removed_is_lost_once_somebody_accepts_it(stream: Stream, warehouse: Connection) -> None:
    from confluent_kafka import TopicPartition

    send(stream, [event("a")] * 5)
    assert drain(stream, "test").landed == 5
    send(stream, [event("b")] * 5)
    brokers = client.admin()
    for removed in brokers.delete_records([TopicPartition(stream.topic, 0, 8)]).values():
        removed.result()
    with pytest.raises(OffsetsGone, match=r"\./millrace accept readings lost"):
        drain(patient(stream), "test")
    with pytest.raises(OffsetsGone, match="offsets 5 to 7 were removed"):
        status.of(stream, warehouse)
    assert recovery.accept(warehouse, stream, "lost", "somebody") == ["partition 0: offsets 5 to 7 are lost; next 8"]
    assert drain(stream, "test").landed == 2
    assert [offset for _, offset, _ in landed(warehouse)] == [0, 1, 2, 3, 4, 8, 9]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_connection_that_breaks_is_made_again_and_the_position_decides(
    stream: Stream, warehouse: Connection, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The backend is ended before or after a COMMIT whose answer never comes."""
    send(stream, [event(str(number)) for number in range(10)])
    land = Drain._land
    broken: list[Drain] = []

    def break_once(self: Drain, batch: Any, suspected: bool) -> None:
        if not broken:
            broken.append(self)
            if moment == "after":
                claim, drained = dict(self._claim), replace(self._drained)
                land(self, batch, suspected)
                self._claim, self._drained = claim, drained
            rows(warehouse, "SELECT pg_terminate_backend(%s)", self._connection.info.backend_pid)
            self._connection.cursor().execute("SELECT 1")
        land(self, batch, suspected)

    monkeypatch.setattr(Drain, "_land", break_once)
    assert drain(stream, "test").landed == 10
    assert broken
    one_fate_each(warehouse, stream)


def test_a_partition_that_retention_drops_under_a_drain_is_made_again(stream: Stream, warehouse: Connection) -> None:
    topic = topics.describe(stream.topic)
    other = connect("test")
    table.bring_up_to_date(other, stream)
    claim = position.claim(other, stream.reader, topic, topic.partitions, "test")
    landing = Drain(stream, topic, other, claim, client.admin(), client.consumer())
    landing._partitions.ensure(other, [partitions.ahead(stream, NOW, 0)[0].start])
    assert maintenance.drop_until(warehouse, stream, NOW + timedelta(days=9))
    send(stream, [event()])
    assert landing.run(time.monotonic() + 10).landed == 1
    one_fate_each(warehouse, stream)


def recreate(stream: Stream) -> None:
    """Deletes the topic and makes it again."""
    brokers = client.admin()
    brokers.delete_topics([stream.topic])[stream.topic].result()
    deadline = time.monotonic() + 20
    while not produce.make_topic(stream):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_dead_letters_land_once_when_the_reason_is_gone(stream: Stream, warehouse: Connection) -> None:
    """However many retry at the same time."""
    refusing(warehouse, stream)
    send(stream, [event("good"), b"bad", *(event(str(number), number=-1) for number in range(50))])
    assert drain(stream, "test").dead_letters == 51
    assert retry.retry(warehouse, stream) == (0, 51)
    warehouse.cursor().execute("ALTER TABLE landing.readings DROP CONSTRAINT mine")
    warehouse.commit()
    landed_by: list[int] = []

    def run() -> None:
        with closing(connect("retry")) as own:
            landed_by.append(retry.retry(own, stream)[0])

    retries = [threading.Thread(target=run) for _ in range(3)]
    for each in retries:
        each.start()
    for each in retries:
        each.join()
    assert sum(landed_by) == 50
    assert [offset for _, offset, _ in landed(warehouse)] == [0, *range(2, 52)]
    assert list(kept_aside(warehouse)) == [1]
    one_fate_each(warehouse, stream)


@pytest.mark.parametrize("moment", ["decoded", "committed"])
def test_a_retry_of_dead_letters_that_is_killed_goes_on(
    stream: Stream, warehouse: Connection, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    refusing(warehouse, stream)
    send(stream, [event("good"), b"bad", *(event("x" * 1000, number=-1) for _ in range(500))])
    assert drain(stream, "test").dead_letters == 501
    warehouse.cursor().execute("ALTER TABLE landing.readings DROP CONSTRAINT mine")
    warehouse.commit()
    # Batches are bounded by their bytes as well.
    monkeypatch.setattr(retry, "LETTERS_PER_TRANSACTION", 200)
    monkeypatch.setattr(retry, "MAX_BYTES", 100_000)
    child = os.fork()
    if not child:
        killing = itertools.count(1)

        def kill_at_the_third(*_: Any) -> Any:
            if next(killing) == 3:
                os.kill(os.getpid(), signal.SIGKILL)

        if moment == "decoded":
            land = retry.refusals.accepts
            retry.refusals.accepts = lambda *given: (land(*given), kill_at_the_third())[0]
        retry.retry(connect("retry"), stream, kill_at_the_third if moment == "committed" else lambda *_: None)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    batches = 2 if moment == "decoded" else 3
    before = len(landed(warehouse)) - 1
    assert (batches - 1) * 90 < before < batches * 100
    warehouse.rollback()
    reports: list[tuple[int, int]] = []
    eventually_free(warehouse)
    assert retry.retry(warehouse, stream, lambda *counts: reports.append(counts)) == (500 - before, 1)
    assert len(reports) >= 3 and reports[-1] == (500 - before, 1)
    assert len(landed(warehouse)) == 501
    assert list(kept_aside(warehouse)) == [1]
    one_fate_each(warehouse, stream)


def eventually_free(warehouse: Connection) -> None:
    """Waits until the server has noticed that the process is gone, and lets go of its letters."""
    deadline = time.monotonic() + 20
    statement = "SELECT FROM pg_stat_activity WHERE application_name = 'retry' AND datname = current_database()"
    while True:
        with warehouse.cursor() as cursor:
            cursor.execute(statement)
            busy = cursor.rowcount
        warehouse.rollback()
        if not busy:
            return
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_waiting_ends_when_the_topic_was_recreated(stream: Stream, warehouse: Connection) -> None:
    """The new topic holds less than the position, so that its lag alone would never tell."""
    send(stream, [event()] * 3)
    drain(stream, "test")
    recreate(stream)

    async def wait() -> list[Any]:
        return [event async for event in BacklogTrigger(stream.reader, stream.topic, 0.1, 60).run()]

    assert len(asyncio.run(asyncio.wait_for(wait(), 40))) == 1
    with pytest.raises(TopicRecreated):
        drain(stream, "test")


def test_nothing_is_chosen_for_a_stream_that_was_never_read(
    stream: Stream, warehouse: Connection, topic: Callable[..., str]
) -> None:
    unread = replace(stream, topic=topic("unread"))
    for choice in ("recreated", "lost"):
        with pytest.raises(TopicMissing, match=r"does not exist\. Create it"):
            recovery.accept(warehouse, unread, choice, "somebody")
    assert unread.topic not in topics.names()


def test_of_a_topic_that_is_gone_the_choice_that_helps_is_named(stream: Stream, warehouse: Connection) -> None:
    send(stream, [event()])
    drain(stream, "test")
    brokers = client.admin()
    brokers.delete_topics([stream.topic])[stream.topic].result()
    with pytest.raises(TopicMissing, match=r"\./millrace accept readings recreated"):
        recovery.accept(warehouse, stream, "lost", "somebody")
