"""The drain: moves records from a stream's topic to its table for one window, batch by batch, each in one transaction.

A batch's transaction first moves the positions, by compare-and-set, so that of two drains of one partition only the one
that claimed it last can write. Then it writes the rows, the dead letters and the ledger. While one batch is written,
another thread reads, decodes and formats the next.

Transient errors (server down, disk full, lock timeout) are retried within the window. After a COMMIT whose outcome is
unknown, the stored position shows whether it was applied.
"""

from __future__ import annotations

import gc
import logging
import math
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from include.errors import UserError
from include.kafka import backlog, client, position, reader, topics
from include.kafka.position import Position
from include.kafka.position_errors import Fenced, PositionError, TopicRecreated
from include.kafka.reader import Batch
from include.kafka.topics import Topic
from include.kafka.topics_reader import TopicsReader
from include.landing import (
    dead_letters,
    failures,
    incarnation,
    ledger,
    locks,
    recovery,
    refusals,
    table,
    transaction_retry,
)
from include.landing.partitions import Partitions
from include.landing.prefetch import Prefetcher
from include.landing.recovery import MIN_REJECTED, AllRecordsRejected, SchemaStops
from include.landing.state import State
from include.landing.transaction_retry import TransactionRetry
from include.schemas.registry import RegistryUnavailable
from include.streams.definition import KAFKA_TOPIC, Stream
from include.warehouse import queries
from include.warehouse.connection import connect, connected

if TYPE_CHECKING:
    from confluent_kafka import Consumer
    from confluent_kafka.admin import AdminClient
    from psycopg2.extensions import connection as Connection

    from include.landing.batch import PendingChanges, PreparedBatch, Preparer
    from include.landing.decoder import EventDecoder

log = logging.getLogger(__name__)

MAX_RECORDS = 20_000
# The threshold of the garbage collector while a drain runs; see _rare_collections.
_COLLECT_AFTER = 200_000
# The longest time that a record waits for others to share its transaction.
GATHER_S = 0.05
SHOW_EVERY_S = 2.0
CHECK_EVERY_S = 3.0
RETRY_S = 1.0
# How long the search for new topics waits for the brokers.
SEARCH_S = 5.0
# The longest time between two tries while the schema registry does not answer; the first is RETRY_S.
MAX_REGISTRY_WAIT_S = 15.0
# In the tail of a window, a drain ends when no records arrive for this time.
TAIL_QUIET_S = 3.0
# A transaction that is open for longer belongs to a stopped process. The server ends it, which frees its locks.
_SESSION = "-c timezone=UTC -c statement_timeout=60s -c idle_in_transaction_session_timeout=60s"
# Up to 8 MB are fetched ahead: one or two batches. A fetch returns as soon as there are records.
_CONSUMER = {
    "fetch_wait_max_ms": 50,
    "fetch_queue_backoff_ms": 1,
    "queued_min_messages": 100_000,
    "queued_max_messages_kbytes": 8_192,
}

WINDOW_OVER = "the window is over"


@dataclass
class Drained:
    """The result of one window.

    Attributes:
        landed, dead_letters, quarantined, filtered: Numbers of records by their disposition.
        batches: Number of transactions.
        reason: Why the window ended.
    """

    landed: int = 0
    dead_letters: int = 0
    quarantined: int = 0
    batches: int = 0
    reason: str = WINDOW_OVER
    filtered: int = 0


def drain(stream: Stream, owner: str, shard: int = 0, detach: Callable[[Drained], None] | None = None) -> Drained:
    """Lands the records past the positions of this shard's partitions, until the window is over or the topic is quiet.

    It claims the partitions only once it is ready to read and write; until then, the previous drain keeps working.

    Args:
        owner: Who drains, for display.
        shard: The number of this drain among the stream's ``drains``. It drains every partition whose number leaves
            this remainder.
        detach: See ``Drain.run``.

    Raises:
        PositionError: Reading on would lose or repeat records; a user must decide.
        Fenced: Another drain has taken over. Nothing of this one's last batch was written.
        UserError: Kafka or PostgreSQL was still down at the end of the window.
    """
    try:
        return _drain(stream, owner, shard, detach)
    except Fenced:
        raise
    except Exception as error:
        failures.note(stream.name, failures.drain_of(shard), error)
        raise


