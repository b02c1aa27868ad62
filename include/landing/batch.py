"""A batch prepared for its transaction: records are decoded, classified, counted and formatted before it begins."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import compress
from typing import Any, cast

import numpy as np
from confluent_kafka import Message
from numpy.typing import NDArray

from include.kafka.reader import Batch
from include.landing import copy, dead_letters, decoders, relation, selection, spans
from include.landing.copy import Rows
from include.landing.dead_letters import NO_STAMP, DeadLetter
from include.landing.decoder import EventDecoder, SkipReason, StopReason
from include.landing.disposition import Disposition
from include.landing.effects import NO_TOMBSTONES, Effects, Reducer, Tombstones
from include.landing.latest import Latest, Moved
from include.landing.ledger import Entry
from include.landing.selection import EventSelection
from include.landing.spans import Span
from include.landing.time_limits import NO_RECORD_TIME, TimeLimits, record_times
from include.streams.definition import Stream

_EMPTY = b""
# The most partitions of the table that one transaction writes to.
MAX_SPANS = 500
# The codes of dispositions in arrays: indices into Disposition, and a tombstone's.
_LANDED, _DEAD_LETTER, _QUARANTINED, _FILTERED, SKIPPED = range(5)
_CODES = {Disposition.LANDED: _LANDED, Disposition.DEAD_LETTER: _DEAD_LETTER, Disposition.QUARANTINED: _QUARANTINED}
# A delivered record has both; the type stubs also describe messages that were not delivered.
_partition: Callable[[Message], int] = cast(Any, Message.partition)
_offset: Callable[[Message], int] = cast(Any, Message.offset)


@dataclass(frozen=True)
class PendingChanges:
    """Changes of the definition that the table has not followed yet, because it is locked.

    Attributes:
        columns: The fields that have no column yet.
        nulls: The fields whose column is still NOT NULL, although the definition allows None.
    """

    columns: frozenset[str] = frozenset()
    nulls: frozenset[str] = frozenset()


NO_CHANGES = PendingChanges()


@dataclass(frozen=True)
class Refusal:
    """Why PostgreSQL refused a row."""

    sqlstate: str
    reason: str


@dataclass
class ClassifiedBatch:
    """The messages of a batch with their dispositions; arrays have one element for each message.

    Attributes:
        codes: Indices into ``Disposition``, or ``SKIPPED`` for a tombstone; int8.
        events: The events that land, in the order of their messages; empty once they have become rows.
        times: The times of the events that land, in microseconds since 1970, int64.
        ends: For each partition that moves, the offsets where the batch begins and ends (exclusive).
        stops: The reasons of the dead letters for which the stream stops, unless a user has accepted them.
        unfilled: For each partition, the range of offsets whose events have values for columns that do not exist yet.
        has_nulls: Whether an event is null where the table does not allow it yet.
        effects: What the records change in the current state; None for a stream without one.
        cuts: The indices of the messages before which the batch must be cut, see ``Reducer.cuts``.
    """

    messages: Sequence[Message]
    values: Sequence[bytes | None]
    partitions: NDArray[np.int32]
    offsets: NDArray[np.int64]
    codes: NDArray[np.int8]
    ends: Mapping[int, tuple[int, int]]
    events: list[Any] = field(default_factory=list)
    times: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    letters: dict[int, DeadLetter] = field(default_factory=dict)
    stops: dict[int, StopReason] = field(default_factory=dict)
    unfilled: dict[int, tuple[int, int]] = field(default_factory=dict)
    has_nulls: bool = False
    effects: Effects | None = None
    cuts: Sequence[int] = ()

    def set_aside(self, index: int, letter: DeadLetter) -> None:
        """Marks a message as a dead letter or as quarantined."""
        self.letters[index] = letter
        self.codes[index] = _CODES[letter.disposition]

    def drop(self, events: Collection[int]) -> None:
        """Removes events, by their positions, from those that land."""
        self.events = [event for position, event in enumerate(self.events) if position not in events]
        if len(self.times):
            self.times = np.delete(self.times, list(events))


@dataclass(frozen=True)
class PreparedBatch:
    """Everything that one transaction writes.

    Attributes:
        reached: For each partition that moves, its next offset and the leader epoch of the last record below it.
        rows: The rows that land.
        spans: The spans of the table's partitions that the rows belong to.
        letters: Dead letters and quarantined records; their partitions and offsets are in the next two lists.
        latest: The last record of each key; None for a stream without a current state.
        entries: The ledger entries: the disposition of every offset, counted.
        classified: The messages that all of this was made from.
        topic: The topic of the records.
    """

    reached: Mapping[int, tuple[int, int | None]]
    rows: Rows
    spans: Sequence[Span]
    letters: Sequence[DeadLetter]
    letter_partitions: Sequence[int]
    letter_offsets: Sequence[int]
    entries: Sequence[Entry]
    classified: ClassifiedBatch
    latest: Latest | None = None
    topic: str = ""

    @property
    def stops(self) -> list[tuple[int, int, StopReason]]:
        """The partition and offset of each record for which the stream stops, and the reason."""
        where = self.classified
        return [
            (int(where.partitions[index]), int(where.offsets[index]), reason)
            for index, reason in sorted(where.stops.items())
        ]


class Preparer:
    """Prepares the batches that a drain reads from one topic, in the order in which they were read.

    Args:
        stream: The stream that the events belong to.
        incarnation: The topic's incarnation number.
        starts: For each partition, the offset where reading began.
        pending: Changes that the table has not followed yet.
        topic: The topic, if the stream reads several.
        decoder: The decoder to use, with the schemas that it knows; a new one when None.
    """

    def __init__(
        self,
        stream: Stream,
        incarnation: int,
        starts: Mapping[int, int],
        pending: PendingChanges = NO_CHANGES,
        topic: str = "",
        decoder: EventDecoder | None = None,
    ) -> None:
        self._stream = stream
        self._incarnation = incarnation
        self._topic = topic or stream.topic
        self._next = dict(starts)
        self._decoder = decoders.of(stream) if decoder is None else decoder
        self._selection = selection.of(stream)
        columns = copy.columns_of_stream(stream)
        self._reducer = Reducer(stream, incarnation, self._topic) if stream.current else None
        self._columns = tuple(column for column in columns if column.name not in pending.columns)
        self._absent = tuple(column for column in columns if column.name in pending.columns)
        self._strict = tuple(column for column in columns if column.name in pending.nulls)
        self._time = next((column for column in self._columns if column.name == stream.event_time), None)
        self._limits = TimeLimits(stream)

    @property
    def stream(self) -> Stream:
        """The stream that the batches belong to."""
        return self._stream

    @property
    def copied(self) -> tuple[str, ...]:
        """The table's columns in the order of ``PreparedBatch.rows``."""
        return (*relation.copied_of_records(self._stream), *(column.name for column in self._columns))

    def pieces(self, batch: Batch) -> list[PreparedBatch]:
        """Prepares a batch, in pieces if its events belong to more than ``MAX_SPANS`` partitions of the table.

        A transaction holds locks on every partition that it writes to, and the server has a few thousand in all. A
        batch is also cut where an event needs the state that an event before it leaves. After an error, the batch can
        be prepared again.
        """
        starts = self._next
        prepared = self.prepare(batch)
        cuts = prepared.classified.cuts
        if len(prepared.spans) <= MAX_SPANS and not cuts:
            return [prepared]
        messages = prepared.classified.messages if cuts else batch.messages
        bounds = {*cuts, *(range(0, len(messages), MAX_SPANS) if len(prepared.spans) > MAX_SPANS else (0,))}
        self._next = starts
        try:
            return [self.prepare(piece) for piece in _pieces(batch, messages, sorted(bounds))]
        except BaseException:
            self._next = starts
            raise

    def prepare(self, batch: Batch) -> PreparedBatch:
        """Decodes, classifies and formats the records of a batch."""
        messages = sorted(batch.messages, key=_partition)
        classified = ClassifiedBatch(
            messages,
            values=list(map(Message.value, messages)),
            partitions=np.fromiter(map(_partition, messages), np.int32, len(messages)),
            offsets=np.fromiter(map(_offset, messages), np.int64, len(messages)),
            codes=np.zeros(len(messages), np.int8),
            ends={p: (self._next[p], end) for p, end in sorted(batch.next_offsets.items())},
        )
        self._classify_values(classified)
        if self._selection is not None:
            self._select(classified, self._selection)
        tombstones = self._classify_tombstones(classified)
        self._classify_times(classified)
        rows = self._format(classified)
        if self._reducer is not None:
            landed = np.flatnonzero(classified.codes == _LANDED)
            classified.effects = self._reducer.effects(
                classified.partitions, classified.offsets, (landed, classified.events, classified.times), tombstones
            )
            classified.cuts = self._reducer.cuts(classified.effects, landed, classified.events)
        self._note_pending(classified)
        # The events take most of a batch's memory, and it may have to wait for its transaction.
        classified.events = []
        reached = {p: (offset, batch.leader_epochs.get(p)) for p, offset in batch.next_offsets.items()}
        prepared = self._prepared(classified, rows, reached)
        # Last, and as a new object: after an error, the batch begins where it did before.
        self._next = self._next | batch.next_offsets
        return prepared

    def refuse(self, prepared: PreparedBatch, refusals: Mapping[int, Refusal]) -> PreparedBatch:
        """The batch without the rows, by their indices, that PostgreSQL refused; they become dead letters."""
        before = prepared.classified
        classified = replace(before, codes=before.codes.copy(), letters=dict(before.letters))
        where = np.flatnonzero(classified.codes == _LANDED)
        for row, refusal in refusals.items():
            index = int(where[row])
            moment = spans.moment_of(int(classified.times[row]))
            letter = self._letter(classified, index, Disposition.DEAD_LETTER, refusal.reason, moment, refusal.sqlstate)
            classified.set_aside(index, letter)
        classified.drop(refusals.keys())
        return self._prepared(classified, prepared.rows.without(refusals.keys()), prepared.reached)

    def _prepared(
        self, classified: ClassifiedBatch, rows: Rows, reached: Mapping[int, tuple[int, int | None]]
    ) -> PreparedBatch:
        order = sorted(classified.letters)
        return PreparedBatch(
            reached=reached,
            rows=rows,
            spans=spans.spans_of(self._stream, classified.times),
            letters=[classified.letters[index] for index in order],
            letter_partitions=classified.partitions[order].tolist(),
            letter_offsets=classified.offsets[order].tolist(),
            entries=list(_count(classified)),
            classified=classified,
            latest=self._latest(classified, rows),
            topic=self._topic,
        )

    def _latest(self, classified: ClassifiedBatch, rows: Rows) -> Latest | None:
        """The last record of each key among those that landed, and the tombstones."""
        if classified.effects is None:
            return None
        try:
            return classified.effects.latest(classified.codes == _LANDED, rows)
        except Moved as error:
            assert self._reducer is not None
            first, second = (classified.messages[index] for index in (error.first, error.second))
            raise self._reducer.moved(first, second) from None

    def _classify_values(self, classified: ClassifiedBatch) -> None:
        """Decodes the values. Tombstones are skipped, and values that are not events become dead letters."""
        values = [_EMPTY if value is None else value for value in classified.values]
        classified.events, bad = decoders.events_of(self._decoder, values, classified.messages)
        for index, reason in bad.items():
            if classified.values[index] is None or isinstance(reason, SkipReason):
                classified.codes[index] = SKIPPED
            else:
                if isinstance(reason, StopReason):
                    classified.stops[index] = reason
                classified.set_aside(index, self._letter(classified, index, Disposition.DEAD_LETTER, reason))

    def _select(self, classified: ClassifiedBatch, wanted: EventSelection) -> None:
        """Filters the events that do not land. Those that ``where`` cannot decide become dead letters."""
        selected, undecided = wanted.select(classified.events)
        where = np.flatnonzero(classified.codes == _LANDED)
        classified.codes[where[~np.array(selected, bool)]] = _FILTERED
        classified.events = list(compress(classified.events, selected))
        for position, reason in undecided.items():
            index = int(where[position])
            classified.set_aside(index, self._letter(classified, index, Disposition.DEAD_LETTER, reason))

    def _classify_tombstones(self, classified: ClassifiedBatch) -> Tombstones:
        """The tombstones that delete keys. Those whose key cannot be decoded become dead letters."""
        if self._reducer is None or not self._reducer.has_tombstones:
            return NO_TOMBSTONES
        where = np.flatnonzero(classified.codes == SKIPPED)
        messages = [classified.messages[index] for index in where.tolist()]
        tombstones, bad = self._reducer.tombstones(where, messages)
        for index, reason in bad.items():
            if isinstance(reason, StopReason):
                classified.stops[index] = reason
            classified.set_aside(index, self._letter(classified, index, Disposition.DEAD_LETTER, reason))
        return tombstones

    def _classify_times(self, classified: ClassifiedBatch) -> None:
        """Quarantines the events that are outside of the stream's time limits."""
        classified.times = self._times(classified)
        where = np.flatnonzero(classified.codes == _LANDED)
        stamps = _stamps(classified)
        positions = np.flatnonzero(self._limits.exceeded(classified.times, stamps)).tolist()
        for position in positions:
            time, index = int(classified.times[position]), int(where[position])
            reason = self._limits.reason(time, int(stamps[position]))
            moment = _within_calendar(time)
            classified.set_aside(index, self._letter(classified, index, Disposition.QUARANTINED, reason, moment))
        if positions:
            classified.drop(set(positions))

    def _times(self, classified: ClassifiedBatch) -> NDArray[np.int64]:
        """The event times in microseconds, int64. Events without a usable time become dead letters."""
        if self._time is None:
            return self._record_times(classified)
        column = self._time
        try:
            return copy.times(column, column.read(classified.events))
        except Exception:
            refused = {}
            for position, event in enumerate(classified.events):
                try:
                    copy.times(column, column.read([event]))
                except Exception as error:  # the definition's own code may raise anything
                    refused[position] = f"{column.name}: {error}"
            if not refused:
                raise
        self._set_aside(classified, refused)
        return copy.times(column, column.read(classified.events))

    def _record_times(self, classified: ClassifiedBatch) -> NDArray[np.int64]:
        """The records' timestamps as event times. Records without a timestamp become dead letters."""
        without = np.flatnonzero(_stamps(classified) == NO_STAMP).tolist()
        if without:
            self._set_aside(classified, dict.fromkeys(without, NO_RECORD_TIME))
        return record_times(_stamps(classified))

    def _format(self, classified: ClassifiedBatch) -> Rows:
        """The rows of the events. Events with a value that its column cannot hold become dead letters."""
        try:
            return self._rows(classified)
        except Exception:  # the definition's own code may raise anything
            refused = copy.refused(self._columns, classified.events)
            if not refused:
                raise
        self._set_aside(classified, refused)
        return self._rows(classified)

    def _set_aside(self, classified: ClassifiedBatch, refused: Mapping[int, str]) -> None:
        """Makes dead letters of events, given by their positions among those that land, with their reasons."""
        where = np.flatnonzero(classified.codes == _LANDED)
        for position, reason in refused.items():
            index = int(where[position])
            classified.set_aside(index, self._letter(classified, index, Disposition.DEAD_LETTER, reason))
        classified.drop(refused.keys())

    def _note_pending(self, classified: ClassifiedBatch) -> None:
        """Notes which events have a value or a null that the table cannot take yet."""
        classified.has_nulls = any(None in column.read(classified.events) for column in self._strict)
        carrying = np.zeros(len(classified.events), bool)
        for column in self._absent:
            carrying |= np.fromiter(
                (value is not None for value in column.read(classified.events)), bool, len(carrying)
            )
        where = np.flatnonzero(classified.codes == _LANDED)[carrying]
        partitions, offsets = classified.partitions[where], classified.offsets[where]
        for partition in np.unique(partitions).tolist():
            mine = offsets[partitions == partition]
            classified.unfilled[partition] = (int(mine.min()), int(mine.max()) + 1)

    def _rows(self, classified: ClassifiedBatch) -> Rows:
        where = np.flatnonzero(classified.codes == _LANDED)
        coordinates: list[tuple[str | None, Any]] = [
            (">i2", self._incarnation),
            (">i4", classified.partitions[where]),
            (">i8", classified.offsets[where]),
        ]
        if self._stream.has_record_time:
            coordinates.append((">i8", classified.times - copy.POSTGRES_EPOCH_US))
        if self._stream.topics is not None:
            coordinates.append(copy.constant(self._topic))
        return copy.buffer(self._columns, classified.events, coordinates)

    def _letter(
        self,
        classified: ClassifiedBatch,
        index: int,
        disposition: Disposition,
        reason: str,
        event_time: datetime | None = None,
        sqlstate: str | None = None,
    ) -> DeadLetter:
        letter = dead_letters.of(
            classified.messages[index], self._stream.name, disposition, reason, sqlstate=sqlstate, event_time=event_time
        )
        return dead_letters.withheld(letter) if self._stream.mask else letter


