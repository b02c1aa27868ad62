"""Reading by ``assign``: committed records from given offsets on. No error is ignored, and no offset is skipped."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from include.error_codes import Code
from include.errors import UserError
from include.kafka import client, topics
from include.kafka.position_errors import LogTruncated, OffsetsGone, TopicMissing

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

log = logging.getLogger(__name__)

STALLED_AFTER_S = 60.0
CHECKED_AFTER_S = 1.0
FIRST_WITHIN_S = 3.0
CONNECTED_WITHIN_S = 1.0
# A short wait: a partition whose fetch joins late would have to wait until the others' fetch returns.
_OF_RANGES = {"fetch_wait_max_ms": 10}


class Stalled(UserError):
    """A bounded range was not read to its end, and no more records arrived."""


@dataclass
class Batch:
    """The result of one call to ``Reader.batch``.

    Attributes:
        messages: Records, ordered by offset within each partition.
        next_offsets: For each partition that moved, the offset after everything read so far. That includes control
            records and aborted or compacted ones at the end of the log, which consumers never receive.
        at_end: Partitions whose stable end was reached.
        leader_epochs: For each partition with records, the leader epoch of the last of them, if the brokers report it.
    """

    messages: list[Message] = field(default_factory=list)
    next_offsets: dict[int, int] = field(default_factory=dict)
    at_end: set[int] = field(default_factory=set)
    leader_epochs: dict[int, int | None] = field(default_factory=dict)


class Reader:
    """Reads partitions of one topic from given offsets on. It joins no consumer group and commits no offsets.

    Args:
        topic: The topic's name.
        starts: For each partition to read, the offset to start at.
        leader_epochs: For some of them, the leader epoch of the record below the start. With it the reader notices
            a log that was truncated and rewritten there.
        consumer: The consumer to use, closed with the reader; a new one when None.
        assign: Whether to assign the partitions to the consumer; if not, the caller does.
        **overrides: librdkafka settings of a new consumer, as for ``client.consumer``.
    """

    def __init__(
        self,
        topic: str,
        starts: Mapping[int, int],
        *,
        leader_epochs: Mapping[int, int | None] | None = None,
        consumer: Consumer | None = None,
        assign: bool = True,
        **overrides: Any,
    ) -> None:
        epochs = {p: epoch for p, epoch in (leader_epochs or {}).items() if epoch is not None}

        self.topic = topic
        self.next_offsets = dict(starts)
        self._epochs = epochs
        self._consumer = client.consumer(**overrides) if consumer is None else consumer
        if assign:
            self._consumer.assign(self.places())

    def places(self) -> list[TopicPartition]:
        """The partitions, each with its next offset, to be assigned to a consumer."""
        from confluent_kafka import TopicPartition

        return [
            TopicPartition(self.topic, p, start, leader_epoch=self._epochs.get(p, -1))
            for p, start in self.next_offsets.items()
        ]

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the consumer."""
        self._consumer.close()

    def move(self, starts: Mapping[int, int]) -> None:
        """Reads these partitions from these offsets on, and no others any more."""
        self.next_offsets, self._epochs = dict(starts), {}
        self._consumer.assign(self.places())

    def pause(self, partition: int) -> None:
        """Stops fetching a partition; records that were fetched before may still be delivered."""
        from confluent_kafka import TopicPartition

        self._consumer.pause([TopicPartition(self.topic, partition)])

    def show(self, next_offsets: Mapping[int, int]) -> None:
        """Commits the offsets to the consumer's ``group.id``, without waiting.

        Tools that display lag use them. Millrace never reads them.
        """
        from confluent_kafka import TopicPartition

        offsets = [TopicPartition(self.topic, partition, offset) for partition, offset in next_offsets.items()]
        self._consumer.commit(offsets=offsets, asynchronous=True)

    def batch(self, max_records: int, timeout_s: float) -> Batch:
        """Waits up to ``timeout_s`` seconds for up to ``max_records`` records; empty when none arrived.

        Raises:
            OffsetsGone, LogTruncated, TopicMissing: Reading on would lose or repeat records.
            UserError: The brokers refuse, for example for a missing permission.
        """
        return self.take(self._consumer.consume(max_records, timeout_s))

    def take(self, delivered: list[Message]) -> Batch:
        """The batch of what the consumer has delivered for this topic; raises the same."""
        from confluent_kafka import Message

        batch = Batch()
        # Most batches hold records only. A Python loop over them would take as long as decoding them.
        events = list(filter(Message.error, delivered))
        batch.messages = [message for message in delivered if message.error() is None] if events else delivered
        for message in dict(zip(map(Message.partition, batch.messages), batch.messages, strict=True)).values():
            partition, offset = place(message)
            batch.next_offsets[partition] = offset + 1
            batch.leader_epochs[partition] = message.leader_epoch()
        self.next_offsets |= batch.next_offsets
        self._epochs |= {partition: epoch for partition, epoch in batch.leader_epochs.items() if epoch is not None}
        for event in events:
            self._handle_event(event, batch)
        return batch

    def _handle_event(self, event: Message, batch: Batch) -> None:
        """Handles what a consumer delivers besides records: the end of a partition, or an error."""
        from confluent_kafka import KafkaError

        error, (partition, offset) = cast(KafkaError, event.error()), place(event)
        if error.code() != KafkaError._PARTITION_EOF:
            self._handle_error(error, partition)
        elif offset >= self.next_offsets[partition]:
            batch.at_end.add(partition)
            if offset > self.next_offsets[partition]:
                self.next_offsets[partition] = batch.next_offsets[partition] = offset

    def _handle_error(self, error: KafkaError, partition: int) -> None:
        from confluent_kafka import KafkaError

        code = error.code()
        if code in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._LOG_TRUNCATION):
            self._handle_out_of_range(partition)
        elif code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION):
            raise TopicMissing(self.topic)
        elif not (error.retriable() or code in (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT)):
            # librdkafka recovers from the others itself: a broker that is down, a new leader.
            raise UserError(
                f"Kafka refuses to read topic {self.topic!r}: {error.str()}.",
                "Correct the connection millrace_kafka, or grant it the permission to read the topic.",
                code=Code.KAFKA_REQUEST_FAILED,
            )

    def _handle_out_of_range(self, partition: int) -> None:
        """Raises the reason why the log cannot be read at the position, or continues there if there is none.

        Kafka reports a truncation when the leader epoch of the last record that was read ends below the position. That
        also happens without one: when a later leader ended the record's transaction, its marker has the later epoch.
        """
        from confluent_kafka import TopicPartition

        position, epoch = self.next_offsets[partition], self._epochs.get(partition)
        extent = topics.extents(self.topic, [partition])[partition]
        if position < extent.first:
            raise OffsetsGone(self.topic, partition, position, extent.first)
        if position > extent.end or (
            epoch is not None and agrees_until(self.topic, partition, (extent.first, position), epoch) < position
        ):
            raise LogTruncated(self.topic, partition, position, extent.end)
        log.info(
            "Partition %s of topic %r: the leader changed at offset %s. No record below it is new.",
            partition,
            self.topic,
            position,
        )
        # The consumer has stopped fetching the partition after the error, and ignores a seek.
        self._consumer.incremental_unassign([TopicPartition(self.topic, partition)])
        self._consumer.incremental_assign([TopicPartition(self.topic, partition, position)])