def _drain(stream: Stream, owner: str, shard: int, detach: Callable[[Drained], None] | None) -> Drained:
    deadline = time.monotonic() + stream.window_s
    try:
        brokers, found = transaction_retry.until(deadline, lambda: _describe(stream))
        shares = {topic: share for topic in found if (share := _share(stream, topic, shard))}
        if not shares:
            return Drained(reason="there are more drains than partitions" if found else "no topic exists")
        consumer = reader.connected(group_id=stream.reader, **_CONSUMER)
        connection, claims, pending = transaction_retry.until(deadline, lambda: _claim(stream, shares, owner))
        failed = [failure.task for failure in failures.of(connection, stream.name)]
        connection.rollback()
        failed = [task for task in failed if task in (failures.WAIT, failures.drain_of(shard))]
        known = [topic.name for topic in found]
        return Drain(stream, claims, connection, brokers, consumer, pending, failed, known).run(deadline, detach)
    except PositionError as error:
        raise recovery.with_remedy(error, stream) from error


@dataclass
class _Source:
    """One of the topics that a drain reads.

    Attributes:
        topic: The topic as it was when its partitions were claimed.
        claim: The positions of its partitions.
        incarnation: Its number.
        accepted_bad: For each partition, the offset below which all records may be bad.
        preparer: Prepares its batches.
    """

    topic: Topic
    claim: dict[int, Position]
    incarnation: int
    accepted_bad: Mapping[int, int]
    preparer: Preparer


