"""The proof of a stream: every offset below the position has one disposition, and rows equal their records."""

from __future__ import annotations

import json
import zlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from include.kafka import position, reader, topics
from include.kafka.position_errors import TopicMissing
from include.landing import copy, decoders, partitions, placement, relation, selection, spans, state, table
from include.landing.choice import Choice
from include.landing.decoder import Others, Reason, SkipReason
from include.landing.disposition import STORED, Disposition
from include.landing.placement import Placement
from include.landing.state_proof import StateProof, Tombstone
from include.schemas.framing import Headers
from include.streams.definition import KAFKA_TOPIC, Stream
from include.streams.field import TIMESTAMP, Field
from include.warehouse import queries
from include.warehouse.connection import connect

if TYPE_CHECKING:
    from confluent_kafka import Message
    from psycopg2.extensions import connection as Connection

    from include.landing.copy import Column
    from include.warehouse.queries.signatures.landing import ReadGapsRow

MAX_OFFSETS_SHOWN = 5
ROWS_PER_QUERY = 50_000


class LogId(NamedTuple):
    """A partition of one incarnation of the topic."""

    incarnation: int
    partition: int


def log_of(gap: ReadGapsRow) -> LogId:
    """The log that a gap belongs to."""
    return LogId(gap.kafka_incarnation, gap.kafka_partition)


class Record(NamedTuple):
    """What Kafka holds for one offset.

    Attributes:
        value: The value; None for a tombstone.
        stamp: The timestamp, in milliseconds since 1970.
        key: The key of a tombstone, or of every record if an event needs it.
        headers: The headers.
    """

    value: bytes | None
    stamp: int
    key: bytes | None = None
    headers: Headers | None = None


class Found(NamedTuple):
    """What the tables hold for one offset: its disposition and, if it landed, the values of its row."""

    offset: int
    disposition: Disposition
    row: tuple[Any, ...]


@dataclass(frozen=True)
class LedgerEntry:
    """One ledger entry: the dispositions of consecutive offsets of a partition under one claim."""

    incarnation: int
    partition: int
    first: int
    next: int
    landed: int
    dead_letters: int
    quarantined: int
    filtered: int
    skipped: int
    no_records: int
    checksum: Decimal
    started_at: datetime

    @property
    def log(self) -> LogId:
        """The log that the offsets belong to."""
        return LogId(self.incarnation, self.partition)

    def __str__(self) -> str:
        return f"incarnation {self.incarnation}, partition {self.partition}, offsets {self.first} to {self.next - 1}"


@dataclass
class Proof:
    """What was compared, and what is wrong; the stream is proven if ``wrong`` is empty.

    Attributes:
        entries: The ledger.
        compared: How many records were read from Kafka again and compared, value by value.
        dropped: How many rows retention has dropped from the table since they landed.
        unfilled: How many rows wait for the values of new columns, see ``millrace.landing_unfilled``.
        wrong: Each error, with its offsets.
        topics: The name of the topic with each incarnation's number.
    """

    entries: list[LedgerEntry] = field(default_factory=list)
    compared: int = 0
    dropped: int = 0
    unfilled: int = 0
    wrong: list[str] = field(default_factory=list)
    topics: dict[int, str] = field(default_factory=dict)

    def report(self, what: str, offsets: Iterable[int] | Iterable[str]) -> None:
        """Reports an error at some offsets or other places, if there are any."""
        found = sorted(offsets)
        if found:
            shown = ", ".join(map(str, found[:MAX_OFFSETS_SHOWN])) + (", …" if len(found) > MAX_OFFSETS_SHOWN else "")
            self.wrong.append(f"{what}: {shown}")


def prove_and_store(connection: Connection, stream: Stream, proved_by: str) -> Proof:
    """Proves the stream, and stores the result in ``millrace.landing_proof``; commits.

    Raises:
        UserError: Kafka does not answer.
    """
    sql = queries.load("landing")
    started_at = sql.read_clock(connection)
    proof = prove(connection, stream)
    sql.add_proof(
        connection,
        stream=stream.name,
        proved_by=proved_by,
        started_at=started_at,
        compared=proof.compared,
        dropped=proof.dropped,
        unfilled=proof.unfilled,
        wrong=proof.wrong,
    )
    connection.commit()
    return proof


