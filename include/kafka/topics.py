"""Topics: creating them, their ids, and where their logs begin and end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast

from include.error_codes import Code
from include.errors import UserError
from include.kafka import client
from include.kafka.position_errors import TopicMissing

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

T = TypeVar("T")

LEADERLESS_S = 3.0
# A broker that has just started on a busy machine needs time to elect the leaders of a new topic.
CREATED_LEADERLESS_S = 30.0
# The name of a topic that does not exist.
NO_TOPIC = "millrace.none"


@dataclass(frozen=True)
class Topic:
    """A topic as the brokers describe it.

    Attributes:
        name: The topic's name.
        id: Its UUID, which changes when the topic is deleted and created again.
        partitions: The numbers of its partitions, ascending.
    """

    name: str
    id: str
    partitions: tuple[int, ...]


@dataclass(frozen=True)
class Extent:
    """The offsets that one partition's log holds; each end is exclusive.

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
    """Creates a topic unless it exists, and waits until each partition has a leader. Returns whether it was created.

    Args:
        config: Topic settings, such as ``{"retention.ms": "-1"}``.
        replication: Replicas; -1 for the brokers' default.
        brokers: The client to use; connecting a new one takes longer than the request.

    Raises:
        UserError: The brokers do not answer or refuse.
    """
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import NewTopic

    brokers = _client(brokers)
    topic = NewTopic(name, num_partitions=partitions, replication_factor=replication, config=dict(config))
    try:
        brokers.create_topics([topic], request_timeout=client.REQUEST_TIMEOUT_S)[name].result()
    except KafkaException as error:
        if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return False
        raise _request_failed(error) from error
    # A broker that does not have the new partition yet would refuse the next producer's first batch.
    _wait_for_leaders(name, range(partitions), brokers, created=True)
    return True


def connected(timeout_s: float = client.REQUEST_TIMEOUT_S) -> AdminClient:
    """A client that is connected to the brokers; keep a reference, as for ``client.admin``.

    Raises:
        UserError: The brokers do not answer within ``timeout_s`` seconds.
    """
    from confluent_kafka import KafkaException

    brokers = client.admin()
    try:
        brokers.list_topics(NO_TOPIC, timeout=timeout_s)
    except KafkaException as error:
        raise _request_failed(error) from error
    return brokers


def names(timeout_s: float = client.REQUEST_TIMEOUT_S) -> list[str]:
    """The names of all topics that the connection may list.

    Raises:
        UserError: The brokers do not answer within ``timeout_s`` seconds.
    """
    return names_of(client.admin(), timeout_s)


def names_of(brokers: AdminClient, timeout_s: float = client.REQUEST_TIMEOUT_S) -> list[str]:
    """``names`` with a client that exists."""
    from confluent_kafka import KafkaException

    try:
        return sorted(brokers.list_topics(timeout=timeout_s).topics)
    except KafkaException as error:
        raise _request_failed(error) from error


def describe(name: str, brokers: AdminClient | None = None) -> Topic:
    """The topic's id and partitions.

    Raises:
        TopicMissing: There is no such topic.
        UserError: The brokers do not answer.
    """
    # This reference keeps the client alive until the answer has arrived.
    brokers = _client(brokers)
    return request_description(name, brokers)()


def request_description(name: str, brokers: AdminClient) -> Callable[[], Topic]:
    """Sends the request of ``describe`` without waiting. Call the result to wait for the answer; it raises the same."""
    from confluent_kafka import TopicCollection

    request = brokers.describe_topics(TopicCollection([name]), request_timeout=client.REQUEST_TIMEOUT_S)[name]

    return lambda: _description(name, request)


def request_descriptions(names: Sequence[str], brokers: AdminClient) -> Callable[[], list[Topic]]:
    """``request_description`` for several topics, in one request."""
    from confluent_kafka import TopicCollection

    requests = brokers.describe_topics(TopicCollection(list(names)), request_timeout=client.REQUEST_TIMEOUT_S)

    return lambda: [_description(name, requests[name]) for name in names]


