"""The proof of a stream: every offset below the position has one disposition, and rows say what their records say."""

from __future__ import annotations

import json
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from include.kafka import position, reader, topics
from include.kafka.position_errors import TopicMissing
from include.landing import copy, partitions, placement, table
from include.landing.dead_letters import DEAD_LETTER, QUARANTINED
from include.landing.decoder import Decoder
from include.landing.placement import Placement
from include.landing.recovery import LOST, TRUNCATED
from include.streams.definition import Stream
from include.streams.field import TIMESTAMP, Field
from include.warehouse import queries
from include.warehouse.connection import connect

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

    from include.landing.copy import Column

SHOWN = 5
ROWS_PER_QUERY = 50_000
Place = tuple[int, int]
"""Incarnation and partition."""


@dataclass(frozen=True)
class Window:
    """One ledger entry: what became of consecutive offsets of a partition under one claim."""

    incarnation: int
    partition: int
    first: int
    next: int
    landed: int
    dead_letters: int
    quarantined: int
    skipped: int
    no_records: int
    checksum: Decimal
    started_at: datetime

    @property
    def place(self) -> Place:
        return self.incarnation, self.partition

    def __str__(self) -> str:
        return f"incarnation {self.incarnation}, partition {self.partition}, offsets {self.first} to {self.next - 1}"


@dataclass
class Proof:
    """What was compared, and what is wrong; the stream is proven when ``wrong`` is empty.

    Attributes:
        windows: The ledger.
        compared: Records that were read from Kafka again and compared, value by value.
        dropped: Rows that retention has dropped from the table since they landed.
        unfilled: Rows that wait for the values of new columns, see ``millrace.landing_unfilled``.
        wrong: Each thing that is not as it must be, with its place.
    """

    windows: list[Window] = field(default_factory=list)
    compared: int = 0
    dropped: int = 0
    unfilled: int = 0
    wrong: list[str] = field(default_factory=list)

    def note(self, what: str, offsets: Iterable[int]) -> None:
        """Something wrong at some offsets, if there are any."""
        places = sorted(offsets)
        if places:
            some = ", ".join(map(str, places[:SHOWN])) + (", …" if len(places) > SHOWN else "")
            self.wrong.append(f"{what}: {some}")


def prove(connection: Connection, stream: Stream) -> Proof:
    """Compares ledger, tables and positions, and the records that Kafka still has; in one snapshot of the tables.

    Raises:
        UserError: Kafka does not answer.
    """
    connection.rollback()
    with connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    try:
        with Snapshot(connection) as snapshot:
            return _Prover(connection, stream, snapshot).prove()
    finally:
        connection.rollback()


