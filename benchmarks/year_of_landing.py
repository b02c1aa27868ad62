"""The landing side of a simulated year: a stream whose daily partitions are created, filled and dropped."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from include.error_codes import Code
from include.errors import UserError
from include.kafka import client, position, topics
from include.kafka.position_errors import Fenced
from include.landing import ledger, maintenance, problems, proof, table
from include.landing.drain import Drained, drain
from include.streams.definition import Instant, Stream

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

DAY = timedelta(days=1)
LATE = 3
PARTITIONS = 3
PATIENCE_S = 60.0


class Reading(msgspec.Struct):
    """An event of the year."""

    ts: Instant
    text: str
    number: int = 0


@dataclass
class Landing:
    """A stream of daily partitions; its topic is created, with the producer's times.

    Args:
        keep: Days for which a partition is kept after its end.
        in_kafka: Days after which Kafka's retention removes records.
        events: Events a day. Three more records a day are: as late as allowed, too late, and not an event.
    """

    topic: str
    keep: int
    in_kafka: int
    events: int = 30
    sent: list[int] = field(default_factory=list)
    ends: list[dict[int, int]] = field(default_factory=list)
    drains: list[Future[Drained]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stream = Stream(
            name="year",
            topic=self.topic,
            event=Reading,
            event_time="ts",
            kafka_partitions=PARTITIONS,
            keep=f"{self.keep} days",
            late=f"{LATE} days",
            quiet="5 minutes",
        )
        settings = {"message.timestamp.type": "CreateTime", "retention.ms": "-1"}
        topics.create(self.topic, partitions=PARTITIONS, config=settings)
        self._producer = client.producer()
        self._threads = ThreadPoolExecutor(3)

    def take_over(self) -> None:
        """Starts a drain; the previous one ends with the next events, which the new one lands."""
        self.drains.append(self._threads.submit(drain, self.stream, "bench"))

    def live(self, connection: Connection, today: datetime) -> None:
        """Sends the events of a day, with its times, and waits until they have landed."""
        times = [today - number * timedelta(minutes=10) for number in range(self.events)]
        times += [today - LATE * DAY + timedelta(minutes=1), today - (LATE + 1) * DAY]
        values = [msgspec.json.encode(Reading(at, f"event {number}", number)) for number, at in enumerate(times)]
        self._send([*values, b"no event"], today)
        self.sent.append(len(values) + 1)
        deadline = time.monotonic() + PATIENCE_S
        while self._waiting(connection):
            self._raise_failures()
            if time.monotonic() > deadline:
                raise UserError(
                    f"{self._waiting(connection):,} records of {self.topic} have not landed after {PATIENCE_S:.0f} s.",
                    code=Code.BENCHMARK_FAILED,
                )
            time.sleep(0.01)

    @contextmanager
    def ending(self, connection: Connection) -> Iterator[None]:
        """Ends the drains after the ``with`` block, also when it fails."""
        try:
            yield
        finally:
            connection.rollback()
            self._end(connection)

    def upkeep(self, connection: Connection, keep_ledger: datetime) -> None:
        """Does the work of ``maintain__streams``, ``maintain__history`` and Kafka's retention."""
        maintenance.maintain(connection, self.stream)
        ledger.merge(connection, self.stream, keep_ledger)
        self.ends.append(self._reached(connection))
        if len(self.ends) > self.in_kafka:
            topics.drop_below(self.topic, self.ends[-1 - self.in_kafka])

    def messages(self) -> int:
        """The number of messages in Kafka."""
        extents = topics.extents(self.topic, range(PARTITIONS))
        return sum(extent.end - extent.first for extent in extents.values())

    def stuck(self, connection: Connection) -> list[str]:
        """Problems of the stream, and records that wait."""
        found = [problem.what for problem in problems.of(connection, self.stream)]
        if waiting := self._waiting(connection):
            found.append(f"{waiting:,} records wait in {self.topic}")
        return found

    def wrong(self, connection: Connection) -> list[str]:
        """What ``verify stream`` finds; it must have compared every record that is both in the table and in Kafka."""
        found = proof.prove(connection, self.stream)
        least = sum(self.sent[-self.keep :])
        if found.compared < least:
            found.wrong.append(f"only {found.compared:,} records were compared, not {least:,}")
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT count(*) FROM {table.SCHEMA}.{self.stream.name}")
            (there,) = cursor.fetchone() or (0,)
        connection.rollback()
        gone = sum(entry.landed for entry in found.entries) - there
        if gone != found.dropped:
            found.wrong.append(f"{gone:,} rows are gone, and retention has dropped {found.dropped:,}")
        return [f"verify stream: {each}" for each in found.wrong]

    def _end(self, connection: Connection) -> None:
        """Ends the last drain, by claiming its partitions."""
        position.claim(connection, self.stream.reader, topics.describe(self.topic), range(PARTITIONS), "bench")
        connection.commit()
        self._send([b"unread"] * PARTITIONS, datetime.now(UTC))
        self._threads.shutdown()

    def _send(self, values: Iterable[bytes], today: datetime) -> None:
        for number, value in enumerate(values):
            stamp = int(today.timestamp() * 1000)
            self._producer.produce(self.topic, value, partition=number % PARTITIONS, timestamp=stamp)
        assert self._producer.flush(PATIENCE_S) == 0

    def _reached(self, connection: Connection) -> dict[int, int]:
        stored_positions = position.read_positions(connection, self.stream.reader, self.topic)
        connection.rollback()
        return {partition: stored.position.next_offset for partition, stored in stored_positions.items()}

    def _waiting(self, connection: Connection) -> int:
        return sum(self.sent) - sum(self._reached(connection).values())

    def _raise_failures(self) -> None:
        for ended in self.drains:
            if ended.done() and (error := ended.exception()) is not None and not isinstance(error, Fenced):
                raise error
        self.drains = [each for each in self.drains if not each.done()]
