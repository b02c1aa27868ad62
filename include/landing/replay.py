"""Replay: records below the position landed again from Kafka, as the stream is defined now, range by range.

Each range is one transaction: what the tables hold of its records is deleted by their coordinates, the records are
decoded, judged and copied as a drain would, and the ledger entries that counted them are corrected. A drain may be at
work meanwhile: it writes at the position and above, a replay below. Records that Kafka no longer has keep their fate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypedDict, cast

import numpy as np

from include.errors import NonRetryableError, UserError
from include.kafka import client, position, reader, topics
from include.kafka.position import StoredPosition
from include.kafka.position_errors import LogTruncated, OffsetsGone, PositionError, TopicRecreated
from include.kafka.reader import Batch
from include.kafka.topics import Extent, Topic
from include.landing import dead_letters, incarnation, partitions, placement, recovery, refusals, table
from include.landing.batch import FATES, Preparer
from include.landing.dead_letters import DEAD_LETTER, QUARANTINED
from include.landing.partitions import Partitions
from include.streams.definition import Stream
from include.warehouse import queries
from include.warehouse.connection import connected

if TYPE_CHECKING:
    from confluent_kafka import Message
    from psycopg2 import sql
    from psycopg2.extensions import connection as Connection

    from include.landing.batch import Prepared

RECORDS_PER_TRANSACTION = 20_000
# So many records of a range of which not one can be landed, though some had been, are taken for a wrong definition.
MIN_REJECTED = 100
Counts = Mapping[str, int]
"""Numbers of records by their fate, those of ``FATES``."""


@dataclass(frozen=True)
class Wanted:
    """What to replay of a stream; None where nothing bounds it.

    Attributes:
        partitions: The partitions' numbers.
        first, next: Offsets, the end exclusive.
        since, until: Times of the records in Kafka, with their zones; the end exclusive.
    """

    partitions: Sequence[int] | None = None
    first: int | None = None
    next: int | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True)
class Span:
    """Offsets of one partition, the end exclusive; those before ``first`` that were asked for are gone from Kafka.

    Attributes:
        gone: How many of them are gone.
    """

    partition: int
    first: int
    next: int
    gone: int


@dataclass
class Replayed:
    """What became of a span's records, and what had become of them before."""

    span: Span
    records: int = 0
    before: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FATES, 0))
    after: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FATES, 0))

    def add(self, before: Counts, after: Counts) -> None:
        """Counts one range more."""
        self.records += sum(after.values())
        for fate in FATES:
            self.before[fate] += before[fate]
            self.after[fate] += after[fate]


def replay(
    connection: Connection,
    stream: Stream,
    wanted: Wanted,
    who: str,
    report: Callable[[Replayed], None] = lambda replayed: None,
) -> list[Replayed]:
    """Lands again what is wanted of the records below the position that Kafka still has; commits range by range.

    It can be repeated, also after it was interrupted: the same records come to the same fates.

    Args:
        who: Recorded with each range in ``millrace.landing_replay``.
        report: Called after each range with what has become of its span so far.

    Raises:
        PositionError: The topic is not the one that was read, or its log was rewritten.
        UserError: There is nothing to replay, or a range would lose every row that it has.
        NonRetryableError: The table cannot be as the definition wants it.
    """
    try:
        replayer = _Replayer(connection, stream, who)
        try:
            spans = replayer.spans(wanted)
            table.bring_up_to_date(connection, stream)
            replayed = [replayer.replay(span, report) for span in spans]
        except NothingThere:
            if wanted == Wanted():
                replayer.close_marks()
            raise
        if wanted == Wanted():
            replayer.close_marks()
        return replayed
    except OffsetsGone as gone:
        raise UserError(
            f"Retention removed records of topic {gone.topic!r}, partition {gone.partition}, before offset "
            f"{gone.first} while they were to be replayed; their rows stay.",
            "Repeat the command to replay what Kafka still has.",
        ) from gone
    except PositionError as stop:
        raise recovery.with_remedy(stop, stream) from stop
    finally:
        if not connection.closed:
            connection.rollback()


