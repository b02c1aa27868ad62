"""What the tests of landing share: a stream of their own, and what they send and read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import pytest

from include.kafka import client, position
from include.landing import table
from include.streams import produce
from include.streams.definition import Instant, Stream
from tests.polling import until

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

NOW = datetime.now(UTC).replace(microsecond=123456)


class Reading(msgspec.Struct):
    """The event of the test stream."""

    ts: Instant
    text: str
    number: int = 0
    real: float | None = None
    extra: Any = None
    amount: Annotated[Decimal | None, msgspec.Meta(description="How much")] = None


class Grown(Reading):
    """The event with one more field."""

    more: Annotated[str | None, msgspec.Meta(description="More of it")] = None


class Shrunk(msgspec.Struct):
    ts: Instant
    number: int = 0


@pytest.fixture
def stream(warehouse: Connection, topic: Callable[..., str]) -> Stream:
    """A stream with an empty topic and without a table."""
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
    """The rows of a query, read in a transaction of its own."""
    with connection.cursor() as cursor:
        cursor.execute(query, parameters)
        found = cursor.fetchall()
    connection.rollback()
    return found


def patient(stream: Stream) -> Stream:
    """The stream with a long quiet time, for a drain that must not end because a busy machine is slow to send."""
    return replace(stream, quiet="30 seconds")


def landed(connection: Connection) -> list[tuple[Any, ...]]:
    return rows(connection, "SELECT kafka_partition, kafka_offset, text FROM landing.readings ORDER BY 1, 2")


def kept_aside(connection: Connection) -> dict[int, tuple[str, str]]:
    found = rows(connection, "SELECT kafka_offset, disposition, reason FROM millrace.dead_letter ORDER BY 1")
    return {offset: (disposition, reason) for offset, disposition, reason in found}


def one_disposition_each(connection: Connection, stream: Stream) -> None:
    """Below the position every offset has one disposition, and the ledger agrees."""
    ends = {
        p: s.position.next_offset for p, s in position.read_positions(connection, stream.reader, stream.topic).items()
    }
    found = rows(
        connection,
        "SELECT kafka_incarnation, kafka_partition, kafka_offset FROM landing.readings UNION ALL "
        "SELECT kafka_incarnation, kafka_partition, kafka_offset FROM millrace.dead_letter",
    )
    assert len(found) == len(set(found)), "a record has two dispositions"
    assert all(offset < ends[partition] for _, partition, offset in found)
    ledger = rows(
        connection,
        "SELECT kafka_partition, first_offset, next_offset, landed + dead_letters + quarantined, "
        "filtered + skipped + no_records "
        "FROM millrace.landing_ledger WHERE stream = %s ORDER BY 1, 2",
        stream.name,
    )
    reached = dict.fromkeys(ends, 0)
    for partition, first, next_offset, _, _ in ledger:
        assert first == reached[partition], "the ledger has a gap or an overlap"
        reached[partition] = next_offset
    assert reached == ends
    assert sum(entry[3] for entry in ledger) == len(found)


def count_landed(connection: Connection) -> int:
    found = rows(connection, "SELECT coalesce(sum(landed), 0) FROM millrace.landing_ledger")
    return int(found[0][0])


def refusing(connection: Connection, stream: Stream, check: str = "number >= 0") -> None:
    """Adds a constraint that refuses rows, as a user may."""
    table.bring_up_to_date(connection, stream)
    connection.cursor().execute(f"ALTER TABLE landing.readings ADD CONSTRAINT mine CHECK ({check})")
    connection.commit()


def recreate(stream: Stream) -> None:
    """Deletes the topic and creates it again."""
    brokers = client.admin()
    brokers.delete_topics([stream.topic])[stream.topic].result()
    until("the topic is created", lambda: produce.make_topic(stream), 20, every_s=0.2)
