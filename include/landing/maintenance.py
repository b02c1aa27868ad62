"""Upkeep of the streams' tables: partitions made ahead of time, and old ones dropped."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from include.landing import partitions, table
from include.landing.partitions import Partition
from include.streams.definition import Stream
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2 import sql
    from psycopg2.extensions import connection as Connection

AHEAD = 3


def maintain(connection: Connection, stream: Stream) -> tuple[list[str], list[str]]:
    """Makes the stream's next partitions and drops those past its retention; commits.

    Returns:
        The tables made, and the tables dropped.
    """
    table.bring_up_to_date(connection, stream)
    now = _now(connection)
    before = {partition.table for partition in partitions.listed(connection, stream.name)}
    partitions.make(connection, stream, partitions.ahead(stream, now, AHEAD))
    after = {partition.table for partition in partitions.listed(connection, stream.name)}
    connection.rollback()
    return sorted(after - before), drop_until(connection, stream, now - stream.retention)


def drop_until(connection: Connection, stream: Stream, cut_off: datetime) -> list[str]:
    """Detaches and drops the partitions that end at or before ``cut_off``; commits. Returns their tables.

    Detaching concurrently, nobody who reads or writes the stream's table waits. A detachment that was interrupted is
    finished. What is newer than the cut-off is never touched.
    """
    dropped = []
    for partition in partitions.listed(connection, stream.name):
        if partition.span.end <= cut_off:
            connection.rollback()
            _detach(connection, stream, partition)
            _drop(connection, partition.table)
            connection.commit()
            dropped.append(partition.table)
    connection.rollback()
    return [*dropped, *_drop_leftovers(connection, stream)]


def _drop_leftovers(connection: Connection, stream: Stream) -> list[str]:
    queries.load("landing").lock_stream(connection, stream=stream.name)
    leftovers = partitions.leftovers(connection, stream)
    for name in leftovers:
        _drop(connection, name)
    connection.commit()
    return leftovers


def _detach(connection: Connection, stream: Stream, partition: Partition) -> None:
    from psycopg2 import sql

    how = "FINALIZE" if partition.detaching else "CONCURRENTLY"
    statement = sql.SQL("ALTER TABLE {} DETACH PARTITION {} " + how).format(
        table.identifier(stream.name), table.identifier(partition.table)
    )
    # Between the two steps it is a table like any other, which only this tells from a table of the user's.
    mark = sql.SQL("COMMENT ON TABLE {} IS {}").format(
        table.identifier(partition.table), sql.Literal(partitions.TO_BE_DROPPED)
    )
    _alone(connection, mark)
    _alone(connection, statement)


def _drop(connection: Connection, name: str) -> None:
    from psycopg2 import sql

    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("DROP TABLE {}").format(table.identifier(name)))


def _alone(connection: Connection, statement: sql.Composable) -> None:
    """Runs a statement that PostgreSQL allows outside of transactions only."""
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.autocommit = False


def _now(connection: Connection) -> datetime:
    """The time by the warehouse's clock, so that every process draws the same line."""
    now: datetime = queries.load("landing").read_clock(connection)
    connection.rollback()
    return now
