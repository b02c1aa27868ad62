"""Times as producers send them, and partitions of months: they land, are proven, replayed and maintained."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from include.error_codes import Code
from include.errors import NonRetryableError
from include.kafka import topics
from include.landing import batch, maintenance, partitions, problems, proof, retry, spans, table, time_limits
from include.landing.drain import drain
from include.monitoring import sample
from include.streams import definitions
from include.streams.definition import (
    RECORD_TIMESTAMP,
    EpochMicros,
    EpochMillis,
    EpochNanos,
    EpochSeconds,
    Stream,
    Zone,
)
from tests.errors import raises
from tests.integration.landing import event, kept_aside, one_disposition_each, rows, send, stream
from tests.integration.test_landing_events import settle

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

__all__ = ["stream"]

NOW = datetime.now(UTC).replace(microsecond=123_456)
SECONDS = int(NOW.timestamp())
MICROSECONDS = SECONDS * 1_000_000 + 123_456


class Counted(msgspec.Struct):
    """An event with a time in each unit."""

    ms: EpochMillis
    s: EpochSeconds | None = None
    us: EpochMicros | None = None
    ns: EpochNanos | None = None
    born: EpochMillis | msgspec.UnsetType = msgspec.UNSET
    many: list[EpochMillis] = []


def as_json(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def test_times_as_numbers_land_and_those_of_another_unit_are_dead_letters(
    stream: Stream, warehouse: Connection
) -> None:
    stream = replace(stream, event=Counted, event_time="ms")
    ms = MICROSECONDS // 1_000
    good = [
        as_json(ms=ms, s=SECONDS, us=MICROSECONDS, ns=MICROSECONDS * 1_000 + 999),
        as_json(ms=str(ms), s=SECONDS + 0.123456, us=str(MICROSECONDS), ns=str(MICROSECONDS * 1_000)),
        as_json(ms=ms + 0.456, s=f"{SECONDS}.5", born=-473_385_600_000, many=[1, 2]),
    ]
    bad = [
        as_json(ms=SECONDS),
        as_json(ms=ms, s=ms),
        as_json(ms="soon"),
        as_json(ms=None),
        as_json(ms=ms, born=-(10**14)),
    ]
    drained = settle(warehouse, stream, [*good, *bad, as_json(ms=ms - 8 * 86_400_000)])
    assert (drained.landed, drained.dead_letters, drained.quarantined) == (len(good), len(bad), 1)
    whole = NOW.replace(microsecond=123_000)
    assert rows(warehouse, "SELECT ms, s, us, ns, born, many FROM landing.readings ORDER BY kafka_offset") == [
        (whole, NOW.replace(microsecond=0), NOW, NOW, None, []),
        (whole, NOW, NOW, NOW, None, []),
        (NOW, NOW.replace(microsecond=500_000), None, None, datetime(1955, 1, 1, tzinfo=UTC), [1, 2]),
    ]
    at = f"{NOW:%Y-%m-%dT%H:%M:%SZ}"
    reasons = [reason for _, reason in kept_aside(warehouse).values()]
    assert reasons[0] == f"ms: {SECONDS} is not a time in milliseconds; in seconds it is {at}"
    assert reasons[1] == f"s: {ms} is not a time in seconds; in milliseconds it is {at}"
    assert reasons[2] == "ms: 'soon' is not a number of milliseconds"
    assert "`null`" in reasons[3]
    assert "years 1 to 9999" in reasons[4]
    assert "older than the record; late='7 days'" in reasons[5]


def test_a_unit_that_was_corrected_is_replayed(stream: Stream, warehouse: Connection) -> None:
    class Wrong(msgspec.Struct):
        ts: EpochMillis

    class Right(msgspec.Struct):
        ts: EpochSeconds

    wrong, right = (replace(stream, event=each) for each in (Wrong, Right))
    send(stream, [as_json(ts=SECONDS + number) for number in range(5)])
    assert drain(wrong, "test").dead_letters == 5
    assert retry.retry(warehouse, right) == (5, 0, 0)
    assert settle(warehouse, right).landed == 0
    assert rows(warehouse, "SELECT min(ts) FROM landing.readings") == [(NOW.replace(microsecond=0),)]
    assert "rows that differ from their records" in proof.prove(warehouse, wrong).wrong[0]


class Placed(msgspec.Struct):
    """An event with the time on a clock in Berlin."""

    ts: Annotated[datetime, Zone("Europe/Berlin")]
    at: Annotated[datetime | None, Zone("Europe/Berlin")] = None


def test_times_without_a_zone_land_in_the_zone_that_the_field_names(stream: Stream, warehouse: Connection) -> None:
    stream = replace(stream, event=Placed)
    here = NOW.astimezone(ZoneInfo("Europe/Berlin")).replace(tzinfo=None, fold=0)
    good = [
        as_json(ts=here.isoformat(), at="2026-10-25T02:30:00"),
        as_json(ts=str(here), at="2026-10-25 02:30+01"),
        as_json(ts=NOW.isoformat(), at="2026-07-01 12:00"),
    ]
    bad = [as_json(ts=here.isoformat(), at="2026-03-29T02:30:00"), as_json(ts="2026-03-29 02:30")]
    drained = settle(warehouse, stream, [*good, *bad])
    assert (drained.landed, drained.dead_letters) == (3, 2)
    assert rows(warehouse, "SELECT ts, at FROM landing.readings ORDER BY kafka_offset") == [
        (NOW, datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),
        (NOW, datetime(2026, 10, 25, 1, 30, tzinfo=UTC)),
        (NOW, datetime(2026, 7, 1, 10, tzinfo=UTC)),
    ]
    missing = "2026-03-29T02:30:00 does not exist in Europe/Berlin: clocks were set forward over it"
    assert [reason for _, reason in kept_aside(warehouse).values()] == [f"at: {missing}", f"ts: {missing}"]


class Timeless(msgspec.Struct):
    """An event without a time."""

    text: str
    more: str | None = None


@pytest.fixture
def timeless(stream: Stream, topic: Callable[..., str]) -> Stream:
    """A stream by the timestamps of its records, which producers set."""
    name = topic("readings")
    config = {
        "message.timestamp.type": "CreateTime",
        "message.timestamp.after.max.ms": str(2**63 - 1),
        "retention.ms": "-1",
    }
    topics.create(name, partitions=1, config=config)
    return replace(stream, topic=name, event=Timeless, event_time=RECORD_TIMESTAMP)


def test_the_timestamp_of_a_record_is_the_time_of_its_event(timeless: Stream, warehouse: Connection) -> None:
    moments = [NOW.replace(microsecond=number * 1_000) - timedelta(days=number) for number in range(3)]
    for moment in moments:
        send(timeless, [as_json(text="x")], timestamp=int(moment.timestamp() * 1_000))
    send(timeless, [as_json(text="none")], timestamp=-1)
    send(timeless, [as_json(text="far")], timestamp=MICROSECONDS)
    send(timeless, [as_json(text=5)], timestamp=SECONDS * 1_000)
    drained = settle(warehouse, timeless)
    assert (drained.landed, drained.dead_letters, drained.quarantined) == (3, 2, 1)
    assert rows(warehouse, "SELECT kafka_timestamp, text FROM landing.readings ORDER BY kafka_offset") == [
        (moment, "x") for moment in moments
    ]
    assert len(rows(warehouse, "SELECT 1 FROM pg_inherits WHERE inhparent = 'landing.readings'::regclass")) == 3
    kept = kept_aside(warehouse)
    assert kept[3] == ("dead letter", time_limits.NO_RECORD_TIME)
    assert kept[4][0] == "quarantined"
    assert kept[4][1].endswith("is outside of the years 1 to 9999; its producer may count in another unit")
    with warehouse.cursor() as cursor:
        cursor.execute("UPDATE landing.readings SET kafka_timestamp = kafka_timestamp + interval '1 ms'")
    warehouse.commit()
    (wrong,) = proof.prove(warehouse, timeless).wrong
    assert wrong.endswith("rows that differ from their records: 0, 1, 2")


def test_a_dead_letter_lands_later_at_the_time_of_its_record(timeless: Stream, warehouse: Connection) -> None:
    class Strict(msgspec.Struct):
        text: int
        more: str | None = None

    send(timeless, [as_json(text="7"), as_json(text="8")], timestamp=SECONDS * 1_000)
    assert drain(replace(timeless, event=Strict), "test").dead_letters == 2
    with warehouse.cursor() as cursor:
        cursor.execute("DROP TABLE landing.readings; DELETE FROM millrace.landing_column")
    warehouse.commit()
    assert retry.retry(warehouse, timeless) == (2, 0, 0)
    assert rows(warehouse, "SELECT DISTINCT kafka_timestamp FROM landing.readings") == [(NOW.replace(microsecond=0),)]
    assert settle(warehouse, timeless).landed == 0


def test_old_records_that_are_past_their_retention_are_proven(timeless: Stream, warehouse: Connection) -> None:
    """A topic was read long after its records were written, so that retention drops what has just landed."""
    for days in (200, 100, 1):
        moment = NOW - timedelta(days=days)
        send(timeless, [as_json(text=str(days))], timestamp=int(moment.timestamp() * 1_000))
    assert drain(timeless, "test").landed == 3
    assert len(maintenance.maintain(warehouse, timeless)[1]) == 2
    found = proof.prove(warehouse, timeless)
    assert (found.wrong, found.dropped, found.compared) == ([], 2, 3)
    with warehouse.cursor() as cursor:
        cursor.execute("DELETE FROM landing.readings")
    warehouse.commit()
    found = proof.prove(warehouse, timeless)
    assert found.dropped == 2
    assert [wrong.rpartition(": ")[2] for wrong in found.wrong] == ["2", "the tables hold 0 landed, not 1"], found.wrong


def test_a_stream_cannot_change_to_the_timestamps_of_records(timeless: Stream, warehouse: Connection) -> None:
    table.bring_up_to_date(warehouse, timeless)
    assert table.changes(warehouse, timeless) == []
    assert table.left_over(warehouse, timeless) == []

    class Timed(Timeless, kw_only=True):
        ts: EpochMillis

    with raises(Code.TABLE_INCOMPATIBLE, "kafka_timestamp", kind=NonRetryableError):
        table.changes(warehouse, replace(timeless, event=Timed, event_time="ts"))


def names(connection: Connection, stream: Stream) -> list[str]:
    found = [each.table for each in partitions.listed(connection, stream.name)]
    connection.rollback()
    return found


def test_a_history_lands_in_months_that_are_kept_forever(stream: Stream, warehouse: Connection) -> None:
    stream = replace(stream, partition="1 month", keep="forever", late="any")
    months = [datetime(2006 + number // 12, number % 12 + 1, 28, 23, 59, tzinfo=UTC) for number in range(240)]
    drained = settle(warehouse, stream, [event(ts=month) for month in months])
    assert (drained.landed, drained.quarantined) == (240, 0)
    assert names(warehouse, stream) == [f"readings_{month:%Y%m}01" for month in months]
    created, dropped = maintenance.maintain(warehouse, stream)
    now = spans.next_spans(stream, datetime.now(UTC), maintenance.PARTITIONS_AHEAD)
    assert set(created) <= {spans.name_of(stream, span) for span in now}
    assert dropped == []
    assert problems.of(warehouse, stream) == []
    assert spans.name_of(stream, now[-1]) == names(warehouse, stream)[-1]
    drained = settle(warehouse, stream, [event(ts=datetime.now(UTC) + timedelta(hours=2))])
    assert drained.quarantined == 1
    one_disposition_each(warehouse, stream)


def test_months_are_dropped_after_keep(stream: Stream, warehouse: Connection) -> None:
    stream = replace(stream, partition="1 month", keep="400 days", late="300 days")
    old = datetime.now(UTC) - timedelta(days=290)
    send(stream, [event(ts=old), event()])
    drain(stream, "test")
    (first, *_) = names(warehouse, stream)
    assert maintenance.maintain(warehouse, stream)[1] == []
    end = spans.span_of(stream, old).end
    assert maintenance.drop_until(warehouse, stream, end - timedelta(microseconds=1)) == []
    assert maintenance.drop_until(warehouse, stream, end) == [first]
    assert proof.prove(warehouse, stream).wrong != [], "retention would not have dropped it yet"


def test_a_month_that_was_detached_to_be_dropped_is_dropped(stream: Stream, warehouse: Connection) -> None:
    stream = replace(stream, partition="1 month", keep="forever", late="any")
    send(stream, [event(ts=datetime(2020, 2, 15, tzinfo=UTC))])
    drain(stream, "test")
    partitions.mark(warehouse, "readings_20200201")
    warehouse.cursor().execute("ALTER TABLE landing.readings DETACH PARTITION landing.readings_20200201")
    warehouse.cursor().execute("CREATE VIEW landing.mine AS SELECT * FROM landing.readings_20200201")
    warehouse.commit()
    with raises(Code.PARTITION_IN_USE, "readings_20200201", kind=NonRetryableError):
        maintenance.maintain(warehouse, stream)
    (attached, *_) = partitions.listed(warehouse, "readings")
    assert attached.span == spans.span_of(stream, datetime(2020, 2, 15, tzinfo=UTC)), "it is attached again"


def test_partitions_change_from_days_to_months(stream: Stream, warehouse: Connection) -> None:
    daily = replace(stream, keep="forever", late="any")
    days = [datetime(2024, 2, number, tzinfo=UTC) for number in (10, 11, 20)]
    send(stream, [event(ts=day) for day in days])
    drain(daily, "test")
    monthly = replace(daily, partition="1 month")
    settle(warehouse, monthly, [event(ts=datetime(2024, 2, number, 1, tzinfo=UTC)) for number in range(1, 30)])
    assert names(warehouse, stream) == [f"readings_202402{number}" for number in ("01", "10", "11", "12", "20", "21")]
    assert rows(warehouse, "SELECT count(*) FROM landing.readings") == [(32,)]


def test_a_batch_for_many_partitions_lands_in_pieces(stream: Stream, warehouse: Connection) -> None:
    stream = replace(stream, partition="1 hour", keep="forever", late="any")
    hours = [datetime(2020, 1, 1, tzinfo=UTC) + timedelta(hours=number) for number in range(batch.MAX_SPANS + 100)]
    assert settle(warehouse, stream, [event(ts=hour) for hour in hours]).landed == len(hours)
    assert len(names(warehouse, stream)) == len(hours)


def test_the_settings_of_months_and_forever_are_sampled(
    stream: Stream, warehouse: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = replace(stream, partition="3 months", keep="forever")
    monkeypatch.setattr(definitions, "find", lambda: _Found({stream.name: stream}))
    sample.sample(warehouse)
    assert rows(
        warehouse, "SELECT partition = interval '3 months', keep FROM millrace.stream_setting WHERE stream = 'readings'"
    ) == [(True, None)]


class _Found:
    """What ``definitions.find`` returns, with some streams only."""

    def __init__(self, valid: dict[str, Stream]) -> None:
        self.valid = valid
