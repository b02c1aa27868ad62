"""The backlog of a reader: what lies in a topic past its durable position, and the sensor that waits for some.

The sensor looks once in the worker and then waits in the triggerer: no worker slot is held, no consumer group joined,
and the triggerer's event loop is not blocked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator
from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from include.errors import UserError
from include.kafka import position, topics
from include.kafka.stops import Stop, TopicRecreated
from include.kafka.topics import Extent

if TYPE_CHECKING:
    from airflow.sdk import Context
    from confluent_kafka.admin import AdminClient
    from psycopg2.extensions import connection as Connection

# A trigger that fires at once races with the scheduler's own record of the deferral, and the task fails
# (apache/airflow#71580 and #72716): holding the first event back for a moment avoids it.
HOLD_FIRE_S = 1.5
# A broker that has just started may not know its topics for a moment.
STOPS_SEEN = 2


@dataclass(frozen=True)
class Backlog:
    """What lies past a reader's position, in offsets.

    Attributes:
        positions: For each partition, the next offset to read; 0 where nothing was read yet.
        extents: For each partition, where its log lies.
    """

    positions: Mapping[int, int]
    extents: Mapping[int, Extent]

    @property
    def lag(self) -> int:
        """Offsets that could be read now."""
        ends = ((self.extents[p], offset) for p, offset in self.positions.items())
        return sum(max(0, extent.stable_end - max(offset, extent.first)) for extent, offset in ends)

    @property
    def blocked(self) -> bool:
        """Whether records wait behind an open transaction and nothing else can be read."""
        return self.lag == 0 and any(extent.end > extent.stable_end for extent in self.extents.values())


def measure(brokers: AdminClient, connection: Connection, reader: str, topic: str) -> Backlog:
    """Compares a topic's ends with the reader's positions.

    Raises:
        TopicMissing: There is no such topic.
        TopicRecreated: The positions are those of an earlier one.
        UserError: Kafka does not answer.
    """
    found = topics.describe(topic, brokers)
    standings = position.standings(connection, reader, topic)
    connection.rollback()
    for standing in standings.values():
        if standing.topic_id != found.id:
            raise TopicRecreated(reader, topic, standing.topic_id, found.id)
    positions = {p: standings[p].position.next_offset if p in standings else 0 for p in found.partitions}
    return Backlog(positions, topics.extents(topic, found.partitions, brokers))


class Probe:
    """Measures one backlog again and again over kept connections, opened anew after an error."""

    def __init__(self, reader: str, topic: str) -> None:
        self.reader, self.topic = reader, topic
        self._brokers: AdminClient | None = None
        self._connection: Connection | None = None

    def measure(self) -> Backlog:
        """See ``measure``."""
        from include.kafka import client
        from include.warehouse.connection import connect

        if self._connection is None or self._connection.closed:
            self._connection = connect(f"millrace backlog {self.topic}")
        # Not `or`: a client whose queue is empty is false.
        self._brokers = client.admin() if self._brokers is None else self._brokers
        try:
            return measure(self._brokers, self._connection, self.reader, self.topic)
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        """Lets go of both connections."""
        if self._connection is not None:
            self._connection.close()
        self._connection = self._brokers = None


class BacklogTrigger(BaseTrigger):
    """Fires once the backlog is not empty, or after ``at_most_s`` seconds without any.

    Errors of the brokers or the database do not end the waiting: they are logged, and it goes on when they are back. A
    named stop that is seen twice does: the task that follows meets it, too, and fails with it.

    Args:
        reader: Whose position counts.
        topic: The topic to watch.
        poll_s: Seconds between two looks.
        at_most_s: Seconds until it fires in any case, so that one run of a long-running DAG has an end.
    """

    def __init__(self, reader: str, topic: str, poll_s: float, at_most_s: float) -> None:
        super().__init__()
        self.reader, self.topic, self.poll_s, self.at_most_s = reader, topic, poll_s, at_most_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """How Airflow stores the trigger."""
        return (
            "include.kafka.backlog.BacklogTrigger",
            {"reader": self.reader, "topic": self.topic, "poll_s": self.poll_s, "at_most_s": self.at_most_s},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Looks every ``poll_s`` seconds, in a thread."""
        from asgiref.sync import sync_to_async

        probe = Probe(self.reader, self.topic)
        started = time.monotonic()
        # thread_sensitive=False: otherwise all triggers of a triggerer would share one thread for their looks.
        look = sync_to_async(probe.measure, thread_sensitive=False)
        try:
            lag = stops = 0
            while lag == 0 and stops < STOPS_SEEN and time.monotonic() - started < self.at_most_s:
                await asyncio.sleep(self.poll_s)
                try:
                    lag = (await look()).lag
                    stops = 0
                except Exception as error:
                    stops = stops + 1 if isinstance(error, Stop) else 0
                    self.log.warning("Still waiting for %s: %s", self.topic, error)
                    await asyncio.sleep(min(5.0, 10 * self.poll_s))
            await asyncio.sleep(max(0.0, HOLD_FIRE_S - (time.monotonic() - started)))
            # Ends the task here: going back to a worker only to succeed would cost most of a second.
            yield TaskSuccessEvent()
        finally:
            probe.close()


class BacklogSensor(BaseSensorOperator):
    """Succeeds as soon as a topic holds records past the reader's durable position, or after ``at_most`` without any.

    Args:
        reader: Whose position counts.
        kafka_topic: The topic to watch.
        poll: Time between two looks while it waits.
        at_most: It succeeds after so long in any case; what follows then finds nothing to do.
    """

    template_fields = ("reader", "kafka_topic")

    def __init__(
        self,
        *,
        reader: str,
        kafka_topic: str,
        poll: timedelta = timedelta(seconds=0.5),
        at_most: timedelta = timedelta(hours=12),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.reader, self.kafka_topic, self.poll, self.at_most = reader, kafka_topic, poll, at_most

    def execute(self, context: Context) -> int:
        """Looks once, then defers. Returns the lag in offsets.

        When Kafka or PostgreSQL does not answer it defers, too: the trigger waits for them without a worker.
        """
        probe = Probe(self.reader, self.kafka_topic)
        lag = 0
        try:
            lag = probe.measure().lag
        except Stop:
            raise
        except UserError as error:
            self.log.warning("%s", error)
        finally:
            probe.close()
        if lag == 0:
            self.defer(
                trigger=BacklogTrigger(
                    self.reader, self.kafka_topic, self.poll.total_seconds(), self.at_most.total_seconds()
                ),
                # Never called, as the trigger itself ends the task.
                method_name="execute",
            )
        return lag
