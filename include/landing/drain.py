"""The drain: a stream's topic into its table for one window of time, batch by batch, each in one transaction.

A batch's transaction moves the positions first, by compare-and-set, so that of two drains of one partition only the one
that claimed it last can write; then come the rows, the records kept aside and the ledger. While one batch is written
the next is read, decoded and formatted in another thread.

What passes (a server that is away, a full disk, a lock) is waited for within the window; the position tells whether a
transaction whose outcome is unknown took place.
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
from typing import TYPE_CHECKING, TypeVar

from include.errors import NonRetryableError, UserError
from include.kafka import client, position, reader, topics
from include.kafka.position import Position
from include.kafka.position_errors import Fenced, PositionError, TopicRecreated
from include.kafka.reader import Reader
from include.kafka.topics import Topic
from include.landing import dead_letters, failures, incarnation, ledger, locks, recovery, refusals, table
from include.landing.partitions import Partitions
from include.landing.prefetch import Prefetcher
from include.landing.recovery import AllRecordsRejected
from include.streams.definition import Stream
from include.warehouse import queries
from include.warehouse.connection import connect

if TYPE_CHECKING:
    import psycopg2
    from confluent_kafka import Consumer
    from confluent_kafka.admin import AdminClient
    from psycopg2.extensions import connection as Connection

    from include.landing.batch import Lacking, Prepared

T = TypeVar("T")
log = logging.getLogger(__name__)

MAX_RECORDS = 20_000
_COLLECT_AFTER = 200_000
# The longest that a record waits for others to share its transaction.
GATHER_S = 0.05
SHOW_EVERY_S = 2.0
CHECK_EVERY_S = 3.0
PATIENCE_S = 1.0
# What has passed at once, as a connection that was cut, is not waited for so long.
FIRST_PATIENCE_S = 0.1
# Behind its window a drain waits no longer than this for more to come.
TAIL_QUIET_S = 3.0
# So many records at once of which not one can be landed are taken for a wrong definition, not for bad records.
MIN_REJECTED = 100
# No transaction of a drain is ever idle or long; one that is belongs to a stopped process and must let go.
_SESSION = "-c timezone=UTC -c statement_timeout=60s -c idle_in_transaction_session_timeout=60s"
# Fetches of some megabytes, up to 8 MB held ready: a batch or two. A fetch answers as soon as there is anything.
_CONSUMER = {
    "fetch_wait_max_ms": 50,
    "fetch_queue_backoff_ms": 1,
    "queued_min_messages": 100_000,
    "queued_max_messages_kbytes": 8_192,
}

OVER = "the window is over"


@dataclass
class Drained:
    """What one window brought.

    Attributes:
        landed, dead_letters, quarantined: Records by their fate.
        batches: Transactions.
        reason: Why the window ended.
    """

    landed: int = 0
    dead_letters: int = 0
    quarantined: int = 0
    batches: int = 0
    reason: str = OVER


def drain(stream: Stream, owner: str, share: int = 0, leave: Callable[[Drained], None] | None = None) -> Drained:
    """Lands what lies past the positions of this share's partitions until the window is over or the topic stays quiet.

    Nobody is claimed from before this one is ready to read and write: a former drain goes on until then.

    Args:
        owner: Who does it, shown to people.
        share: Which of the stream's ``drains``; it owns the partitions whose numbers leave this rest.
        leave: See ``Drain.run``.

    Raises:
        PositionError: Going on would lose or repeat records; a person must choose.
        Fenced: Another drain has taken over; nothing of this one's last batch was written.
        UserError: Kafka or PostgreSQL were still away at the window's end.
    """
    try:
        return _drain(stream, owner, share, leave)
    except Fenced:
        raise
    except Exception as error:
        failures.note(stream.name, failures.drain_of(share), error)
        raise


def _drain(stream: Stream, owner: str, share: int, leave: Callable[[Drained], None] | None) -> Drained:
    deadline = time.monotonic() + stream.window_s
    try:
        brokers, topic = _patiently(lambda: _describe(stream), deadline)
        partitions = [partition for partition in topic.partitions if partition % stream.drains == share]
        if not partitions:
            return Drained(reason="there are more drains than partitions")
        consumer = reader.connected(group_id=stream.reader, **_CONSUMER)
        connection, claim, lacking = _patiently(lambda: _claim(stream, topic, partitions, owner), deadline)
        failed = [failure.task for failure in failures.of(connection, stream.name)]
        connection.rollback()
        failed = [task for task in failed if task in (failures.WAIT, failures.drain_of(share))]
        return Drain(stream, topic, connection, claim, brokers, consumer, lacking, failed).run(deadline, leave)
    except PositionError as stop:
        raise recovery.with_remedy(stop, stream) from stop


class Drain:
    """One window of one share of a stream, its partitions claimed; it closes the connection when it has run.

    Args:
        brokers, consumer: To ask and read with.
        lacking: What the table lacks of the definition, because it was locked.
        failed: The tasks that are recorded as failing, until a batch has landed or the window has ended well.
    """

    def __init__(
        self,
        stream: Stream,
        topic: Topic,
        connection: Connection,
        claim: Mapping[int, Position],
        brokers: AdminClient,
        consumer: Consumer,
        lacking: Lacking | None = None,
        failed: Iterable[str] = (),
    ) -> None:
        from include.landing.batch import NOTHING, Preparer

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
        self._lacking = lacking or NOTHING
        self._nulls_are_allowed = not self._lacking.nulls
        self._preparer = Preparer(stream, self._incarnation, starts, self._lacking)
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
        self._drained = Drained()
        self._shown_at = self._checked_at = time.monotonic()

    def run(self, deadline: float, leave: Callable[[Drained], None] | None = None) -> Drained:
        """Drains until ``deadline``, a reading of the monotonic clock, or until the topic has stayed quiet.

        Args:
            leave: Called at ``deadline`` if there was more to come till then. The draining goes on behind it until
                another drain has taken over (Fenced), the topic stays quiet, or anything fails.
        """
        try:
            with _rare_collections(), Prefetcher(self._batches(), self._stopping) as ready:
                ended = self._drain(ready, deadline, deadline)
                self._drained.reason = ended or OVER
                if not self._connection.closed:
                    self._forget_failures()
                    self._connection.commit()
                if leave is not None and not ended:
                    leave(self._drained)
                    self._drain(ready, math.inf, deadline, tail=True)
        finally:
            self._connection.close()
        return self._drained

    def _drain(self, ready: Prefetcher[Prepared], until: float, deadline: float, tail: bool = False) -> str | None:
        """Lands one batch after the other, and returns what ended that before ``until``.

        Args:
            deadline: Until when a batch that cannot be written is tried again.
            tail: The window is over.
        """
        brought_at = time.monotonic()
        while (now := time.monotonic()) < until:
            quiet_until = brought_at + (TAIL_QUIET_S if tail else self._stream.quiet_s)
            if now > quiet_until:
                return f"nothing came for {self._stream.quiet}"
            if self._grown.is_set():
                return "the topic has new partitions"
            if (batch := ready.get(min(1.0, until - now, quiet_until - now))) is not None:
                self._write(batch, deadline)
                brought_at = time.monotonic()
            del batch
        return None

    def _batches(self) -> Iterator[Prepared]:
        with self._reader:
            while not self._stopping.is_set():
                # No name here holds a batch while the next one is read.
                yield from self._read()
                self._show()

    def _read(self) -> list[Prepared]:
        """The next batch, ready to be written; none when nothing came."""
        try:
            batch = self._reader.batch(MAX_RECORDS, GATHER_S)
        except PositionError:
            # What looks like lost offsets is another topic's log, when the topic was recreated.
            self._confirm(topics.ask(self._topic.name, self._brokers))
            raise
        if batch.next_offsets:
            # A topic that still is the same after the reading was the same before.
            asked = topics.ask(self._topic.name, self._brokers)
            prepared = self._preparer.pieces(batch)
            self._confirm(asked)
            return [] if self._stopping.is_set() else prepared
        if time.monotonic() - self._checked_at > CHECK_EVERY_S:
            self._confirm(topics.ask(self._topic.name, self._brokers))
        return []

    def _confirm(self, asked: Callable[[], Topic]) -> None:
        """Makes sure that the topic is the one that was claimed; waits for brokers that do not answer."""
        while not self._stopping.is_set():
            try:
                found = asked()
            except (PositionError, NonRetryableError):
                raise
            except UserError as error:
                log.warning("%s Asking again.", error.what)
                self._stopping.wait(PATIENCE_S)
                asked = topics.ask(self._topic.name, self._brokers)
                continue
            if found.id != self._topic.id:
                raise TopicRecreated(self._stream.reader, self._topic.name, self._topic.id, found.id)
            if len(found.partitions) > len(self._topic.partitions):
                self._grown.set()
            self._checked_at = time.monotonic()
            return

    def _write(self, batch: Prepared, deadline: float) -> None:
        """Lands a batch, however often that has to be tried; what the server refuses of it becomes dead letters."""
        import psycopg2

        suspected, forgotten = False, False
        patience = FIRST_PATIENCE_S
        while True:
            try:
                if self._connection.closed and self._has_landed(batch):
                    return
                self._land(batch, suspected)
            except (PositionError, NonRetryableError):
                self._undo()
                raise
            except psycopg2.Error as error:
                self._undo()
                if refusals.is_of_partition(error) and not forgotten:
                    # Retention has dropped a partition that was there.
                    self._partitions.forget()
                    forgotten = True
                elif refusals.is_of_rows(error) and not suspected:
                    suspected = True
                elif refusals.is_passing(error) and time.monotonic() < deadline:
                    patience = self._wait(error, patience)
                elif (named := refusals.named(error)) is not None:
                    raise named from error
                else:
                    raise
            except UserError as error:
                self._undo()
                if time.monotonic() > deadline:
                    raise
                patience = self._wait(error, patience)
            except BaseException:
                self._undo()
                raise
            else:
                return

    def _land(self, batch: Prepared, suspected: bool) -> None:
        """One transaction; partitions that it needs are made in one of their own before.

        Args:
            suspected: The server has refused one of the batch's rows: find them all first.
        """
        connection = self._connection
        self._require_some_good(batch)
        if batch.judged.has_nulls and not self._nulls_are_allowed:
            table.bring_up_to_date(connection, self._stream)
            self._nulls_are_allowed = True
        self._partitions.ensure(connection, batch.spans)
        claim = position.advance(connection, self._stream.reader, self._stream.topic, self._claim, batch.reached)
        if suspected:
            batch = refusals.copy_accepted(connection, self._preparer, batch)
            self._require_some_good(batch)
        else:
            self._copy(batch)
        dead_letters.keep(connection, self._incarnation, batch.letter_partitions, batch.letter_offsets, batch.letters)
        ledger.add(connection, self._stream.name, self._incarnation, claim, batch.entries)
        ledger.mark_unfilled(
            connection, self._stream.name, self._incarnation, batch.judged.unfilled, self._lacking.columns
        )
        self._forget_failures()
        connection.commit()
        self._failed = []
        self._note(claim, batch)

    def _forget_failures(self) -> None:
        for task in self._failed:
            failures.forget(self._connection, self._stream.name, task)

    def _copy(self, batch: Prepared) -> None:
        batch.rows.send(self._connection, f"{table.SCHEMA}.{self._stream.name}", self._preparer.copied)

    def _require_some_good(self, batch: Prepared) -> None:
        """Raises AllRecordsRejected when not one of many records can be landed, unless a person accepted that."""
        if len(batch.rows) or len(batch.letters) < MIN_REJECTED:
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

    def _has_landed(self, batch: Prepared) -> bool:
        """Connects again, and reads from the positions whether the batch's transaction was committed."""
        self._connection = connect(f"millrace land {self._stream.name}", options=_SESSION)
        found = position.resume(self._connection, self._stream.reader, self._stream.topic, self._claim)
        if any(found[partition].next_offset != end for partition, (end, _) in batch.reached.items()):
            return False
        self._note(found, batch)
        return True

    def _note(self, claim: Mapping[int, Position], batch: Prepared) -> None:
        self._claim = dict(claim)
        self._drained.batches += 1
        for entry in batch.entries:
            self._drained.landed += entry.landed
            self._drained.dead_letters += entry.dead_letters
            self._drained.quarantined += entry.quarantined

    def _undo(self) -> None:
        import psycopg2

        if not self._connection.closed:
            try:
                self._connection.rollback()
            except psycopg2.Error:
                self._connection.close()

    def _wait(self, error: psycopg2.Error | UserError, patience_s: float) -> float:
        """Waits before another try, and returns how long to wait after that one."""
        log.warning("Trying again: %s", str(error).strip())
        time.sleep(patience_s)
        return min(2 * patience_s, PATIENCE_S)

    def _show(self) -> None:
        if (now := time.monotonic()) - self._shown_at > SHOW_EVERY_S:
            self._shown_at = now
            self._reader.show({partition: position.next_offset for partition, position in self._claim.items()})