def connected(**overrides: Any) -> Consumer:
    """A consumer that is connected to the cluster, so that its first records arrive soon.

    It must not have any topic's metadata: librdkafka notices a truncated log only if it learns the leader epochs after
    the offset to start from. Brokers that do not answer raise no error here; the first read waits for them.

    Args:
        **overrides: librdkafka settings, as for ``client.consumer``.
    """
    from confluent_kafka import KafkaException

    consumer = client.consumer(**overrides)
    with suppress(KafkaException):
        # The first answer arrives over the bootstrap connection, which librdkafka then drops.
        for _ in range(2):
            consumer.list_topics(topics.NO_TOPIC, timeout=CONNECTED_WITHIN_S)
    return consumer


def read_range(
    topic: str,
    ranges: Mapping[int, tuple[int, int]],
    *,
    max_records: int = 1_000,
    stalled_after_s: float = STALLED_AFTER_S,
    **overrides: Any,
) -> Iterator[list[Message]]:
    """Every committed record of bounded ranges, in batches, in offset order within each partition.

    Commit markers reach the partitions one after the other, so a range that was just committed may not be stable yet.
    Reading waits for it as long as records arrive.

    Args:
        ranges: For each partition, the first offset and the end (exclusive). An empty range reads nothing.
        max_records: The most records in a batch.
        stalled_after_s: Seconds without progress after which reading gives up.
        **overrides: librdkafka settings, as for ``client.consumer``.

    Raises:
        OffsetsGone, LogTruncated, TopicMissing: The range does not exist, or no longer does.
        Stalled: No records arrived for ``stalled_after_s`` before the ranges were read to their ends.
    """
    unread = {partition: span for partition, span in ranges.items() if span[0] < span[1]}
    if not unread:
        return
    starts = {partition: start for partition, (start, _) in unread.items()}
    with Reader(topic, starts, **{**_OF_RANGES, **overrides}) as reader:
        yield from _read_to_ends(reader, unread, max_records, stalled_after_s)


def read_ranges(
    topic: str,
    ranges: Iterable[tuple[int, tuple[int, int]]],
    *,
    max_records: int = 1_000,
    stalled_after_s: float = STALLED_AFTER_S,
    **overrides: Any,
) -> Generator[list[Message], None, None]:
    """Every committed record of bounded ranges, one range after the other, with one consumer. See ``read_range``.

    Args:
        ranges: Partitions, each with the first offset and the end (exclusive) of a range. A partition may have several.
    """
    with Reader(topic, {}, assign=False, **{**_OF_RANGES, **overrides}) as reader:
        for partition, (start, end) in ranges:
            if start < end:
                reader.move({partition: start})
                yield from _read_to_ends(reader, {partition: (start, end)}, max_records, stalled_after_s)


