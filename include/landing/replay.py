"""Replay: lands records below the position again from Kafka, as the stream is defined now, range by range.

Each range is one transaction. It deletes the range's rows and dead letters by their coordinates, decodes, classifies
and copies the records as a drain does, and corrects the ledger entries that counted them. A drain can run at the same
time: it writes at the position and above, and a replay below. Records that Kafka no longer has keep their disposition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypedDict, cast

import numpy as np

from include.error_codes import Code
from include.errors import NonRetryableError, UserError
from include.kafka import client, position, reader, topics
from include.kafka.position import StoredPosition
from include.kafka.position_errors import LogTruncated, OffsetsGone, PositionError, TopicRecreated
from include.kafka.reader import Batch
from include.kafka.topics import Extent, Topic
from include.landing import database_errors, dead_letters, incarnation, partitions, placement, recovery, refusals, table
from include.landing.batch import Preparer
from include.landing.disposition import Disposition
from include.landing.partitions import Partitions
from include.landing.recovery import MIN_REJECTED
from include.landing.transaction_retry import TransactionRetry
from include.streams.definition import Stream
from include.warehouse import queries
from include.warehouse.connection import connected

if TYPE_CHECKING:
    from confluent_kafka import Message
    from numpy.typing import NDArray
    from psycopg2 import sql
    from psycopg2.extensions import connection as Connection

    from include.landing.batch import PreparedBatch

RECORDS_PER_TRANSACTION = 20_000
Counts = Mapping[Disposition, int]
"""Numbers of records by their disposition."""


@dataclass(frozen=True)
class Wanted:
    """The records to replay; None where nothing bounds them.

    Attributes:
        partitions: The numbers of the partitions.
        first, next: Offsets, the end exclusive.
        since, until: Timestamps of the records in Kafka, with time zones; the end exclusive.
    """

    partitions: Sequence[int] | None = None
    first: int | None = None
    next: int | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True)
class OffsetSpan:
    """Offsets of one partition, the end exclusive.

    Attributes:
        gone: How many offsets before ``first`` were wanted, but are no longer in Kafka.
    """

    partition: int
    first: int
    next: int
    gone: int


@dataclass
class Replayed:
    """The dispositions of a span's records, before the replay and after it."""

    span: OffsetSpan
    records: int = 0
    before: dict[Disposition, int] = field(default_factory=lambda: dict.fromkeys(Disposition, 0))
    after: dict[Disposition, int] = field(default_factory=lambda: dict.fromkeys(Disposition, 0))

    def add(self, before: Counts, after: Counts) -> None:
        """Adds the counts of one more range."""
        self.records += sum(after.values())
        for disposition in Disposition:
            self.before[disposition] += before[disposition]
            self.after[disposition] += after[disposition]


def replay(
    connection: Connection,
    stream: Stream,
    wanted: Wanted,
    who: str,
    report: Callable[[Replayed], None] = lambda replayed: None,
) -> list[Replayed]:
    """Lands the wanted records below the position again, as far as Kafka still has them; commits range by range.

    It can be repeated, also after an interruption: the same records get the same dispositions.

    Args:
        who: Recorded with each range in ``millrace.landing_replay``.
        report: Called after each range with the counts of its span so far.

    Raises:
        PositionError: The topic is not the one that was read, or its log was rewritten.
        UserError: There is nothing to replay, or a range would lose all of its rows.
        NonRetryableError: The table cannot follow the definition.
    """
    try:
        replayer = _Replayer(connection, stream, who)
        try:
            spans = replayer.spans(wanted)
            table.bring_up_to_date(connection, stream)
            replayed = [replayer.replay(span, report) for span in spans]
        except NothingToReplay:
            if wanted == Wanted():
                replayer.close_unfilled()
            raise
        if wanted == Wanted():
            replayer.close_unfilled()
        return replayed
    except OffsetsGone as gone:
        raise UserError(
            f"Retention removed records of topic {gone.topic!r}, partition {gone.partition}, before offset "
            f"{gone.first} during the replay. Their rows stay.",
            "Run the command again to replay what Kafka still has.",
            code=Code.REPLAY_INTERRUPTED,
        ) from gone
    except PositionError as error:
        raise recovery.with_remedy(error, stream) from error
    finally:
        if not connection.closed:
            connection.rollback()


