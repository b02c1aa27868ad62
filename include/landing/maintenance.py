"""Maintenance of the streams' tables: creates partitions ahead of time, and drops old ones."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from include.error_codes import Code
from include.errors import NonRetryableError, UserError
from include.landing import database_errors, dead_letters, indexes, locks, partitions, spans, table
from include.landing.partitions import Partition
from include.landing.spans import Span
from include.streams.definition import Stream
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

log = logging.getLogger(__name__)

PARTITIONS_AHEAD = 3
LETTERS_AT_ONCE = 10_000
# A concurrent detachment waits for transactions that have read the table. New transactions do not wait for it.
DETACH_TIMEOUT_MS = 10_000


def maintain(connection: Connection, stream: Stream) -> tuple[list[str], list[str]]:
    """Brings the stream's table up to date, creates its next partitions and drops those past its retention; commits.

    It also fills values that landed before their column existed, builds indexes in partitions that lack them, and
    deletes the bytes of old dead letters.

    Returns:
        The tables created, and the tables dropped.

    Raises:
        NonRetryableError: A user's table or object prevents one of these steps. The other steps are done before.
        UserError: The table was locked; the next maintenance tries again.
    """
    # If the table is locked so that its partitions cannot even be listed, no step below can succeed.
    purpose = f"The maintenance of stream {stream.name!r}"
    locks.with_short_waits(connection, stream.name, purpose, lambda: partitions.listed(connection, stream.name))
    problems: list[UserError] = []
    _attempt(lambda: table.bring_up_to_date(connection, stream), problems)
    _attempt(lambda: _fill(connection, stream), problems)
    _attempt(lambda: _withhold(connection, stream), problems)
    now = _now(connection)
    before = {partition.table for partition in partitions.listed(connection, stream.name)}
    _attempt(lambda: partitions.create(connection, stream, spans.next_spans(stream, now, PARTITIONS_AHEAD)), problems)
    after = {partition.table for partition in partitions.listed(connection, stream.name)}
    connection.rollback()
    created, dropped = sorted(after - before), _drop_until(connection, stream, spans.cut_off(stream, now), problems)
    # Last, because it takes long, and because partitions past their retention need no index.
    _attempt(lambda: indexes.build(connection, stream), problems)
    if problems:
        log.info("Created: %s. Dropped: %s.", ", ".join(created) or "none", ", ".join(dropped) or "none")
    _raise_problems(problems)
    return created, dropped


def drop_until(connection: Connection, stream: Stream, cut_off: datetime) -> list[str]:
    """Detaches and drops the partitions that end at or before ``cut_off``; commits. Returns their tables.

    It detaches concurrently, so that sessions that read or write the stream's table do not wait. It finishes
    detachments that were interrupted. It never drops a newer partition, one that a user attached, or one that another
    object depends on.

    Raises:
        NonRetryableError, UserError: Some partitions could not be dropped. The others are dropped before.
    """
    problems: list[UserError] = []
    dropped = _drop_until(connection, stream, cut_off, problems)
    _raise_problems(problems)
    return dropped


def overdue(connection: Connection, stream: Stream, cut_off: datetime) -> list[NonRetryableError]:
    """An error for each partition past ``cut_off`` that maintenance cannot drop. Changes nothing."""
    found = []
    for partition in _past(connection, stream, cut_off):
        if dependents := partitions.dependents(connection, partition.table):
            found.append(_in_use(partition.table, dependents))
    return found


def _drop_until(connection: Connection, stream: Stream, cut_off: datetime, problems: list[UserError]) -> list[str]:
    for partition in partitions.listed(connection, stream.name):
        if partition.marked and not partition.detaching:
            # A maintenance that was interrupted left the mark. Without it, a user can detach the table to keep it.
            partitions.mark(connection, partition.table, False)
    connection.commit()
    dropped = []
    for partition in _past(connection, stream, cut_off):
        if _attempt(lambda partition=partition: _drop(connection, stream, partition), problems):  # type: ignore[misc]
            dropped.append(partition.table)
    for name in partitions.leftovers(connection, stream):
        if _attempt(lambda name=name: _drop_leftover(connection, stream, name), problems):  # type: ignore[misc]
            dropped.append(name)
    connection.rollback()
    return dropped


def _fill(connection: Connection, stream: Stream) -> None:
    """Fills values that landed before their column existed. Kafka is read only if there are any."""
    unfilled = list(queries.load("landing").read_unfilled(connection, stream=stream.name))
    connection.rollback()
    if unfilled:
        from include.landing import replay

        replay.fill(connection, stream, "maintenance")


def _withhold(connection: Connection, stream: Stream) -> None:
    """Deletes the bytes of dead letters that are older than ``keep_dead_letters``, and all of a stream with masks.

    Those of a stream with masks were stored before it had them. The letters stay, because each is the disposition of an
    offset.
    """
    sql = queries.load("landing")
    before = _now(connection)
    if not stream.mask:
        if stream.letter_retention is None:
            return
        before -= stream.letter_retention
    why = dead_letters.MASKED if stream.mask else dead_letters.OLD
    while sql.withhold(connection, stream=stream.name, before=before, why=why, most=LETTERS_AT_ONCE):
        connection.commit()
    connection.commit()


def _past(connection: Connection, stream: Stream, cut_off: datetime) -> list[Partition]:
    """The stream's own partitions that end at or before a moment.

    Those with an unfinished detachment come first: PostgreSQL refuses to detach another one before.
    """
    existing = partitions.listed(connection, stream.name)
    past = [each for each in existing if each.detaching or (each.span.end <= cut_off and each.is_made_for(stream))]
    return sorted(past, key=lambda partition: not partition.detaching)


def _drop(connection: Connection, stream: Stream, partition: Partition) -> bool:
    """Detaches and drops a partition, unless another object depends on it."""
    connection.rollback()
    if not partition.detaching:
        dependents = partitions.dependents(connection, partition.table)
        connection.rollback()
        if dependents:
            raise _in_use(partition.table, dependents)
        _detach(connection, stream, partition)
    else:
        purpose = f"The detachment of the partition landing.{partition.table}"
        locks.with_short_waits(
            connection,
            stream.name,
            purpose,
            lambda: partitions.finish_detaching(connection, stream, partition.table),
        )
    return _drop_table(connection, stream, partition.table, partition.span)


def _detach(connection: Connection, stream: Stream, partition: Partition) -> None:
    """Detaches a partition from the stream's table without making readers wait.

    Raises:
        NonRetryableError: Rows of other tables refer to its rows.
        Locked: A session has read the table and keeps its transaction open.
    """
    import psycopg2
    from psycopg2 import sql

    # PostgreSQL cannot detach concurrently from a table with a default partition.
    blocking = partitions.default(connection, stream.name) is not None
    statement = sql.SQL("ALTER TABLE {} DETACH PARTITION {} " + ("" if blocking else "CONCURRENTLY")).format(
        table.identifier(stream.name), table.identifier(partition.table)
    )
    # Between detaching and dropping, only this mark distinguishes the table from a user's table.
    partitions.mark(connection, partition.table)
    connection.commit()
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = {locks.WAIT_MS if blocking else DETACH_TIMEOUT_MS}")
            try:
                cursor.execute(statement)
            finally:
                if not connection.closed:
                    cursor.execute("RESET lock_timeout")
    except psycopg2.errors.LockNotAvailable as error:
        held = "; ".join(locks.holders(connection, stream.name)) or "the holder has just released it"
        raise locks.Locked(
            f"landing.{partition.table} is past its retention, but its detachment waits for readers of "
            f"landing.{stream.name}: {held}.",
        ) from error
    except psycopg2.errors.ForeignKeyViolation as error:
        partitions.mark(connection, partition.table, False)
        raise _in_use(partition.table, [" ".join(str(error).split())]) from error
    finally:
        if not connection.closed:
            connection.autocommit = False


def _drop_leftover(connection: Connection, stream: Stream, name: str) -> bool:
    """Drops a table that was detached before."""
    connection.rollback()
    whole = spans.span_from(stream, spans.start_of(stream, name))
    existing = [partition.span for partition in partitions.listed(connection, stream.name)]
    connection.rollback()
    span = next(spans.gaps(whole, existing), whole)
    return _drop_table(connection, stream, name, span)


def _drop_table(connection: Connection, stream: Stream, name: str, span: Span) -> bool:
    """Drops a detached table, or attaches it again if another object depends on it.

    Raises:
        NonRetryableError: It could not be dropped.
    """
    from psycopg2 import errors, sql

    def drop() -> list[str]:
        # A drain that needs a partition of that name waits for this lock.
        queries.load("landing").lock_stream(connection, stream=stream.name)
        if dependents := partitions.dependents(connection, name):
            partitions.attach_again(connection, stream, name, span)
            return dependents
        with connection.cursor() as cursor:
            cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table.identifier(name)))
        return []

    try:
        dependents = locks.with_short_waits(
            connection, stream.name, f"Dropping the detached table landing.{name}", drop
        )
    except errors.UndefinedTable:
        # A drain that needed the name dropped it first.
        return False
    if dependents:
        raise _in_use(name, dependents)
    return True


def _in_use(name: str, dependents: list[str]) -> NonRetryableError:
    return NonRetryableError(
        f"landing.{name} is past its retention, but cannot be dropped, because other objects depend on it: "
        f"{'; '.join(dependents)}. Its rows stay until then.",
        "Let these objects use the stream's table and not one of its partitions, or drop them.",
        code=Code.PARTITION_IN_USE,
    )


def _attempt(work: Callable[[], object], problems: list[UserError]) -> bool:
    """Does the work, and returns whether it succeeded. An error that a user can fix is added to the problems."""
    import psycopg2

    try:
        return bool(work())
    except psycopg2.Error as error:
        if (explained := database_errors.explained(error)) is None:
            raise
        problems.append(explained)
    except UserError as error:
        problems.append(error)
    return False


def _raise_problems(problems: list[UserError]) -> None:
    """Raises one error for all problems; a retry can fix it if it can fix one of them."""
    if not problems:
        return
    if len(problems) == 1:
        raise problems[0]
    for problem in problems:
        log.error("%s", problem)
    kind = NonRetryableError if all(isinstance(problem, NonRetryableError) for problem in problems) else UserError
    raise kind(
        f"{len(problems)} parts of the maintenance failed. "
        + " ".join(f"{problem.what} {problem.remedy}".strip() for problem in problems),
        code=Code.MAINTENANCE_INCOMPLETE,
    )


def _now(connection: Connection) -> datetime:
    """The time of PostgreSQL's clock, so that every process uses the same cut-off."""
    now: datetime = queries.load("landing").read_clock(connection)
    connection.rollback()
    return now