def _read_to_ends(
    reader: Reader, unread: dict[int, tuple[int, int]], max_records: int, stalled_after_s: float
) -> Iterator[list[Message]]:
    """Reads partitions, which a reader has begun to read, to the ends of their ranges."""
    topic = reader.topic
    moved_at = checked_at = time.monotonic()
    while unread:
        # With no more records asked for than are left, the read returns with the last one and not with the timeout.
        left = sum(end - reader.next_offsets[partition] for partition, (_, end) in unread.items())
        batch = reader.batch(min(max_records, left), 0.5)
        wanted = [message for message in batch.messages if _within(message, unread)]
        if batch.messages:
            moved_at = time.monotonic()
        elif time.monotonic() - moved_at > stalled_after_s:
            raise _stalled(topic, unread, reader.next_offsets, stalled_after_s)
        elif time.monotonic() - max(moved_at, checked_at) > CHECKED_AFTER_S:
            _require_range(
                topic, {partition: (reader.next_offsets[partition], end) for partition, (_, end) in unread.items()}
            )
            checked_at = time.monotonic()
        for partition, offset in batch.next_offsets.items():
            if partition in unread and offset >= unread[partition][1]:
                del unread[partition]
                if unread:
                    reader.pause(partition)
        if wanted:
            yield wanted
            # The caller's own time does not count as a stall.
            moved_at = time.monotonic()


def first_at(topic: str, partition: int, offset: int, isolation: str = "read_uncommitted") -> Message | None:
    """The first record at or after an offset; None when there is none, or none arrives in time."""
    overrides: dict[str, Any] = {"isolation_level": isolation, "fetch_message_max_bytes": 65_536}
    with Reader(topic, {partition: offset}, **overrides) as reader:
        deadline = time.monotonic() + FIRST_WITHIN_S
        while time.monotonic() < deadline:
            batch = reader.batch(1, 0.2)
            if batch.messages:
                return batch.messages[0]
            if partition in batch.at_end:
                break
    return None


def first_stamps(starts: Mapping[tuple[str, int], int], timeout_s: float) -> dict[tuple[str, int], int]:
    """The timestamps of the first committed records at or after an offset of each partition, with one consumer.

    Args:
        starts: For each topic and partition, the offset.
        timeout_s: Seconds after which it returns what has arrived.

    Returns:
        Milliseconds since 1970, without the partitions of which no record has arrived.
    """
    from confluent_kafka import TopicPartition

    if not starts:
        return {}
    found: dict[tuple[str, int], int] = {}
    # One record of each partition is enough.
    consumer = client.consumer(queued_min_messages=1, fetch_message_max_bytes=65_536)
    try:
        consumer.assign([TopicPartition(topic, partition, offset) for (topic, partition), offset in starts.items()])
        deadline = time.monotonic() + timeout_s
        waiting = set(starts)
        while waiting and (left := deadline - time.monotonic()) > 0:
            # An error is not a record: the partition's end, or an offset that is gone.
            for message in consumer.consume(len(starts), min(left, 0.1)):
                key = (cast(str, message.topic()), cast(int, message.partition()))
                if message.error() is None:
                    found.setdefault(key, message.timestamp()[1])
                waiting.discard(key)
    finally:
        consumer.close()
    return found


def agrees_until(topic: str, partition: int, span: tuple[int, int], epoch: int) -> int:
    """The offset up to which a log still holds the records that were read; later ones have a later leader epoch.

    Args:
        span: The first offset and the end (exclusive) to search.
        epoch: The leader epoch of the last record that was read.
    """
    # Epochs only ever rise along a log.
    low, high = span
    while low < high:
        middle = (low + high) // 2
        found = first_at(topic, partition, middle)
        if found is None or (found.leader_epoch() or 0) > epoch:
            high = middle
        else:
            low = middle + 1
    newer = first_at(topic, partition, low, "read_committed")
    return low if newer is not None and place(newer)[1] < span[1] else span[1]


def place(message: Message) -> tuple[int, int]:
    """The partition and the offset of a message. A message that a consumer delivered has both."""
    return cast(int, message.partition()), cast(int, message.offset())


def _within(message: Message, ranges: Mapping[int, tuple[int, int]]) -> bool:
    partition, offset = place(message)
    return partition in ranges and offset < ranges[partition][1]


def _require_range(topic: str, ranges: Mapping[int, tuple[int, int]]) -> None:
    """Raises an error for a range that the log does not hold: waiting for it would not end."""
    for partition, extent in topics.extents(topic, ranges).items():
        start, end = ranges[partition]
        if start < extent.first:
            raise OffsetsGone(topic, partition, start, extent.first)
        if end > extent.end:
            raise LogTruncated(topic, partition, end, extent.end)


def _stalled(
    topic: str, unread: Mapping[int, tuple[int, int]], next_offsets: Mapping[int, int], after_s: float
) -> Stalled:
    partition = min(unread)
    return Stalled(
        f"Topic {topic!r}, partition {partition}: no records arrived for {after_s:.0f} s at offset "
        f"{next_offsets[partition]}, and the range ends at {unread[partition][1]}. A transaction may be open there, or "
        "the brokers are down.",
        "Check the brokers with ./millrace status, then try again.",
        code=Code.READ_STALLED,
    )