def prove(connection: Connection, stream: Stream) -> Proof:
    """Compares ledger, tables, positions and the records that Kafka still has, in one snapshot of the tables.

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
    """The snapshot of a transaction, read in other transactions, so that their locks are released after each query.

    Args:
        connection: In a transaction of REPEATABLE READ, which must stay open.
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

    def read(self, query: Any, parameters: Mapping[str, Any] | None) -> list[tuple[Any, ...]]:
        """Runs a query in a transaction of its own."""
        if self._other is None:
            with self._connection.cursor() as cursor:
                cursor.execute("SELECT pg_export_snapshot()")
                (self._id,) = cursor.fetchone() or ("",)
            self._other = connect("millrace verify")
        # The server may end a transaction that is idle for long.
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
        read = sql.read_incarnations(connection, stream=stream.name)
        self._topics = {row.number: (row.topic, row.topic_id) for row in read}
        numbers = {topic: number for number, topic in self._topics.items()}
        self._positions = {
            LogId(numbers.get((topic, stored.topic_id), 0), partition): stored.position.next_offset
            for topic in position.read_topics(connection, stream.reader)
            for partition, stored in position.read_positions(connection, stream.reader, topic).items()
        }
        self._gaps = list(sql.read_gaps(connection, stream=stream.name))
        self._sql = sql
        self._has_table = sql.read_partition_key(connection, stream=stream.name) is not None
        self._decoder = decoders.of(stream)
        self._selection = selection.of(stream)
        self._columns = copy.columns_of_stream(stream)
        self._absent = table.missing(connection, stream)
        self._unfilled = {
            LogId(incarnation, partition): (range(first, until), set(columns))
            for incarnation, partition, first, until, columns, _ in sql.read_unfilled(connection, stream=stream.name)
        }
        self._snapshot = snapshot
        self._table_partitions = partitions.listed(connection, stream.name) if self._has_table else []
        self._bounded = partitions.default(connection, stream.name) is None
        self._placed: dict[LogId, Placement] = {}
        now = sql.read_clock(connection)
        self._cut_off = (spans.cut_off(stream, now) - spans.UNIX_EPOCH) // spans.MICROSECOND
        self._droppable_until = spans.droppable_until(stream, now)
        self._state: StateProof | None = None
        missing = list[str]()
        if stream.current and self._has_table and state.rules_kept(connection, stream) == state.rules_wanted(stream):
            existing = [each.span for each in self._table_partitions if not each.detaching]
            columns = relation.columns_of(connection, state.table_of(stream))
            copied = [name for name in relation.copied(stream) if name in columns and name not in self._absent]
            compared = [*copied, *state.others(connection, stream, copied)]
            if columns:
                self._state = StateProof(stream, snapshot.read, existing, self._bounded, now, compared)
            else:
                missing.append(f"the table landing.{state.table_of(stream)} is missing")
        entries = [LedgerEntry(*row) for row in sql.read_ledger(connection, stream=stream.name)]
        names = {number: name for number, (name, _) in self._topics.items()}
        self._proof = Proof(entries, wrong=missing, topics=names)

    def prove(self) -> Proof:
        entries: defaultdict[LogId, list[LedgerEntry]] = defaultdict(list)
        for entry in self._proof.entries:
            entries[entry.log].append(entry)
        for log in sorted(self._positions.keys() | entries.keys()):
            self._prove_continuity(log, entries[log])
        for entry in self._proof.entries:
            self._prove_entry(entry)
        self._prove_state()
        for incarnation, partition in self._sql.read_wrong_totals(self._connection, stream=self._stream.name):
            self._proof.wrong.append(
                f"incarnation {incarnation}, partition {partition}: millrace.landing_total differs from the ledger"
            )
        return self._proof

    def _prove_state(self) -> None:
        """The current state equals the last record of each key, and shows no record past the ledger's end."""
        if self._state is None:
            return
        for what, places in self._state.prove():
            self._proof.report(what, places)
        ends = {entry.log: entry.next for entry in self._proof.entries}
        for incarnation, partition, highest in self._state.ends():
            if highest >= ends.get(LogId(incarnation, partition), 0):
                where = f"incarnation {incarnation}, partition {partition}"
                self._proof.report(f"{where}: the current state shows an offset past the ledger's end", [highest])

    def _prove_continuity(self, log: LogId, entries: list[LedgerEntry]) -> None:
        """The ledger and the accepted gaps cover every offset below the position exactly once."""
        incarnation, partition = log
        where = f"incarnation {incarnation}, partition {partition}"
        name, _ = self._topics.get(incarnation, ("", ""))
        former = [number for number, (topic, _) in self._topics.items() if topic == name and number < incarnation]
        before = LogId(max(former, default=0), partition)
        cut = [gap.first_offset for gap in self._gaps if log_of(gap) == before and gap.choice == Choice.TRUNCATED]
        lost = {
            gap.first_offset: gap.next_offset
            for gap in self._gaps
            if log_of(gap) == log and gap.choice == Choice.LOST and gap.next_offset is not None
        }
        reached = cut[-1] if cut else 0
        for entry in entries:
            reached = lost.get(reached, reached)
            if entry.first != reached:
                self._proof.wrong.append(f"{where}: the ledger jumps from offset {reached} to {entry.first}")
            reached = entry.next
        reached = lost.get(reached, reached)
        stored = self._positions.get(log)
        if stored is not None and stored != reached:
            self._proof.wrong.append(f"{where}: the ledger ends at {reached}, but the position is {stored}")
        beyond = self._tables(log, reached, 2**62)
        self._proof.report(f"{where}: offsets past the ledger's end", {found.offset for found in beyond})

    def _prove_entry(self, entry: LedgerEntry) -> None:
        """The tables agree with a ledger entry, and with its records as far as Kafka still has them."""
        readable = self._readable(entry)
        counts: Counter[Disposition] = Counter()
        checksum = dropped = filtered = 0
        for first in range(entry.first, entry.next, ROWS_PER_QUERY):
            until = min(first + ROWS_PER_QUERY, entry.next)
            found = self._tables(entry.log, first, until)
            counts.update(each.disposition for each in found)
            times = Counter(each.offset for each in found)
            self._proof.report(f"{entry}: offsets that occur twice", {o for o, n in times.items() if n > 1})
            if until > readable.start:
                begin = max(first, readable.start)
                records = self._records(entry, begin, until)
                checksum += sum(
                    zlib.crc32(record.value or b"", offset & 0xFFFFFFFF) for offset, record in records.items()
                )
                gone, left_out = self._compare(entry, [each for each in found if each.offset >= begin], records)
                dropped, filtered = dropped + gone, filtered + left_out
        self._prove_counts(entry, counts, dropped)
        is_whole = readable.start == entry.first
        if filtered > entry.filtered or (is_whole and filtered < entry.filtered):
            self._proof.wrong.append(
                f"{entry}: the definition filters {filtered:,} records without a row or dead letter, and the ledger "
                f"counts {entry.filtered:,}"
            )
        if is_whole and checksum != entry.checksum:
            self._proof.wrong.append(f"{entry}: the records' checksum is {checksum}, the ledger's {entry.checksum}")

    def _prove_counts(self, entry: LedgerEntry, counts: Counter[Disposition], dropped: int) -> None:
        """The tables hold as many rows and dead letters as the ledger counts, without rows that retention dropped."""
        expected = {each: int(getattr(entry, each.column)) for each in STORED}
        if counts[Disposition.LANDED] < entry.landed and entry.started_at < self._droppable_until:
            dropped = entry.landed - counts[Disposition.LANDED]
        self._proof.dropped += dropped
        expected[Disposition.LANDED] -= dropped
        wrong = [f"{counts[each]:,} {each}, not {count:,}" for each, count in expected.items() if counts[each] != count]
        if wrong:
            self._proof.wrong.append(f"{entry}: the tables hold {'; '.join(wrong)}")

    def _compare(self, entry: LedgerEntry, found: list[Found], records: Mapping[int, Record]) -> tuple[int, int]:
        """What the tables hold for some of an entry's offsets agrees with the records.

        Returns:
            How many rows of these offsets retention has dropped, although they landed recently; and how many records
            are filtered.
        """
        offsets = {each.offset for each in found}
        dropped = set[int]()
        missing = {o: record for o, record in records.items() if record.value is not None and o not in offsets}
        filtered = self._filtered(missing)
        missing = {offset: record for offset, record in missing.items() if offset not in filtered}
        if entry.started_at >= self._droppable_until:
            dropped = self._past_retention(missing)
            self._proof.report(
                f"{entry}: records without a row or dead letter", missing.keys() - dropped - self._skipped(missing)
            )
        self._proof.report(f"{entry}: rows or dead letters without a record", offsets - records.keys())
        landed = {
            each.offset: (records[each.offset], each.row)
            for each in found
            if each.disposition is Disposition.LANDED and each.offset in records
        }
        self._proof.report(
            f"{entry}: rows of records that the definition filters",
            self._filtered({offset: record for offset, (record, _) in landed.items()}),
        )
        self._proof.report(f"{entry}: rows that differ from their records", self._differing(entry.log, landed))
        if self._state is not None:
            tombstones = {
                offset: Tombstone(record.key, record.stamp, record.headers)
                for offset, record in records.items()
                if record.value is None and offset not in offsets
            }
            for what, places in self._state.tombstones(*entry.log, tombstones):
                self._proof.report(f"{entry}: {what}", places)
        self._proof.compared += len(records)
        return len(dropped), len(filtered)

    def _filtered(self, records: Mapping[int, Record]) -> set[int]:
        """The offsets of the records that ``where`` filters."""
        if self._selection is None or not records:
            return set()
        events, bad = self._events(records.values())
        good = [offset for index, offset in enumerate(records) if index not in bad]
        selected, undecided = self._selection.select(events)
        return {
            offset
            for index, (offset, lands) in enumerate(zip(good, selected, strict=True))
            if not lands and index not in undecided
        }

    def _skipped(self, records: Mapping[int, Record]) -> set[int]:
        """The offsets of records that are not meant to be events."""
        _, bad = self._events(records.values())
        return {offset for index, offset in enumerate(records) if isinstance(bad.get(index), SkipReason)}

    def _past_retention(self, records: Mapping[int, Record]) -> set[int]:
        """The offsets of events so old that the partitions of their rows are past their retention.

        Events of a topic that was read long after its records were written can be older than ``keep`` when they land.
        """
        events, bad = self._events(records.values())
        good = [offset for index, offset in enumerate(records) if index not in bad]
        column = next((column for column in self._columns if column.name == self._stream.event_time), None)
        found = set()
        for offset, event in zip(good, events, strict=True):
            try:
                time = records[offset].stamp * 1000 if column is None else copy.times(column, column.read([event]))[0]
            except Exception:  # not a time for the present definition
                continue
            if time < self._cut_off:
                found.add(offset)
        return found

    def _tables(self, log: LogId, first: int, until: int) -> list[Found]:
        """What the tables hold for a range of offsets."""
        span = {"incarnation": log.incarnation, "partition": log.partition, "first": first, "next": until}
        found = [
            Found(offset, Disposition(disposition), ())
            for offset, disposition in self._sql.read_kept(self._connection, stream=self._stream.name, **span)
        ]
        if self._has_table:
            found += [Found(offset, Disposition.LANDED, tuple(values)) for offset, *values in self._rows(log, span)]
        return found

    def _rows(self, log: LogId, span: Mapping[str, int]) -> Iterator[tuple[Any, ...]]:
        """The rows of a range of offsets, read from a limited number of partitions at a time because of the locks."""
        from psycopg2 import sql

        fields = (*self._stream.record_fields, *self._stream.fields)
        columns = ", ".join("NULL" if f.name in self._absent else _stored(f) for f in fields)
        query = (
            f"SELECT kafka_offset, {columns} FROM {table.SCHEMA}.{self._stream.name} "
            "WHERE kafka_incarnation = %(incarnation)s AND kafka_partition = %(partition)s "
            "AND kafka_offset >= %(first)s AND kafka_offset < %(next)s"
        )
        if len(self._table_partitions) <= placement.PARTITIONS_PER_QUERY:
            with self._connection.cursor() as cursor:
                cursor.execute(query, span)
                yield from cursor
            return
        if log not in self._placed:
            self._placed[log] = placement.place(
                self._snapshot.read, self._table_partitions, self._bounded, self._stream, *log
            )
        for where in self._placed[log].conditions(span["first"], span["next"]):
            yield from self._snapshot.read(sql.SQL(query + " AND {}").format(where), span)

    def _readable(self, entry: LedgerEntry) -> range:
        """The offsets of an entry whose records Kafka still has: the last ones, or none."""
        nothing = range(entry.next, entry.next)
        try:
            name, topic_id = self._topics.get(entry.incarnation, (self._stream.topic, ""))
            topic = topics.describe(name)
        except TopicMissing:
            return nothing
        is_cut = any(log_of(gap) == entry.log and gap.choice == Choice.TRUNCATED for gap in self._gaps)
        if topic.id != topic_id or is_cut:
            return nothing
        extent = topics.extents(topic.name, [entry.partition])[entry.partition]
        if entry.next > extent.stable_end:
            return nothing
        return range(min(max(entry.first, extent.first), entry.next), entry.next)

    def _records(self, entry: LedgerEntry, first: int, until: int) -> dict[int, Record]:
        """The committed records of some of an entry's offsets."""
        found: dict[int, Record] = {}
        for batch in reader.read_range(
            self._topics[entry.incarnation][0], {entry.partition: (first, until)}, max_records=20_000
        ):
            found |= {reader.place(message)[1]: _record(message, self._decoder.reads_others) for message in batch}
        return found

    def _differing(self, log: LogId, landed: Mapping[int, tuple[Record, tuple[Any, ...]]]) -> set[int]:
        """The offsets whose rows differ from their records, each field compared in the form that PostgreSQL returns.

        Args:
            landed: For each offset the record and the row.
        """
        records = {offset: record for offset, (record, _) in landed.items()}
        events, bad = self._events(records.values())
        offsets = list(landed)
        decoded = [offset for index, offset in enumerate(offsets) if index not in bad]
        differing = {offsets[index] for index in bad}
        first = len(self._stream.record_fields)
        if self._stream.has_record_time:
            differing |= {offset for offset, (record, row) in landed.items() if record.stamp * 1000 != row[0]}
        if self._stream.topics is not None and KAFKA_TOPIC not in self._absent:
            name, _ = self._topics[log.incarnation]
            differing |= {offset for offset, (_, row) in landed.items() if row[first - 1] != name}
        marked, columns = self._unfilled.get(log, (range(0), set()))
        waiting = set()
        for at, column in enumerate(self._columns):
            sql = self._stream.fields[at].sql
            for offset, sent in zip(decoded, _read(column, events), strict=True):
                stored = landed[offset][1][first + at]
                if _same(column, sent, stored, sql):
                    continue
                if stored is None and column.name in columns and offset in marked:
                    waiting.add(offset)
                elif column.name not in self._absent and self._is_determined(column, sql, records[offset], sent):
                    differing.add(offset)
        self._proof.unfilled += len(waiting - differing)
        return differing

    def _events(self, records: Collection[Record]) -> tuple[list[Any], dict[int, Reason]]:
        """The events of records; see ``EventDecoder``."""
        others = Others([each.key for each in records], [each.stamp for each in records])
        return self._decoder.events([each.value or b"" for each in records], [each.headers for each in records], others)

    def _is_determined(self, column: Column, sql: str, record: Record, sent: Any) -> bool:
        """Whether a record determines a field's value, and not a default such as a random id or the current time."""
        events, _ = self._events([record])
        return bool(events) and _shown(column.read(events)[0], sql) == _shown(sent, sql)


