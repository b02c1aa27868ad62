"""A batch made ready to be written: decoded, judged, counted and formatted before its transaction begins."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, cast

import numpy as np
from confluent_kafka import Message

from include.kafka.reader import Batch
from include.landing import copy, dead_letters
from include.landing.copy import UNIX_EPOCH, Rows
from include.landing.dead_letters import DEAD_LETTER, NO_STAMP, QUARANTINED, STAMPS, DeadLetter
from include.landing.decoder import Decoder
from include.landing.ledger import Entry
from include.streams.definition import CALENDAR, Stream

_EMPTY = b""
# Partitions of the table that one transaction writes to.
MAX_SPANS = 500
FATES = ("landed", DEAD_LETTER, QUARANTINED)
"""What can become of a record with a value."""
_LANDED, _DEAD, _QUARANTINED, _SKIPPED = range(4)
_MICROSECOND = timedelta(microseconds=1)
# What clients can read, in microseconds since 1970.
_CALENDAR = tuple((end - UNIX_EPOCH) // _MICROSECOND for end in CALENDAR)
# A delivered record has both; the stubs allow for messages that are not.
_partition: Callable[[Message], int] = cast(Any, Message.partition)
_offset: Callable[[Message], int] = cast(Any, Message.offset)


@dataclass(frozen=True)
class Lacking:
    """What a table that is locked lacks of its definition.

    Attributes:
        columns: The fields that have no column yet.
        nulls: The fields whose column does not allow null yet, although the definition does.
    """

    columns: frozenset[str] = frozenset()
    nulls: frozenset[str] = frozenset()


NOTHING = Lacking()


@dataclass(frozen=True)
class Refusal:
    """Why PostgreSQL did not take a row."""

    sqlstate: str
    reason: str


@dataclass
class Judged:
    """The messages of a batch with their fates; arrays have one element for each message.

    Attributes:
        fates: Indices into ``FATES``; what is past its end is a tombstone.
        events: Those that land, in the order of their messages, until they have become rows.
        times: Their event times in microseconds, int64, for as long as the batch lives.
        ends: For each partition that moves, the offsets where the batch begins and ends (exclusive).
        unfilled: For each partition, the offsets between which events have values for columns that are not there.
        has_nulls: Whether an event has null where the table does not allow it yet.
    """

    messages: Sequence[Message]
    values: Sequence[bytes | None]
    partitions: np.ndarray
    offsets: np.ndarray
    fates: np.ndarray
    ends: Mapping[int, tuple[int, int]]
    events: list[Any] = field(default_factory=list)
    times: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    letters: dict[int, DeadLetter] = field(default_factory=dict)
    unfilled: dict[int, tuple[int, int]] = field(default_factory=dict)
    has_nulls: bool = False

    def set_aside(self, index: int, letter: DeadLetter) -> None:
        self.letters[index] = letter
        self.fates[index] = _DEAD if letter.disposition == DEAD_LETTER else _QUARANTINED

    def drop(self, events: Collection[int]) -> None:
        self.events = [event for position, event in enumerate(self.events) if position not in events]
        if len(self.times):
            self.times = np.delete(self.times, list(events))


@dataclass(frozen=True)
class Prepared:
    """What one transaction writes.

    Attributes:
        reached: For each partition that moves, its next offset and the leader epoch of the last record below it.
        rows: The rows that land.
        spans: Where the partitions begin that the rows fall into.
        letters: Records kept aside, with their partitions and offsets.
        entries: What became of every offset.
        judged: What all that was made from.
    """

    reached: Mapping[int, tuple[int, int | None]]
    rows: Rows
    spans: Sequence[datetime]
    letters: Sequence[DeadLetter]
    letter_partitions: Sequence[int]
    letter_offsets: Sequence[int]
    entries: Sequence[Entry]
    judged: Judged


class Preparer:
    """Makes the batches of one drain ready, in the order in which they were read.

    Args:
        stream: Whose events they are.
        incarnation: The topic's incarnation number.
        starts: Where reading began, for each partition.
        lacking: What the table lacks of the definition.
    """

    def __init__(self, stream: Stream, incarnation: int, starts: Mapping[int, int], lacking: Lacking = NOTHING) -> None:
        self._stream = stream
        self._incarnation = incarnation
        self._next = dict(starts)
        self._decoder = Decoder(stream.event)
        columns = copy.columns_of(stream.fields)
        self._columns = tuple(column for column in columns if column.name not in lacking.columns)
        self._absent = tuple(column for column in columns if column.name in lacking.columns)
        self._strict = tuple(column for column in columns if column.name in lacking.nulls)
        self._time = next(column for column in self._columns if column.name == stream.event_time)
        self._width = stream.width // _MICROSECOND
        self._late, self._early = stream.lateness // _MICROSECOND, stream.earliness // _MICROSECOND
        self._first, self._end = partitionable(stream)

    @property
    def stream(self) -> Stream:
        """Whose batches they are."""
        return self._stream

    @property
    def copied(self) -> tuple[str, ...]:
        """The table's columns in the order of ``Prepared.rows``."""
        return ("kafka_incarnation", "kafka_partition", "kafka_offset", *(column.name for column in self._columns))

    def pieces(self, batch: Batch) -> list[Prepared]:
        """What was read as one batch; as several when its events fall into too many partitions of the table for one.

        A transaction holds locks on every partition that it writes to, and the server has some thousands for all.
        """
        starts = dict(self._next)
        prepared = self.prepare(batch)
        if len(prepared.spans) <= MAX_SPANS:
            return [prepared]
        self._next = starts
        return [self.prepare(piece) for piece in _pieces(batch)]

    def prepare(self, batch: Batch) -> Prepared:
        """Decodes, judges and formats what was read."""
        messages = sorted(batch.messages, key=_partition)
        judged = Judged(
            messages,
            values=list(map(Message.value, messages)),
            partitions=np.fromiter(map(_partition, messages), np.int32, len(messages)),
            offsets=np.fromiter(map(_offset, messages), np.int64, len(messages)),
            fates=np.zeros(len(messages), np.int8),
            ends={p: (self._next[p], end) for p, end in sorted(batch.next_offsets.items())},
        )
        self._next |= batch.next_offsets
        self._judge_values(judged)
        self._judge_times(judged)
        rows = self._format(judged)
        self._note_lacking(judged)
        # Batches wait for their turn without them: they are the greater part of a batch.
        judged.events = []
        reached = {p: (offset, batch.leader_epochs.get(p)) for p, offset in batch.next_offsets.items()}
        return self._prepared(judged, rows, reached)

    def refuse(self, prepared: Prepared, refusals: Mapping[int, Refusal]) -> Prepared:
        """The batch without some of its rows, by their indices: PostgreSQL refused them, and they are dead letters."""
        judged = replace(prepared.judged, fates=prepared.judged.fates.copy(), letters=dict(prepared.judged.letters))
        where = np.flatnonzero(judged.fates == _LANDED)
        for row, refusal in refusals.items():
            index = int(where[row])
            moment = _moment(int(judged.times[row]))
            letter = self._letter(judged, index, DEAD_LETTER, refusal.reason, moment, refusal.sqlstate)
            judged.set_aside(index, letter)
        judged.drop(refusals.keys())
        return self._prepared(judged, prepared.rows.without(refusals.keys()), prepared.reached)

    def _prepared(self, judged: Judged, rows: Rows, reached: Mapping[int, tuple[int, int | None]]) -> Prepared:
        order = sorted(judged.letters)
        return Prepared(
            reached=reached,
            rows=rows,
            spans=[_moment(int(start) * self._width) for start in np.unique(judged.times // self._width)],
            letters=[judged.letters[index] for index in order],
            letter_partitions=judged.partitions[order].tolist(),
            letter_offsets=judged.offsets[order].tolist(),
            entries=list(_count(judged)),
            judged=judged,
        )

    def _judge_values(self, judged: Judged) -> None:
        """Finds the events of the values that are one; tombstones are skipped, the others become dead letters."""
        judged.events, bad = self._decoder.events([_EMPTY if value is None else value for value in judged.values])
        for index, reason in bad.items():
            if judged.values[index] is None:
                judged.fates[index] = _SKIPPED
            else:
                judged.set_aside(index, self._letter(judged, index, DEAD_LETTER, reason))

    def _judge_times(self, judged: Judged) -> None:
        """Quarantines the events that are too late or too early by their record's time in Kafka."""
        judged.times = self._times(judged)
        where = np.flatnonzero(judged.fates == _LANDED)
        stamps = np.fromiter((stamp for _, stamp in map(Message.timestamp, judged.messages)), np.int64)[where]
        # Times that no calendar has, as of a producer that counts in other units, would overflow.
        first, last = STAMPS
        age = np.clip(stamps, first, last) * 1000 - judged.times
        outside = (age > self._late) | (age < -self._early)
        outside |= (stamps < first) | (stamps > last) | (stamps == NO_STAMP)
        outside |= (judged.times < self._first) | (judged.times >= self._end)
        positions = np.flatnonzero(outside).tolist()
        for position in positions:
            reason = self._why_outside(int(judged.times[position]), int(stamps[position]), int(age[position]))
            moment = _within_calendar(int(judged.times[position]))
            index = int(where[position])
            judged.set_aside(index, self._letter(judged, index, QUARANTINED, reason, moment))
        if positions:
            judged.drop(set(positions))

    def _times(self, judged: Judged) -> np.ndarray:
        """The event times in microseconds, int64; an event whose time is none, by the definition's own code, is bad."""
        try:
            return copy.instants(self._time.read(judged.events))
        except Exception:
            refused = {}
            for position, event in enumerate(judged.events):
                try:
                    copy.instants(self._time.read([event]))
                except Exception as error:  # a definition's own code is free in its choice
                    refused[position] = f"{self._time.name}: {error}"
            if not refused:
                raise
        self._set_aside(judged, refused)
        return copy.instants(self._time.read(judged.events))

    def _why_outside(self, time: int, stamp: int, age: int) -> str:
        name = self._time.name
        if stamp == NO_STAMP:
            return f"the record has no time in Kafka, by which {name} could be judged"
        if not STAMPS[0] <= stamp <= STAMPS[1]:
            return (
                f"the record's time in Kafka, {stamp} ms since 1970, is not within the years 1 to 9999, and {name} "
                "cannot be judged by it; its producer may count in another unit"
            )
        if age > self._late or age < -self._early:
            limit = f"late={self._stream.late!r}" if age > 0 else f"early={self._stream.early!r}"
            return f"{name} is {abs(age) * _MICROSECOND} {'older' if age > 0 else 'newer'} than the record; {limit}"
        return f"{name} is too close to the calendar's end for a partition of {self._stream.partition}"

    def _format(self, judged: Judged) -> Rows:
        """The rows of the events; what no column can hold becomes a dead letter."""
        try:
            return self._rows(judged)
        except Exception:  # a definition's own code is free in its choice
            refused = copy.refused(self._columns, judged.events)
            if not refused:
                raise
        self._set_aside(judged, refused)
        return self._rows(judged)

    def _set_aside(self, judged: Judged, refused: Mapping[int, str]) -> None:
        """Makes events, by their positions among those that land, dead letters with their reasons."""
        where = np.flatnonzero(judged.fates == _LANDED)
        for position, reason in refused.items():
            index = int(where[position])
            judged.set_aside(index, self._letter(judged, index, DEAD_LETTER, reason))
        judged.drop(refused.keys())

    def _note_lacking(self, judged: Judged) -> None:
        judged.has_nulls = any(None in column.read(judged.events) for column in self._strict)
        carrying = np.zeros(len(judged.events), bool)
        for column in self._absent:
            carrying |= np.fromiter((value is not None for value in column.read(judged.events)), bool, len(carrying))
        where = np.flatnonzero(judged.fates == _LANDED)[carrying]
        partitions, offsets = judged.partitions[where], judged.offsets[where]
        for partition in np.unique(partitions).tolist():
            mine = offsets[partitions == partition]
            judged.unfilled[partition] = (int(mine.min()), int(mine.max()) + 1)

    def _rows(self, judged: Judged) -> Rows:
        where = np.flatnonzero(judged.fates == _LANDED)
        coordinates = [(">i2", self._incarnation), (">i4", judged.partitions[where]), (">i8", judged.offsets[where])]
        return copy.buffer(self._columns, judged.events, coordinates)

    def _letter(
        self,
        judged: Judged,
        index: int,
        disposition: str,
        reason: str,
        event_time: datetime | None = None,
        sqlstate: str | None = None,
    ) -> DeadLetter:
        return dead_letters.of(
            judged.messages[index], self._stream.name, disposition, reason, sqlstate=sqlstate, event_time=event_time
        )


def _pieces(batch: Batch) -> Iterator[Batch]:
    """The batch in pieces of ``MAX_SPANS`` records."""
    reached: dict[int, int] = {}
    for start in range(0, len(batch.messages), MAX_SPANS):
        some = batch.messages[start : start + MAX_SPANS]
        last = dict(zip(map(_partition, some), some, strict=True))
        ends = {partition: _offset(message) + 1 for partition, message in last.items()}
        if start + MAX_SPANS >= len(batch.messages):
            # Behind the last records there may be offsets that are none.
            ends |= {p: end for p, end in batch.next_offsets.items() if p in ends or end > reached.get(p, -1)}
        reached |= ends
        epochs = {partition: message.leader_epoch() for partition, message in last.items()}
        yield Batch(some, ends, leader_epochs=epochs)


def _count(judged: Judged) -> Iterator[Entry]:
    """What became of every offset between the batch's ends, for each partition."""
    # CRC-32 begun with the offset ties a value to its place.
    crcs = np.fromiter(
        map(zlib.crc32, (v or _EMPTY for v in judged.values), (judged.offsets & 0xFFFFFFFF).tolist()), np.int64
    )
    landed_partitions = judged.partitions[judged.fates == _LANDED]
    for partition, (first, end) in judged.ends.items():
        low, high = np.searchsorted(judged.partitions, [partition, partition + 1])
        fates = np.bincount(judged.fates[low:high], minlength=4).tolist()
        mine = judged.times[landed_partitions == partition]
        yield Entry(
            partition=partition,
            first=first,
            next=end,
            landed=fates[_LANDED],
            dead_letters=fates[_DEAD],
            quarantined=fates[_QUARANTINED],
            skipped=fates[_SKIPPED],
            no_records=end - first - int(high - low),
            checksum=int(crcs[low:high].sum()),
            newest=_moment(int(mine.max())) if len(mine) else None,
        )


def partitionable(stream: Stream) -> tuple[int, int]:
    """Between which times, the end exclusive, the calendar holds whole partitions; in microseconds since 1970."""
    width = stream.width // _MICROSECOND
    return -(-_CALENDAR[0] // width) * width, _CALENDAR[1] // width * width


def _moment(microseconds: int) -> datetime:
    return UNIX_EPOCH + microseconds * _MICROSECOND


def _within_calendar(microseconds: int) -> datetime | None:
    """The moment, unless no client could read it."""
    return _moment(microseconds) if _CALENDAR[0] <= microseconds <= _CALENDAR[1] else None