def _describe(stream: Stream) -> tuple[AdminClient, Topic]:
    """The topic, and who was asked."""
    brokers = client.admin()
    return brokers, topics.describe(stream.topic, brokers)


def _claim(
    stream: Stream, topic: Topic, partitions: list[int], owner: str
) -> tuple[Connection, dict[int, Position], Lacking]:
    """A connection that owns the partitions, the table as the definition wants it, as far as it is not locked."""
    connection = connect(f"millrace land {stream.name}", options=_SESSION)
    try:
        claim = position.claim(connection, stream.reader, topic, partitions, owner)
        lacking = _follow_definition(connection, stream)
    except BaseException:
        connection.close()
        raise
    return connection, claim, lacking


def _follow_definition(connection: Connection, stream: Stream) -> Lacking:
    """Brings the table up to date; what it still lacks then is waited for where no row can land without it.

    Raises:
        Locked: The table is locked, and nothing can land before it is changed.
    """
    from include.landing.batch import NOTHING, Lacking

    try:
        for change in table.bring_up_to_date(connection, stream):
            log.info("The definition of %s has changed: %s", stream.name, change)
        return NOTHING
    except locks.Locked as locked:
        needed = table.look(connection, stream)
        fields = {field.name for field in stream.fields}
        nulls = {change.relaxes for change in needed if change.relaxes}
        if any(change.creates for change in needed) or not nulls <= fields:
            raise
        added = {change.adds for change in needed if change.adds}
        if added:
            log.warning(
                "%s Records land without %s meanwhile, which is filled later.", locked, ", ".join(sorted(added))
            )
        return Lacking(frozenset(added), frozenset(nulls))


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Lets the collector of cycles run once for many batches' worth of events, for the length of a ``with`` block.

    Events come by the ten thousand and hold no cycles; at the usual threshold of some hundred new objects, the search
    for cycles among them takes half of the time of reading and decoding.
    """
    usual = gc.get_threshold()
    gc.set_threshold(_COLLECT_AFTER, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


def _patiently(ask: Callable[[], T], deadline: float) -> T:
    """What ``ask`` returns, asked again while Kafka or PostgreSQL does not answer, until ``deadline``."""
    import psycopg2

    while True:
        try:
            return ask()
        except (PositionError, NonRetryableError):
            raise
        except UserError as error:
            if time.monotonic() > deadline:
                raise
            log.warning("%s Asking again.", error.what)
        except psycopg2.Error as error:
            if not refusals.is_passing(error) or time.monotonic() > deadline:
                raise
            log.warning("Asking again: %s", str(error).strip())
        time.sleep(PATIENCE_S)