class Drain:
    """One window of one shard of a stream, with its partitions claimed. It closes the connection when it has run.

    Each topic has its own batches and transactions.

    Args:
        claims: The claimed positions of each topic.
        brokers, consumer: The clients to use.
        pending: Changes that the table has not followed yet, because it was locked.
        failed: The tasks that are recorded as failing. A batch that lands, or a window that ends well, clears them.
        known: The stream's topics when the drain began, with those of other shards.
    """

    def __init__(
        self,
        stream: Stream,
        claims: Mapping[Topic, Mapping[int, Position]],
        connection: Connection,
        brokers: AdminClient,
        consumer: Consumer,
        pending: PendingChanges | None = None,
        failed: Iterable[str] = (),
        known: Iterable[str] = (),
    ) -> None:
        from include.landing import decoders
        from include.landing.batch import NO_CHANGES

        self._stream = stream
        self._connection = connection
        self._failed = list(failed)
        self._pending = pending or NO_CHANGES
        self._nulls_are_allowed = not self._pending.nulls
        # The schemas of one topic are often those of the others, too.
        decoder = decoders.of(stream)
        self._sources = {topic.name: self._source(topic, claim, decoder) for topic, claim in claims.items()}
        self._known = {*self._sources, *known}
        copied = next(iter(self._sources.values())).preparer.copied
        self._state = State(stream, copied) if stream.current else None
        self._brokers = brokers
        self._reader = TopicsReader({name: source.claim for name, source in self._sources.items()}, consumer)
        self._partitions = Partitions(stream)
        self._stopping = threading.Event()
        self._grown = threading.Event()
        # Why a batch cannot be decoded yet.
        self._unavailable: RegistryUnavailable | None = None
        self._preparing, self._prepared_at = False, -math.inf
        self._drained = Drained()
        self._shown_at = self._checked_at = self._searched_at = time.monotonic()

    def _source(self, topic: Topic, claim: Mapping[int, Position], decoder: EventDecoder) -> _Source:
        from include.landing.batch import Preparer

        number = incarnation.number(self._connection, self._stream.name, topic)
        accepted = queries.load("landing").read_accepted_bad(
            self._connection, stream=self._stream.name, incarnation=number
        )
        accepted_bad = dict(accepted)
        self._connection.rollback()
        starts = {partition: position.next_offset for partition, position in claim.items()}
        preparer = Preparer(self._stream, number, starts, self._pending, topic.name, decoder)
        return _Source(topic, dict(claim), number, accepted_bad, preparer)

    def run(self, deadline: float, detach: Callable[[Drained], None] | None = None) -> Drained:
        """Drains until ``deadline`` of the monotonic clock, or until the topic is quiet.

        Args:
            detach: Called at ``deadline``, unless the topic was quiet before. The drain then continues until another
                one takes over (Fenced), the topic is quiet, or an error occurs.
        """
        try:
            with _rare_collections(), Prefetcher(self._batches(), self._stopping) as ready:
                ended = self._drain(ready, deadline, deadline)
                self._drained.reason = ended or WINDOW_OVER
                if not self._connection.closed:
                    self._forget_failures()
                    self._connection.commit()
                if detach is not None and not ended:
                    detach(self._drained)
                    self._drain(ready, math.inf, deadline, tail=True)
        finally:
            self._connection.close()
        return self._drained

    def _drain(self, ready: Prefetcher[PreparedBatch], until: float, deadline: float, tail: bool = False) -> str | None:
        """Lands one batch after the other. Returns why it ended before ``until``, or None at ``until``.

        Args:
            deadline: Until when a batch is tried again after a transient error.
            tail: Whether the window is over.
        """
        arrived_at = time.monotonic()
        while (now := time.monotonic()) < until:
            if self._preparing and not (tail and self._unavailable):
                # Records have arrived, and none is ready yet: the drain reads schemas, or waits for their registry.
                arrived_at = now
            # A batch that was prepared is handed over soon.
            quiet_until = max(arrived_at, self._prepared_at) + (TAIL_QUIET_S if tail else self._stream.quiet_s)
            if now > quiet_until:
                return f"no records arrived for {self._stream.quiet}"
            if self._grown.is_set():
                several = self._stream.topics is not None
                return "there are new topics or partitions" if several else "the topic has new partitions"
            if (batch := ready.get(min(1.0, until - now, quiet_until - now))) is not None:
                self._write(batch, deadline)
                arrived_at = time.monotonic()
            del batch
        if (unavailable := self._unavailable) is not None:
            raise unavailable
        return None

    def _batches(self) -> Iterator[PreparedBatch]:
        with self._reader:
            while not self._stopping.is_set():
                # No local variable keeps a batch alive while the next one is read.
                yield from self._read()
                self._show()

    def _read(self) -> list[PreparedBatch]:
        """The next batch, prepared, in one or more pieces; empty when no records arrived."""
        try:
            batches = self._reader.batches(MAX_RECORDS, GATHER_S)
        except PositionError:
            # If the topic was recreated, that is the cause: its log has other offsets.
            self._confirm(list(self._sources))
            raise
        if self._stream.topics is not None and time.monotonic() - self._searched_at > CHECK_EVERY_S:
            self._search()
        moved = {name: batch for name, batch in batches.items() if batch.next_offsets}
        if moved:
            # If the topic has the same id after the read, it had it before.
            descriptions = topics.request_descriptions(list(moved), self._brokers)
            prepared = [each for name, batch in moved.items() for each in self._prepare(self._sources[name], batch)]
            self._confirm(list(moved), descriptions)
            return [] if self._stopping.is_set() else prepared
        if time.monotonic() - self._checked_at > CHECK_EVERY_S:
            self._confirm(list(self._sources))
        return []

    def _search(self) -> None:
        """Ends the drain if there is a topic of the stream that did not exist when it began; the next one reads it."""
        self._searched_at = time.monotonic()
        try:
            found = self._stream.topic_choice.of(topics.names_of(self._brokers, SEARCH_S))
        except UserError as error:
            log.warning("Searching for new topics again: %s", error.what)
            return
        if not self._known.issuperset(found):
            self._grown.set()

    def _prepare(self, source: _Source, batch: Batch) -> list[PreparedBatch]:
        """Prepares a batch. Waits for a schema registry that does not answer; then no record is lost or skipped."""
        wait_s = RETRY_S
        self._preparing = True
        while not self._stopping.is_set():
            try:
                prepared = source.preparer.pieces(batch)
            except RegistryUnavailable as error:
                log.warning("Trying again in %.0f s: %s", wait_s, error.what)
                self._unavailable = error
                self._stopping.wait(wait_s)
                wait_s = min(2 * wait_s, MAX_REGISTRY_WAIT_S)
            else:
                self._prepared_at = time.monotonic()
                self._unavailable, self._preparing = None, False
                return prepared
        return []

    def _confirm(self, names: list[str], descriptions: Callable[[], list[Topic]] | None = None) -> None:
        """Raises TopicRecreated unless the topics are those that were claimed. Waits for brokers that do not answer.

        Args:
            descriptions: A request that was sent, if one was.
        """
        while not self._stopping.is_set():
            try:
                found = (descriptions or topics.request_descriptions(names, self._brokers))()
            except UserError as error:
                if not transaction_retry.is_transient(error):
                    raise
                log.warning("Trying again: %s", error.what)
                self._stopping.wait(RETRY_S)
                descriptions = None
                continue
            for topic in found:
                claimed = self._sources[topic.name].topic
                if topic.id != claimed.id:
                    raise TopicRecreated(self._stream.reader, topic.name, claimed.id, topic.id)
                if len(topic.partitions) > len(claimed.partitions):
                    self._grown.set()
            self._checked_at = time.monotonic()
            return

    def _write(self, batch: PreparedBatch, deadline: float) -> None:
        """Lands a batch, with the retries of ``TransactionRetry``. Rows that PostgreSQL refuses become dead letters."""

        def attempt(find_refused: bool) -> None:
            if not (self._connection.closed and self._has_landed(batch)):
                self._land(batch, find_refused)

        TransactionRetry(self._partitions, deadline).run(attempt, self._roll_back)

    def _land(self, batch: PreparedBatch, find_refused: bool) -> None:
        """Lands a batch in one transaction, after one that creates the partitions it needs.

        Args:
            find_refused: PostgreSQL has refused a row of the batch: find all such rows first.
        """
        connection, source = self._connection, self._sources[batch.topic]
        self._require_accepted_records(batch)
        if batch.classified.has_nulls and not self._nulls_are_allowed:
            table.bring_up_to_date(connection, self._stream)
            self._nulls_are_allowed = True
        self._partitions.ensure(connection, batch.spans)
        claim = position.advance(connection, self._stream.reader, batch.topic, source.claim, batch.reached)
        if find_refused:
            batch = refusals.copy_accepted(connection, source.preparer, batch)
            self._require_accepted_records(batch)
        else:
            self._copy(batch)
        if self._state is not None and batch.latest is not None:
            self._state.write(connection, batch.latest)
        dead_letters.keep(connection, source.incarnation, batch.letter_partitions, batch.letter_offsets, batch.letters)
        ledger.add(connection, self._stream.name, source.incarnation, claim, batch.entries)
        ledger.mark_unfilled(
            connection, self._stream.name, source.incarnation, batch.classified.unfilled, self._pending.columns
        )
        self._forget_failures()
        connection.commit()
        self._failed = []
        source.claim = claim
        self._count(batch)

    def _forget_failures(self) -> None:
        for task in self._failed:
            failures.forget(self._connection, self._stream.name, task)

    def _copy(self, batch: PreparedBatch) -> None:
        batch.rows.send(
            self._connection, f"{table.SCHEMA}.{self._stream.name}", self._sources[batch.topic].preparer.copied
        )

    def _require_accepted_records(self, batch: PreparedBatch) -> None:
        """Raises an error if the stream must not continue past records that a user has not accepted as dead letters.

        Raises:
            SchemaStops: A record names a schema that is unknown or does not fit, or truncates the source table.
            AllRecordsRejected: None of many records can be landed.
        """
        accepted_bad = self._sources[batch.topic].accepted_bad
        for partition, offset, reason in batch.stops:
            if offset >= accepted_bad.get(partition, 0):
                raise SchemaStops(self._stream.name, partition, offset, reason)
        if len(batch.rows) or len(batch.letters) < MIN_REJECTED or any(entry.filtered for entry in batch.entries):
            return
        unaccepted = [
            (partition, offset, letter)
            for partition, offset, letter in zip(
                batch.letter_partitions, batch.letter_offsets, batch.letters, strict=True
            )
            if offset >= accepted_bad.get(partition, 0)
        ]
        if len(unaccepted) >= MIN_REJECTED:
            partition, offset, letter = unaccepted[0]
            raise AllRecordsRejected(self._stream.name, len(unaccepted), partition, offset, letter.reason)

    def _has_landed(self, batch: PreparedBatch) -> bool:
        """Connects again, and reads from the stored positions whether the batch's transaction was committed."""
        self._connection = connect(f"millrace land {self._stream.name}", options=_SESSION)
        found = {
            name: position.resume(self._connection, self._stream.reader, name, source.claim)
            for name, source in self._sources.items()
        }
        stored = found[batch.topic]
        if any(stored[partition].next_offset != end for partition, (end, _) in batch.reached.items()):
            return False
        self._sources[batch.topic].claim = stored
        self._count(batch)
        return True

    def _count(self, batch: PreparedBatch) -> None:
        self._drained.batches += 1
        for entry in batch.entries:
            self._drained.landed += entry.landed
            self._drained.dead_letters += entry.dead_letters
            self._drained.quarantined += entry.quarantined
            self._drained.filtered += entry.filtered

    def _roll_back(self) -> None:
        import psycopg2

        if not self._connection.closed:
            try:
                self._connection.rollback()
            except psycopg2.Error:
                self._connection.close()

    def _show(self) -> None:
        if (now := time.monotonic()) - self._shown_at > SHOW_EVERY_S:
            self._shown_at = now
            for name, source in self._sources.items():
                self._reader.show(name, {p: position.next_offset for p, position in source.claim.items()})


