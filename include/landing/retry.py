"""Retry of dead letters: decodes their bytes again, and lands those that can land now, at their coordinates.

The bytes are those that ``millrace.dead_letter`` has. If they are withheld, Kafka has them, or they are gone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import compress
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from include.landing import (
    copy,
    dead_letters,
    decoders,
    incarnation,
    refusals,
    relation,
    selection,
    spans,
    state,
    table,
)
from include.landing.dead_letters import MILLISECOND
from include.landing.decoder import Others
from include.landing.disposition import Disposition
from include.landing.latest import NO_ROWS, Latest, Moved, last, numbers
from include.landing.partitions import Partitions
from include.landing.state import State
from include.landing.time_limits import TimeLimits, record_times
from include.landing.withheld import Found, Place, WithheldRecords
from include.schemas.framing import Headers
from include.streams.definition import Stream
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

    from include.warehouse.queries.signatures.landing import ReadDeadLettersRow

# The most letters, and the most bytes of their values, in one transaction. A single letter may be larger.
LETTERS_PER_TRANSACTION = 1_000
MAX_BYTES = 32 * 1024 * 1024


class Coordinates(NamedTuple):
    """Where a record is in Kafka."""

    incarnation: int
    partition: int
    offset: int


class Retried(NamedTuple):
    """How many dead letters have landed, remain, and are gone because ``where`` filters their events."""

    landed: int
    kept: int
    filtered: int

    def __str__(self) -> str:
        filtered = f"{self.filtered:,} filtered, " if self.filtered else ""
        return f"{self.landed:,} landed, {filtered}{self.kept:,} remain dead letters"


@dataclass(frozen=True)
class _Candidate:
    coordinates: Coordinates
    event: Any
    time: int


class Record(NamedTuple):
    """What a record has besides its coordinates and its timestamp."""

    key: bytes | None
    value: bytes | None
    headers: Headers | None


def retry(
    connection: Connection,
    stream: Stream,
    report: Callable[[int, int, int], None] = lambda landed, kept, filtered: None,
) -> Retried:
    """Tries every dead letter of a stream once; commits up to a thousand at a time.

    A letter is deleted in the transaction in which its row lands and its ledger entry changes. Retries that run at the
    same time share the letters. Quarantined records stay, because their times do not change. An interrupted retry loses
    nothing, and the next one continues.

    Args:
        report: Called after each commit with the numbers of ``Retried`` so far.
    """
    table.bring_up_to_date(connection, stream)
    retrier = _Retrier(connection, stream)
    done = Retried(0, 0, 0)
    after = Coordinates(0, 0, -1)
    while letters := retrier.lock(after):
        records = retrier.records(letters)
        # The next transaction locks the others again.
        letters = letters[: len(records)]
        after = _coordinates(letters[-1])
        landed, filtered = retrier.land(letters, records)
        kept = len(letters) - landed - filtered
        done = Retried(done.landed + landed, done.kept + kept, done.filtered + filtered)
        report(*done)
    connection.rollback()
    return done


class _Retrier:
    def __init__(self, connection: Connection, stream: Stream) -> None:
        self._connection, self._stream = connection, stream
        self._sql = queries.load("landing")
        self._decoder = decoders.of(stream)
        self._selection = selection.of(stream)
        self._limits = TimeLimits(stream)
        self._columns = copy.columns_of_stream(stream)
        self._time = next((column for column in self._columns if column.name == stream.event_time), None)
        self._names = relation.copied(stream)
        self._state = State(stream, self._names) if stream.current else None
        self._partitions = Partitions(stream)
        self._withheld: WithheldRecords | None = None
        self._topics = incarnation.topics_of(connection, stream.name) if stream.topics is not None else {}

    def lock(self, after: Coordinates) -> list[ReadDeadLettersRow]:
        """Locks the next dead letters that no other retry holds, and returns them."""
        total_bytes, found = 0, list[Coordinates]()
        for number, partition, offset, size in self._sql.lock_dead_letters(
            self._connection,
            stream=self._stream.name,
            incarnation=after.incarnation,
            partition=after.partition,
            offset=after.offset,
            most=LETTERS_PER_TRANSACTION,
        ):
            total_bytes += size
            if found and total_bytes > MAX_BYTES:
                break
            found.append(Coordinates(number, partition, offset))
        if not found:
            return []
        rows = self._sql.read_dead_letters(self._connection, stream=self._stream.name, **_by_column(found))
        return list(rows)

    def records(self, letters: Sequence[ReadDeadLettersRow]) -> list[Record]:
        """The records of the first letters, as far as they are stored, or Kafka still has them.

        Those of further letters that are withheld are not read if the first ones have enough bytes.
        """
        wanted: dict[Place, datetime] = {
            _coordinates(letter): letter.appended_at for letter in letters if letter.is_withheld
        }
        again, end = self._read_withheld(wanted) if wanted else Found({}, None)
        records = []
        for letter in letters:
            if end is not None and _coordinates(letter) >= end:
                break
            if not letter.is_withheld:
                key, value = (None if part is None else bytes(part) for part in (letter.key, letter.value))
                records.append(Record(key, value, dead_letters.headers_of(letter.headers)))
            elif (message := again.get(_coordinates(letter))) is not None:
                letter_of_it = dead_letters.of(message, self._stream.name, Disposition.DEAD_LETTER, "")
                records.append(Record(letter_of_it.key, letter_of_it.value, letter_of_it.headers))
            else:
                records.append(Record(None, None, None))
        return records

    def _read_withheld(self, wanted: Mapping[Place, datetime]) -> Found:
        if self._withheld is None:
            self._withheld = WithheldRecords(self._connection, self._stream)
        return self._withheld.read(wanted)

    def land(self, letters: Sequence[ReadDeadLettersRow], records: Sequence[Record]) -> tuple[int, int]:
        """Lands the locked letters that can land, and commits. Returns how many, and how many were filtered."""
        candidates, filtered = self._decoded(letters, records)
        # Creating partitions commits, which releases the locks on the letters: _still_there locks them again.
        times = np.fromiter((candidate.time for candidate in candidates), np.int64)
        self._partitions.ensure(self._connection, spans.spans_of(self._stream, times))
        held = self._still_there([*(candidate.coordinates for candidate in candidates), *filtered])
        candidates = [candidate for candidate in candidates if candidate.coordinates in held]
        filtered = [coordinates for coordinates in filtered if coordinates in held]
        rows = self._rows(candidates)
        name = f"{table.SCHEMA}.{self._stream.name}"
        while not refusals.accepts(self._connection, rows, name, self._names):
            found = refusals.find(self._connection, rows, name, self._names)
            candidates = [candidate for index, candidate in enumerate(candidates) if index not in found]
            rows = rows.without(found)
        if self._state is not None:
            self._state.write(self._connection, self._latest(candidates, rows), in_order=False)
        state.require_as_defined(self._connection, self._stream)
        landed = [candidate.coordinates for candidate in candidates]
        # This lock prevents maintenance from merging the entries that counted the letters.
        self._sql.hold_ledger(self._connection, stream=self._stream.name)
        self._sql.close_dead_letters(
            self._connection,
            stream=self._stream.name,
            **_by_column([*landed, *filtered]),
            filtered=[False] * len(landed) + [True] * len(filtered),
        )
        self._connection.commit()
        return len(landed), len(filtered)

    def _decoded(
        self, letters: Sequence[ReadDeadLettersRow], records: Sequence[Record]
    ) -> tuple[list[_Candidate], list[Coordinates]]:
        """The letters that decode now, fit their columns, and are within the time limits; and those to be filtered."""
        there = [(letter, record) for letter, record in zip(letters, records, strict=True) if record.value is not None]
        if not there:
            return [], []
        letters, records = zip(*there, strict=True)
        others = Others([record.key for record in records], list(map(_stamp, letters)))
        headers = [record.headers for record in records]
        events, bad = self._decoder.events([record.value or b"" for record in records], headers, others)
        good = [letter for index, letter in enumerate(letters) if index not in bad]
        filtered: list[Coordinates] = []
        if self._selection is not None:
            selected, undecided = self._selection.select(events)
            filtered = [
                _coordinates(letter)
                for index, (letter, lands) in enumerate(zip(good, selected, strict=True))
                if not lands and index not in undecided
            ]
            good, events = list(compress(good, selected)), list(compress(events, selected))
        unfit = copy.refused(self._columns, events)
        found = [
            (letter, event)
            for index, (letter, event) in enumerate(zip(good, events, strict=True))
            if index not in unfit and (self._time is None or self._time.read([event])[0] is not None)
        ]
        stamps = np.fromiter((_stamp(letter) for letter, _ in found), np.int64, len(found))
        if self._time is None:
            times = record_times(stamps)
        else:
            times = copy.times(self._time, self._time.read([event for _, event in found]))
        exceeded = self._limits.exceeded(times, stamps)
        candidates = [
            _Candidate(_coordinates(letter), event, time)
            for (letter, event), time, is_outside in zip(found, times.tolist(), exceeded.tolist(), strict=True)
            if not is_outside
        ]
        return candidates, filtered

    def _latest(self, candidates: Sequence[_Candidate], rows: copy.Rows) -> Latest:
        """The last record of each key among the candidates."""
        places = {name: np.array(values) for name, values in _by_column([c.coordinates for c in candidates]).items()}
        key = [column for name in self._stream.keys for column in self._columns if column.name == name]
        order = next((column for column in self._columns if column.name == self._stream.order_by), None)
        events = [candidate.event for candidate in candidates]
        orders = None
        if order is not None:
            orders = order.array(order.read(events)).to_numpy(zero_copy_only=False)
        elif self._stream.order_by is not None:
            orders = np.fromiter((candidate.time for candidate in candidates), np.int64)
        found = numbers(key, events)
        try:
            chosen = last(found, places["partitions"], orders, places["incarnations"])
        except Moved as error:
            first, second = (candidates[index] for index in (error.first, error.second))
            values = [column.read([second.event])[0] for column in key]
            raise state.moved(self._stream, values, first.coordinates.partition, second.coordinates.partition) from None
        kept = np.zeros(len(rows), bool)
        kept[chosen] = True
        return Latest(rows.only(kept), NO_ROWS)

    def _still_there(self, wanted: Sequence[Coordinates]) -> set[Coordinates]:
        """Locks letters, and returns those that still exist."""
        return {
            Coordinates(*row)
            for row in self._sql.hold_dead_letters(self._connection, stream=self._stream.name, **_by_column(wanted))
        }

    def _rows(self, candidates: Sequence[_Candidate]) -> copy.Rows:
        coordinates = _by_column([candidate.coordinates for candidate in candidates])
        before: list[tuple[str | None, Any]] = list(zip((">i2", ">i4", ">i8"), coordinates.values(), strict=True))
        if self._stream.has_record_time:
            times = np.fromiter((candidate.time for candidate in candidates), np.int64)
            before.append((">i8", times - copy.POSTGRES_EPOCH_US))
        if self._stream.topics is not None:
            numbers_of_topics = coordinates["incarnations"]
            if not self._topics.keys() >= set(numbers_of_topics):
                # A drain has met a topic since.
                self._topics = incarnation.topics_of(self._connection, self._stream.name)
            before.append((None, pa.array([self._topics[number] for number in numbers_of_topics], pa.string())))
        return copy.buffer(self._columns, [candidate.event for candidate in candidates], before)


def _stamp(letter: ReadDeadLettersRow) -> int:
    """The timestamp of a letter's record, in milliseconds since 1970."""
    return (letter.appended_at - spans.UNIX_EPOCH) // MILLISECOND


def _coordinates(letter: ReadDeadLettersRow) -> Coordinates:
    return Coordinates(letter.kafka_incarnation, letter.kafka_partition, letter.kafka_offset)


def _by_column(coordinates: Sequence[Coordinates]) -> dict[str, list[int]]:
    """Coordinates as one list for each of their columns."""
    return {
        "incarnations": [each.incarnation for each in coordinates],
        "partitions": [each.partition for each in coordinates],
        "offsets": [each.offset for each in coordinates],
    }
