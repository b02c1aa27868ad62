"""Topics: their making, their identity, and where their logs begin and end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast

from include.errors import UserError
from include.kafka import client
from include.kafka.position_errors import TopicMissing

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

T = TypeVar("T")

LEADERLESS_S = 3.0
# A broker that has just started on a busy machine takes its time to elect the leaders of a new topic.
MADE_LEADERLESS_S = 30.0
# A topic's name that no topic has.
NO_TOPIC = "millrace.none"


@dataclass(frozen=True)
class Topic:
    """A topic as the brokers know it.

    Attributes:
        name: The topic's name.
        id: Its incarnation, a UUID that changes when the topic is deleted and made again.
        partitions: The partitions' numbers, ascending.
    """

    name: str
    id: str
    partitions: tuple[int, ...]


@dataclass(frozen=True)
class Extent:
    """Where one partition's log lies, in offsets; each end is exclusive.

    Attributes:
        first: The first offset that still exists.
        stable_end: The last stable offset: everything below is committed or aborted.
        end: The high watermark; above ``stable_end`` when a transaction is open.
    """

    first: int
    stable_end: int
    end: int


def create(
    name: str,
    *,
    partitions: int,
    config: Mapping[str, str],
    replication: int = -1,
    brokers: AdminClient | None = None,
) -> bool:
    """Makes a topic when it does not exist yet, and returns whether it did so, once each partition has a leader.

    Args:
        config: Topic settings, such as ``{"retention.ms": "-1"}``.
        replication: Replicas; -1 leaves it to the brokers' default.
        brokers: Whom to ask; a client made for one question needs longer to connect than to ask it.

    Raises:
        UserError: The brokers do not answer or refuse.
    """
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import NewTopic

    brokers = _asked(brokers)
    topic = NewTopic(name, num_partitions=partitions, replication_factor=replication, config=dict(config))
    try:
        brokers.create_topics([topic], request_timeout=client.REQUEST_TIMEOUT_S)[name].result()
    except KafkaException as error:
        if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return False
        raise _unreachable(error) from error
    # The next producer finds leaders: a broker that does not know its partition yet refuses a first batch.
    _once_led(name, range(partitions), brokers, made=True)
    return True


def connected() -> AdminClient:
    """A client whose first question to the brokers has been answered; keep it, as one of ``client.admin``.

    Raises:
        UserError: The brokers do not answer.
    """
    from confluent_kafka import KafkaException

    brokers = client.admin()
    try:
        brokers.list_topics(NO_TOPIC, timeout=client.REQUEST_TIMEOUT_S)
    except KafkaException as error:
        raise _unreachable(error) from error
    return brokers


def names(timeout_s: float = client.REQUEST_TIMEOUT_S) -> list[str]:
    """The names of all topics that the connection may see.

    Raises:
        UserError: The brokers do not answer within ``timeout_s`` seconds.
    """
    from confluent_kafka import KafkaException

    try:
        return sorted(client.admin().list_topics(timeout=timeout_s).topics)
    except KafkaException as error:
        raise _unreachable(error) from error


def describe(name: str, brokers: AdminClient | None = None) -> Topic:
    """The topic's id and partitions.

    Raises:
        TopicMissing: There is no such topic.
        UserError: The brokers do not answer.
    """
    # Held until the answer is there: a client that is collected before gives none.
    brokers = _asked(brokers)
    return ask(name, brokers)()


def ask(name: str, brokers: AdminClient) -> Callable[[], Topic]:
    """Asks what ``describe`` returns, without waiting; calling the result waits for the answer, and raises the same."""
    from confluent_kafka import TopicCollection

    asked = brokers.describe_topics(TopicCollection([name]), request_timeout=client.REQUEST_TIMEOUT_S)[name]

    return lambda: _described(name, asked)


def extents(topic: str, partitions: Iterable[int], brokers: AdminClient | None = None) -> dict[int, Extent]:
    """Where each partition's log lies now, asked from the brokers, never from a cache.

    Raises:
        UserError: The brokers do not answer.
    """
    return _once_led(topic, partitions, _asked(brokers))


def describe_all(names: Iterable[str], brokers: AdminClient) -> dict[str, Topic | UserError]:
    """What ``describe`` returns or raises for each of some topics, asked in one question."""
    from confluent_kafka import TopicCollection

    wanted = sorted(set(names))
    asked = brokers.describe_topics(TopicCollection(wanted), request_timeout=client.REQUEST_TIMEOUT_S) if wanted else {}
    return {name: _outcome(lambda name=name: _described(name, asked[name])) for name in wanted}  # type: ignore[misc]


def extents_of_all(found: Iterable[Topic], brokers: AdminClient) -> dict[str, dict[int, Extent] | UserError]:
    """What ``extents`` returns or raises for all partitions of each of some topics, asked in three questions.

    A partition without a leader is not waited for.
    """
    topics = list(found)
    places = [(topic.name, partition) for topic in topics for partition in topic.partitions]
    ends = _ends(places, brokers)
    return {
        topic.name: _outcome(lambda topic=topic: {p: ends(topic.name, p) for p in topic.partitions})  # type: ignore[misc]
        for topic in topics
    }


def offsets_at(topic: str, partitions: Iterable[int], moment: datetime) -> dict[int, int | None]:
    """For each partition the offset of the first record of a moment or later, by the records' times in Kafka.

    Returns:
        None for a partition that has no such record.

    Raises:
        UserError: The brokers do not answer.
    """
    from confluent_kafka import KafkaException, TopicPartition
    from confluent_kafka.admin import OffsetSpec

    # Records have times in whole milliseconds: the first of them at or after the moment.
    spec = OffsetSpec.for_timestamp(-int(-moment.timestamp() * 1000 // 1))
    wanted = {TopicPartition(topic, partition): spec for partition in partitions}
    brokers = client.admin()
    try:
        found = {
            asked.partition: future.result().offset
            for asked, future in brokers.list_offsets(wanted, request_timeout=client.REQUEST_TIMEOUT_S).items()
        }
    except KafkaException as error:
        raise _unreachable(error) from error
    return {partition: offset if offset >= 0 else None for partition, offset in found.items()}


def settings(name: str) -> dict[str, str]:
    """Every setting of a topic that is in force, those of the brokers included.

    Raises:
        TopicMissing: There is no such topic.
        UserError: The brokers do not answer.
    """
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import ConfigResource, ResourceType

    brokers, topic = client.admin(), ConfigResource(ResourceType.TOPIC, name)
    try:
        found = brokers.describe_configs([topic], request_timeout=client.REQUEST_TIMEOUT_S)[topic].result()
    except KafkaException as error:
        if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise TopicMissing(name) from error
        raise _unreachable(error) from error
    return {entry.name: entry.value for entry in found.values()}


def drop_below(name: str, offsets: Mapping[int, int]) -> None:
    """Removes the committed records of each partition below an offset; what is gone already stays gone.

    Raises:
        TopicMissing: There is no such topic.
        UserError: The brokers do not answer or refuse.
    """
    from confluent_kafka import KafkaException, TopicPartition

    brokers = client.admin()
    known = describe(name, brokers).partitions
    found = extents(name, [partition for partition in offsets if partition in known], brokers)
    wanted = {p: min(offsets[p], extent.stable_end) for p, extent in found.items()}
    places = [TopicPartition(name, p, offset) for p, offset in wanted.items() if offset > found[p].first]
    if not places:
        return
    try:
        for dropped in brokers.delete_records(places, request_timeout=client.REQUEST_TIMEOUT_S).values():
            dropped.result()
    except KafkaException as error:
        raise _unreachable(error) from error


def _asked(brokers: AdminClient | None) -> AdminClient:
    # Never `brokers or …`: a client has a length, that of its queue, and is false while that is empty.
    return client.admin() if brokers is None else brokers


def _once_led(topic: str, partitions: Iterable[int], brokers: AdminClient, *, made: bool = False) -> dict[int, Extent]:
    """The partitions' extents, asked again while one has no leader, or the topic was ``made`` and is not known yet."""
    from confluent_kafka import KafkaError, KafkaException

    # A topic just made has no leader yet, or one that a broker has not heard of; a broker that has just started may not
    # know who leads since when.
    passing = [
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.FENCED_LEADER_EPOCH,
        # The client's own word for it, when no partition that was asked for has a leader.
        KafkaError._NOENT,
        *([KafkaError.UNKNOWN_TOPIC_OR_PART] if made else []),
    ]
    deadline = time.monotonic() + (MADE_LEADERLESS_S if made else LEADERLESS_S)
    while True:
        try:
            return _extents(topic, partitions, brokers)
        except KafkaException as error:
            if error.args[0].code() not in passing or time.monotonic() > deadline:
                raise _unreachable(error) from error
            if made and error.args[0].code() == KafkaError._NOENT:
                # A client that asked before there was a leader may go on to know of none for longer than anybody waits.
                brokers = client.admin()
            time.sleep(0.01)


