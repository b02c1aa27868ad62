"""The records of dead letters whose bytes are not stored: Kafka has them, until its retention removes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from include.kafka import position, reader, topics
from include.kafka.position_errors import LogTruncated, OffsetsGone, TopicMissing
from include.landing import dead_letters, incarnation
from include.streams.definition import Stream

if TYPE_CHECKING:
    from confluent_kafka import Message
    from psycopg2.extensions import connection as Connection

Place = tuple[int, int, int]
"""Incarnation, partition and offset."""

# Offsets that are not farther apart are read together.
_NEAR = 500


@dataclass(frozen=True)
class _Log:
    """A topic as it was read: its name and id, and the leader epoch below the position of each partition."""

    topic: str
    topic_id: str
    leader_epochs: Mapping[int, int | None]


class WithheldRecords:
    """Reads the records of a stream's dead letters again.

    Other records may have taken their coordinates: in a log that was rewritten, or in a topic that was created again. A
    record is that of a letter only if it has the letter's timestamp, and no newer leader epoch than the position.

    Args:
        connection: To the warehouse.
        stream: The stream.
    """

    def __init__(self, connection: Connection, stream: Stream) -> None:
        self._connection, self._stream = connection, stream
        self._logs: dict[int, _Log] = {}

    def prepare(self) -> None:
        """Finds out which incarnations the topics are; commits."""
        stream = self._stream
        for name in stream.topic_choice.of(position.read_topics(self._connection, stream.reader)):
            with suppress(TopicMissing):
                topic = topics.describe(name)
                # Before the number: if a truncation is accepted meanwhile, the epochs must not be those of the new log.
                stored = position.read_positions(self._connection, stream.reader, name)
                epochs = {partition: found.position.leader_epoch for partition, found in stored.items()}
                number = incarnation.number(self._connection, stream.name, topic)
                self._logs[number] = _Log(name, topic.id, epochs)

    def read(self, letters: Mapping[Place, datetime]) -> Mapping[Place, Message]:
        """The records of letters that Kafka still has.

        Args:
            letters: The coordinates of each letter, and when Kafka appended its record.

        Raises:
            UserError: Kafka does not answer.
        """
        wanted: dict[int, dict[int, list[int]]] = {}
        for number, partition, offset in letters:
            if number in self._logs:
                wanted.setdefault(number, {}).setdefault(partition, []).append(offset)
        found: dict[Place, Message] = {}
        for number, partitions in wanted.items():
            log = self._logs[number]
            # Retention may remove records after the extents were read; the next retry reads the others.
            with suppress(OffsetsGone, LogTruncated, TopicMissing):
                read = self._read(number, partitions)
                # If the topic has the same id after the read, it had it before.
                if topics.describe(log.topic).id == log.topic_id:
                    found |= {
                        place: message
                        for place, message in read.items()
                        if _is_of(message, letters[place], log.leader_epochs.get(place[1]))
                    }
        return found

    def _read(self, number: int, wanted: Mapping[int, Sequence[int]]) -> dict[Place, Message]:
        """The records of one topic that Kafka still has, by the offsets of each partition."""
        topic = self._logs[number].topic
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


def _is_of(message: Message, appended_at: datetime, newest_epoch: int | None) -> bool:
    """Whether a record is the one that was appended at a time, below a position with a leader epoch."""
    is_old = newest_epoch is None or (message.leader_epoch() or 0) <= newest_epoch
    return is_old and dead_letters.appended_at(message.timestamp()[1]) == appended_at


def _ranges(offsets: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ranges that contain the offsets, which are sorted."""
    start = 0
    for at in range(1, len(offsets) + 1):
        if at == len(offsets) or offsets[at] - offsets[at - 1] > _NEAR:
            yield offsets[start], offsets[at - 1] + 1
            start = at
