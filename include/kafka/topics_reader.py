"""Reading one or several topics with one consumer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from include.kafka.position import Position
from include.kafka.reader import Batch, Reader

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Message


class TopicsReader:
    """Reads partitions of topics from their positions on, see ``Reader``.

    Args:
        positions: For each topic, the positions of the partitions to read.
        consumer: The consumer to use, closed with the reader.
    """

    def __init__(self, positions: Mapping[str, Mapping[int, Position]], consumer: Consumer) -> None:
        self._consumer = consumer
        self._readers = {
            topic: Reader(
                topic,
                {partition: position.next_offset for partition, position in some.items()},
                leader_epochs={partition: position.leader_epoch for partition, position in some.items()},
                consumer=consumer,
                assign=False,
            )
            for topic, some in positions.items()
        }
        consumer.assign([place for reader in self._readers.values() for place in reader.places()])

    def __enter__(self) -> TopicsReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def batches(self, max_records: int, timeout_s: float) -> dict[str, Batch]:
        """Waits up to ``timeout_s`` seconds for up to ``max_records`` records of all topics together.

        Raises:
            OffsetsGone, LogTruncated, TopicMissing: Reading on would lose or repeat records.
            UserError: The brokers refuse, for example for a missing permission.
        """
        if len(self._readers) == 1:
            return {topic: reader.batch(max_records, timeout_s) for topic, reader in self._readers.items()}
        delivered: defaultdict[str, list[Message]] = defaultdict(list)
        any_topic = next(iter(self._readers))
        for message in self._consumer.consume(max_records, timeout_s):
            # An error of the client has no topic.
            delivered[message.topic() or any_topic].append(message)
        return {topic: self._readers[topic].take(messages) for topic, messages in delivered.items()}

    def show(self, topic: str, next_offsets: Mapping[int, int]) -> None:
        """See ``Reader.show``."""
        self._readers[topic].show(next_offsets)
