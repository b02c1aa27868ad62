"""Upkeep of the streams' tables: partitions made ahead of time, and old ones dropped."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from include.errors import NonRetryableError, UserError
from include.landing import locks, partitions, refusals, table
from include.landing.partitions import Partition, Span
from include.streams.definition import Stream
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

log = logging.getLogger(__name__)

PARTITIONS_AHEAD = 3
# A detachment waits for the transactions that have read the table; new ones do not wait for it.
DETACH_TIMEOUT_MS = 10_000


def maintain(connection: Connection, stream: Stream) -> tuple[list[str], list[str]]:
    """Brings the stream's table up to date, makes its next partitions and drops those past its retention; commits.

    Values that landed without their column, because the table was locked, are filled.

    Returns:
        The tables made, and the tables dropped.

    Raises:
        NonRetryableError: Something of a person's is in the way of one of these; named, after all else is done.
        UserError: The table was locked; the next maintenance tries again.
    """
    # Where even a look has to wait, so has all that follows.
    purpose = f"The maintenance of stream {stream.name!r}"
    locks.briefly(connection, stream.name, purpose, lambda: partitions.listed(connection, stream.name))
    problems: list[UserError] = []
    _try(lambda: table.bring_up_to_date(connection, stream), problems)
    _try(lambda: _fill(connection, stream), problems)
    now = _now(connection)
    before = {partition.table for partition in partitions.listed(connection, stream.name)}
    _try(lambda: partitions.make(connection, stream, partitions.ahead(stream, now, PARTITIONS_AHEAD)), problems)
    after = {partition.table for partition in partitions.listed(connection, stream.name)}
    connection.rollback()
    made, dropped = sorted(after - before), _drop_until(connection, stream, now - stream.retention, problems)
    if problems:
        log.info("made: %s; dropped: %s", ", ".join(made) or "nothing", ", ".join(dropped) or "nothing")
    _raise(problems)
    return made, dropped


def drop_until(connection: Connection, stream: Stream, cut_off: datetime) -> list[str]:
    """Detaches and drops the partitions that end at or before ``cut_off``; commits. Returns their tables.

    Detaching concurrently, nobody who reads or writes the stream's table waits. A detachment that was interrupted is
    finished. What is newer than the cut-off is never touched, nor what a person has attached. A partition on which
    something depends stays attached.

    Raises:
        NonRetryableError, UserError: Some partitions are there still; named, after the others are dropped.
    """
    problems: list[UserError] = []
    dropped = _drop_until(connection, stream, cut_off, problems)
    _raise(problems)
    return dropped


def overdue(connection: Connection, stream: Stream, cut_off: datetime) -> list[NonRetryableError]:
    """The partitions past ``cut_off`` that a maintenance cannot drop, with what is in the way. Changes nothing."""
    found = []
    for partition in _past(connection, stream, cut_off):
        if dependents := partitions.dependents(connection, partition.table):
            found.append(_kept(partition.table, dependents))
    return found


def _drop_until(connection: Connection, stream: Stream, cut_off: datetime, problems: list[UserError]) -> list[str]:
    for partition in partitions.listed(connection, stream.name):
        if partition.marked and not partition.detaching:
            # Left by somebody who was interrupted. Its owner may detach it now, in order to keep it.
            partitions.mark(connection, partition.table, False)
    connection.commit()
    dropped = []
    for partition in _past(connection, stream, cut_off):
        if _try(lambda partition=partition: _drop(connection, stream, partition), problems):  # type: ignore[misc]
            dropped.append(partition.table)
    for name in partitions.leftovers(connection, stream):
        if _try(lambda name=name: _drop_leftover(connection, stream, name), problems):  # type: ignore[misc]
            dropped.append(name)
    connection.rollback()
    return dropped


def _fill(connection: Connection, stream: Stream) -> None:
    """Fills the values that landed without their column, if there are any; Kafka is asked only then."""
    marked = list(queries.load("landing").read_unfilled(connection, stream=stream.name))
    connection.rollback()
    if marked:
        from include.landing import replay

        replay.fill(connection, stream, "maintenance")


def _past(connection: Connection, stream: Stream, cut_off: datetime) -> list[Partition]:
    """The stream's own partitions that end at or before a moment.

    First those that are half detached: PostgreSQL detaches no other before they are finished.
    """
    there = partitions.listed(connection, stream.name)
    past = [each for each in there if each.detaching or (each.span.end <= cut_off and each.is_made_for(stream))]
    return sorted(past, key=lambda partition: not partition.detaching)


def _drop(connection: Connection, stream: Stream, partition: Partition) -> bool:
    """Detaches and drops a partition, unless something depends on it."""
    connection.rollback()
    if not partition.detaching:
        dependents = partitions.dependents(connection, partition.table)
        connection.rollback()
        if dependents:
            raise _kept(partition.table, dependents)
        _detach(connection, stream, partition)
    else:
        purpose = f"The end of the partition landing.{partition.table}"
        locks.briefly(
            connection,
            stream.name,
            purpose,
            lambda: partitions.finish_detaching(connection, stream, partition.table),
        )
    return _drop_table(connection, stream, partition.table, partition.span)


def _detach(connection: Connection, stream: Stream, partition: Partition) -> None:
    """Takes a partition out of the stream's table without making its readers wait.

    Raises:
        NonRetryableError: Rows of other tables refer to its rows.
        Locked: Somebody has read the table and keeps the transaction open.
    """
    import psycopg2
    from psycopg2 import sql

    # PostgreSQL detaches nothing concurrently from a table that has a default partition.
    at_once = partitions.default(connection, stream.name) is not None
    statement = sql.SQL("ALTER TABLE {} DETACH PARTITION {} " + ("" if at_once else "CONCURRENTLY")).format(
        table.identifier(stream.name), table.identifier(partition.table)
    )
    # Between the two steps it is a table like any other, which only the mark tells from a table of the user's.
    partitions.mark(connection, partition.table)
    connection.commit()
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = {locks.WAIT_MS if at_once else DETACH_TIMEOUT_MS}")
            try:
                cursor.execute(statement)
            finally:
                if not connection.closed:
                    cursor.execute("RESET lock_timeout")
    except psycopg2.errors.LockNotAvailable as error:
        held = "; ".join(locks.holders(connection, stream.name)) or "it has just been released"
        raise locks.Locked(
            f"landing.{partition.table} is past its retention, and waits for readers of landing.{stream.name}: {held}.",
            "The next maintenance goes on with it.",
        ) from error
    except psycopg2.errors.ForeignKeyViolation as error:
        partitions.mark(connection, partition.table, False)
        raise _kept(partition.table, [" ".join(str(error).split())]) from error
    finally:
        if not connection.closed:
            connection.autocommit = False


def _drop_leftover(connection: Connection, stream: Stream, name: str) -> bool:
    """Drops a table that is detached already."""
    connection.rollback()
    start = datetime.strptime(name.removeprefix(f"{stream.name}_") + "+0000", f"%Y%m%d{'_%H%M' * (name[-5] == '_')}%z")
    there = [partition.span for partition in partitions.listed(connection, stream.name)]
    connection.rollback()
    span = next(partitions.gaps(Span(start, start + stream.width), there), Span(start, start + stream.width))
    return _drop_table(connection, stream, name, span)


def _drop_table(connection: Connection, stream: Stream, name: str, span: Span) -> bool:
    """Drops a table that is detached; one that cannot be dropped becomes a partition again.

    Raises:
        NonRetryableError: It could not be dropped.
    """
    from psycopg2 import errors, sql

    def drop() -> list[str]:
        # One process at a time: a drain that needs a partition of that name waits.
        queries.load("landing").lock_stream(connection, stream=stream.name)
        if dependents := partitions.dependents(connection, name):
            partitions.attach_again(connection, stream, name, span)
            return dependents
        with connection.cursor() as cursor:
            cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table.identifier(name)))
        return []

    try:
        dependents = locks.briefly(connection, stream.name, f"The end of landing.{name}, which is detached,", drop)
    except errors.UndefinedTable:
        # A drain that needed the name was quicker.
        return False
    if dependents:
        raise _kept(name, dependents)
    return True


def _kept(name: str, dependents: list[str]) -> NonRetryableError:
    return NonRetryableError(
        f"landing.{name} is past its retention, and stays, because this depends on it: {'; '.join(dependents)}.",
        "Drop that, or let it use the stream's table and not one of its partitions.",
    )


def _try(work: Callable[[], object], problems: list[UserError]) -> bool:
    """Whether the work was done; what is in its way is added to the problems."""
    import psycopg2

    try:
        return bool(work())
    except psycopg2.Error as error:
        if (named := refusals.named(error)) is None:
            raise
        problems.append(named)
    except UserError as error:
        problems.append(error)
    return False


def _raise(problems: list[UserError]) -> None:
    """One error for all problems; one that trying again does not help when none of them would pass."""
    if not problems:
        return
    for problem in problems[:-1] if len(problems) > 1 else []:
        log.error("%s", problem)
    kind = NonRetryableError if all(isinstance(problem, NonRetryableError) for problem in problems) else UserError
    raise kind(" ".join(str(problem) for problem in problems))


def _now(connection: Connection) -> datetime:
    """The time by the warehouse's clock, so that every process draws the same line."""
    now: datetime = queries.load("landing").read_clock(connection)
    connection.rollback()
    return now
