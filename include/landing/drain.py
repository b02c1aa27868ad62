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
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from include.errors import UserError
from include.kafka import client, position, reader, topics
from include.kafka.position import Position
from include.kafka.position_errors import Fenced, PositionError, TopicRecreated
from include.kafka.reader import Batch, Reader
from include.kafka.topics import Topic
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
from include.streams.definition import Stream
from include.warehouse import queries
from include.warehouse.connection import connect

if TYPE_CHECKING:
    from confluent_kafka import Consumer
    from confluent_kafka.admin import AdminClient
    from psycopg2.extensions import connection as Connection

    from include.landing.batch import PendingChanges, PreparedBatch

log = logging.getLogger(__name__)

MAX_RECORDS = 20_000
# The threshold of the garbage collector while a drain runs; see _rare_collections.
_COLLECT_AFTER = 200_000
# The longest time that a record waits for others to share its transaction.
GATHER_S = 0.05
SHOW_EVERY_S = 2.0
CHECK_EVERY_S = 3.0
RETRY_S = 1.0
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
        brokers, topic = transaction_retry.until(deadline, lambda: _describe(stream))
        partitions = [partition for partition in topic.partitions if partition % stream.drains == shard]
        if not partitions:
            return Drained(reason="there are more drains than partitions")
        consumer = reader.connected(group_id=stream.reader, **_CONSUMER)
        connection, claim, pending = transaction_retry.until(deadline, lambda: _claim(stream, topic, partitions, owner))
        failed = [failure.task for failure in failures.of(connection, stream.name)]
        connection.rollback()
        failed = [task for task in failed if task in (failures.WAIT, failures.drain_of(shard))]
        return Drain(stream, topic, connection, claim, brokers, consumer, pending, failed).run(deadline, detach)
    except PositionError as error:
        raise recovery.with_remedy(error, stream) from error