def _stamps(classified: ClassifiedBatch) -> NDArray[np.int64]:
    """The timestamps of the records that land, in milliseconds since 1970."""
    stamps: NDArray[np.int64] = np.fromiter(
        (stamp for _, stamp in map(Message.timestamp, classified.messages)), np.int64
    )[classified.codes == _LANDED]
    return stamps


def _pieces(batch: Batch, messages: Sequence[Message], starts: Sequence[int]) -> Iterator[Batch]:
    """A batch in pieces.

    Args:
        messages: Its messages, in the order of their offsets within each partition.
        starts: The index of the first message of each piece.
    """
    reached: dict[int, int] = {}
    for start, stop in zip(starts, (*starts[1:], len(messages)), strict=True):
        some = messages[start:stop]
        last = dict(zip(map(_partition, some), some, strict=True))
        ends = {partition: _offset(message) + 1 for partition, message in last.items()}
        if stop == len(messages):
            # After the last records there may be offsets without a record.
            ends |= {p: end for p, end in batch.next_offsets.items() if p in ends or end > reached.get(p, -1)}
        reached |= ends
        epochs = {partition: message.leader_epoch() for partition, message in last.items()}
        yield Batch(list(some), ends, leader_epochs=epochs)


def _count(classified: ClassifiedBatch) -> Iterator[Entry]:
    """The ledger entry of each partition: the dispositions of all offsets between the batch's ends."""
    # The CRC-32 of a value starts from its offset, so that values that are swapped change the sum.
    crcs = np.fromiter(
        map(zlib.crc32, (v or _EMPTY for v in classified.values), (classified.offsets & 0xFFFFFFFF).tolist()), np.int64
    )
    landed_partitions = classified.partitions[classified.codes == _LANDED]
    for partition, (first, end) in classified.ends.items():
        low, high = np.searchsorted(classified.partitions, [partition, partition + 1])
        counts = np.bincount(classified.codes[low:high], minlength=SKIPPED + 1).tolist()
        mine = classified.times[landed_partitions == partition]
        yield Entry(
            partition=partition,
            first=first,
            next=end,
            landed=counts[_LANDED],
            dead_letters=counts[_DEAD_LETTER],
            quarantined=counts[_QUARANTINED],
            filtered=counts[_FILTERED],
            skipped=counts[SKIPPED],
            no_records=end - first - int(high - low),
            checksum=int(crcs[low:high].sum()),
            newest=spans.moment_of(int(mine.max())) if len(mine) else None,
        )


def _within_calendar(microseconds: int) -> datetime | None:
    """The moment, or None if clients could not read it."""
    first, last = spans.CALENDAR_US
    return spans.moment_of(microseconds) if first <= microseconds <= last else None
