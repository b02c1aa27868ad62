"""The audit: compares a topic with the warehouse, offset by offset.

It shares no code with landing: it reads the topic itself, raw and committed, and the tables with its own SQL.
"""

from __future__ import annotations

import base64
import json
import time
import uuid
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient

from include.streams.definition import Stream
from include.streams.field import Field
from tests.faults.toolbox.avro import event_of
from tests.faults.toolbox.events import EXPECT, WAIT_S
from tests.faults.toolbox.state_audit import Expected

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

MAX_OFFSETS_SHOWN = 8


@dataclass(frozen=True)
class Record:
    """One committed record."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]

    @property
    def expected(self) -> str:
        """The disposition that it must get."""
        expected = dict(self.headers).get(EXPECT)
        return expected.decode() if expected else "skipped" if self.value is None else "landed"


@dataclass
class Log:
    """One partition's log.

    Attributes:
        first, stable_end: The first offset that can be read, and the end (exclusive).
        committed: The committed records by offset.
    """

    first: int
    stable_end: int
    committed: dict[int, Record] = field(default_factory=dict)


@dataclass
class Snapshot:
    """A topic at one moment. Joining two of one incarnation keeps the records that retention removed in between."""

    topic: str
    topic_id: str
    logs: dict[int, Log]

    def __or__(self, later: Snapshot) -> Snapshot:
        assert self.topic_id == later.topic_id, "snapshots of two topics"
        logs = dict(later.logs)
        for partition, log in self.logs.items():
            new = later.logs[partition]
            logs[partition] = Log(min(log.first, new.first), new.stable_end, log.committed | new.committed)
        return Snapshot(self.topic, self.topic_id, logs)


def snapshot(brokers: str, topic: str) -> Snapshot:
    """Reads a whole topic, without a proxy."""
    admin = AdminClient({"bootstrap.servers": brokers, "log_level": 0})
    found = admin.describe_topics(TopicCollection([topic]))[topic].result(WAIT_S)
    logs = {partition.id: Log(0, 0) for partition in found.partitions}
    committed = _reader(brokers, "read_committed")
    try:
        for partition, log in logs.items():
            log.first = _first(committed, TopicPartition(topic, partition))
        for partition, item in _with_ends(committed, topic, logs):
            if isinstance(item, int):
                logs[partition].stable_end = item
            else:
                record = _record(item)
                logs[partition].committed[record.offset] = record
    finally:
        committed.close()
    return Snapshot(topic, str(found.topic_id), logs)


def offsets(brokers: str, topic: str, partition: int, log: Log) -> set[int]:
    """Every offset of a partition with a record, committed or not."""
    raw = _reader(brokers, "read_uncommitted")
    try:
        found = _with_ends(raw, topic, {partition: log})
        return {_number(message.offset()) for _, message in found if not isinstance(message, int)}
    finally:
        raw.close()


@dataclass
class Findings:
    """The result of an audit.

    Attributes:
        wrong: The errors, in words; empty if there are none.
        dispositions: The number of offsets with each disposition.
        unread: Committed records past the positions.
    """

    wrong: list[str] = field(default_factory=list)
    dispositions: Counter[str] = field(default_factory=Counter)
    unread: int = 0

    def report(self, what: str, places: Collection[Any]) -> None:
        """Reports an error at some offsets, if there are any."""
        if places:
            shown = ", ".join(map(str, sorted(places, key=str)[:MAX_OFFSETS_SHOWN]))
            self.wrong.append(f"{len(places)} {what}: {shown}{', …' if len(places) > MAX_OFFSETS_SHOWN else ''}")


def audit(
    connection: Connection,
    stream: Stream,
    topics: Iterable[Snapshot],
    *,
    lost: Mapping[int, range] | None = None,
    begins: Mapping[int, int] | None = None,
    columns: Collection[str] | None = None,
) -> Findings:
    """Compares the incarnations of a stream's topic, the current one last, with the warehouse.

    Args:
        connection: In a REPEATABLE READ transaction, if a drain may run.
        begins: For each partition, the offset where the current incarnation begins, if a truncation cut it there.
        columns: The columns to compare with the records; by default all of the definition's.
        lost: For each partition, the offsets of the current incarnation that retention removed before they were read.
    """
    findings = Findings()
    incarnations = list(topics)
    met = _rows(
        connection,
        "SELECT number, topic_id FROM millrace.topic_incarnation WHERE stream = %s AND topic = %s ORDER BY number",
        stream.name,
        stream.topic,
    )
    tables = _Tables(connection, stream)
    decode: Decode = partial(event_of, stream.topic) if stream.format == "avro" else _event_of_json
    compared = [each for each in stream.fields if columns is None or each.name in columns]
    numbers = [
        number for (number, topic_id), topic in zip(met, incarnations, strict=False) if topic_id == topic.topic_id
    ]
    findings.report("rows or ledger entries of an unknown incarnation", tables.incarnations() - set(numbers))
    for topic, number in zip_longest(incarnations, numbers):
        if number is None:
            # No record of this incarnation was read yet, so no row may belong to it.
            findings.unread += sum(len(log.committed) for log in topic.logs.values())
            continue
        is_current = topic is incarnations[-1]
        first = (begins or {}) if is_current else {}
        ends = _positions(connection, stream, topic, findings) if is_current else tables.ends(number)
        for partition, log in topic.logs.items():
            gone = (lost or {}).get(partition, range(0)) if is_current else range(0)
            _Partition(
                findings,
                compared,
                decode,
                tables,
                number,
                partition,
                log,
                (first.get(partition, 0), ends.get(partition, 0)),
                gone,
            ).audit()
    if stream.current:
        _audit_state(connection, stream, tables, dict(zip(numbers, incarnations, strict=False)), findings)
    connection.rollback()
    return findings


def _audit_state(
    connection: Connection, stream: Stream, tables: _Tables, topics: Mapping[int, Snapshot], findings: Findings
) -> None:
    """Compares the current state with the rows of the history and the tombstones below the positions."""
    if not tables.exists:
        return
    expected = Expected(stream)
    for (number, partition), landed in tables.landed.items():
        for offset, row in landed:
            expected.land((number, partition, offset), row)
    for number, topic in topics.items():
        ends = tables.ends(number)
        for partition, log in topic.logs.items():
            kept = {letter[0] for letter in tables.letters[number, partition]}
            for offset, record in log.committed.items():
                if record.value is None and offset < ends.get(partition, 0) and offset not in kept:
                    expected.skip((number, partition, offset), record)
    findings.report("keys whose state is wrong", list(expected.wrong(connection)))


class _Tables:
    """The warehouse's data of a stream."""

    def __init__(self, connection: Connection, stream: Stream) -> None:
        names = [f.name for f in stream.fields]
        columns = ", ".join(f'"{name}"' for name in names)
        self.exists = exists = _rows(connection, "SELECT to_regclass(%s)", f"landing.{stream.name}")[0][0]
        self.landed: defaultdict[tuple[int, int], list[tuple[int, dict[str, Any]]]] = defaultdict(list)
        if exists:
            coordinates = "kafka_incarnation, kafka_partition, kafka_offset"
            for row in _rows(connection, f"SELECT {coordinates}, {columns} FROM landing.{stream.name}"):
                self.landed[row[0], row[1]].append((row[2], dict(zip(names, row[3:], strict=True))))
        self.letters: defaultdict[tuple[int, int], list[tuple[Any, ...]]] = defaultdict(list)
        for row in _rows(
            connection,
            "SELECT kafka_incarnation, kafka_partition, kafka_offset, disposition, key, value, headers, reason"
            " FROM millrace.dead_letter WHERE stream = %s",
            stream.name,
        ):
            self.letters[row[0], row[1]].append(row[2:])
        self.ledger: defaultdict[tuple[int, int], list[tuple[Any, ...]]] = defaultdict(list)
        for row in _rows(
            connection,
            "SELECT kafka_incarnation, kafka_partition, first_offset, next_offset, landed, dead_letters, quarantined,"
            " filtered, skipped, no_records, checksum FROM millrace.landing_ledger WHERE stream = %s"
            " ORDER BY first_offset, next_offset",
            stream.name,
        ):
            self.ledger[row[0], row[1]].append(row[2:])

    def incarnations(self) -> set[int]:
        return {number for group in (self.landed, self.letters, self.ledger) for number, _ in group}

    def ends(self, number: int) -> dict[int, int]:
        """How far an incarnation was read, from the ledger: the positions are those of the current one."""
        return {p: max(row[1] for row in rows) for (n, p), rows in self.ledger.items() if n == number and rows}