def extents(topic: str, partitions: Iterable[int], brokers: AdminClient | None = None) -> dict[int, Extent]:
    """The offsets that each partition's log holds now, from the brokers and never from a cache.

    Raises:
        UserError: The brokers do not answer.
    """
    return _wait_for_leaders(topic, partitions, _client(brokers))


def describe_all(
    names: Iterable[str], brokers: AdminClient, timeout_s: float = client.REQUEST_TIMEOUT_S
) -> dict[str, Topic | UserError]:
    """What ``describe`` returns or raises for each topic, in one request that waits ``timeout_s`` seconds at most."""
    from confluent_kafka import TopicCollection

    wanted = sorted(set(names))
    found = brokers.describe_topics(TopicCollection(wanted), request_timeout=timeout_s) if wanted else {}
    return {name: _outcome(lambda name=name: _description(name, found[name])) for name in wanted}  # type: ignore[misc]


def extents_of_all(
    found: Iterable[Topic], brokers: AdminClient, timeout_s: float = client.REQUEST_TIMEOUT_S
) -> dict[str, dict[int, Extent] | UserError]:
    """What ``extents`` returns or raises for all partitions of each topic, in three requests.

    It does not wait for a partition without a leader. Each request waits ``timeout_s`` seconds at most.
    """
    topics = list(found)
    places = [(topic.name, partition) for topic in topics for partition in topic.partitions]
    ends = _ends(places, brokers, timeout_s)
    return {
        topic.name: _outcome(lambda topic=topic: {p: ends(topic.name, p) for p in topic.partitions})  # type: ignore[misc]
        for topic in topics
    }


def offsets_at(topic: str, partitions: Iterable[int], moment: datetime) -> dict[int, int | None]:
    """For each partition the offset of the first record at or after a moment, by the records' timestamps in Kafka.

    Returns:
        None for a partition without such a record.

    Raises:
        UserError: The brokers do not answer.
    """
    from confluent_kafka import KafkaException, TopicPartition
    from confluent_kafka.admin import OffsetSpec

    # Timestamps are whole milliseconds: round the moment up.
    spec = OffsetSpec.for_timestamp(-int(-moment.timestamp() * 1000 // 1))
    wanted = {TopicPartition(topic, partition): spec for partition in partitions}
    brokers = client.admin()
    try:
        found = {
            place.partition: future.result().offset
            for place, future in brokers.list_offsets(wanted, request_timeout=client.REQUEST_TIMEOUT_S).items()
        }
    except KafkaException as error:
        raise _request_failed(error) from error
    return {partition: offset if offset >= 0 else None for partition, offset in found.items()}


def settings(name: str) -> dict[str, str]:
    """Every setting of a topic, including those that it takes from the brokers.

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
        raise _request_failed(error) from error
    return {entry.name: entry.value for entry in found.values()}


def drop_below(name: str, offsets: Mapping[int, int]) -> None:
    """Deletes the committed records of each partition below an offset.

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
        raise _request_failed(error) from error


def _client(brokers: AdminClient | None) -> AdminClient:
    # Not `brokers or …`: a client's length is that of its queue, so it is false while the queue is empty.
    return client.admin() if brokers is None else brokers


def _wait_for_leaders(
    topic: str, partitions: Iterable[int], brokers: AdminClient, *, created: bool = False
) -> dict[int, Extent]:
    """The partitions' extents, requested again while one has no leader.

    Args:
        created: The topic was just created, and a broker may not have it yet.
    """
    from confluent_kafka import KafkaError, KafkaException

    # A new topic has no leader yet, or a broker has not received it; a broker that has just started may not have the
    # current leader epoch.
    transient = [
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.FENCED_LEADER_EPOCH,
        # The client's own code, when none of the partitions has a leader.
        KafkaError._NOENT,
        *([KafkaError.UNKNOWN_TOPIC_OR_PART] if created else []),
    ]
    deadline = time.monotonic() + (CREATED_LEADERLESS_S if created else LEADERLESS_S)
    may_lack_leaders = created
    while True:
        try:
            if may_lack_leaders:
                _require_leaders(topic, partitions, brokers)
            return _extents(topic, partitions, brokers)
        except KafkaException as error:
            if error.args[0].code() not in transient or time.monotonic() > deadline:
                raise _request_failed(error) from error
            may_lack_leaders = True
            if created and error.args[0].code() == KafkaError._NOENT:
                # A client whose first request came before the election may not see the leader for a long time.
                brokers = client.admin()
            time.sleep(0.01)


def _require_leaders(topic: str, partitions: Iterable[int], brokers: AdminClient) -> None:
    """Makes the client learn the leaders of the partitions. Raises KafkaException while one has none.

    Requests for offsets then find the leaders known. librdkafka 2.16 has corrupted memory, seconds later, when such
    requests were repeated while it looked for leaders that a new topic did not have yet.
    """
    from confluent_kafka import KafkaError, KafkaException

    found = brokers.list_topics(topic, timeout=client.REQUEST_TIMEOUT_S).topics[topic]
    if found.error is not None:
        raise KafkaException(found.error)
    if any(p not in found.partitions or found.partitions[p].leader < 0 for p in partitions):
        raise KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE))