def fill(connection: Connection, stream: Stream, who: str) -> list[Replayed]:
    """Fills the values of columns that did not exist when their rows landed, once the columns exist.

    Raises:
        NonRetryableError: Kafka no longer has some of these records. The others are filled before it is raised.
        UserError: Kafka does not answer.
    """
    unfilled = list(queries.load("landing").read_unfilled(connection, stream=stream.name))
    missing = table.missing(connection, stream) if unfilled else set()
    connection.rollback()
    replayed: list[Replayed] = []
    gone: list[str] = []
    for _, partition, first, until, columns, _ in unfilled:
        if missing.intersection(columns):
            continue
        try:
            found = replay(connection, stream, Wanted([partition], first, until), who)
        except NothingToReplay:
            gone.append(f"partition {partition}, offsets {first} to {until - 1}, {', '.join(columns)}")
            continue
        replayed += found
        gone += [
            f"partition {partition}, offsets {first} to {done.span.first - 1}, {', '.join(columns)}"
            for done in found
            if done.span.gone
        ]
    if gone:
        raise NonRetryableError(
            f"Stream {stream.name!r}: Kafka has removed records whose values of new columns were not filled yet "
            f"({'; '.join(gone)}). Their rows keep NULL in these columns.",
            f"Run ./millrace replay {stream.name} to fill what Kafka still has and to close this report.",
            code=Code.VALUES_EXPIRED,
        )
    return replayed


