"""The backlog of a reader: the records past its stored position, measured for one reader or for many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeVar
from weakref import WeakKeyDictionary

from include.errors import UserError
from include.kafka import client, position, topics
from include.kafka.position_errors import TopicRecreated
from include.kafka.topics import Extent, Topic

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient
    from psycopg2.extensions import connection as Connection

T = TypeVar("T")
Key = tuple[str, str]
"""A reader and its topic."""


@dataclass(frozen=True)
class Backlog:
    """The offsets past a reader's position.

    Attributes:
        positions: For each partition, the next offset to read; 0 if it was never read.
        extents: For each partition, the offsets that its log holds.
    """

    positions: Mapping[int, int]
    extents: Mapping[int, Extent]

    @property
    def lag(self) -> int:
        """The number of offsets that can be read now."""
        ends = ((self.extents[p], offset) for p, offset in self.positions.items())
        return sum(max(0, extent.stable_end - max(offset, extent.first)) for extent, offset in ends)

    @property
    def blocked(self) -> bool:
        """Whether an open transaction holds back all records that wait."""
        return self.lag == 0 and any(extent.end > extent.stable_end for extent in self.extents.values())


def measure(brokers: AdminClient, connection: Connection, reader: str, topic: str) -> Backlog:
    """Compares a topic's ends with the reader's positions.

    Raises:
        TopicMissing: There is no such topic.
        TopicRecreated: The positions belong to an earlier topic of that name.
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


def measure_all(
    brokers: AdminClient,
    connection: Connection,
    keys: Collection[Key],
    timeout_s: float = client.REQUEST_TIMEOUT_S,
) -> dict[Key, Backlog | UserError]:
    """What ``measure`` returns or raises for each reader and topic, with one set of requests for all.

    Args:
        timeout_s: Seconds that each of the four requests waits at most.
    """
    described = topics.describe_all([topic for _, topic in keys], brokers, timeout_s)
    known = position.read_all_positions(connection, keys)
    connection.rollback()
    extents = topics.extents_of_all(
        [found for found in described.values() if isinstance(found, Topic)], brokers, timeout_s
    )
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


class BacklogReader:
    """Measures backlogs over connections that it keeps, and opens again after an error."""

    def __init__(self) -> None:
        self._brokers: AdminClient | None = None
        self._connection: Connection | None = None

    def measure(self, reader: str, topic: str) -> Backlog:
        """See ``measure``."""
        return self._with_connections(lambda brokers, connection: measure(brokers, connection, reader, topic))

    def measure_all(self, keys: Collection[Key]) -> dict[Key, Backlog | UserError]:
        """See ``measure_all``."""
        return self._with_connections(lambda brokers, connection: measure_all(brokers, connection, keys))

    def _with_connections(self, work: Callable[[AdminClient, Connection], T]) -> T:
        from include.warehouse.connection import connect

        try:
            if self._connection is None or self._connection.closed:
                self._connection = connect("millrace backlog")
            # Not `or`: a client with an empty queue is false.
            self._brokers = client.admin() if self._brokers is None else self._brokers
            return work(self._brokers, self._connection)
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        """Closes both connections."""
        if self._connection is not None:
            self._connection.close()
        self._connection = self._brokers = None


class SharedBacklogReader:
    """Measures for all triggers of an event loop: one connection to each server, however many triggers wait.

    Triggers that ask at the same moment share one measurement. Those that ask during a measurement share the next.
    """

    _of_loops: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, SharedBacklogReader]] = WeakKeyDictionary()

    def __init__(self) -> None:
        self._backlogs = BacklogReader()
        self._waiting: dict[Key, list[asyncio.Future[Backlog]]] = {}
        self._measuring: asyncio.Task[None] | None = None
        self._users = 0

    @classmethod
    @contextmanager
    def shared(cls) -> Iterator[SharedBacklogReader]:
        """The running event loop's instance, for one trigger. The last trigger's exit closes the connections."""
        reader = cls._of_loops.setdefault(asyncio.get_running_loop(), cls())
        reader._users += 1
        try:
            yield reader
        finally:
            reader._users -= 1
            if not reader._users and reader._measuring is None:
                reader._backlogs.close()

    async def backlog(self, reader: str, topic: str) -> Backlog:
        """See ``measure``."""
        answer: asyncio.Future[Backlog] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault((reader, topic), []).append(answer)
        if self._measuring is None:
            self._measuring = asyncio.create_task(self._measure_all())
        return await answer

    async def _measure_all(self) -> None:
        from asgiref.sync import sync_to_async

        # thread_sensitive=False: not in the single thread that all other work of the triggerer shares.
        measure_all = sync_to_async(self._backlogs.measure_all, thread_sensitive=False)
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, {}
                try:
                    found: Mapping[Key, Backlog | Exception] = await measure_all(list(waiting))
                except Exception as error:
                    found = dict.fromkeys(waiting, error)
                for key, answers in waiting.items():
                    for answer in answers:
                        _set_result(answer, found[key])
        finally:
            self._measuring = None
            if not self._users:
                self._backlogs.close()


def _set_result(answer: asyncio.Future[Backlog], found: Backlog | Exception) -> None:
    if answer.done():
        return
    if isinstance(found, Exception):
        answer.set_exception(found)
    else:
        answer.set_result(found)
