"""Indexes of a stream's table: created and dropped with the definition, and built in partitions without blocking.

An index of a partitioned table consists of one index for each partition. The drain creates the index of the table
alone, which takes no time, and each new partition gets its own. Maintenance builds those of the partitions that existed
before, concurrently, so that rows can land meanwhile. PostgreSQL's documentation, "Partition Maintenance", describes
this.

A comment marks the indexes that Millrace created. It never drops another one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from include.error_codes import Code
from include.errors import NonRetryableError
from include.landing import database_errors, locks
from include.landing.relation import SCHEMA, Change, identifier
from include.streams.definition import Stream
from include.streams.indexes import Index, indexes_of
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

    from include.warehouse.queries.signatures.landing import ReadUnindexedRow

log = logging.getLogger(__name__)

MARK = "Created by Millrace, as the stream's definition declares it"
# A concurrent build waits for the transactions that were open when it began. Other sessions do not wait for it.
BUILD_TIMEOUT_MS = 60_000
MAX_SHOWN = 3


def changes(connection: Connection, stream: Stream) -> list[Change]:
    """The indexes of a table that exists that must be created or dropped to match the definition."""
    present = {name for (name,) in queries.load("landing").read_indexes(connection, stream=stream.name, mark=MARK)}
    wanted = {index.name_for(stream.name): index for index in indexes_of(stream)}
    dropped = [_drop(stream, name) for name in sorted(present - wanted.keys())]
    return [*dropped, *(creation(stream, index) for name, index in wanted.items() if name not in present)]


def creation(stream: Stream, index: Index) -> Change:
    """The change that creates an index, without those of partitions that exist."""
    from psycopg2 import sql

    name = index.name_for(stream.name)
    statement = sql.SQL("CREATE INDEX {} ON ONLY {} USING {} ({}); COMMENT ON INDEX {} IS {}").format(
        sql.Identifier(name),
        identifier(stream.name),
        sql.SQL(index.method),
        sql.SQL(", ").join(map(sql.Identifier, index.columns)),
        identifier(name),
        sql.Literal(MARK),
    )
    return Change(f"create {index} of landing.{stream.name}", statement)


def build(connection: Connection, stream: Stream) -> list[str]:
    """Builds the declared indexes in partitions that lack them, the newest first; commits. Returns the partitions.

    A build that was interrupted is repeated.

    Raises:
        Locked: A transaction has been open for too long. The newer partitions were indexed before.
        NonRetryableError: An index cannot hold the rows of a partition. The other partitions were indexed before.
    """
    built = []
    failed: list[NonRetryableError] = []
    for index in indexes_of(stream):
        name = index.name_for(stream.name)
        lacking = list(queries.load("landing").read_unindexed(connection, stream=stream.name, index=name))
        connection.rollback()
        for partition in lacking:
            try:
                _build(connection, stream, index, partition)
                built.append(partition.name)
            except NonRetryableError as error:
                failed.append(error)
    if failed:
        raise _combined(failed)
    return built


def _drop(stream: Stream, name: str) -> Change:
    from psycopg2 import sql

    statement = sql.SQL("DROP INDEX {}").format(identifier(name))
    return Change(f"drop the index landing.{name}, which the definition no longer declares", statement)


def _build(connection: Connection, stream: Stream, index: Index, partition: ReadUnindexedRow) -> None:
    import psycopg2
    from psycopg2 import sql

    own = f"{index.name_for('ix')}_{partition.oid}"
    on, of = identifier(partition.name, partition.schema_name), identifier(own, partition.schema_name)
    drop = sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(of)
    create = sql.SQL("CREATE INDEX CONCURRENTLY IF NOT EXISTS {} ON {} USING {} ({})").format(
        sql.Identifier(own), on, sql.SQL(index.method), sql.SQL(", ").join(map(sql.Identifier, index.columns))
    )
    attach = sql.SQL("ALTER INDEX {} ATTACH PARTITION {}").format(identifier(index.name_for(stream.name)), of)
    # A build that was interrupted leaves an index that is not valid.
    statements = [create, attach] if partition.is_built else [drop, create, attach]
    log.info("Building %s in %s.%s.", index, partition.schema_name, partition.name)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = {BUILD_TIMEOUT_MS}; SET statement_timeout = 0")
            try:
                for statement in statements:
                    cursor.execute(statement)
            except psycopg2.Error as error:
                if not database_errors.is_of_rows(error):
                    raise
                # An index that is not valid refuses rows, too.
                cursor.execute(drop)
                raise NonRetryableError(
                    f"Stream {stream.name!r}: {index} could not be built in {SCHEMA}.{partition.name}: "
                    f"{(error.diag.message_primary or '').rstrip('.')}.",
                    "Remove the index from the definition, and create one on a shorter value yourself, such as md5 of "
                    "the text. Or leave it: the other partitions have the index.",
                    code=Code.INDEX_NOT_BUILT,
                ) from error
            finally:
                if not connection.closed:
                    cursor.execute("RESET lock_timeout; RESET statement_timeout")
    except psycopg2.errors.LockNotAvailable as error:
        held = "; ".join(locks.holders(connection, stream.name)) or "the holder has just released it"
        raise locks.Locked(
            f"Stream {stream.name!r}: {index} could not be built in {SCHEMA}.{partition.name}, because other sessions "
            f"hold locks: {held}."
        ) from error
    finally:
        if not connection.closed:
            connection.autocommit = False


def _combined(errors: Sequence[NonRetryableError]) -> NonRetryableError:
    """One error for several partitions, of which it names the first ones."""
    shown = " ".join(error.what for error in errors[:MAX_SHOWN])
    more = len(errors) - MAX_SHOWN
    return NonRetryableError(
        shown if more <= 0 else f"{shown} {more:,} more could not be built.", errors[0].remedy, code=errors[0].code
    )
