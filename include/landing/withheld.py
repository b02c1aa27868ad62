"""The records of dead letters whose bytes are not stored: Kafka has them, until its retention removes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from include.kafka import position, reader, topics
from include.kafka.position_errors import LogTruncated, OffsetsGone, TopicMissing
from include.landing import incarnation
from include.streams.definition import Stream

if TYPE_CHECKING:
    from confluent_kafka import Message
    from psycopg2.extensions import connection as Connection

Place = tuple[int, int, int]
"""Incarnation, partition and offset."""

# Offsets that are not farther apart are read together.
_NEAR = 500


class WithheldRecords:
    """Reads records of a stream's topics by their coordinates.

    Args:
        connection: To the warehouse.
        stream: The stream.
    """

    def __init__(self, connection: Connection, stream: Stream) -> None:
        self._connection, self._stream = connection, stream
        self._topics: dict[int, str] = {}

    def prepare(self) -> None:
        """Finds out which incarnations the topics are; commits."""
        stream = self._stream
        for name in stream.topic_choice.of(position.read_topics(self._connection, stream.reader)):
            with suppress(TopicMissing):
                self._topics[incarnation.number(self._connection, stream.name, topics.describe(name))] = name

    def read(self, places: Sequence[Place]) -> Mapping[Place, Message]:
        """The records that Kafka still has.

        Raises:
            UserError: Kafka does not answer.
        """
        wanted: dict[int, dict[int, list[int]]] = {}
        for number, partition, offset in places:
            if number in self._topics:
                wanted.setdefault(number, {}).setdefault(partition, []).append(offset)
        found: dict[Place, Message] = {}
        for number, partitions in wanted.items():
            # Retention may remove records after the extents were read; the next retry reads the others.
            with suppress(OffsetsGone, LogTruncated, TopicMissing):
                found |= self._read(number, partitions)
        return found

    def _read(self, number: int, wanted: Mapping[int, Sequence[int]]) -> dict[Place, Message]:
        """The records of one topic that Kafka still has, by the offsets of each partition."""
        topic = self._topics[number]
        found: dict[Place, Message] = {}
        extents = topics.extents(topic, list(wanted))
        for partition, offsets in wanted.items():
            extent = extents[partition]
            left = sorted(offset for offset in offsets if extent.first <= offset < extent.stable_end)
            for first, until in _ranges(left):
                some = {offset for offset in left if first <= offset < until}
                for batch in reader.read_range(topic, {partition: (first, until)}):
                    for message in batch:
                        if (offset := reader.place(message)[1]) in some:
                            found[number, partition, offset] = message
        return found


def _ranges(offsets: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ranges that contain the offsets, which are sorted."""
    start = 0
    for at in range(1, len(offsets) + 1):
        if at == len(offsets) or offsets[at] - offsets[at - 1] > _NEAR:
            yield offsets[start], offsets[at - 1] + 1
            start = at
