"""The selection of a replay: the offsets that a user wants, that have landed and that Kafka still has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from include.error_codes import Code
from include.errors import NonRetryableError, UserError
from include.kafka import topics
from include.kafka.position import StoredPosition
from include.kafka.topics import Extent, Topic
from include.streams.definition import Stream


@dataclass(frozen=True)
class Wanted:
    """The records to replay; None where nothing bounds them.

    Attributes:
        topic: The topic, if the stream reads several.
        partitions: The numbers of the partitions.
        first, next: Offsets, the end exclusive.
        since, until: Timestamps of the records in Kafka, with time zones; the end exclusive.
    """

    partitions: Sequence[int] | None = None
    first: int | None = None
    next: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    topic: str | None = None


def choose(
    partitions: Sequence[int],
    first: int | None,
    last: int | None,
    since: datetime | None,
    until: datetime | None,
    topic: str | None = None,
) -> Wanted:
    """The records that a user chose.

    Args:
        topic: As in ``Wanted``.
        partitions: Numbers of partitions; none for all.
        first, last: Offsets of one partition, both inclusive.
        since, until: As in ``Wanted``.

    Raises:
        NonRetryableError: Offsets without one partition, or a range that ends before it begins.
    """
    if (first is not None or last is not None) and len(partitions) != 1:
        raise NonRetryableError(
            "The first and the last offset are those of one partition, and "
            f"{len(partitions) or 'none'} {'is' if len(partitions) < 2 else 'are'} named.",
            "Name the partition, as in --partition 0 --first 100 --last 199.",
            code=Code.INVALID_USAGE,
        )
    for start, end, is_empty in (
        (first, last, first is not None and last is not None and first > last),
        (since, until, since is not None and until is not None and since >= until),
    ):
        if is_empty:
            raise NonRetryableError(
                f"The range from {start} to {end} ends before it begins.",
                "Swap its bounds.",
                code=Code.INVALID_INTERVAL,
            )
    return Wanted(partitions or None, first, None if last is None else last + 1, since, until, topic)


@dataclass(frozen=True)
class OffsetSpan:
    """Offsets of one partition of a topic, the end exclusive.

    Attributes:
        gone: How many offsets before ``first`` were wanted, but are no longer in Kafka.
    """

    topic: str
    partition: int
    first: int
    next: int
    gone: int


class NothingToReplay(UserError):
    """Kafka has none of the wanted records, or they have not landed yet."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what, remedy, code=Code.NOTHING_TO_REPLAY)


class Selection:
    """Selects spans of offsets.

    Args:
        positions: The stored positions; everything below them has landed.
        first_landed: For each partition, the first offset that has landed.
    """

    def __init__(
        self,
        stream: Stream,
        topic: Topic,
        positions: Mapping[int, StoredPosition],
        first_landed: Mapping[int, int],
    ) -> None:
        self._stream, self._topic = stream, topic
        self._positions, self._first_landed = positions, first_landed

    def spans(self, wanted: Wanted) -> list[OffsetSpan]:
        """The spans that are wanted, have landed and that Kafka still has."""
        partitions = sorted(self._first_landed) if wanted.partitions is None else sorted(set(wanted.partitions))
        unknown = [partition for partition in partitions if partition not in self._first_landed]
        if unknown or not partitions:
            raise nothing_landed(self._stream, unknown[0] if unknown else None)
        extents = topics.extents(self._topic.name, partitions)
        since = topics.offsets_at(self._topic.name, partitions, wanted.since) if wanted.since else {}
        until = topics.offsets_at(self._topic.name, partitions, wanted.until) if wanted.until else {}
        found = [
            span
            for partition in partitions
            if (span := self._span(partition, extents[partition], wanted, since, until)) is not None
        ]
        if not any(span.first < span.next for span in found):
            raise self._no_records(partitions, extents)
        return [span for span in found if span.first < span.next]

    def _span(
        self,
        partition: int,
        extent: Extent,
        wanted: Wanted,
        since: Mapping[int, int | None],
        until: Mapping[int, int | None],
    ) -> OffsetSpan | None:
        landed_to = self._positions[partition].position.next_offset
        begin, end = self._first_landed[partition], landed_to
        begin = max(begin, wanted.first or 0)
        end = end if wanted.next is None else min(end, wanted.next)
        if wanted.since is not None:
            # None: the moment is after every record, so none is wanted.
            begin = max(begin, landed_to if (offset := since[partition]) is None else offset)
        if wanted.until is not None and (offset := until[partition]) is not None:
            end = min(end, offset)
        if begin >= end:
            return None
        first = min(max(begin, extent.first), end)
        return OffsetSpan(self._topic.name, partition, first, end, gone=first - begin)

    def _no_records(self, partitions: Iterable[int], extents: Mapping[int, Extent]) -> UserError:
        available = "; ".join(
            f"partition {p}, offsets {first} to {end - 1}"
            for p in partitions
            if (first := max(self._first_landed[p], extents[p].first))
            < (end := self._positions[p].position.next_offset)
        )
        return NothingToReplay(
            f"Stream {self._stream.name!r} has no landed records in this range that Kafka still has.",
            f"Choose from these: {available}." if available else "Kafka has removed all of its landed records.",
        )


def nothing_landed(stream: Stream, partition: int | None = None) -> NothingToReplay:
    """The error for a stream or partition without landed records."""
    which = "" if partition is None else f"partition {partition} of "
    return NothingToReplay(
        f"No record of {which}stream {stream.name!r} has landed yet.",
        f"A replay repeats only what has landed; unpause the DAG land__{stream.name} to land records.",
    )