def _described(name: str, asked: Future[Any]) -> Topic:
    from confluent_kafka import KafkaError, KafkaException

    try:
        found = asked.result()
    except KafkaException as error:
        if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise TopicMissing(name) from error
        raise _unreachable(error) from error
    return Topic(name, str(found.topic_id), tuple(sorted(partition.id for partition in found.partitions)))


def _settled(asked: Future[Any]) -> int | Exception:
    """The offset that was asked for, or why there is none, once it is known."""
    from confluent_kafka import KafkaException

    try:
        return cast(int, asked.result().offset)
    except KafkaException as error:
        return error


def _outcome(answer: Callable[[], T]) -> T | UserError:
    from confluent_kafka import KafkaException

    try:
        return answer()
    except KafkaException as error:
        return _unreachable(error)
    except UserError as error:
        return error


def _extents(topic: str, partitions: Iterable[int], brokers: AdminClient) -> dict[int, Extent]:
    places = [(topic, partition) for partition in partitions]
    extent = _ends(places, brokers)
    return {partition: extent(topic, partition) for _, partition in places}


def _ends(places: Sequence[tuple[str, int]], brokers: AdminClient) -> Callable[[str, int], Extent]:
    """Asks where the logs of some partitions lie; calling the result gives one, or raises KafkaException for it."""
    from confluent_kafka import IsolationLevel, TopicPartition
    from confluent_kafka.admin import OffsetSpec

    wanted = [TopicPartition(topic, partition) for topic, partition in places]

    def ask(spec: OffsetSpec, isolation: IsolationLevel) -> dict[tuple[str, int], int | Exception]:
        # Each question waits for its answer. While librdkafka 2.16 finds out who leads for one, another may crash: its
        # own thread and that of the second one work on the same, and what the one has freed the other still uses.
        if not wanted:
            return {}
        asked = brokers.list_offsets(
            dict.fromkeys(wanted, spec), isolation_level=isolation, request_timeout=client.REQUEST_TIMEOUT_S
        )
        return {(place.topic, place.partition): _settled(future) for place, future in asked.items()}

    first = ask(OffsetSpec.earliest(), IsolationLevel.READ_UNCOMMITTED)
    # The stable end is asked before the end, so that it can never appear to lie above it.
    stable_end = ask(OffsetSpec.latest(), IsolationLevel.READ_COMMITTED)
    end = ask(OffsetSpec.latest(), IsolationLevel.READ_UNCOMMITTED)

    def extent(topic: str, partition: int) -> Extent:
        place = topic, partition
        found = [answers[place] for answers in (first, stable_end, end)]
        for answer in found:
            if isinstance(answer, Exception):
                raise answer
        return Extent(*cast("list[int]", found))

    return extent


def _unreachable(error: Exception) -> UserError:
    return UserError(
        f"Kafka does not answer as asked: {error.args[0].str()}.",
        "Start the platform with ./millrace up, or fix the connection millrace_kafka.",
    )