def _read(column: Column, events: Sequence[Any]) -> list[Any]:
    """The values of a column; an exception for one that the present definition does not take."""
    try:
        return column.read(events)
    except Exception:
        found = []
        for event in events:
            try:
                found += column.read([event])
            except Exception as error:
                found.append(error)
        return found


def _record(message: Message, with_key: bool) -> Record:
    value, key = message.value(), None
    if value is None or with_key:
        key = message.key()
    headers = cast(Any, message.headers())
    return Record(value, message.timestamp()[1], key.encode() if isinstance(key, str) else key, headers)


def _stored(field: Field) -> str:
    """How to select a field's column. Types whose values Python cannot hold are compared in another form."""
    name = f'"{field.name}"'
    if field.sql == TIMESTAMP:
        return f"CAST(extract(epoch FROM {name}) * 1000000 AS bigint)"
    return f"CAST({name} AS text)" if field.sql == "jsonb" else name


def _same(column: Column, sent: Any, stored: Any, sql: str) -> bool:
    if sent is None or stored is None:
        return sent is stored
    if isinstance(sent, Exception):
        return False
    if sql == "jsonb":
        return bool(_exactly(copy.json_text(sent)) == _exactly(stored))
    if sql == "bytea":
        return bytes(sent) == bytes(stored)
    if sql == "uuid":
        return str(sent) == str(stored)
    if sql == TIMESTAMP:
        try:
            return bool(copy.times(column, [sent])[0] == stored)
        except Exception:  # the present definition does not take the value as a time
            return False
    if isinstance(sent, Decimal) and sent.is_nan():
        return Decimal(stored).is_nan()
    return bool(sent == stored) or (sent != sent and stored != stored)


def _shown(value: Any, sql: str) -> bytes | str:
    return copy.json_text(value) if sql == "jsonb" else repr(value)


def _exactly(text: str | bytes) -> Any:
    """JSON with exact numbers, as in jsonb, each in a tuple, so that 1 does not equal true."""
    return json.loads(text, parse_float=_number, parse_int=_number)


def _number(text: str) -> tuple[Decimal]:
    return (Decimal(text),)