class Snapshot:
    """What a transaction sees, read in as many others as wanted: their locks end with them.

    Args:
        connection: In a transaction of REPEATABLE READ, which goes on meanwhile.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._other: Connection | None = None
        self._id = ""

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, *_: object) -> None:
        if self._other is not None:
            self._other.close()

    def read(self, query: Any, parameters: Mapping[str, Any]) -> list[tuple]:
        """Runs a query in a transaction of its own."""
        if self._other is None:
            with self._connection.cursor() as cursor:
                cursor.execute("SELECT pg_export_snapshot()")
                (self._id,) = cursor.fetchone() or ("",)
            self._other = connect("millrace verify")
        # A transaction that is idle for long may be ended by the server.
        self._connection.cursor().execute("SELECT 1")
        with self._other.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            cursor.execute("SET TRANSACTION SNAPSHOT %s", (self._id,))
            cursor.execute(query, parameters)
            found = cursor.fetchall()
        self._other.rollback()
        return found


class _Prover:
    def __init__(self, connection: Connection, stream: Stream, snapshot: Snapshot) -> None:
        sql = queries.load("landing")
        self._connection, self._stream = connection, stream
        self._standings = position.read_positions(connection, stream.reader, stream.topic)
        numbers = {topic_id: number for number, topic_id in sql.read_incarnations(connection, topic=stream.topic)}
        self._current = {p: numbers.get(stored.topic_id, 0) for p, stored in self._standings.items()}
        self._ids = {number: topic_id for topic_id, number in numbers.items()}
        self._gaps = list(sql.read_gaps(connection, stream=stream.name))
        self._sql = sql
        self._has_table = sql.read_partition_key(connection, stream=stream.name) is not None
        self._decoder = Decoder(stream.event)
        self._columns = copy.columns_of(stream.fields)
        self._absent = table.missing(connection, stream)
        self._unfilled = {
            (incarnation, partition): (range(first, until), set(columns))
            for incarnation, partition, first, until, columns, _ in sql.read_unfilled(connection, stream=stream.name)
        }
        self._snapshot = snapshot
        self._there = partitions.listed(connection, stream.name) if self._has_table else []
        self._bounded = partitions.default(connection, stream.name) is None
        self._placed: dict[Place, Placement] = {}
        # Nothing that landed later can be old enough for retention.
        self._droppable_until = sql.read_clock(connection) - stream.retention + stream.lateness
        self._proof = Proof(windows=[Window(*row) for row in sql.read_ledger(connection, stream=stream.name)])

    def prove(self) -> Proof:
        windows: defaultdict[Place, list[Window]] = defaultdict(list)
        for window in self._proof.windows:
            windows[window.place].append(window)
        for place in sorted({(self._current[p], p) for p in self._standings} | windows.keys()):
            self._prove_continuity(place, windows[place])
        for window in self._proof.windows:
            self._prove_window(window)
        return self._proof

    def _prove_continuity(self, place: Place, windows: list[Window]) -> None:
        """The ledger and the recorded gaps cover every offset below the position, none twice."""
        incarnation, partition = place
        where = f"incarnation {incarnation}, partition {partition}"
        cut = [
            gap.first_offset
            for gap in self._gaps
            if (gap.kafka_incarnation, gap.kafka_partition) == (incarnation - 1, partition) and gap.choice == TRUNCATED
        ]
        lost = {
            gap.first_offset: gap.next_offset
            for gap in self._gaps
            if (gap.kafka_incarnation, gap.kafka_partition) == place
            and gap.choice == LOST
            and gap.next_offset is not None
        }
        reached = cut[-1] if cut else 0
        for window in windows:
            reached = lost.get(reached, reached)
            if window.first != reached:
                self._proof.wrong.append(f"{where}: the ledger goes from offset {reached} to {window.first}")
            reached = window.next
        reached = lost.get(reached, reached)
        if self._current.get(partition) == incarnation:
            stands = self._standings[partition].position.next_offset
            if stands != reached:
                self._proof.wrong.append(f"{where}: the ledger ends at {reached}, and the position is {stands}")
        beyond = self._tables(place, reached, 2**62)
        self._proof.note(f"{where}: offsets past the ledger's end", {offset for offset, _, _ in beyond})

    def _prove_window(self, window: Window) -> None:
        """A window's tables against its ledger entry, and against those of its records that Kafka still has."""
        readable = self._readable(window)
        counts: Counter[str] = Counter()
        checksum = 0
        for first in range(window.first, window.next, ROWS_PER_QUERY):
            until = min(first + ROWS_PER_QUERY, window.next)
            found = self._tables(window.place, first, until)
            counts.update(fate for _, fate, _ in found)
            times = Counter(offset for offset, _, _ in found)
            self._proof.note(f"{window}: offsets that are there twice", {o for o, n in times.items() if n > 1})
            if until > readable.start:
                begin = max(first, readable.start)
                records = self._records(window, begin, until)
                checksum += sum(zlib.crc32(value or b"", offset & 0xFFFFFFFF) for offset, value in records.items())
                self._compare(window, [fate for fate in found if fate[0] >= begin], records)
        self._prove_counts(window, counts)
        if readable.start == window.first and checksum != window.checksum:
            self._proof.wrong.append(f"{window}: the records' checksum is {checksum}, the ledger's {window.checksum}")

    def _prove_counts(self, window: Window, counts: Counter[str]) -> None:
        said = {"landed": window.landed, DEAD_LETTER: window.dead_letters, QUARANTINED: window.quarantined}
        if counts["landed"] < window.landed and window.started_at < self._droppable_until:
            self._proof.dropped += window.landed - counts["landed"]
            del said["landed"]
        wrong = [f"{counts[fate]:,} {fate}, not {count:,}" for fate, count in said.items() if counts[fate] != count]
        if wrong:
            self._proof.wrong.append(f"{window}: the tables hold {'; '.join(wrong)}")

    def _compare(
        self, window: Window, found: list[tuple[int, str, tuple]], records: Mapping[int, bytes | None]
    ) -> None:
        """The fates of some of a window's offsets against the records themselves."""
        fates = {offset: (fate, row) for offset, fate, row in found}
        if window.started_at >= self._droppable_until:
            nowhere = [offset for offset, value in records.items() if value is not None and offset not in fates]
            self._proof.note(f"{window}: records that are nowhere", nowhere)
        self._proof.note(f"{window}: rows or dead letters of no record", fates.keys() - records.keys())
        landed = {offset: row for offset, (fate, row) in fates.items() if fate == "landed" and offset in records}
        differing = self._differing(
            window.place, {offset: (records[offset] or b"", landed[offset]) for offset in landed}
        )
        self._proof.note(f"{window}: rows that differ from their records", differing)
        self._proof.compared += len(records)

    def _tables(self, place: Place, first: int, until: int) -> list[tuple[int, str, tuple]]:
        """What the tables hold of a range of offsets: each one's fate and, when it landed, its row."""
        span = {"incarnation": place[0], "partition": place[1], "first": first, "next": until}
        found: list[tuple[int, str, tuple]] = [
            (offset, fate, ())
            for offset, fate in self._sql.read_kept(self._connection, stream=self._stream.name, **span)
        ]
        if self._has_table:
            found += [(offset, "landed", tuple(values)) for offset, *values in self._rows(place, span)]
        return found

    def _rows(self, place: Place, span: Mapping[str, int]) -> Iterator[tuple]:
        """The rows of a range of offsets, read from no more partitions at once than one transaction should lock."""
        from psycopg2 import sql

        columns = ", ".join("NULL" if f.name in self._absent else _stored(f) for f in self._stream.fields)
        query = (
            f"SELECT kafka_offset, {columns} FROM {table.SCHEMA}.{self._stream.name} "
            "WHERE kafka_incarnation = %(incarnation)s AND kafka_partition = %(partition)s "
            "AND kafka_offset >= %(first)s AND kafka_offset < %(next)s"
        )
        if len(self._there) <= placement.PARTITIONS_PER_QUERY:
            with self._connection.cursor() as cursor:
                cursor.execute(query, span)
                yield from cursor
            return
        if place not in self._placed:
            self._placed[place] = placement.place(self._snapshot.read, self._there, self._bounded, self._stream, *place)
        for where in self._placed[place].conditions(span["first"], span["next"]):
            yield from self._snapshot.read(sql.SQL(query + " AND {}").format(where), span)

    def _readable(self, window: Window) -> range:
        """The offsets of a window whose records Kafka still has: its last ones, or none."""
        nothing = range(window.next, window.next)
        try:
            topic = topics.describe(self._stream.topic)
        except TopicMissing:
            return nothing
        is_cut = any(gap[:2] == window.place and gap[4] == TRUNCATED for gap in self._gaps)
        if topic.id != self._ids.get(window.incarnation) or is_cut:
            return nothing
        extent = topics.extents(topic.name, [window.partition])[window.partition]
        if window.next > extent.stable_end:
            return nothing
        return range(min(max(window.first, extent.first), window.next), window.next)

    def _records(self, window: Window, first: int, until: int) -> dict[int, bytes | None]:
        """The values of the committed records of some of a window's offsets."""
        found: dict[int, bytes | None] = {}
        for batch in reader.read_range(self._stream.topic, {window.partition: (first, until)}, most=20_000):
            found |= {reader.place(message)[1]: message.value() for message in batch}
        return found

    def _differing(self, place: Place, landed: Mapping[int, tuple[bytes, tuple]]) -> set[int]:
        """The offsets whose rows hold something else, each field in the form in which PostgreSQL gives it back.

        Args:
            landed: For each offset the record's value and the row.
        """
        events, bad = self._decoder.events([value for value, _ in landed.values()])
        offsets = list(landed)
        decoded = [offset for index, offset in enumerate(offsets) if index not in bad]
        differing = {offsets[index] for index in bad}
        marked, columns = self._unfilled.get(place, (range(0), set()))
        waiting = set()
        for at, column in enumerate(self._columns):
            sql = self._stream.fields[at].sql
            for offset, sent in zip(decoded, column.read(events), strict=True):
                stored = landed[offset][1][at]
                if _same(sent, stored, sql):
                    continue
                if stored is None and column.name in columns and offset in marked:
                    waiting.add(offset)
                elif column.name not in self._absent and self._is_determined(column, sql, landed[offset][0], sent):
                    differing.add(offset)
        self._proof.unfilled += len(waiting - differing)
        return differing

    def _is_determined(self, column: Column, sql: str, value: bytes, sent: Any) -> bool:
        """Whether a record decides a field's value, and not a default such as a random id or the present time."""
        events, _ = self._decoder.events([value])
        return bool(events) and _shown(column.read(events)[0], sql) == _shown(sent, sql)


