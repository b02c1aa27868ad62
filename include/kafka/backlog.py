"""The backlog of a reader: what lies in a topic past its durable position, and the sensor that waits for some.

The sensor looks once in the worker and then waits in the triggerer: no worker slot is held, no consumer group joined,
and the triggerer's event loop is not blocked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from weakref import WeakKeyDictionary

from airflow.sdk import BaseSensorOperator
from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from include.errors import UserError
from include.kafka import position, topics
from include.kafka.position_errors import PositionError, TopicRecreated
from include.kafka.topics import Extent, Topic

if TYPE_CHECKING:
    from airflow.sdk import Context
    from confluent_kafka.admin import AdminClient
    from psycopg2.extensions import connection as Connection

# A trigger that fires at once races with the scheduler's own record of the deferral, and the task fails
# (apache/airflow#71580 and #72716): holding the first event back for a moment avoids it.
HOLD_FIRE_S = 1.5
T = TypeVar("T")
Key = tuple[str, str]
"""A reader and its topic."""
# A broker that has just started may not know its topics for a moment.
ERRORS_SEEN = 2


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
    stored_positions = position.read_positions(connection, reader, topic)
    connection.rollback()
    for stored in stored_positions.values():
        if stored.topic_id != found.id:
            raise TopicRecreated(reader, topic, stored.topic_id, found.id)
    positions = {p: stored_positions[p].position.next_offset if p in stored_positions else 0 for p in found.partitions}
    return Backlog(positions, topics.extents(topic, found.partitions, brokers))


def measure_all(brokers: AdminClient, connection: Connection, keys: Collection[Key]) -> dict[Key, Backlog | UserError]:
    """What ``measure`` returns or raises for each of some readers with their topics, asked all at once."""
    described = topics.describe_all([topic for _, topic in keys], brokers)
    known = position.read_all_positions(connection, keys)
    connection.rollback()
    extents = topics.extents_of_all([found for found in described.values() if isinstance(found, Topic)], brokers)
    return {key: _one(*key, described[key[1]], known.get(key, {}), extents.get(key[1], {})) for key in keys}


def _one(
    reader: str,
    topic: str,
    found: Topic | UserError,
    stored_positions: Mapping[int, position.StoredPosition],
    extents: Mapping[int, Extent] | UserError,
) -> Backlog | UserError:
    if isinstance(found, UserError):
        return found
    for stored in stored_positions.values():
        if stored.topic_id != found.id:
            return TopicRecreated(reader, topic, stored.topic_id, found.id)
    if isinstance(extents, UserError):
        return extents
    return Backlog(
        {p: stored_positions[p].position.next_offset if p in stored_positions else 0 for p in found.partitions}, extents
    )


class Probe:
    """Measures backlogs again and again over kept connections, which are opened again after an error."""

    def __init__(self) -> None:
        self._brokers: AdminClient | None = None
        self._connection: Connection | None = None

    def measure(self, reader: str, topic: str) -> Backlog:
        """See ``measure``."""
        return self._over_connections(lambda brokers, connection: measure(brokers, connection, reader, topic))

    def measure_all(self, keys: Collection[Key]) -> dict[Key, Backlog | UserError]:
        """See ``measure_all``."""
        return self._over_connections(lambda brokers, connection: measure_all(brokers, connection, keys))

    def _over_connections(self, ask: Callable[[AdminClient, Connection], T]) -> T:
        from include.kafka import client
        from include.warehouse.connection import connect

        try:
            if self._connection is None or self._connection.closed:
                self._connection = connect("millrace backlog")
            # Not `or`: a client whose queue is empty is false.
            self._brokers = client.admin() if self._brokers is None else self._brokers
            return ask(self._brokers, self._connection)
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        """Lets go of both connections."""
        if self._connection is not None:
            self._connection.close()
        self._connection = self._brokers = None


class Watch:
    """Looks for all triggers of an event loop at once: one connection to each server, however many wait.

    Triggers that ask at the same moment share one look; what asks during a look shares the next.
    """

    _of_loops: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, Watch]] = WeakKeyDictionary()

    def __init__(self) -> None:
        self._probe = Probe()
        self._asked: dict[Key, list[asyncio.Future[Backlog]]] = {}
        self._looking: asyncio.Task[None] | None = None
        self._users = 0

    @classmethod
    @contextmanager
    def shared(cls) -> Iterator[Watch]:
        """The watch of the running event loop, for one trigger; its connections end with the last one's block."""
        watch = cls._of_loops.setdefault(asyncio.get_running_loop(), cls())
        watch._users += 1
        try:
            yield watch
        finally:
            watch._users -= 1
            if not watch._users and watch._looking is None:
                watch._probe.close()

    async def backlog(self, reader: str, topic: str) -> Backlog:
        """See ``measure``."""
        answer: asyncio.Future[Backlog] = asyncio.get_running_loop().create_future()
        self._asked.setdefault((reader, topic), []).append(answer)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        return await answer

    async def _look(self) -> None:
        from asgiref.sync import sync_to_async

        # thread_sensitive=False: not in the one thread that a triggerer's other work shares.
        measure_all = sync_to_async(self._probe.measure_all, thread_sensitive=False)
        try:
            while self._asked:
                asked, self._asked = self._asked, {}
                try:
                    found: Mapping[Key, Backlog | Exception] = await measure_all(list(asked))
                except Exception as error:
                    found = dict.fromkeys(asked, error)
                for key, answers in asked.items():
                    for answer in answers:
                        _settle(answer, found[key])
        finally:
            self._looking = None
            if not self._users:
                self._probe.close()


def _settle(answer: asyncio.Future[Backlog], found: Backlog | Exception) -> None:
    if answer.done():
        return
    if isinstance(found, Exception):
        answer.set_exception(found)
    else:
        answer.set_result(found)


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
        """Looks every ``poll_s`` seconds, together with the other triggers."""
        started = time.monotonic()
        with Watch.shared() as watch:
            lag = stops = 0
            while lag == 0 and stops < ERRORS_SEEN and time.monotonic() - started < self.at_most_s:
                await asyncio.sleep(self._until_look())
                try:
                    lag = (await watch.backlog(self.reader, self.topic)).lag
                    stops = 0
                except Exception as error:
                    stops = stops + 1 if isinstance(error, PositionError) else 0
                    self.log.warning("Still waiting for %s: %s", self.topic, error)
                    await asyncio.sleep(min(5.0, 10 * self.poll_s))
            await asyncio.sleep(max(0.0, HOLD_FIRE_S - (time.monotonic() - started)))
            # Ends the task here: going back to a worker only to succeed would cost most of a second.
            yield TaskSuccessEvent()

    def _until_look(self) -> float:
        """Seconds until the next look: all triggers look at the same moments."""
        return self.poll_s - time.monotonic() % self.poll_s if self.poll_s else 0.0


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
        probe = Probe()
        lag = 0
        try:
            lag = probe.measure(self.reader, self.kafka_topic).lag
        except PositionError:
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