Decode = Callable[[bytes], Mapping[str, Any]]


def _event_of_json(value: bytes) -> Mapping[str, Any]:
    return dict(json.loads(value, parse_float=Decimal))


class _Partition:
    """The audit of one partition of one incarnation."""

    def __init__(
        self,
        findings: Findings,
        compared: Collection[Field],
        decode: Decode,
        tables: _Tables,
        number: int,
        partition: int,
        log: Log,
        span: tuple[int, int],
        lost: range,
    ) -> None:
        self.findings, self.compared, self.log, self.lost = findings, compared, log, lost
        self.decode = decode
        self.first, self.end = span
        self.rows = tables.landed[number, partition]
        self.letters = tables.letters[number, partition]
        self.ledger = tables.ledger[number, partition]
        self.where = f"in partition {partition}" + (f" of incarnation {number}" if number > 1 else "")

    def audit(self) -> None:
        counted: Counter[int] = Counter(offset for offset, _ in self.rows)
        counted.update(letter[0] for letter in self.letters)
        self._report("offsets with two dispositions", {offset for offset, times in counted.items() if times > 1})
        past = {offset for offset in counted if offset >= self.end}
        self._report("offsets with a disposition at or past the position", past)
        self._report("dispositions without a committed record", counted.keys() - self.log.committed.keys())
        dispositions = self._dispositions()
        self._report("offsets without the expected disposition", self._unexpected(dispositions))
        self._compare_rows()
        self._compare_letters()
        self._compare_ledger(dispositions)
        self.findings.dispositions.update(dispositions.values())
        self.findings.unread += sum(offset >= self.end for offset in self.log.committed)
        if self.end > self.log.stable_end:
            self.findings.wrong.append(
                f"the position {self.end} is past the log's end {self.log.stable_end} {self.where}"
            )

    def _dispositions(self) -> dict[int, str]:
        """The disposition of every offset below the position; "nowhere" for a record without one."""
        landed = {offset for offset, _ in self.rows}
        kept = {letter[0]: letter[1] for letter in self.letters}
        dispositions = {}
        for offset in range(self.first, self.end):
            record = self.log.committed.get(offset)
            if offset in landed:
                dispositions[offset] = "landed"
            elif offset in kept:
                dispositions[offset] = kept[offset]
            elif offset in self.lost:
                dispositions[offset] = "lost"
            elif record is None:
                dispositions[offset] = "no record"
            else:
                # What the definition filters is nowhere but in the ledger's count.
                filtered = "filtered" if record.expected == "filtered" else "nowhere"
                dispositions[offset] = "skipped" if record.value is None else filtered
        return dispositions

    def _unexpected(self, dispositions: Mapping[int, str]) -> set[tuple[int, str, str]]:
        committed = self.log.committed
        return {
            (offset, disposition, committed[offset].expected)
            for offset, disposition in dispositions.items()
            if offset in committed and disposition not in (committed[offset].expected, "lost")
        }

    def _compare_rows(self) -> None:
        wrong = set()
        for offset, row in self.rows:
            record = self.log.committed.get(offset)
            if record is not None and record.value is not None and not self._is_row_of(record.value, row):
                wrong.add(offset)
        self._report("rows that differ from their records", wrong)

    def _is_row_of(self, value: bytes, row: Mapping[str, Any]) -> bool:
        event = self.decode(value)
        return all(_same(event.get(f.name), row[f.name], f.sql) for f in self.compared)

    def _compare_letters(self) -> None:
        wrong = set()
        for offset, _, key, value, headers, reason in self.letters:
            record = self.log.committed.get(offset)
            if record is None:
                continue
            stored = [(name, None if v is None else base64.b64decode(v)) for name, v in headers or ()]
            same = _bytes(key) == record.key and _bytes(value) == record.value and stored == list(record.headers)
            if not (same and reason):
                wrong.add(offset)
        self._report("dead letters that differ from their records, or have no reason", wrong)

    def _compare_ledger(self, dispositions: Mapping[int, str]) -> None:
        reached = self.first
        for first, end, landed, dead, quarantined, filtered, skipped, no_records, checksum in self.ledger:
            if first != reached and not self._is_lost(reached, first):
                self.findings.wrong.append(f"the ledger jumps from {reached} to {first} {self.where}")
            reached = max(reached, end)
            counts = Counter(dispositions.get(offset, "past the position") for offset in range(first, end))
            counted = {
                "landed": landed,
                "dead letter": dead,
                "quarantined": quarantined,
                "filtered": filtered,
                "skipped": skipped,
                "no record": no_records,
            }
            if +Counter(counted) != counts:
                self.findings.wrong.append(
                    f"the ledger counts {counted} for offsets {first} to {end - 1}, and the tables {dict(counts)} "
                    f"{self.where}"
                )
            summed = sum(
                zlib.crc32(record.value or b"", offset & 0xFFFFFFFF)
                for offset, record in self.log.committed.items()
                if first <= offset < end
            )
            if int(checksum) != summed:
                self.findings.wrong.append(
                    f"the checksum of offsets {first} to {end - 1} is {checksum}, not {summed} {self.where}"
                )
        if reached != self.end and not self._is_lost(reached, self.end):
            self.findings.wrong.append(f"the ledger ends at {reached} and the position is {self.end} {self.where}")

    def _is_lost(self, start: int, end: int) -> bool:
        return start < end and range(start, end) == self.lost

    def _report(self, what: str, places: Collection[Any]) -> None:
        self.findings.report(f"{what} {self.where}", places)


