"""The table and its partitions: they follow the definition, and are created ahead of time and dropped when old."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest

from include.error_codes import Code
from include.errors import NonRetryableError
from include.kafka import client, position, topics
from include.landing import maintenance, spans, table
from include.landing.drain import Drain, drain
from include.streams.definition import Instant, Stream
from include.warehouse.connection import connect
from tests.errors import raises
from tests.integration.landing import (
    NOW,
    Grown,
    Reading,
    Shrunk,
    event,
    landed,
    one_disposition_each,
    rows,
    send,
    stream,
)

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

__all__ = ["stream"]


class Retyped(msgspec.Struct):
    ts: Instant
    text: int


class Demanding(Reading):
    must: int = 0


def test_a_table_follows_its_definition(stream: Stream, warehouse: Connection) -> None:
    send(stream, [event("before")])
    drain(stream, "test")
    grown = replace(stream, event=Grown)
    assert [change.description for change in table.changes(warehouse, grown)] == [
        "add the column 'more' (text) to landing.readings"
    ]
    send(stream, [event("after", more="much")])
    drain(grown, "test")
    assert not table.changes(warehouse, grown)
    shrunk = replace(stream, event=Shrunk)
    assert [change.description for change in table.changes(warehouse, shrunk)] == [
        "allow null in landing.readings.text"
    ]
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
    ("event_type", "field", "types"), [(Retyped, "text", ("bigint", "text")), (Demanding, "must", ())]
)
def test_a_change_that_would_reinterpret_rows_is_refused(
    stream: Stream, warehouse: Connection, event_type: type[msgspec.Struct], field: str, types: tuple[str, ...]
) -> None:
    send(stream, [event()])
    drain(stream, "test")
    with raises(Code.TABLE_INCOMPATIBLE, f"event.{field}", "landing.readings", *types):
        drain(replace(stream, event=event_type), "test")
    assert len(landed(warehouse)) == 1


def test_partitions_are_half_open_utc(stream: Stream, warehouse: Connection) -> None:
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    tick = timedelta(microseconds=1)
    send(stream, [event("before", midnight - tick), event("at", midnight), event("after", midnight + tick)])
    drain(stream, "test")
    found = rows(warehouse, "SELECT tableoid::regclass::text, text FROM landing.readings ORDER BY kafka_offset")
    yesterday = f"landing.readings_{midnight - timedelta(days=1):%Y%m%d}"
    today = f"landing.readings_{midnight:%Y%m%d}"
    assert found == [(yesterday, "before"), (today, "at"), (today, "after")]


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
    one_disposition_each(warehouse, stream)


def test_maintenance_creates_partitions_ahead_and_drops_only_old_ones(stream: Stream, warehouse: Connection) -> None:
    created, dropped = maintenance.maintain(warehouse, stream)
    assert (len(created), dropped) == (maintenance.PARTITIONS_AHEAD + 1, [])
    assert maintenance.maintain(warehouse, stream) == ([], [])
    now = datetime.now(UTC)
    send(stream, [event("old", now - timedelta(days=5)), event("new", now)])
    drain(stream, "test")
    old = spans.span_of(stream, now - timedelta(days=5))
    assert maintenance.drop_until(warehouse, stream, old.end - timedelta(microseconds=1)) == []
    assert maintenance.drop_until(warehouse, stream, old.end) == [spans.name_of(stream, old)]
    assert [text for _, _, text in landed(warehouse)] == ["new"]


def test_an_interrupted_detachment_is_finished(stream: Stream, warehouse: Connection) -> None:
    created, _ = maintenance.maintain(warehouse, stream)
    with closing(connect("reader")) as reader:
        rows(warehouse, "SELECT 1")
        reader.cursor().execute("SELECT count(*) FROM landing.readings")
        warehouse.autocommit = True
        with pytest.raises(Exception, match="statement timeout"):
            warehouse.cursor().execute("SET statement_timeout = '1s'")
            warehouse.cursor().execute(
                f"ALTER TABLE landing.readings DETACH PARTITION landing.{created[0]} CONCURRENTLY"
            )
    warehouse.autocommit = False
    everything = datetime.now(UTC) + timedelta(days=30)
    assert maintenance.drop_until(warehouse, stream, everything) == created


def test_tables_that_only_look_like_partitions_are_not_dropped(stream: Stream, warehouse: Connection) -> None:
    """A partition that a user detached to keep it, and a user's table."""
    maintenance.maintain(warehouse, stream)
    day = datetime.now(UTC) - timedelta(days=5)
    send(stream, [event("archived", day)])
    drain(stream, "test")
    archived = spans.name_of(stream, spans.span_of(stream, day))
    with warehouse.cursor() as cursor:
        cursor.execute(f"ALTER TABLE landing.readings DETACH PARTITION landing.{archived}")
        cursor.execute("CREATE TABLE landing.readings_20010101 AS SELECT 42 AS answer")
    warehouse.commit()
    assert maintenance.maintain(warehouse, stream)[1] == []
    send(stream, [event("late", day)])
    with raises(Code.NAME_TAKEN, f"ALTER TABLE landing.{archived} RENAME TO", kind=NonRetryableError):
        drain(stream, "test")
    assert rows(warehouse, f"SELECT text FROM landing.{archived}") == [("archived",)]
    assert rows(warehouse, "SELECT answer FROM landing.readings_20010101") == [(42,)]
    with warehouse.cursor() as cursor:
        cursor.execute(f"ALTER TABLE landing.{archived} RENAME TO archive")
    warehouse.commit()
    assert drain(stream, "test").landed == 1


def test_a_partition_that_was_dropped_during_a_drain_is_created_again(stream: Stream, warehouse: Connection) -> None:
    topic = topics.describe(stream.topic)
    other = connect("test")
    table.bring_up_to_date(other, stream)
    claim = position.claim(other, stream.reader, topic, topic.partitions, "test")
    landing = Drain(stream, {topic: claim}, other, client.admin(), client.consumer())
    landing._partitions.ensure(other, [spans.span_of(stream, NOW)])
    assert maintenance.drop_until(warehouse, stream, NOW + timedelta(days=9))
    send(stream, [event()])
    assert landing.run(time.monotonic() + 10).landed == 1
    one_disposition_each(warehouse, stream)
