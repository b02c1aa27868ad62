"""Dead letters decoded again from their stored bytes: each that can be landed now lands under its own coordinates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from include.landing import copy, refusals, table
from include.landing.batch import partitionable
from include.landing.decoder import Decoder
from include.landing.partitions import Partitions
from include.streams.definition import Stream
from include.warehouse import queries

if TYPE_CHECKING:
    from datetime import datetime

    from psycopg2.extensions import connection as Connection

# A transaction takes at most this many letters and this many bytes of their values; one letter alone may be larger.
LETTERS_PER_TRANSACTION = 1_000
MAX_BYTES = 32 * 1024 * 1024
Place = tuple[int, int, int]
"""Incarnation, partition and offset."""


@dataclass(frozen=True)
class _Candidate:
    place: Place
    event: Any


def retry(
    connection: Connection, stream: Stream, report: Callable[[int, int], None] = lambda landed, kept: None
) -> tuple[int, int]:
    """Tries every dead letter of a stream once more; commits up to a thousand at a time.

    A letter is deleted in the transaction in which its row lands and its ledger entry changes. Retries at the same time
    share the letters among them. Quarantined records stay: their times do not change. What ends a retry in the middle
    loses nothing, and the next one goes on.

    Args:
        report: Called after each commit with how many have landed so far, and how many are dead letters still.

    Returns:
        How many landed, and how many are dead letters still.
    """
    table.bring_up_to_date(connection, stream)
    retrier = _Retrier(connection, stream)
    landed = kept = 0
    after: Place = (0, 0, -1)
    while letters := retrier.lock(after):
        after = letters[-1][:3]
        now = retrier.land(letters)
        landed += now
        kept += len(letters) - now
        report(landed, kept)
    connection.rollback()
    return landed, kept


class _Retrier:
    def __init__(self, connection: Connection, stream: Stream) -> None:
        self._connection, self._stream = connection, stream
        self._sql = queries.load("landing")
        self._decoder = Decoder(stream.event)
        self._first, self._end = partitionable(stream)
        self._columns = copy.columns_of(stream.fields)
        self._names = ("kafka_incarnation", "kafka_partition", "kafka_offset", *(c.name for c in self._columns))
        self._partitions = Partitions(stream)

    def lock(self, after: Place) -> list[tuple]:
        """The next dead letters that no other retry holds, locked."""
        length, places = 0, list[list[int]]()
        for *place, size in self._sql.lock_dead_letters(
            self._connection,
            stream=self._stream.name,
            incarnation=after[0],
            partition=after[1],
            offset=after[2],
            most=LETTERS_PER_TRANSACTION,
        ):
            length += size
            if places and length > MAX_BYTES:
                break
            places.append(place)
        if not places:
            return []
        incarnations, partitions, offsets = map(list, zip(*places, strict=True))
        return list(
            self._sql.read_dead_letters(
                self._connection,
                stream=self._stream.name,
                incarnations=incarnations,
                partitions=partitions,
                offsets=offsets,
            )
        )

    def land(self, letters: Sequence[tuple]) -> int:
        """Lands what can be landed of some locked letters, and commits; returns how many."""
        candidates = self._decoded(letters)
        # Making partitions commits, and lets go of the letters: they are locked again below.
        self._partitions.ensure(self._connection, {self._span(candidate) for candidate in candidates})
        candidates = self._still_there(candidates)
        rows = self._rows(candidates)
        name = f"{table.SCHEMA}.{self._stream.name}"
        while not refusals.accepts(self._connection, rows, name, self._names):
            found = refusals.find(self._connection, rows, name, self._names)
            candidates = [candidate for index, candidate in enumerate(candidates) if index not in found]
            rows = rows.without(found)
        places = [candidate.place for candidate in candidates]
        # From here on, the entries that counted the letters are not merged with others.
        self._sql.hold_ledger(self._connection, stream=self._stream.name)
        self._sql.close_dead_letters(
            self._connection,
            stream=self._stream.name,
            incarnations=[place[0] for place in places],
            partitions=[place[1] for place in places],
            offsets=[place[2] for place in places],
        )
        self._connection.commit()
        return len(places)

    def _decoded(self, letters: Sequence[tuple]) -> list[_Candidate]:
        """The letters that are events now, that every column can hold, and that are neither too late nor too early."""
        events, bad = self._decoder.events([bytes(value) for *_, value in letters])
        good = [letter for index, letter in enumerate(letters) if index not in bad]
        unfit = copy.refused(self._columns, events)
        return [
            _Candidate((letter[0], letter[1], letter[2]), event)
            for index, (letter, event) in enumerate(zip(good, events, strict=True))
            if index not in unfit and self._is_timely(event, letter[3])
        ]

    def _is_timely(self, event: Any, appended: datetime) -> bool:
        moment = getattr(event, self._stream.event_time)
        if moment is None or not self._first <= copy.instants([moment])[0] < self._end:
            return False
        return -self._stream.earliness <= appended - moment <= self._stream.lateness

    def _still_there(self, candidates: Sequence[_Candidate]) -> list[_Candidate]:
        places = [candidate.place for candidate in candidates]
        held = set(
            self._sql.hold_dead_letters(
                self._connection,
                stream=self._stream.name,
                incarnations=[place[0] for place in places],
                partitions=[place[1] for place in places],
                offsets=[place[2] for place in places],
            )
        )
        return [candidate for candidate in candidates if candidate.place in held]

    def _rows(self, candidates: Sequence[_Candidate]) -> copy.Rows:
        incarnations, partitions, offsets = ([c.place[at] for c in candidates] for at in range(3))
        coordinates = [(">i2", incarnations), (">i4", partitions), (">i8", offsets)]
        return copy.buffer(self._columns, [candidate.event for candidate in candidates], coordinates)

    def _span(self, candidate: _Candidate) -> datetime:
        moment = getattr(candidate.event, self._stream.event_time)
        start: datetime = copy.UNIX_EPOCH + (moment - copy.UNIX_EPOCH) // self._stream.width * self._stream.width
        return start
