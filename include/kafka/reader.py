"""Reading by ``assign``: committed records from given offsets on, every error noticed, no offset jumped over."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from include.errors import UserError
from include.kafka import client, topics
from include.kafka.position_errors import LogTruncated, OffsetsGone, TopicMissing

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, Message

log = logging.getLogger(__name__)

STALLED_AFTER_S = 60.0
CHECKED_AFTER_S = 1.0
FIRST_WITHIN_S = 3.0
CONNECTED_WITHIN_S = 1.0


class Stalled(UserError):
    """A bounded range was not read to its end, and nothing came any more."""


@dataclass
class Batch:
    """What one call to ``Reader.batch`` brought.

    Attributes:
        messages: Records in the order of their offsets within each partition.
        next_offsets: For each partition that moved, the offset behind everything seen so far: also behind control
            records, aborted and compacted ones at the log's end, which are never delivered.
        at_end: Partitions whose stable end was reached.
        leader_epochs: For each partition with records, the leader epoch of the last of them, if the brokers tell.
    """

    messages: list[Message] = field(default_factory=list)
    next_offsets: dict[int, int] = field(default_factory=dict)
    at_end: set[int] = field(default_factory=set)
    leader_epochs: dict[int, int | None] = field(default_factory=dict)


class Reader:
    """Reads partitions of one topic from given offsets on. It belongs to no consumer group and commits nothing.

    Args:
        topic: The topic's name.
        starts: For each partition to read, the offset to start at.
        leader_epochs: For some of them, the leader epoch of the record below the start: whether the log was truncated
            and rewritten there is noticed.
        consumer: What to read with, closed with the reader; a new one when None.
        **overrides: librdkafka settings of a new one, as for ``client.consumer``.
    """

    def __init__(
        self,
        topic: str,
        starts: Mapping[int, int],
        *,
        leader_epochs: Mapping[int, int | None] | None = None,
        consumer: Consumer | None = None,
        **overrides: Any,
    ) -> None:
        from confluent_kafka import TopicPartition

        epochs = {p: epoch for p, epoch in (leader_epochs or {}).items() if epoch is not None}

        self.topic = topic
        self.next_offsets = dict(starts)
        self._epochs = epochs
        self._consumer = client.consumer(**overrides) if consumer is None else consumer
        self._consumer.assign(
            [TopicPartition(topic, p, start, leader_epoch=epochs.get(p, -1)) for p, start in starts.items()]
        )

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection to the brokers."""
        self._consumer.close()

    def pause(self, partition: int) -> None:
        """Stops fetching a partition; what was fetched of it already may still be delivered."""
        from confluent_kafka import TopicPartition

        self._consumer.pause([TopicPartition(self.topic, partition)])

    def show(self, next_offsets: Mapping[int, int]) -> None:
        """Tells Kafka how far is read, as the offsets of the consumer's ``group.id``, without waiting.

        For displays of lag alone: nothing is ever read back from there.
        """
        from confluent_kafka import TopicPartition

        offsets = [TopicPartition(self.topic, partition, offset) for partition, offset in next_offsets.items()]
        self._consumer.commit(offsets=offsets, asynchronous=True)

    def batch(self, most: int, timeout_s: float) -> Batch:
        """Waits for up to ``most`` records, ``timeout_s`` seconds at most; empty when none came.

        Raises:
            OffsetsGone, LogTruncated, TopicMissing: Going on would lose or repeat records.
            UserError: The brokers refuse (authorisation, say).
        """
        from confluent_kafka import Message

        batch = Batch()
        delivered = self._consumer.consume(most, timeout_s)
        # Most batches are records alone; looking at each of them in Python would take as long as decoding it.
        events = list(filter(Message.error, delivered))
        batch.messages = [message for message in delivered if message.error() is None] if events else delivered
        for message in dict(zip(map(Message.partition, batch.messages), batch.messages, strict=True)).values():
            partition, offset = place(message)
            batch.next_offsets[partition] = offset + 1
            batch.leader_epochs[partition] = message.leader_epoch()
        self.next_offsets |= batch.next_offsets
        self._epochs |= {partition: epoch for partition, epoch in batch.leader_epochs.items() if epoch is not None}
        for event in events:
            self._notice(event, batch)
        return batch

    def _notice(self, event: Message, batch: Batch) -> None:
        """Takes up what a consumer delivers that is no record: the end of a partition, or an error."""
        from confluent_kafka import KafkaError

        error, (partition, offset) = cast(KafkaError, event.error()), place(event)
        if error.code() != KafkaError._PARTITION_EOF:
            self._refuse(error, partition)
        elif offset >= self.next_offsets[partition]:
            batch.at_end.add(partition)
            if offset > self.next_offsets[partition]:
                self.next_offsets[partition] = batch.next_offsets[partition] = offset

    def _refuse(self, error: KafkaError, partition: int) -> None:
        from confluent_kafka import KafkaError

        code = error.code()
        if code in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._LOG_TRUNCATION):
            self._out_of_range(partition)
        elif code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION):
            raise TopicMissing(self.topic)
        elif not (error.retriable() or code in (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT)):
            # librdkafka recovers by itself from some errors: a broker that is down, a new leader.
            raise UserError(f"Kafka refuses to read topic {self.topic!r}: {error.str()}.")

    def _out_of_range(self, partition: int) -> None:
        """Names why the log cannot be read on at the position, or reads on there because nothing forbids it.

        For Kafka the log was truncated when the epoch of the last record ends below the position. It also ends there
        when a leader of a later epoch has ended that record's transaction: with a marker, over which the position goes.
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
            "Partition %s of topic %r: the leader has changed at offset %s; no record below it is new.",
            partition,
            self.topic,
            position,
        )
        # A partition with an error is not fetched any more, and takes no seek.
        self._consumer.incremental_unassign([TopicPartition(self.topic, partition)])
        self._consumer.incremental_assign([TopicPartition(self.topic, partition, position)])


def connected(**overrides: Any) -> Consumer:
    """A consumer that is connected to the cluster, so that its first records come soon.

    It knows of no topic: whether a log was truncated is only noticed where the leaders' epochs become known after the
    offset to start from. Brokers that do not answer are waited for where the consumer is used.

    Args:
        **overrides: librdkafka settings, as for ``client.consumer``.
    """
    from confluent_kafka import KafkaException

    consumer = client.consumer(**overrides)
    with suppress(KafkaException):
        # The first answer comes over a bootstrap connection, which is given up then.
        for _ in range(2):
            consumer.list_topics(topics.NO_TOPIC, timeout=CONNECTED_WITHIN_S)
    return consumer


def read_range(
    topic: str,
    ranges: Mapping[int, tuple[int, int]],
    *,
    most: int = 1_000,
    stalled_after_s: float = STALLED_AFTER_S,
    **overrides: Any,
) -> Iterator[list[Message]]:
    """Every committed record of bounded ranges, in batches, in offset order within each partition.

    Commit markers reach the partitions one after the other, so a range just committed may not be stable yet: reading
    waits for it, as long as something moves.

    Args:
        ranges: For each partition, the first offset and the end (exclusive). An empty range reads nothing.
        most: Records in a batch at most.
        stalled_after_s: Give up after so many seconds without any progress.
        **overrides: librdkafka settings, as for ``client.consumer``.

    Raises:
        OffsetsGone, LogTruncated, TopicMissing: The range does not exist (any more).
        Stalled: Nothing came for ``stalled_after_s`` although the ranges are not read to their ends.
    """
    unread = {partition: span for partition, span in ranges.items() if span[0] < span[1]}
    if not unread:
        return
    # A partition that joins while the broker holds a fetch of the others back would have to wait for its end.
    starts = {partition: start for partition, (start, _) in unread.items()}
    with Reader(topic, starts, **{"fetch_wait_max_ms": 10, **overrides}) as reader:
        moved_at = checked_at = time.monotonic()
        while unread:
            # Asking for no more than is left, reading returns with the last record and not with the timeout.
            left = sum(end - reader.next_offsets[partition] for partition, (_, end) in unread.items())
            batch = reader.batch(min(most, left), 0.5)
            wanted = [message for message in batch.messages if _within(message, unread)]
            if batch.messages:
                moved_at = time.monotonic()
            elif time.monotonic() - moved_at > stalled_after_s:
                raise _stalled(topic, unread, reader.next_offsets, stalled_after_s)
            elif time.monotonic() - max(moved_at, checked_at) > CHECKED_AFTER_S:
                _require(
                    topic, {partition: (reader.next_offsets[partition], end) for partition, (_, end) in unread.items()}
                )
                checked_at = time.monotonic()
            for partition, offset in batch.next_offsets.items():
                if partition in unread and offset >= unread[partition][1]:
                    reader.pause(partition)
                    del unread[partition]
            if wanted:
                yield wanted
                # The time that the caller takes is no standstill.
                moved_at = time.monotonic()


def first_at(topic: str, partition: int, offset: int, isolation: str = "read_uncommitted") -> Message | None:
    """The first record at or after an offset; None when there is none, or none comes."""
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


def agrees_until(topic: str, partition: int, span: tuple[int, int], epoch: int) -> int:
    """Up to where a log still holds what was read of it: behind there are committed records of later leader epochs.

    Args:
        span: The first offset and the end (exclusive) to look within.
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
    """Partition and offset of a message; one that a consumer delivered always has both."""
    return cast(int, message.partition()), cast(int, message.offset())


def _within(message: Message, ranges: Mapping[int, tuple[int, int]]) -> bool:
    partition, offset = place(message)
    return partition in ranges and offset < ranges[partition][1]


def _require(topic: str, ranges: Mapping[int, tuple[int, int]]) -> None:
    """Names a range that the log does not hold, which nothing but waiting would come of."""
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
        f"Topic {topic!r}, partition {partition}: nothing came for {after_s:.0f} s at offset {next_offsets[partition]} "
        f"of {unread[partition][1]}; a transaction may be open there, or the brokers are away."
    )
