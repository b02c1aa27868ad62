"""The backlog of a reader: the records past its stored position, measured for one reader or for many at once."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, ClassVar, TypeVar
from weakref import WeakKeyDictionary

from include.errors import UserError
from include.kafka import client, position, topic_choice, topics
from include.kafka.position_errors import TopicMissing, TopicRecreated
from include.kafka.topic_choice import TopicChoice
from include.kafka.topics import Extent, Topic

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient
    from psycopg2.extensions import connection as Connection

T = TypeVar("T")

SEARCH_EVERY_S = 3.0
"""Seconds after which a process that waits looks for new topics again."""
Key = tuple[str, str]
"""A reader and its topic, or the text of its ``TopicChoice``."""
Place = tuple[str, int]
"""A topic and the number of a partition."""


@dataclass(frozen=True)
class Backlog:
    """The offsets past a reader's position.

    Attributes:
        positions: For each partition of each topic, the next offset to read; 0 if it was never read.
        extents: For each of them, the offsets that its log holds.
    """

    positions: Mapping[Place, int]
    extents: Mapping[Place, Extent]

    @property
    def lag(self) -> int:
        """The number of offsets that can be read now."""
        return sum(self.lags.values())

    @property
    def lags(self) -> dict[str, int]:
        """The number of offsets that can be read now, by topic."""
        found: dict[str, int] = {}
        for place, offset in self.positions.items():
            extent = self.extents[place]
            found[place[0]] = found.get(place[0], 0) + max(0, extent.stable_end - max(offset, extent.first))
        return found

    @property
    def blocked(self) -> bool:
        """Whether an open transaction holds back all records that wait."""
        return self.lag == 0 and any(extent.end > extent.stable_end for extent in self.extents.values())


def measure(brokers: AdminClient, connection: Connection, reader: str, topic: str) -> Backlog:
    """Compares a topic's ends with the reader's positions.

    Args:
        topic: The topic, or the text of a ``TopicChoice``. Of several topics, those count that exist or were read.

    Raises:
        TopicMissing: There is no such topic.
        TopicRecreated: The positions belong to an earlier topic of that name.
        UserError: Kafka does not answer.
    """
    choice = topic_choice.parse(topic)
    if not choice.is_one:
        found = of_choice(connection, reader, choice, partial(topics.names_of, brokers))
        return _joined(measure(brokers, connection, reader, name) for name in found)
    described = topics.describe(topic, brokers)
    stored_positions = position.read_positions(connection, reader, topic)
    connection.rollback()
    positions = _positions(reader, described, stored_positions)
    if isinstance(positions, UserError):
        raise positions
    extents = topics.extents(topic, described.partitions, brokers)
    return Backlog(positions, {(topic, partition): extent for partition, extent in extents.items()})


def of_choice(connection: Connection, reader: str, choice: TopicChoice, names: Callable[[], list[str]]) -> list[str]:
    """The topics of a choice: those that exist, and those that the reader has read before.

    Args:
        names: Returns the names of all topics.

    Raises:
        TopicMissing: None of the topics that it names exists.
        UserError: Kafka does not answer.
    """
    if choice.is_one:
        return list(choice.names)
    read = position.read_topics(connection, reader)
    connection.rollback()
    found = choice.of([*names(), *read])
    if not found and choice.names:
        raise TopicMissing(choice.names[0])
    return found


def _joined(parts: Iterable[Backlog]) -> Backlog:
    positions: dict[Place, int] = {}
    extents: dict[Place, Extent] = {}
    for each in parts:
        positions |= each.positions
        extents |= each.extents
    return Backlog(positions, extents)


def measure_all(
    brokers: AdminClient,
    connection: Connection,
    keys: Collection[Key],
    timeout_s: float = client.REQUEST_TIMEOUT_S,
    names: Callable[[], list[str]] | None = None,
) -> dict[Key, Backlog | UserError]:
    """What ``measure`` returns or raises for each reader and topic, with one set of requests for all.

    Args:
        names: Returns the names of all topics, for readers of several; by default it asks the brokers, once.
        timeout_s: Seconds that each of the four requests waits at most.
    """
    names = cache(partial(topics.names_of, brokers, timeout_s)) if names is None else names
    wanted: dict[Key, list[Key] | UserError] = {key: _keys(connection, key, names) for key in dict.fromkeys(keys)}
    single = {one for found in wanted.values() if not isinstance(found, UserError) for one in found}
    described = topics.describe_all([topic for _, topic in single], brokers, timeout_s)
    known = position.read_all_positions(connection, single) if single else {}
    connection.rollback()
    extents = topics.extents_of_all(
        [found for found in described.values() if isinstance(found, Topic)], brokers, timeout_s
    )
    measured = {key: _one(*key, described[key[1]], known.get(key, {}), extents.get(key[1], {})) for key in single}
    return {key: _all_of(found, measured) for key, found in wanted.items()}


def _keys(connection: Connection, key: Key, names: Callable[[], list[str]]) -> list[Key] | UserError:
    """The reader with each of its topics, or the error for which they are unknown."""
    reader, topic = key
    choice = topic_choice.parse(topic)
    if choice.is_one:
        return [key]
    try:
        return [(reader, name) for name in of_choice(connection, reader, choice, names)]
    except UserError as error:
        return error


def _all_of(keys: list[Key] | UserError, measured: Mapping[Key, Backlog | UserError]) -> Backlog | UserError:
    """The backlog of a reader in all of its topics, or the first error."""
    if isinstance(keys, UserError):
        return keys
    parts = []
    for key in keys:
        found = measured[key]
        if isinstance(found, UserError):
            return found
        parts.append(found)
    return parts[0] if len(parts) == 1 else _joined(parts)


def _one(
    reader: str,
    topic: str,
    found: Topic | UserError,
    stored_positions: Mapping[int, position.StoredPosition],
    extents: Mapping[int, Extent] | UserError,
) -> Backlog | UserError:
    if isinstance(found, UserError):
        return found
    positions = _positions(reader, found, stored_positions)
    if isinstance(positions, UserError):
        return positions
    if isinstance(extents, UserError):
        return extents
    return Backlog(positions, {(topic, partition): extent for partition, extent in extents.items()})


def _positions(
    reader: str, found: Topic, stored_positions: Mapping[int, position.StoredPosition]
) -> dict[Place, int] | TopicRecreated:
    """The next offset of each partition, or the error if the positions belong to an earlier topic of that name."""
    for stored in stored_positions.values():
        if stored.topic_id != found.id:
            return TopicRecreated(reader, found.name, stored.topic_id, found.id)
    return {
        (found.name, p): stored_positions[p].position.next_offset if p in stored_positions else 0
        for p in found.partitions
    }


class BacklogReader:
    """Measures backlogs over connections that it keeps, and opens again after an error."""

    def __init__(self) -> None:
        self._brokers: AdminClient | None = None
        self._connection: Connection | None = None
        self._names: list[str] = []
        self._named_at = -math.inf

    def measure(self, reader: str, topic: str) -> Backlog:
        """See ``measure``."""
        return self._with_connections(lambda brokers, connection: measure(brokers, connection, reader, topic))

    def measure_all(self, keys: Collection[Key]) -> dict[Key, Backlog | UserError]:
        """See ``measure_all``."""
        return self._with_connections(
            lambda brokers, connection: measure_all(brokers, connection, keys, names=lambda: self._names_of(brokers))
        )

    def _names_of(self, brokers: AdminClient) -> list[str]:
        """The names of all topics; those of a moment ago, because the list can be long."""
        if (now := time.monotonic()) - self._named_at > SEARCH_EVERY_S:
            self._names = topics.names_of(brokers)
            self._named_at = now
        return self._names

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