def _stored(field: Field) -> str:
    """How to select a field's column: what Python's types cannot hold is compared in another form."""
    name = f'"{field.name}"'
    if field.sql == TIMESTAMP:
        return f"CAST(extract(epoch FROM {name}) * 1000000 AS bigint)"
    return f"CAST({name} AS text)" if field.sql == "jsonb" else name


def _same(sent: Any, stored: Any, sql: str) -> bool:
    if sent is None or stored is None:
        return sent is stored
    if sql == "jsonb":
        return bool(_exactly(copy.json_text(sent)) == _exactly(stored))
    if sql == "bytea":
        return bytes(sent) == bytes(stored)
    if sql == "uuid":
        return str(sent) == str(stored)
    if sql == TIMESTAMP:
        return bool(copy.instants([sent])[0] == stored)
    if isinstance(sent, Decimal) and sent.is_nan():
        return Decimal(stored).is_nan()
    return bool(sent == stored) or (sent != sent and stored != stored)


def _shown(value: Any, sql: str) -> bytes | str:
    return copy.json_text(value) if sql == "jsonb" else repr(value)


def _exactly(text: str | bytes) -> Any:
    """JSON with its numbers exact, as jsonb holds them, and not to be taken for truth values."""
    return json.loads(text, parse_float=_number, parse_int=_number)


def _number(text: str) -> tuple[Decimal]:
    return (Decimal(text),)