def fill(connection: Connection, stream: Stream, who: str) -> list[Replayed]:
    """Lands again what has landed without the values of new columns, as soon as these are there.

    Raises:
        NonRetryableError: Kafka has some of these records no more; the others are filled first.
        UserError: Kafka does not answer.
    """
    marks = list(queries.load("landing").read_unfilled(connection, stream=stream.name))
    lacking = table.missing(connection, stream) if marks else set()
    connection.rollback()
    replayed: list[Replayed] = []
    gone: list[str] = []
    for _, partition, first, until, columns, _ in marks:
        if lacking.intersection(columns):
            continue
        try:
            found = replay(connection, stream, Wanted([partition], first, until), who)
        except NothingThere:
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
            f"Stream {stream.name!r}: Kafka has records no more whose values of new columns have not been filled yet "
            f"({'; '.join(gone)}). Their rows hold null there.",
            f"./millrace replay {stream.name} lands again what Kafka still has, and closes this.",
        )
    return replayed


class NothingThere(UserError):
    """Of the records that are wanted Kafka has none."""


class _Replayer:
    """One replay of a stream's current incarnation."""

    def __init__(self, connection: Connection, stream: Stream, who: str) -> None:
        self._connection, self._stream, self._who = connection, stream, who
        self._sql = queries.load("landing")
        self._brokers = client.admin()
        self._standings = position.read_positions(connection, stream.reader, stream.topic)
        if not self._standings:
            raise _nothing_landed(f"stream {stream.name!r}")
        self._topic = topics.describe(stream.topic, self._brokers)
        _require_same(stream, self._topic, self._standings.values())
        self._incarnation = incarnation.number(connection, self._topic)
        self._claims = self._read_claims()
        connection.rollback()
        self._partitions = Partitions(stream)

    def _read_claims(self) -> dict[int, list[tuple[int, int]]]:
        """Where the ledger's entries begin, with their epochs, by partition."""
        claims: dict[int, list[tuple[int, int]]] = {}
        for partition, first, epoch in self._sql.read_claims(
            self._connection, stream=self._stream.name, incarnation=self._incarnation
        ):
            claims.setdefault(partition, []).append((first, epoch))
        return claims

    def spans(self, wanted: Wanted) -> list[Span]:
        """The spans that are wanted, that were landed and that Kafka still has."""
        partitions = sorted(self._claims) if wanted.partitions is None else sorted(set(wanted.partitions))
        unknown = [partition for partition in partitions if partition not in self._claims]
        if unknown or not partitions:
            which = f"partition {unknown[0]} of " if unknown else ""
            raise _nothing_landed(f"{which}stream {self._stream.name!r}")
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
    ) -> Span | None:
        landed_to = self._standings[partition].position.next_offset
        begin, end = self._claims[partition][0][0], landed_to
        begin = max(begin, wanted.first or 0)
        end = end if wanted.next is None else min(end, wanted.next)
        if wanted.since is not None:
            # A moment after every record: nothing of the partition is wanted.
            begin = max(begin, landed_to if (offset := since[partition]) is None else offset)
        if wanted.until is not None and (offset := until[partition]) is not None:
            end = min(end, offset)
        if begin >= end:
            return None
        first = min(max(begin, extent.first), end)
        return Span(partition, first, end, gone=first - begin)

    def _nothing(self, partitions: Iterable[int], extents: Mapping[int, Extent]) -> UserError:
        there = "; ".join(
            f"partition {p}, offsets {first} to {end - 1}"
            for p in partitions
            if (first := max(self._claims[p][0][0], extents[p].first))
            < (end := self._standings[p].position.next_offset)
        )
        return NothingThere(
            f"Nothing of stream {self._stream.name!r} that has landed and that Kafka still has lies in that range.",
            f"There is: {there}." if there else "Kafka has none of its landed records any more.",
        )

    def replay(self, span: Span, report: Callable[[Replayed], None]) -> Replayed:
        """Lands a span again, range by range."""
        done = Replayed(span)
        preparer = Preparer(self._stream, self._incarnation, {span.partition: span.first})
        for _, until, messages in self._ranges(span):
            self._require_old_log(span.partition, messages)
            # A topic that still is the same after the reading was the same before.
            _require_same(self._stream, topics.describe(self._topic.name, self._brokers), self._standings.values())
            for prepared in preparer.pieces(Batch(list(messages), {span.partition: until})):
                first, end = prepared.judged.ends[span.partition]
                done.add(*self._land(preparer, prepared, span.partition, first, end))
            report(done)
        return done

    def close_marks(self) -> None:
        """Removes the marks of values that were not filled: all that Kafka still has was landed again."""
        self._sql.forget_unfilled(self._connection, stream=self._stream.name, incarnation=self._incarnation)
        for partition, stored in self._standings.items():
            self._sql.close_unfilled(
                self._connection,
                stream=self._stream.name,
                incarnation=self._incarnation,
                partition=partition,
                first=0,
                next=stored.position.next_offset,
            )
        self._connection.commit()

    def _ranges(self, span: Span) -> Iterator[tuple[int, int, Sequence[Message]]]:
        """The span in ranges with their records; offsets that are no records belong to the range before them."""
        first = span.first
        held: list[Message] = []
        for messages in reader.read_range(
            self._topic.name, {span.partition: (span.first, span.next)}, most=RECORDS_PER_TRANSACTION
        ):
            if held:
                until = reader.place(messages[0])[1]
                yield first, until, held
                first = until
            held = messages
        if held:
            yield first, span.next, held

    def _require_old_log(self, partition: int, messages: Sequence[Message]) -> None:
        """A log that was truncated and written again gives its new records a newer leader epoch than the position's."""
        stored = self._standings[partition].position
        newest = max((message.leader_epoch() or 0 for message in messages), default=0)
        if stored.leader_epoch is not None and newest > stored.leader_epoch:
            raise LogTruncated(self._topic.name, partition, stored.next_offset, reader.place(messages[0])[1])

    def _land(
        self, preparer: Preparer, prepared: Prepared, partition: int, first: int, until: int
    ) -> tuple[Counts, Counts]:
        """One range in one transaction; tried once more without what PostgreSQL refuses, or with a new partition."""
        import psycopg2

        suspected = forgotten = False
        while True:
            try:
                self._partitions.ensure(self._connection, prepared.spans)
                counts = self._replace(preparer, prepared, partition, first, until, suspected)
                self._connection.commit()
            except psycopg2.Error as error:
                if not self._connection.closed:
                    self._connection.rollback()
                if refusals.is_of_partition(error) and not forgotten:
                    self._partitions.forget()
                    forgotten = True
                elif refusals.is_of_rows(error) and not suspected:
                    suspected = True
                elif refusals.is_passing(error):
                    raise UserError(
                        f"The replay ended in partition {partition} at offset {first}: {str(error).strip()}.",
                        "What lies before is replayed; repeat the command to replay the rest.",
                    ) from error
                elif (named := refusals.named(error)) is not None:
                    raise named from error
                else:
                    raise
            else:
                return counts

    def _replace(
        self, preparer: Preparer, prepared: Prepared, partition: int, first: int, until: int, suspected: bool
    ) -> tuple[Counts, Counts]:
        connection, stream = self._connection, self._stream.name
        place: dict[str, Any] = {"incarnation": self._incarnation, "partition": partition}
        self._sql.lock_replay(connection, stream=stream)
        offsets = prepared.judged.offsets
        missing = np.setdiff1d(np.arange(first, until), offsets).tolist()
        span: dict[str, Any] = {"stream": stream, **place, "first": first, "next": until}
        kept = dict(self._sql.hold_kept(connection, **span))
        self._sql.drop_kept(connection, **span, missing=missing)
        expected = _Changes(prepared, kept, self._claims[partition]).before()["landed"]
        self._drop_rows(span | {"missing": missing}, prepared, expected)
        if suspected:
            prepared = refusals.copy_accepted(connection, preparer, prepared)
        else:
            prepared.rows.send(connection, f"{table.SCHEMA}.{stream}", preparer.copied)
        dead_letters.keep(
            connection, self._incarnation, prepared.letter_partitions, prepared.letter_offsets, prepared.letters
        )
        # Entries that were merged since the replay began are others now; from here on, none are.
        self._sql.hold_ledger(connection, stream=stream)
        changes = _Changes(prepared, kept, self._read_claims()[partition])
        self._require_some_good(prepared, changes, partition, first, until)
        self._sql.correct_ledger(
            connection, stream=stream, **place, **changes.by_claim(), newest=prepared.entries[0].newest
        )
        before, after = changes.before(), changes.after()
        self._sql.add_replay(
            connection,
            **span,
            landed=after["landed"],
            dead_letters=after[DEAD_LETTER],
            quarantined=after[QUARANTINED],
            more_landed=after["landed"] - before["landed"],
            more_dead_letters=after[DEAD_LETTER] - before[DEAD_LETTER],
            more_quarantined=after[QUARANTINED] - before[QUARANTINED],
            replayed_by=self._who,
        )
        self._sql.close_unfilled(connection, **span)
        return before, after

    def _drop_rows(self, span: Mapping[str, object], prepared: Prepared, expected: int) -> None:
        """Deletes the rows of a range, by their coordinates.

        Most of them lie where they are to be landed again; only where that does not account for all of them is every
        partition looked into, over a connection of its own that keeps no locks.

        Args:
            expected: How many there are, unless retention has dropped some.

        Raises:
            NonRetryableError: A trigger or a rule of the table keeps rows from being deleted.
        """
        spans = [partitions.Span(start, start + self._stream.width) for start in prepared.spans]
        deleted = self._delete(placement.within(self._stream.event_time, spans), span) if spans else 0
        if deleted >= expected:
            return
        first, until, partition = (cast(int, span[name]) for name in ("first", "next", "partition"))
        there = partitions.listed(self._connection, self._stream.name)
        bounded = partitions.default(self._connection, self._stream.name) is None
        with connected("millrace replay") as looking:
            placed = placement.place(
                placement.reader(looking), there, bounded, self._stream, self._incarnation, partition
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
                f"{left:,} rows of landing.{self._stream.name} cannot be deleted, in order to be landed again: "
                f"{', '.join(name for (name,) in triggers)} keeps them. Nothing of them was changed.",
                "Disable that for the time of the replay.",
            )

    def _rows_of(self, action: str, where: sql.Composable) -> sql.Composable:
        from psycopg2 import sql

        return sql.SQL(
            action + " FROM {} WHERE kafka_incarnation = %(incarnation)s AND kafka_partition = %(partition)s "
            "AND kafka_offset >= %(first)s AND kafka_offset < %(next)s "
            "AND kafka_offset <> ALL (CAST(%(missing)s AS bigint[])) AND {}"
        ).format(table.identifier(self._stream.name), where)

    def _require_some_good(self, prepared: Prepared, changes: _Changes, partition: int, first: int, until: int) -> None:
        if len(prepared.rows) or len(prepared.letters) < MIN_REJECTED or not changes.before()["landed"]:
            return
        raise UserError(
            f"None of {len(prepared.letters):,} records in partition {partition}, offsets {first} to {until - 1}, can "
            f"be landed as stream {self._stream.name!r} is defined now, and nothing of them was changed. "
            f"The first: {prepared.letters[0].reason}.",
            "Fix the definition, and repeat the command.",
        )