class NothingToReplay(UserError):
    """Kafka has none of the wanted records, or they have not landed yet."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what, remedy, code=Code.NOTHING_TO_REPLAY)


class _Replayer:
    """One replay of a stream's current incarnation."""

    def __init__(self, connection: Connection, stream: Stream, who: str) -> None:
        self._connection, self._stream, self._who = connection, stream, who
        self._sql = queries.load("landing")
        self._brokers = client.admin()
        self._positions = position.read_positions(connection, stream.reader, stream.topic)
        if not self._positions:
            raise _nothing_landed(stream)
        self._topic = topics.describe(stream.topic, self._brokers)
        _require_same(stream, self._topic, self._positions.values())
        self._incarnation = incarnation.number(connection, self._topic)
        self._claims = self._read_claims()
        connection.rollback()
        self._partitions = Partitions(stream)

    def _read_claims(self) -> dict[int, list[tuple[int, int]]]:
        """The first offsets of the ledger's entries, with their epochs, by partition."""
        claims: dict[int, list[tuple[int, int]]] = {}
        for partition, first, epoch in self._sql.read_claims(
            self._connection, stream=self._stream.name, incarnation=self._incarnation
        ):
            claims.setdefault(partition, []).append((first, epoch))
        return claims

    def spans(self, wanted: Wanted) -> list[OffsetSpan]:
        """The spans that are wanted, have landed and that Kafka still has."""
        partitions = sorted(self._claims) if wanted.partitions is None else sorted(set(wanted.partitions))
        unknown = [partition for partition in partitions if partition not in self._claims]
        if unknown or not partitions:
            raise _nothing_landed(self._stream, unknown[0] if unknown else None)
        extents = topics.extents(self._topic.name, partitions)
        since = topics.offsets_at(self._topic.name, partitions, wanted.since) if wanted.since else {}
        until = topics.offsets_at(self._topic.name, partitions, wanted.until) if wanted.until else {}
        found = [
            span
            for partition in partitions
            if (span := self._span(partition, extents[partition], wanted, since, until)) is not None
        ]
        if not any(span.first < span.next for span in found):
            raise self._nothing(partitions, extents)
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
        begin, end = self._claims[partition][0][0], landed_to
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
        return OffsetSpan(partition, first, end, gone=first - begin)

    def _nothing(self, partitions: Iterable[int], extents: Mapping[int, Extent]) -> UserError:
        available = "; ".join(
            f"partition {p}, offsets {first} to {end - 1}"
            for p in partitions
            if (first := max(self._claims[p][0][0], extents[p].first))
            < (end := self._positions[p].position.next_offset)
        )
        return NothingToReplay(
            f"Stream {self._stream.name!r} has no landed records in this range that Kafka still has.",
            f"Choose from these: {available}." if available else "Kafka has removed all of its landed records.",
        )

    def replay(self, span: OffsetSpan, report: Callable[[Replayed], None]) -> Replayed:
        """Lands a span again, range by range."""
        done = Replayed(span)
        preparer = Preparer(self._stream, self._incarnation, {span.partition: span.first})
        for _, until, messages in self._ranges(span):
            self._require_old_log(span.partition, messages)
            # If the topic has the same id after the read, it had it before.
            _require_same(self._stream, topics.describe(self._topic.name, self._brokers), self._positions.values())
            for prepared in preparer.pieces(Batch(list(messages), {span.partition: until})):
                first, end = prepared.classified.ends[span.partition]
                done.add(*self._land(preparer, prepared, span.partition, first, end))
            report(done)
        return done

    def close_unfilled(self) -> None:
        """Closes the reports of values that were not filled: everything that Kafka still has was replayed."""
        self._sql.forget_unfilled(self._connection, stream=self._stream.name, incarnation=self._incarnation)
        for partition, stored in self._positions.items():
            self._sql.close_unfilled(
                self._connection,
                stream=self._stream.name,
                incarnation=self._incarnation,
                partition=partition,
                first=0,
                next=stored.position.next_offset,
            )
        self._connection.commit()

    def _ranges(self, span: OffsetSpan) -> Iterator[tuple[int, int, Sequence[Message]]]:
        """The span in ranges with their records; offsets without a record belong to the range before them."""
        first = span.first
        held: list[Message] = []
        for messages in reader.read_range(
            self._topic.name, {span.partition: (span.first, span.next)}, max_records=RECORDS_PER_TRANSACTION
        ):
            if held:
                until = reader.place(messages[0])[1]
                yield first, until, held
                first = until
            held = messages
        if held:
            yield first, span.next, held

    def _require_old_log(self, partition: int, messages: Sequence[Message]) -> None:
        """Raises LogTruncated if the records are newer than the position's leader epoch: the log was rewritten."""
        stored = self._positions[partition].position
        newest = max((message.leader_epoch() or 0 for message in messages), default=0)
        if stored.leader_epoch is not None and newest > stored.leader_epoch:
            raise LogTruncated(self._topic.name, partition, stored.next_offset, reader.place(messages[0])[1])

    def _land(
        self, preparer: Preparer, prepared: PreparedBatch, partition: int, first: int, until: int
    ) -> tuple[Counts, Counts]:
        """Lands one range again in one transaction; returns the counts before and after."""
        import psycopg2

        def attempt(find_refused: bool) -> tuple[Counts, Counts]:
            self._partitions.ensure(self._connection, prepared.spans)
            counts = self._replace(preparer, prepared, partition, first, until, find_refused)
            self._connection.commit()
            return counts

        try:
            return TransactionRetry(self._partitions).run(attempt, self._roll_back)
        except psycopg2.Error as error:
            if not database_errors.is_transient(error):
                raise
            raise UserError(
                f"The replay ended in partition {partition} at offset {first}: {str(error).strip()}. Everything before "
                "is replayed.",
                "Run the command again to replay the rest.",
                code=Code.REPLAY_INTERRUPTED,
            ) from error

    def _roll_back(self) -> None:
        if not self._connection.closed:
            self._connection.rollback()

    def _replace(
        self,
        preparer: Preparer,
        prepared: PreparedBatch,
        partition: int,
        first: int,
        until: int,
        find_refused: bool,
    ) -> tuple[Counts, Counts]:
        connection, stream = self._connection, self._stream.name
        place: dict[str, Any] = {"incarnation": self._incarnation, "partition": partition}
        self._sql.lock_replay(connection, stream=stream)
        offsets = prepared.classified.offsets
        missing = np.setdiff1d(np.arange(first, until), offsets).tolist()
        span: dict[str, Any] = {"stream": stream, **place, "first": first, "next": until}
        kept = dict(self._sql.hold_kept(connection, **span))
        self._sql.drop_kept(connection, **span, missing=missing)
        expected = _Changes(prepared, kept, self._claims[partition]).before()[Disposition.LANDED]
        self._drop_rows(span | {"missing": missing}, prepared, expected)
        if find_refused:
            prepared = refusals.copy_accepted(connection, preparer, prepared)
        else:
            prepared.rows.send(connection, f"{table.SCHEMA}.{stream}", preparer.copied)
        dead_letters.keep(
            connection, self._incarnation, prepared.letter_partitions, prepared.letter_offsets, prepared.letters
        )
        # Maintenance may have merged ledger entries since the replay began. This lock prevents more merges.
        self._sql.hold_ledger(connection, stream=stream)
        changes = _Changes(prepared, kept, self._read_claims()[partition])
        self._require_landed(prepared, changes, partition, first, until)
        self._sql.correct_ledger(
            connection, stream=stream, **place, **changes.by_claim(), newest=prepared.entries[0].newest
        )
        before, after = changes.before(), changes.after()
        self._sql.add_replay(
            connection,
            **span,
            landed=after[Disposition.LANDED],
            dead_letters=after[Disposition.DEAD_LETTER],
            quarantined=after[Disposition.QUARANTINED],
            more_landed=after[Disposition.LANDED] - before[Disposition.LANDED],
            more_dead_letters=after[Disposition.DEAD_LETTER] - before[Disposition.DEAD_LETTER],
            more_quarantined=after[Disposition.QUARANTINED] - before[Disposition.QUARANTINED],
            replayed_by=self._who,
        )
        self._sql.close_unfilled(connection, **span)
        return before, after

    def _drop_rows(self, span: Mapping[str, object], prepared: PreparedBatch, expected: int) -> None:
        """Deletes the rows of a range, by their coordinates.

        Most of them are in the partitions that they will land in again. If others are missing, it searches every
        partition, over a connection of its own that keeps no locks.

        Args:
            expected: How many rows there are, unless retention has dropped some.

        Raises:
            NonRetryableError: A trigger or a rule of the table prevents rows from being deleted.
        """
        likely = placement.within(self._stream.event_time, prepared.spans)
        deleted = self._delete(likely, span) if prepared.spans else 0
        if deleted >= expected:
            return
        first, until, partition = (cast(int, span[name]) for name in ("first", "next", "partition"))
        existing = partitions.listed(self._connection, self._stream.name)
        bounded = partitions.default(self._connection, self._stream.name) is None
        with connected("millrace replay") as searching:
            placed = placement.place(
                placement.reader(searching), existing, bounded, self._stream, self._incarnation, partition
            )
        for where in placed.conditions(first, until):
            deleted += self._delete(where, span)
            self._require_deleted(where, span)

    def _delete(self, where: sql.Composable, span: Mapping[str, object]) -> int:
        with self._connection.cursor() as cursor:
            cursor.execute(self._rows_of("DELETE", where), span)
            return cursor.rowcount

    def _require_deleted(self, where: sql.Composable, span: Mapping[str, object]) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(self._rows_of("SELECT count(*)", where), span)
            (left,) = cursor.fetchone() or (0,)
        if left:
            triggers = self._sql.read_triggers(self._connection, table=f"{table.SCHEMA}.{self._stream.name}")
            raise NonRetryableError(
                f"{left:,} rows of landing.{self._stream.name} cannot be deleted, so they cannot be landed again: "
                f"{', '.join(name for (name,) in triggers)} prevents it. The rows are unchanged.",
                "Disable the trigger or rule during the replay.",
                code=Code.BLOCKED_BY_TRIGGER,
            )

    def _rows_of(self, action: str, where: sql.Composable) -> sql.Composable:
        from psycopg2 import sql

        return sql.SQL(
            action + " FROM {} WHERE kafka_incarnation = %(incarnation)s AND kafka_partition = %(partition)s "
            "AND kafka_offset >= %(first)s AND kafka_offset < %(next)s "
            "AND kafka_offset <> ALL (CAST(%(missing)s AS bigint[])) AND {}"
        ).format(table.identifier(self._stream.name), where)

    def _require_landed(
        self, prepared: PreparedBatch, changes: _Changes, partition: int, first: int, until: int
    ) -> None:
        """Refuses a range of which no record can be landed any more, although some had landed."""
        if len(prepared.rows) or len(prepared.letters) < MIN_REJECTED or not changes.before()[Disposition.LANDED]:
            return
        raise UserError(
            f"None of {len(prepared.letters):,} records of stream {self._stream.name!r} in partition {partition}, "
            f"offsets {first} to {until - 1}, can be landed with its present definition. Their rows are unchanged. "
            f"The first record: {prepared.letters[0].reason}.",
            "Correct the definition, and run the command again.",
            code=Code.ALL_RECORDS_REJECTED,
        )


