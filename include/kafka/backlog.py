"""The backlog of a reader: what lies in a topic past its stored position, for many readers at once if asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeVar
from weakref import WeakKeyDictionary

from include.errors import UserError
from include.kafka import position, topics
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


class BacklogReader:
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
        self._probe = BacklogReader()
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