def _describe(stream: Stream) -> tuple[AdminClient, list[Topic]]:
    """The topics of the stream, and the client that described them."""
    brokers = client.admin()
    if stream.topics is None:
        return brokers, [topics.describe(stream.topic, brokers)]
    with connected("millrace land") as connection:
        names = backlog.of_choice(connection, stream.reader, stream.topic_choice, partial(topics.names_of, brokers))
    found = []
    for described in topics.describe_all(names, brokers).values():
        if isinstance(described, UserError):
            raise described
        found.append(described)
    return brokers, found


def _share(stream: Stream, topic: Topic, shard: int) -> list[int]:
    """The partitions of a topic that a shard drains. If there are several topics, their first partitions are shared."""
    first = 0 if stream.topics is None else zlib.crc32(topic.name.encode())
    return [partition for partition in topic.partitions if (first + partition) % stream.drains == shard]


def _claim(
    stream: Stream, shares: Mapping[Topic, list[int]], owner: str
) -> tuple[Connection, dict[Topic, dict[int, Position]], PendingChanges]:
    """Claims the partitions and brings the table up to date. Returns the connection that owns the claim."""
    connection = connect(f"millrace land {stream.name}", options=_SESSION)
    try:
        if stream.current and any(change.fences for change in table.find_changes(connection, stream)):
            # A state that is new, or kept in a new way, fences every drain, so it comes before the claim.
            _log_changes(stream, table.bring_up_to_date(connection, stream))
        claims = {
            topic: position.claim(connection, stream.reader, topic, share, owner) for topic, share in shares.items()
        }
        pending = _follow_definition(connection, stream)
    except BaseException:
        connection.close()
        raise
    return connection, claims, pending