def _description(name: str, request: Future[Any]) -> Topic:
    from confluent_kafka import KafkaError, KafkaException

    try:
        found = request.result()
    except KafkaException as error:
        if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise TopicMissing(name) from error
        raise _request_failed(error) from error
    return Topic(name, str(found.topic_id), tuple(sorted(partition.id for partition in found.partitions)))


def _offset(request: Future[Any]) -> int | Exception:
    """Waits for a requested offset. Returns it, or the error."""
    from confluent_kafka import KafkaException

    try:
        return cast(int, request.result().offset)
    except KafkaException as error:
        return error


def _outcome(answer: Callable[[], T]) -> T | UserError:
    from confluent_kafka import KafkaException

    try:
        return answer()
    except KafkaException as error:
        return _request_failed(error)
    except UserError as error:
        return error


def _extents(topic: str, partitions: Iterable[int], brokers: AdminClient) -> dict[int, Extent]:
    places = [(topic, partition) for partition in partitions]
    extent = _ends(places, brokers)
    return {partition: extent(topic, partition) for _, partition in places}


def _ends(
    places: Sequence[tuple[str, int]], brokers: AdminClient, timeout_s: float = client.REQUEST_TIMEOUT_S
) -> Callable[[str, int], Extent]:
    """Requests the extents of partitions. The result returns one of them, or raises its KafkaException."""
    from confluent_kafka import IsolationLevel, TopicPartition
    from confluent_kafka.admin import OffsetSpec

    wanted = [TopicPartition(topic, partition) for topic, partition in places]

    def request(spec: OffsetSpec, isolation: IsolationLevel) -> dict[tuple[str, int], int | Exception]:
        # Each request waits for its answer: librdkafka 2.16 can crash when a second one starts while it looks up the
        # leaders for the first. Its thread and the caller's then use memory that the other has freed. See also
        # _require_leaders.
        if not wanted:
            return {}
        found = brokers.list_offsets(dict.fromkeys(wanted, spec), isolation_level=isolation, request_timeout=timeout_s)
        return {(place.topic, place.partition): _offset(future) for place, future in found.items()}

    first = request(OffsetSpec.earliest(), IsolationLevel.READ_UNCOMMITTED)
    # The stable end is requested before the end, so that it never appears to lie above it.
    stable_end = request(OffsetSpec.latest(), IsolationLevel.READ_COMMITTED)
    end = request(OffsetSpec.latest(), IsolationLevel.READ_UNCOMMITTED)

    def extent(topic: str, partition: int) -> Extent:
        place = topic, partition
        found = [answers[place] for answers in (first, stable_end, end)]
        for answer in found:
            if isinstance(answer, Exception):
                raise answer
        return Extent(*cast("list[int]", found))

    return extent


def _request_failed(error: Exception) -> UserError:
    return UserError(
        f"A request to Kafka failed: {error.args[0].str()}.",
        "Try again. If it fails again, check the brokers (./millrace status) and the connection millrace_kafka.",
        code=Code.KAFKA_REQUEST_FAILED,
    )
