"""The records of dead letters whose bytes are not stored: Kafka has them, until its retention removes them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from include.kafka import client, position, reader, topics
from include.kafka.position_errors import LogTruncated, OffsetsGone, TopicMissing
from include.landing import dead_letters, incarnation
from include.streams.definition import Stream
from include.warehouse import queries

if TYPE_CHECKING:
    from confluent_kafka import Message
    from psycopg2.extensions import connection as Connection

Place = tuple[int, int, int]
"""Incarnation, partition and offset."""

# The most that is read in one transaction: the bytes of values, of which a single one may have more, and the ranges.
MAX_BYTES = 32 * 1024 * 1024
MAX_RANGES = 100
# Offsets that are not farther apart are read together.
_NEAR = 500
_AT_ONCE = 100


class Found(NamedTuple):
    """Records that Kafka still has.

    Attributes:
        records: The records by their places.
        end: The first of the places that were not looked for, because the others have enough bytes; None if all were.
    """

    records: dict[Place, Message]
    end: Place | None


class _Range(NamedTuple):
    incarnation: int
    partition: int
    first: int
    until: int


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
        self._brokers = client.admin()

    def read(self, wanted: Mapping[Place, datetime]) -> Found:
        """The records that Kafka still has, in the order of their places, up to ``MAX_BYTES``; in the transaction.

        Args:
            wanted: The places, each with the timestamp that its record had.

        Raises:
            UserError: Kafka does not answer.
        """
        places = sorted(wanted)
        ranges = list(_ranges(places))
        end = None if len(ranges) <= MAX_RANGES else ranges[MAX_RANGES][:3]
        names = incarnation.topics_of(self._connection, self._stream.name)
        read = set(self._stream.topic_choice.of(sorted(set(names.values()))))
        found: dict[Place, Message] = {}
        bytes_left = MAX_BYTES
        for number, group in groupby(ranges[:MAX_RANGES], key=lambda each: each.incarnation):
            if (topic := names.get(number, "")) not in read:
                continue
            # Retention may remove records after the extents were read; the next retry reads the others.
            with suppress(OffsetsGone, LogTruncated, TopicMissing):
                if not self._is_of(topic, number):
                    continue
                there = self._read(topic, list(group), wanted, bytes_left)
                found |= self._accepted(topic, number, there, wanted)
                bytes_left -= sum(map(_size, there.values()))
                if bytes_left <= 0:
                    after = bisect_right(places, max(there))
                    return Found(found, places[after] if after < len(places) else None)
        return Found(found, end)

    def _read(
        self, topic: str, ranges: Sequence[_Range], wanted: Mapping[Place, datetime], most_bytes: int
    ) -> dict[Place, Message]:
        """The wanted records of ranges of one topic, until they have enough bytes."""
        extents = topics.extents(topic, {each.partition for each in ranges}, self._brokers)
        there = [
            (each.partition, (max(each.first, extent.first), min(each.until, extent.stable_end)))
            for each in ranges
            for extent in (extents[each.partition],)
        ]
        number = ranges[0].incarnation
        found: dict[Place, Message] = {}
        size = 0
        with closing(reader.read_ranges(topic, there, max_records=_AT_ONCE)) as batches:
            for batch in batches:
                some = {(number, *reader.place(message)): message for message in batch}
                found |= {place: message for place, message in some.items() if place in wanted}
                size = sum(map(_size, found.values()))
                if size >= most_bytes:
                    break
        return found

    def _accepted(
        self, topic: str, number: int, found: Mapping[Place, Message], wanted: Mapping[Place, datetime]
    ) -> dict[Place, Message]:
        """The records that are those of the dead letters, and not others that were written at their offsets later."""
        # Before the number: if a truncation is accepted meanwhile, the epochs must not be those of the new log.
        stored = position.read_positions(self._connection, self._stream.reader, topic)
        # If the topic has the same id after the read, it had it before.
        if not self._is_of(topic, number):
            return {}
        epochs = {partition: each.position.leader_epoch for partition, each in stored.items()}
        return {
            place: message
            for place, message in found.items()
            if not _is_newer(message, epochs.get(place[1]))
            and dead_letters.appended_at(message.timestamp()[1]) == wanted[place]
        }

    def _is_of(self, topic: str, number: int) -> bool:
        """Whether a topic is the incarnation with a number. Raises TopicMissing if it does not exist."""
        known = queries.load("landing").read_incarnation(
            self._connection,
            stream=self._stream.name,
            topic=topic,
            topic_id=topics.describe(topic, self._brokers).id,
        )
        return known == number


def _is_newer(message: Message, leader_epoch: int | None) -> bool:
    """Whether a record has a later leader epoch than the last record that was read: the log was rewritten."""
    return leader_epoch is not None and (message.leader_epoch() or 0) > leader_epoch


def _size(message: Message) -> int:
    return len(message.value() or b"")


def _ranges(places: Sequence[Place]) -> Iterator[_Range]:
    """Ranges that contain the places, which are sorted."""
    start = 0
    for at in range(1, len(places) + 1):
        last = places[at - 1]
        if at == len(places) or places[at][:2] != last[:2] or places[at][2] - last[2] > _NEAR:
            yield _Range(*places[start], last[2] + 1)
            start = at