def _positions(connection: Connection, stream: Stream, topic: Snapshot, findings: Findings) -> dict[int, int]:
    rows = _rows(
        connection,
        "SELECT partition, topic_id, next_offset FROM millrace.position WHERE reader = %s AND topic = %s",
        stream.reader,
        stream.topic,
    )
    findings.report("positions of another topic", {(p, i) for p, i, _ in rows if i != topic.topic_id})
    findings.report("positions of partitions that do not exist", {p for p, _, _ in rows} - topic.logs.keys())
    return {partition: offset for partition, _, offset in rows}


def _rows(connection: Connection, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return list(cursor.fetchall())


def _same(sent: Any, stored: Any, sql: str) -> bool:
    """Whether a column holds the value of the JSON."""
    if sent is None or stored is None:
        return sent is stored
    match sql:
        case "timestamp with time zone":
            return bool(datetime.fromisoformat(sent.upper()) == stored)
        case "date":
            return bool(date.fromisoformat(sent) == stored)
        case "double precision":
            return bool(float(sent) == stored)
        case "numeric":
            return str(Decimal(sent)) == str(stored) or Decimal(sent) == stored
        case "uuid":
            return uuid.UUID(sent) == uuid.UUID(str(stored))
        case "bytea":
            return base64.b64decode(sent) == bytes(stored)
        case "jsonb":
            return bool(json.loads(json.dumps(sent, default=float)) == stored)
    return bool(sent == stored)


def _bytes(value: Any) -> bytes | None:
    return None if value is None else bytes(value)


def _first(consumer: Consumer, partition: TopicPartition) -> int:
    """The first offset that exists. A broker that has just started may refuse the first requests."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            return consumer.get_watermark_offsets(partition, WAIT_S)[0]
        except KafkaException:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _record(message: Any) -> Record:
    return Record(message.offset(), message.key(), message.value(), tuple(message.headers() or ()))


def _number(value: int | None) -> int:
    assert value is not None
    return value


def _reader(brokers: str, isolation: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": brokers,
            "log_level": 0,
            "group.id": "audit",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": isolation,
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 50,
        }
    )


def _with_ends(consumer: Consumer, topic: str, logs: Mapping[int, Log]) -> Iterable[tuple[int, Message | int]]:
    """Every message by its partition, and at the end of each partition the offset of that end."""
    consumer.assign([TopicPartition(topic, partition, log.first) for partition, log in logs.items()])
    unread = set(logs)
    deadline = time.monotonic() + WAIT_S
    while unread:
        assert time.monotonic() < deadline, f"the audit could not read {topic!r} to its end"
        for message in consumer.consume(10_000, 0.05):
            partition, offset, error = message.partition(), message.offset(), message.error()
            assert partition is not None and offset is not None
            if error is None:
                yield partition, message
            elif error.code() == KafkaError._PARTITION_EOF:
                if partition in unread:
                    unread.discard(partition)
                    yield partition, offset
            elif not error.retriable():
                raise KafkaException(error)