class _ByClaim(TypedDict):
    """The ledger entries that change, by their epochs, and the change of each count."""

    epochs: list[int]
    landed: list[int]
    dead_letters: list[int]
    quarantined: list[int]


class _Changes:
    """How the dispositions of a range's records change.

    Args:
        kept: The dispositions of the offsets that had not landed.
        claims: The first offsets of the partition's ledger entries, with their epochs.
    """

    def __init__(self, prepared: PreparedBatch, kept: Mapping[int, str], claims: Sequence[tuple[int, int]]) -> None:
        classified = prepared.classified
        records = classified.codes < len(Disposition)
        codes = {disposition.value: code for code, disposition in enumerate(Disposition)}
        offsets = classified.offsets[records]
        self._epochs = [epoch for _, epoch in claims]
        entries = np.searchsorted([first for first, _ in claims], offsets, side="right") - 1
        old = np.fromiter((codes[kept[o]] if o in kept else 0 for o in offsets.tolist()), np.int64, len(offsets))
        self._before = self._table(entries, old)
        self._after = self._table(entries, classified.codes[records].astype(np.int64))

    def before(self) -> Counts:
        return dict(zip(Disposition, self._before.sum(axis=0).tolist(), strict=True))

    def after(self) -> Counts:
        return dict(zip(Disposition, self._after.sum(axis=0).tolist(), strict=True))

    def by_claim(self) -> _ByClaim:
        """The entries that change, by their epochs, and the change of each count."""
        more = self._after - self._before
        changed = np.flatnonzero(more.any(axis=1)).tolist()
        landed, dead_letters, quarantined = (more[changed, code].tolist() for code in range(len(Disposition)))
        return {
            "epochs": [self._epochs[entry] for entry in changed],
            "landed": landed,
            "dead_letters": dead_letters,
            "quarantined": quarantined,
        }

    def _table(self, entries: NDArray[np.int64], codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many records of each ledger entry have each disposition, int64[entries, dispositions]."""
        kinds = len(Disposition)
        counted = np.bincount(entries * kinds + codes, minlength=len(self._epochs) * kinds)
        return counted.reshape(len(self._epochs), kinds)


def _nothing_landed(stream: Stream, partition: int | None = None) -> NothingToReplay:
    which = "" if partition is None else f"partition {partition} of "
    return NothingToReplay(
        f"No record of {which}stream {stream.name!r} has landed yet.",
        f"A replay repeats only what has landed; unpause the DAG land__{stream.name} to land records.",
    )


def _require_same(stream: Stream, topic: Topic, stored_positions: Iterable[StoredPosition]) -> None:
    for stored in stored_positions:
        if stored.topic_id != topic.id:
            raise TopicRecreated(stream.reader, topic.name, stored.topic_id, topic.id)