class Drain:
    """One window of one shard of a stream, with its partitions claimed. It closes the connection when it has run.

    Args:
        brokers, consumer: The clients to use.
        pending: Changes that the table has not followed yet, because it was locked.
        failed: The tasks that are recorded as failing. A batch that lands, or a window that ends well, clears them.
    """

    def __init__(
        self,
        stream: Stream,
        topic: Topic,
        connection: Connection,
        claim: Mapping[int, Position],
        brokers: AdminClient,
        consumer: Consumer,
        pending: PendingChanges | None = None,
        failed: Iterable[str] = (),
    ) -> None:
        from include.landing.batch import NO_CHANGES, Preparer

        self._stream = stream
        self._topic = topic
        self._connection = connection
        self._claim = dict(claim)
        self._incarnation = incarnation.number(connection, topic)
        self._accepted_bad = dict(
            queries.load("landing").read_accepted_bad(connection, stream=stream.name, incarnation=self._incarnation)
        )
        connection.rollback()
        starts = {partition: position.next_offset for partition, position in claim.items()}
        self._failed = list(failed)
        self._pending = pending or NO_CHANGES
        self._nulls_are_allowed = not self._pending.nulls
        self._preparer = Preparer(stream, self._incarnation, starts, self._pending)
        self._state = State(stream, self._preparer.copied) if stream.current else None
        self._brokers = brokers
        self._reader = Reader(
            stream.topic,
            starts,
            leader_epochs={partition: position.leader_epoch for partition, position in claim.items()},
            consumer=consumer,
        )
        self._partitions = Partitions(stream)
        self._stopping = threading.Event()
        self._grown = threading.Event()
        # Why a batch cannot be decoded yet.
        self._unavailable: RegistryUnavailable | None = None
        self._preparing = False
        self._drained = Drained()
        self._shown_at = self._checked_at = time.monotonic()

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
            quiet_until = arrived_at + (TAIL_QUIET_S if tail else self._stream.quiet_s)
            if now > quiet_until:
                return f"no records arrived for {self._stream.quiet}"
            if self._grown.is_set():
                return "the topic has new partitions"
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
            batch = self._reader.batch(MAX_RECORDS, GATHER_S)
        except PositionError:
            # If the topic was recreated, that is the cause: its log has other offsets.
            self._confirm(topics.request_description(self._topic.name, self._brokers))
            raise
        if batch.next_offsets:
            # If the topic has the same id after the read, it had it before.
            description = topics.request_description(self._topic.name, self._brokers)
            prepared = self._prepare(batch)
            self._confirm(description)
            return [] if self._stopping.is_set() else prepared
        if time.monotonic() - self._checked_at > CHECK_EVERY_S:
            self._confirm(topics.request_description(self._topic.name, self._brokers))
        return []

    def _prepare(self, batch: Batch) -> list[PreparedBatch]:
        """Prepares a batch. Waits for a schema registry that does not answer; then no record is lost or skipped."""
        wait_s = RETRY_S
        self._preparing = True
        while not self._stopping.is_set():
            try:
                prepared = self._preparer.pieces(batch)
            except RegistryUnavailable as error:
                log.warning("Trying again in %.0f s: %s", wait_s, error.what)
                self._unavailable = error
                self._stopping.wait(wait_s)
                wait_s = min(2 * wait_s, MAX_REGISTRY_WAIT_S)
            else:
                self._unavailable, self._preparing = None, False
                return prepared
        return []

    def _confirm(self, description: Callable[[], Topic]) -> None:
        """Raises TopicRecreated unless the topic is the one that was claimed. Waits for brokers that do not answer."""
        while not self._stopping.is_set():
            try:
                found = description()
            except UserError as error:
                if not transaction_retry.is_transient(error):
                    raise
                log.warning("Trying again: %s", error.what)
                self._stopping.wait(RETRY_S)
                description = topics.request_description(self._topic.name, self._brokers)
                continue
            if found.id != self._topic.id:
                raise TopicRecreated(self._stream.reader, self._topic.name, self._topic.id, found.id)
            if len(found.partitions) > len(self._topic.partitions):
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
        connection = self._connection
        self._require_accepted_records(batch)
        if batch.classified.has_nulls and not self._nulls_are_allowed:
            table.bring_up_to_date(connection, self._stream)
            self._nulls_are_allowed = True
        self._partitions.ensure(connection, batch.spans)
        claim = position.advance(connection, self._stream.reader, self._stream.topic, self._claim, batch.reached)
        if find_refused:
            batch = refusals.copy_accepted(connection, self._preparer, batch)
            self._require_accepted_records(batch)
        else:
            self._copy(batch)
        if self._state is not None and batch.latest is not None:
            self._state.write(connection, batch.latest)
        dead_letters.keep(connection, self._incarnation, batch.letter_partitions, batch.letter_offsets, batch.letters)
        ledger.add(connection, self._stream.name, self._incarnation, claim, batch.entries)
        ledger.mark_unfilled(
            connection, self._stream.name, self._incarnation, batch.classified.unfilled, self._pending.columns
        )
        self._forget_failures()
        connection.commit()
        self._failed = []
        self._count(claim, batch)

    def _forget_failures(self) -> None:
        for task in self._failed:
            failures.forget(self._connection, self._stream.name, task)

    def _copy(self, batch: PreparedBatch) -> None:
        batch.rows.send(self._connection, f"{table.SCHEMA}.{self._stream.name}", self._preparer.copied)

    def _require_accepted_records(self, batch: PreparedBatch) -> None:
        """Raises an error if the stream must not continue past records that a user has not accepted as dead letters.

        Raises:
            SchemaStops: A record names a schema that is unknown, or that does not fit the definition.
            AllRecordsRejected: None of many records can be landed.
        """
        for partition, offset, reason in batch.stops:
            if offset >= self._accepted_bad.get(partition, 0):
                raise SchemaStops(self._stream.name, partition, offset, reason)
        if len(batch.rows) or len(batch.letters) < MIN_REJECTED or any(entry.filtered for entry in batch.entries):
            return
        unaccepted = [
            (partition, offset, letter)
            for partition, offset, letter in zip(
                batch.letter_partitions, batch.letter_offsets, batch.letters, strict=True
            )
            if offset >= self._accepted_bad.get(partition, 0)
        ]
        if len(unaccepted) >= MIN_REJECTED:
            partition, offset, letter = unaccepted[0]
            raise AllRecordsRejected(self._stream.name, len(unaccepted), partition, offset, letter.reason)

    def _has_landed(self, batch: PreparedBatch) -> bool:
        """Connects again, and reads from the stored positions whether the batch's transaction was committed."""
        self._connection = connect(f"millrace land {self._stream.name}", options=_SESSION)
        found = position.resume(self._connection, self._stream.reader, self._stream.topic, self._claim)
        if any(found[partition].next_offset != end for partition, (end, _) in batch.reached.items()):
            return False
        self._count(found, batch)
        return True

    def _count(self, claim: Mapping[int, Position], batch: PreparedBatch) -> None:
        self._claim = dict(claim)
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
            self._reader.show({partition: position.next_offset for partition, position in self._claim.items()})


def _describe(stream: Stream) -> tuple[AdminClient, Topic]:
    """The topic, and the client that described it."""
    brokers = client.admin()
    return brokers, topics.describe(stream.topic, brokers)


def _claim(
    stream: Stream, topic: Topic, partitions: list[int], owner: str
) -> tuple[Connection, dict[int, Position], PendingChanges]:
    """Claims the partitions and brings the table up to date. Returns the connection that owns the claim."""
    connection = connect(f"millrace land {stream.name}", options=_SESSION)
    try:
        if stream.current and any(change.fences for change in table.find_changes(connection, stream)):
            # A state that is new, or kept in a new way, fences every drain, so it comes before the claim.
            _log_changes(stream, table.bring_up_to_date(connection, stream))
        claim = position.claim(connection, stream.reader, topic, partitions, owner)
        pending = _follow_definition(connection, stream)
    except BaseException:
        connection.close()
        raise
    return connection, claim, pending


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
