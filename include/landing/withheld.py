"""The records of dead letters whose bytes are not stored: Kafka has them, until its retention removes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from include.kafka import reader, topics
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
    """Reads records of a stream's topic by their coordinates.

    Args:
        connection: To the warehouse.
        stream: The stream.
    """

    def __init__(self, connection: Connection, stream: Stream) -> None:
        self._connection, self._stream = connection, stream
        self._incarnation: int | None = None

    def prepare(self) -> None:
        """Finds out which incarnation the topic is; commits."""
        with suppress(TopicMissing):
            self._incarnation = incarnation.number(self._connection, topics.describe(self._stream.topic))

    def read(self, places: Sequence[Place]) -> Mapping[Place, Message]:
        """The records that Kafka still has.

        Raises:
            UserError: Kafka does not answer.
        """
        wanted: dict[int, list[int]] = {}
        for number, partition, offset in places:
            if number == self._incarnation:
                wanted.setdefault(partition, []).append(offset)
        found: dict[Place, Message] = {}
        if not wanted:
            return found
        # Retention may remove records after the extents were read; the next retry reads the others.
        with suppress(OffsetsGone, LogTruncated, TopicMissing):
            extents = topics.extents(self._stream.topic, list(wanted))
            for partition, offsets in wanted.items():
                extent = extents[partition]
                left = sorted(offset for offset in offsets if extent.first <= offset < extent.stable_end)
                for first, until in _ranges(left):
                    some = {offset for offset in left if first <= offset < until}
                    for batch in reader.read_range(self._stream.topic, {partition: (first, until)}):
                        for message in batch:
                            offset = reader.place(message)[1]
                            if offset in some and self._incarnation is not None:
                                found[self._incarnation, partition, offset] = message
        return found


def _ranges(offsets: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ranges that contain the offsets, which are sorted."""
    start = 0
    for at in range(1, len(offsets) + 1):
        if at == len(offsets) or offsets[at] - offsets[at - 1] > _NEAR:
            yield offsets[start], offsets[at - 1] + 1
            start = at