class _ByClaim(TypedDict):
    """Ledger entries by their epochs, and by how much each of their counts changes."""

    epochs: list[int]
    landed: list[int]
    dead_letters: list[int]
    quarantined: list[int]


class _Changes:
    """How the fates of a range's records differ from those that they had.

    Args:
        kept: The dispositions of the offsets that were kept aside.
        claims: Where the partition's ledger entries begin, with their epochs.
    """

    def __init__(self, prepared: Prepared, kept: Mapping[int, str], claims: Sequence[tuple[int, int]]) -> None:
        judged = prepared.judged
        records = judged.fates < len(FATES)
        codes = {DEAD_LETTER: FATES.index("dead letter"), QUARANTINED: FATES.index("quarantined")}
        offsets = judged.offsets[records]
        self._epochs = [epoch for _, epoch in claims]
        entries = np.searchsorted([first for first, _ in claims], offsets, side="right") - 1
        old = np.fromiter((codes[kept[o]] if o in kept else 0 for o in offsets.tolist()), np.int64, len(offsets))
        self._before = self._table(entries, old)
        self._after = self._table(entries, judged.fates[records].astype(np.int64))

    def before(self) -> Counts:
        return dict(zip(FATES, self._before.sum(axis=0).tolist(), strict=True))

    def after(self) -> Counts:
        return dict(zip(FATES, self._after.sum(axis=0).tolist(), strict=True))

    def by_claim(self) -> _ByClaim:
        """The entries that change, by their epochs, and by how much."""
        more = self._after - self._before
        changed = np.flatnonzero(more.any(axis=1)).tolist()
        landed, dead_letters, quarantined = (more[changed, FATES.index(f)].tolist() for f in FATES)
        return {
            "epochs": [self._epochs[entry] for entry in changed],
            "landed": landed,
            "dead_letters": dead_letters,
            "quarantined": quarantined,
        }

    def _table(self, entries: np.ndarray, fates: np.ndarray) -> np.ndarray:
        """How many records of each ledger entry have each fate, int64[entries, fates]."""
        counted = np.bincount(entries * len(FATES) + fates, minlength=len(self._epochs) * len(FATES))
        return counted.reshape(len(self._epochs), len(FATES))


def _nothing_landed(what: str) -> UserError:
    return UserError(f"Nothing of {what} has landed yet.", "A replay lands again what has landed.")


def _require_same(stream: Stream, topic: Topic, stored_positions: Iterable[StoredPosition]) -> None:
    for stored in stored_positions:
        if stored.topic_id != topic.id:
            raise TopicRecreated(stream.reader, topic.name, stored.topic_id, topic.id)
