"""The drain: a stream's topic into its table for one window of time, batch by batch, each in one transaction.

A batch's transaction moves the positions first, by compare-and-set, so that of two drains of one partition only the one
that claimed it last can write; then come the rows, the records kept aside and the ledger. While one batch is written
the next is read, decoded and formatted in another thread.
"""

from __future__ import annotations

import io
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from include.errors import UserError
from include.kafka import position, topics
from include.kafka.position import Position
from include.kafka.reader import Reader
from include.kafka.stops import Stop
from include.kafka.topics import Topic
from include.landing import dead_letters, incarnation, ledger, table
from include.landing.ahead import Ahead
from include.landing.partitions import Partitions
from include.streams.definition import Stream
from include.warehouse.connection import connect

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

    from include.landing.batch import Prepared

T = TypeVar("T")
log = logging.getLogger(__name__)

MOST_RECORDS = 20_000
# The longest that a record waits for others to share its transaction.
GATHER_S = 0.05
SHOW_EVERY_S = 2.0
PATIENCE_S = 2.0
# No transaction of a drain is ever idle or long; one that is belongs to a stopped process and must let go.
_SESSION = "-c timezone=UTC -c statement_timeout=60s -c idle_in_transaction_session_timeout=60s"
# Fetches of some megabytes, up to 32 MB held ready; a fetch answers as soon as there is anything.
_CONSUMER = {
    "fetch_wait_max_ms": 50,
    "fetch_queue_backoff_ms": 1,
    "queued_min_messages": 100_000,
    "queued_max_messages_kbytes": 32_768,
}


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
    reason: str = "the window is over"


def drain(stream: Stream, owner: str, share: int = 0) -> Drained:
    """Lands what lies past the positions of this share's partitions until the window is over or the topic stays quiet.

    Args:
        owner: Who does it, shown to people.
        share: Which of the stream's ``drains``; it owns the partitions whose numbers leave this rest.

    Raises:
        Stop: Going on would lose or repeat records; a person must choose.
        Fenced: Another drain has taken over; nothing of this one's last batch was written.
    """
    deadline = time.monotonic() + stream.window_s
    topic = _patiently(lambda: topics.describe(stream.topic), deadline)
    connection = _patiently(lambda: connect(f"millrace land {stream.name}", options=_SESSION), deadline)
    with closing(connection):
        partitions = [partition for partition in topic.partitions if partition % stream.drains == share]
        if not partitions:
            return Drained(reason="there are more drains than partitions")
        claim = position.claim(connection, stream.reader, topic, partitions, owner)
        for change in table.bring_up_to_date(connection, stream):
            log.info("The definition of %s has changed: %s", stream.name, change)
        return Drain(stream, topic, connection, claim).run(deadline)


class Drain:
    """One window of one share of a stream, its partitions claimed."""

    def __init__(self, stream: Stream, topic: Topic, connection: Connection, claim: Mapping[int, Position]) -> None:
        from include.landing.batch import Preparer

        self._stream = stream
        self._connection = connection
        self._claim = dict(claim)
        self._incarnation = incarnation.number(connection, topic)
        starts = {partition: position.next_offset for partition, position in claim.items()}
        self._preparer = Preparer(stream, self._incarnation, starts)
        self._reader = Reader(stream.topic, starts, group_id=stream.reader, **_CONSUMER)
        self._partitions = Partitions(stream)
        self._stopping = threading.Event()
        self._drained = Drained()
        self._shown_at = time.monotonic()

    def run(self, deadline: float) -> Drained:
        """Drains until ``deadline``, a reading of the monotonic clock, or until the topic has stayed quiet."""
        brought_at = time.monotonic()
        with Ahead(self._batches(), self._stopping) as ready:
            while (now := time.monotonic()) < deadline:
                if now - brought_at > self._stream.quiet_s:
                    self._drained.reason = f"nothing came for {self._stream.quiet}"
                    break
                if (batch := ready.get(timeout_s=1.0)) is not None:
                    self._write(batch)
                    brought_at = time.monotonic()
        return self._drained

    def _batches(self) -> Iterator[Prepared]:
        with self._reader:
            while not self._stopping.is_set():
                batch = self._reader.batch(MOST_RECORDS, GATHER_S)
                if batch.next_offsets:
                    yield self._preparer.prepare(batch)
                self._show()

    def _write(self, batch: Prepared) -> None:
        """One transaction; partitions that it needs are made in one of their own before."""
        connection = self._connection
        try:
            self._partitions.ensure(connection, batch.spans)
            claim = position.advance(connection, self._stream.reader, self._stream.topic, self._claim, batch.reached)
            self._copy(batch)
            dead_letters.keep(
                connection, self._incarnation, batch.letter_partitions, batch.letter_offsets, batch.letters
            )
            ledger.add(connection, self._stream.name, self._incarnation, claim, batch.entries)
            connection.commit()
        except BaseException:
            if not connection.closed:
                connection.rollback()
            raise
        self._claim = claim
        self._drained.batches += 1
        for entry in batch.entries:
            self._drained.landed += entry.landed
            self._drained.dead_letters += entry.dead_letters
            self._drained.quarantined += entry.quarantined

    def _copy(self, batch: Prepared) -> None:
        from psycopg2 import sql

        if not batch.row_count:
            return
        columns = sql.SQL(", ").join(map(sql.Identifier, self._preparer.copied))
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(
            table.identifier(self._stream.name), columns
        )
        with self._connection.cursor() as cursor:
            cursor.copy_expert(statement, io.BytesIO(batch.rows), len(batch.rows))

    def _show(self) -> None:
        if (now := time.monotonic()) - self._shown_at > SHOW_EVERY_S:
            self._shown_at = now
            self._reader.show({partition: position.next_offset for partition, position in self._claim.items()})


def _patiently(ask: Callable[[], T], deadline: float) -> T:
    """What ``ask`` returns, asked again while Kafka or PostgreSQL does not answer, until ``deadline``."""
    while True:
        try:
            return ask()
        except Stop:
            raise
        except UserError as error:
            if time.monotonic() > deadline:
                raise
            log.warning("%s Asking again.", error.what)
            time.sleep(PATIENCE_S)