def _follow_definition(connection: Connection, stream: Stream) -> PendingChanges:
    """Brings the table up to date. If it is locked, returns the changes without which rows can still land.

    Raises:
        Locked: The table is locked, and no row can land before it is changed.
    """
    from include.landing.batch import NO_CHANGES, PendingChanges

    try:
        _log_changes(stream, table.bring_up_to_date(connection, stream))
        return NO_CHANGES
    except locks.Locked as locked:
        needed = table.find_changes(connection, stream)
        fields = {field.name for field in stream.fields}
        nulls = {change.allows_null for change in needed if change.allows_null}
        added = {change.adds_column for change in needed if change.adds_column}
        decides = {stream.deletion.field} & added if stream.deletion is not None else set()
        if KAFKA_TOPIC in added:
            decides.add(KAFKA_TOPIC)
        if any(change.creates_table or change.fences for change in needed) or not nulls <= fields or decides:
            raise
        if added:
            log.warning(
                "%s Until then, records land without %s; maintenance fills it later.",
                locked.what,
                ", ".join(sorted(added)),
            )
        return PendingChanges(frozenset(added), frozenset(nulls))


def _log_changes(stream: Stream, changes: Iterable[str]) -> None:
    for change in changes:
        log.info("Stream %s: %s", stream.name, change)


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Lets the garbage collector run once for many batches, within a ``with`` block.

    A batch has up to 20,000 events without reference cycles. With the default threshold of 700 new objects, searching
    them for cycles takes half of the time of reading and decoding. To see the gain, compare ``./millrace bench landing
    --peers ours`` with and without this.
    """
    usual = gc.get_threshold()
    gc.set_threshold(_COLLECT_AFTER, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)
