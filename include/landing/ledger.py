"""The ledger: the dispositions of all offsets, counted in the transactions that land."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from include.kafka.position import Position
from include.landing import spans
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

    from include.streams.definition import Stream


@dataclass(frozen=True)
class Entry:
    """The dispositions of consecutive offsets of one partition; the counts add up to ``next - first``.

    Attributes:
        landed, dead_letters, quarantined, filtered: Numbers of records by their disposition.
        skipped: Number of tombstones.
        no_records: Offsets of commit markers and of aborted or compacted records.
        checksum: The sum of the CRC-32s of the records' values, each started from its offset. It does not depend on
            the order of the records.
        newest: The newest event time that landed.
    """

    partition: int
    first: int
    next: int
    landed: int
    dead_letters: int
    quarantined: int
    filtered: int
    skipped: int
    no_records: int
    checksum: int
    newest: datetime | None


def add(
    connection: Connection, stream: str, incarnation: int, claim: Mapping[int, Position], entries: Sequence[Entry]
) -> None:
    """Adds a batch's entries to the ledger rows of the claim, inside the caller's transaction."""
    queries.load("landing").add_to_ledger(
        connection,
        stream=stream,
        incarnation=incarnation,
        partitions=[entry.partition for entry in entries],
        epochs=[claim[entry.partition].epoch for entry in entries],
        first=[entry.first for entry in entries],
        next=[entry.next for entry in entries],
        landed=[entry.landed for entry in entries],
        dead_letters=[entry.dead_letters for entry in entries],
        quarantined=[entry.quarantined for entry in entries],
        filtered=[entry.filtered for entry in entries],
        skipped=[entry.skipped for entry in entries],
        no_records=[entry.no_records for entry in entries],
        checksums=[entry.checksum for entry in entries],
        newest=[entry.newest for entry in entries],
    )


def mark_unfilled(
    connection: Connection,
    stream: str,
    incarnation: int,
    unfilled: Mapping[int, tuple[int, int]],
    columns: Collection[str],
) -> None:
    """Records ranges of offsets that land without the values of some columns, inside the caller's transaction.

    Args:
        unfilled: For each partition, the first offset and the end (exclusive).
    """
    if unfilled:
        queries.load("landing").add_unfilled(
            connection,
            stream=stream,
            incarnation=incarnation,
            partitions=list(unfilled),
            first=[first for first, _ in unfilled.values()],
            next=[until for _, until in unfilled.values()],
            columns=sorted(columns),
        )


def merge(connection: Connection, stream: Stream, before: datetime) -> int:
    """Merges the entries of a stream that last changed before a moment, into one for each day; commits.

    Entries whose rows retention may have dropped are merged into one. The proof does not change: every offset is still
    counted once, and checksums add up. Returns the number of merged entries.
    """
    sql = queries.load("landing")
    sql.lock_ledger(connection, stream=stream.name)
    droppable_until = spans.droppable_until(stream, sql.read_clock(connection))
    merged: int = sql.merge_ledger(connection, stream=stream.name, before=before, droppable_until=droppable_until)
    connection.commit()
    return merged
