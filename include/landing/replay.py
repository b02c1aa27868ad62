"""Replay: lands records below the position again from Kafka, as the stream is defined now, range by range.

Each range is one transaction. It deletes the range's rows and dead letters by their coordinates, decodes, classifies
and copies the records as a drain does, and corrects the ledger entries that counted them. A drain can run at the same
time: it writes at the position and above, and a replay below. Records that Kafka no longer has keep their disposition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from include.error_codes import Code
from include.errors import NonRetryableError, UserError
from include.kafka import client, position, reader, topics
from include.kafka.position import StoredPosition
from include.kafka.position_errors import LogTruncated, OffsetsGone, PositionError, TopicRecreated
from include.kafka.reader import Batch
from include.kafka.topics import Topic
from include.landing import database_errors, dead_letters, incarnation, recovery, refusals, relation, state, table
from include.landing.batch import SKIPPED, Preparer
from include.landing.disposition import Disposition
from include.landing.ledger_changes import Claim, Counts, LedgerChanges
from include.landing.partitions import Partitions
from include.landing.recovery import MIN_REJECTED
from include.landing.replay_selection import NothingToReplay, OffsetSpan, Selection, Wanted, nothing_landed
from include.landing.row_deletion import RowDeletion
from include.landing.state import State
from include.landing.transaction_retry import TransactionRetry
from include.streams.definition import Stream
from include.streams.keys import TOMBSTONE
from include.warehouse import queries

if TYPE_CHECKING:
    from confluent_kafka import Message
    from psycopg2.extensions import connection as Connection

    from include.landing.batch import PreparedBatch

RECORDS_PER_TRANSACTION = 20_000


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

    def __str__(self) -> str:
        counts = ", ".join(
            f"{count:,} {name.column.replace('_', ' ')} ({count - self.before[name]:+,})"
            for name, count in self.after.items()
        )
        offsets = f"offsets {self.span.first} to {self.span.next - 1}"
        return f"{self.span.topic}, partition {self.span.partition}, {offsets}: {self.records:,} records, now {counts}"


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
        if stream.deletes == TOMBSTONE:
            state.forget_tombstones(connection)
        if stream.topics is None and wanted.topic in (None, stream.topic):
            return _replay_topic(connection, stream, stream.topic, wanted, who, report)
        return _replay_topics(connection, stream, wanted, who, report)
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


def _replay_topic(
    connection: Connection, stream: Stream, topic: str, wanted: Wanted, who: str, report: Callable[[Replayed], None]
) -> list[Replayed]:
    is_all = replace(wanted, topic=None) == Wanted()
    replayer = _Replayer(connection, stream, topic, who)
    try:
        spans = replayer.spans(wanted)
        table.bring_up_to_date(connection, stream)
        replayed = [replayer.replay(span, report) for span in spans]
    except NothingToReplay:
        if is_all:
            replayer.close_unfilled()
        raise
    if is_all:
        replayer.close_unfilled()
    return replayed


def _replay_topics(
    connection: Connection, stream: Stream, wanted: Wanted, who: str, report: Callable[[Replayed], None]
) -> list[Replayed]:
    """Replays the topics of a stream that reads several."""
    if wanted.topic is None and (wanted.first is not None or wanted.next is not None):
        raise NonRetryableError(
            f"Stream {stream.name!r} reads several topics, and offsets are those of one of them.",
            "Name the topic, as in --topic NAME --partition 0 --first 100 --last 199.",
            code=Code.INVALID_USAGE,
        )
    read = stream.topic_choice.of(position.read_topics(connection, stream.reader))
    if wanted.topic is not None and wanted.topic not in read:
        raise NothingToReplay(
            f"Stream {stream.name!r} has landed no record of a topic {wanted.topic!r}.",
            f"Its topics are {', '.join(read)}." if read else "It has landed nothing yet.",
        )
    replayed: list[Replayed] = []
    nothing: NothingToReplay = nothing_landed(stream)
    for topic in read if wanted.topic is None else [wanted.topic]:
        try:
            replayed += _replay_topic(connection, stream, topic, wanted, who, report)
        except NothingToReplay as error:
            nothing = error
    if not replayed:
        raise nothing
    return replayed


def fill(connection: Connection, stream: Stream, who: str) -> list[Replayed]:
    """Fills the values of columns that did not exist when their rows landed, once the columns exist.

    Raises:
        NonRetryableError: Kafka no longer has some of these records. The others are filled before it is raised.
        UserError: Kafka does not answer.
    """
    unfilled = list(queries.load("landing").read_unfilled(connection, stream=stream.name))
    missing = table.missing(connection, stream) if unfilled else set()
    names = incarnation.topics_of(connection, stream.name) if unfilled else {}
    connection.rollback()
    replayed: list[Replayed] = []
    gone: list[str] = []
    for number, partition, first, until, columns, _ in unfilled:
        if missing.intersection(columns):
            continue
        try:
            found = replay(connection, stream, Wanted([partition], first, until, topic=names.get(number)), who)
        except NothingToReplay:
            gone.append(_describe_missing(partition, first, until, columns))
            continue
        replayed += found
        gone += [_describe_missing(partition, first, done.span.first, columns) for done in found if done.span.gone]
    if gone:
        raise NonRetryableError(
            f"Stream {stream.name!r}: columns were added later, and Kafka has removed records before their values were "
            f"filled: {'; '.join(gone)}. These rows stay NULL in these columns.",
            f"Run ./millrace replay {stream.name}: it fills the rows whose records Kafka still has. Then this "
            "problem is no longer reported.",
            code=Code.VALUES_EXPIRED,
        )
    return replayed


def _describe_missing(partition: int, first: int, until: int, columns: Sequence[str]) -> str:
    offsets = f"offset {first}" if until == first + 1 else f"offsets {first} to {until - 1}"
    return f"partition {partition}, {offsets}, {', '.join(map(repr, columns))}"


class _Replayer:
    """One replay of the current incarnation of one of a stream's topics."""

    def __init__(self, connection: Connection, stream: Stream, topic: str, who: str) -> None:
        self._connection, self._stream, self._who = connection, stream, who
        self._sql = queries.load("landing")
        self._brokers = client.admin()
        self._positions = position.read_positions(connection, stream.reader, topic)
        if not self._positions:
            raise nothing_landed(stream)
        self._topic = topics.describe(topic, self._brokers)
        _require_same(stream, self._topic, self._positions.values())
        self._incarnation = incarnation.number(connection, stream.name, self._topic)
        self._claims = self._read_claims()
        connection.rollback()
        self._partitions = Partitions(stream)
        may_be_filtered = stream.where is not None or any(
            claim.filtered for claims in self._claims.values() for claim in claims
        )
        self._deletion = RowDeletion(connection, stream, self._incarnation, lists=may_be_filtered)
        self._state = State(stream, relation.copied(stream)) if stream.current else None

    def _read_claims(self) -> dict[int, list[Claim]]:
        """The ledger's entries by partition."""
        claims: dict[int, list[Claim]] = {}
        for partition, *entry in self._sql.read_claims(
            self._connection, stream=self._stream.name, incarnation=self._incarnation
        ):
            claims.setdefault(partition, []).append(Claim(*entry))
        return claims

    def spans(self, wanted: Wanted) -> list[OffsetSpan]:
        """The spans that are wanted, have landed and that Kafka still has."""
        first_landed = {partition: claims[0].first for partition, claims in self._claims.items()}
        return Selection(self._stream, self._topic, self._positions, first_landed).spans(wanted)

    def replay(self, span: OffsetSpan, report: Callable[[Replayed], None]) -> Replayed:
        """Lands a span again, range by range."""
        done = Replayed(span)
        preparer = Preparer(self._stream, self._incarnation, {span.partition: span.first}, topic=self._topic.name)
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
        self._sql.forget_unfilled(
            self._connection, stream=self._stream.name, incarnation=self._incarnation, topic=self._topic.name
        )
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
        if self._state is not None:
            self._state.expect_removals(connection)
        # Without a row are dead letters, skipped records, and those that were filtered, which the ledger only counts.
        expected = sum(
            code != SKIPPED and offset not in kept
            for offset, code in zip(offsets.tolist(), prepared.classified.codes.tolist(), strict=True)
        )
        deleted = self._deletion.delete(span | {"missing": missing}, prepared.spans, expected)
        if find_refused:
            prepared = refusals.copy_accepted(connection, preparer, prepared)
        else:
            prepared.rows.send(connection, f"{table.SCHEMA}.{stream}", preparer.copied)
        if self._state is not None and prepared.latest is not None:
            self._state.replace(connection, prepared.latest)
        state.require_as_defined(connection, self._stream)
        dead_letters.keep(
            connection, self._incarnation, prepared.letter_partitions, prepared.letter_offsets, prepared.letters
        )
        # Maintenance may have merged ledger entries since the replay began. This lock prevents more merges.
        self._sql.hold_ledger(connection, stream=stream)
        changes = LedgerChanges(prepared, kept, deleted, self._read_claims()[partition])
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
            filtered=after[Disposition.FILTERED],
            more_landed=after[Disposition.LANDED] - before[Disposition.LANDED],
            more_dead_letters=after[Disposition.DEAD_LETTER] - before[Disposition.DEAD_LETTER],
            more_quarantined=after[Disposition.QUARANTINED] - before[Disposition.QUARANTINED],
            more_filtered=after[Disposition.FILTERED] - before[Disposition.FILTERED],
            more_skipped=changes.more_skipped(),
            replayed_by=self._who,
        )
        self._sql.close_unfilled(connection, **span)
        return before, after

    def _require_landed(
        self, prepared: PreparedBatch, changes: LedgerChanges, partition: int, first: int, until: int
    ) -> None:
        """Refuses a range of which no record can be landed any more, although some had landed.

        Also refuses to replace rows by dead letters whose schema is unknown or does not fit the definition.
        """
        before, after = changes.before(), changes.after()
        had_landed = before[Disposition.LANDED] - (after[Disposition.FILTERED] - before[Disposition.FILTERED])
        lost = had_landed - after[Disposition.LANDED]
        if prepared.stops and lost > 0:
            _, offset, reason = prepared.stops[0]
            raise UserError(
                f"The replay of stream {self._stream.name!r} would replace rows by dead letters in partition "
                f"{partition}, offset {offset}: {reason}. The rows of offsets {first} to {until - 1} are unchanged.",
                "Register the schema again or correct the definition, and run the command again.",
                code=reason.code,
            )
        if len(prepared.rows) or len(prepared.letters) < MIN_REJECTED or not before[Disposition.LANDED]:
            return
        if after[Disposition.FILTERED]:
            return
        raise UserError(
            f"None of {len(prepared.letters):,} records of stream {self._stream.name!r} in partition {partition}, "
            f"offsets {first} to {until - 1}, can be landed with its present definition. Their rows are unchanged. "
            f"The first record: {prepared.letters[0].reason}.",
            "Correct the definition, and run the command again.",
            code=Code.ALL_RECORDS_REJECTED,
        )


def _require_same(stream: Stream, topic: Topic, stored_positions: Iterable[StoredPosition]) -> None:
    for stored in stored_positions:
        if stored.topic_id != topic.id:
            raise TopicRecreated(stream.reader, topic.name, stored.topic_id, topic.id)
