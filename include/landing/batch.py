"""A batch made ready to be written: decoded, judged, counted and formatted before its transaction begins."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast

import msgspec
import numpy as np
from confluent_kafka import Message

from include.kafka.reader import Batch
from include.landing import copy, dead_letters
from include.landing.copy import UNIX_EPOCH
from include.landing.dead_letters import DEAD_LETTER, QUARANTINED, DeadLetter
from include.landing.ledger import Entry
from include.streams.definition import Stream

# Deep nesting raises RecursionError, broken UTF-8 UnicodeDecodeError.
_DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_EMPTY = b""
_LANDED, _DEAD, _QUARANTINED, _SKIPPED = range(4)
_MICROSECOND = timedelta(microseconds=1)
# A delivered record has both; the stubs allow for messages that are not.
_partition: Callable[[Message], int] = cast(Any, Message.partition)
_offset: Callable[[Message], int] = cast(Any, Message.offset)


@dataclass(frozen=True)
class Prepared:
    """What one transaction writes.

    Attributes:
        reached: For each partition that moves, its next offset and the leader epoch of the last record below it.
        rows: The rows that land, as a binary COPY; their number is ``row_count``.
        spans: Where the partitions begin that the rows fall into.
        letters: Records kept aside, with their partitions and offsets.
        entries: What became of every offset.
    """

    reached: Mapping[int, tuple[int, int | None]]
    rows: bytes
    row_count: int
    spans: Sequence[datetime]
    letters: Sequence[DeadLetter]
    letter_partitions: Sequence[int]
    letter_offsets: Sequence[int]
    entries: Sequence[Entry]


@dataclass
class _Judged:
    """The messages of a batch with their fates; arrays have one element for each message."""

    messages: Sequence[Message]
    partitions: np.ndarray
    offsets: np.ndarray
    fates: np.ndarray
    letters: dict[int, DeadLetter] = field(default_factory=dict)

    def set_aside(self, index: int, letter: DeadLetter) -> None:
        self.letters[index] = letter
        self.fates[index] = _DEAD if letter.disposition == DEAD_LETTER else _QUARANTINED


class Preparer:
    """Makes the batches of one drain ready, in the order in which they were read.

    Args:
        stream: Whose events they are.
        incarnation: The topic's incarnation number.
        starts: Where reading began, for each partition.
    """

    def __init__(self, stream: Stream, incarnation: int, starts: Mapping[int, int]) -> None:
        self._stream = stream
        self._incarnation = incarnation
        self._next = dict(starts)
        self._decode = msgspec.json.Decoder(stream.event).decode
        self._columns = copy.columns_of(stream.fields)
        self._time = next(column for column in self._columns if column.name == stream.event_time)
        self._width = stream.width // _MICROSECOND
        self._late, self._early = stream.lateness // _MICROSECOND, stream.earliness // _MICROSECOND

    @property
    def copied(self) -> tuple[str, ...]:
        """The table's columns in the order of ``Prepared.rows``."""
        return ("kafka_incarnation", "kafka_partition", "kafka_offset", *(column.name for column in self._columns))

    def prepare(self, batch: Batch) -> Prepared:
        """Decodes, judges and formats what was read."""
        messages = sorted(batch.messages, key=_partition)
        values = list(map(Message.value, messages))
        judged = _Judged(
            messages,
            partitions=np.fromiter(map(_partition, messages), np.int32, len(messages)),
            offsets=np.fromiter(map(_offset, messages), np.int64, len(messages)),
            fates=np.zeros(len(messages), np.int8),
        )
        events = self._judge_times(judged, self._judge_values(judged, values))
        rows, events = self._format(judged, events)
        times = copy.microseconds(self._time.read(events)).to_numpy()
        order = sorted(judged.letters)
        return Prepared(
            reached={p: (offset, batch.leader_epochs.get(p)) for p, offset in batch.next_offsets.items()},
            rows=rows,
            row_count=len(events),
            spans=[_moment(int(start) * self._width) for start in np.unique(times // self._width)],
            letters=[judged.letters[index] for index in order],
            letter_partitions=judged.partitions[order].tolist(),
            letter_offsets=judged.offsets[order].tolist(),
            entries=list(self._count(judged, values, times, batch.next_offsets)),
        )

    def _judge_values(self, judged: _Judged, values: Sequence[bytes | None]) -> list[Any]:
        """The events of the values that are one; tombstones are skipped, the others become dead letters."""
        decoded, bad = decode(self._decode, [_EMPTY if value is None else value for value in values])
        for index, error in bad.items():
            if values[index] is None:
                judged.fates[index] = _SKIPPED
            else:
                judged.set_aside(index, self._letter(judged, index, DEAD_LETTER, f"{type(error).__name__}: {error}"))
        return decoded

    def _judge_times(self, judged: _Judged, events: list[Any]) -> list[Any]:
        """The events neither too late nor too early by their record's time in Kafka; the others go to quarantine."""
        where = np.flatnonzero(judged.fates == _LANDED)
        appended = np.fromiter((stamp for _, stamp in map(Message.timestamp, judged.messages)), np.int64)[where] * 1000
        age = appended - copy.microseconds(self._time.read(events)).to_numpy()
        outside = np.flatnonzero((age > self._late) | (age < -self._early))
        if not len(outside):
            return events
        for position in outside:
            late = age[position] > 0
            by = abs(int(age[position])) * _MICROSECOND
            limit = f"late={self._stream.late!r}" if late else f"early={self._stream.early!r}"
            reason = f"{self._time.name} is {by} {'older' if late else 'newer'} than the record; {limit}"
            moment = getattr(events[position], self._time.name)
            index = int(where[position])
            judged.set_aside(index, self._letter(judged, index, QUARANTINED, reason, moment))
        dropped = set(outside.tolist())
        return [event for position, event in enumerate(events) if position not in dropped]

    def _format(self, judged: _Judged, events: list[Any]) -> tuple[bytes, list[Any]]:
        """The rows' bytes, and the events in them: what no column can hold becomes a dead letter."""
        where = np.flatnonzero(judged.fates == _LANDED)
        try:
            return self._buffer(judged, where, events), events
        except copy.REFUSALS:
            refused = copy.refused(self._columns, events)
            if not refused:
                raise
        for position, reason in refused.items():
            index = int(where[position])
            judged.set_aside(index, self._letter(judged, index, DEAD_LETTER, reason))
        events = [event for position, event in enumerate(events) if position not in refused]
        return self._buffer(judged, np.flatnonzero(judged.fates == _LANDED), events), events

    def _buffer(self, judged: _Judged, where: np.ndarray, events: list[Any]) -> bytes:
        coordinates = [(">i2", self._incarnation), (">i4", judged.partitions[where]), (">i8", judged.offsets[where])]
        return copy.buffer(self._columns, events, coordinates)

    def _letter(
        self, judged: _Judged, index: int, disposition: str, reason: str, event_time: datetime | None = None
    ) -> DeadLetter:
        return dead_letters.of(judged.messages[index], self._stream.name, disposition, reason, event_time=event_time)

    def _count(
        self, judged: _Judged, values: Sequence[bytes | None], times: np.ndarray, next_offsets: Mapping[int, int]
    ) -> Iterator[Entry]:
        """What became of every offset between the last batch and this one's end, for each partition."""
        # CRC-32 begun with the offset ties a value to its place.
        crcs = np.fromiter(
            map(zlib.crc32, (v or _EMPTY for v in values), (judged.offsets & 0xFFFFFFFF).tolist()), np.int64
        )
        landed_partitions = judged.partitions[judged.fates == _LANDED]
        for partition, end in sorted(next_offsets.items()):
            low, high = np.searchsorted(judged.partitions, [partition, partition + 1])
            fates = np.bincount(judged.fates[low:high], minlength=4).tolist()
            mine = times[landed_partitions == partition]
            first = self._next[partition]
            self._next[partition] = end
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


def decode(decoder: Any, values: Sequence[bytes]) -> tuple[list[Any], dict[int, Exception]]:
    """The events of the values that are one, in order, and for every other value its error by its index.

    A bad value costs one exception and nothing is decoded twice: ``list.extend`` keeps what an iterator gave before it
    raised, and the iterator goes on behind the value that raised.
    """
    events: list[Any] = []
    bad: dict[int, Exception] = {}
    remaining = map(decoder, values)
    while True:
        try:
            events.extend(remaining)
        except _DECODE_ERRORS as error:
            bad[len(events) + len(bad)] = error
        else:
            return events, bad


def _moment(microseconds: int) -> datetime:
    return UNIX_EPOCH + microseconds * _MICROSECOND
