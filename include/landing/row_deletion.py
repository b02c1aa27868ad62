"""Deletion of a range's rows by a replay, without locking every partition of the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from include.error_codes import Code
from include.errors import NonRetryableError
from include.landing import partitions, placement, table
from include.landing.spans import Span
from include.landing.state import REMOVED, State
from include.streams.definition import Stream
from include.warehouse import queries
from include.warehouse.connection import connected

if TYPE_CHECKING:
    from psycopg2 import sql
    from psycopg2.extensions import connection as Connection


class RowDeletion:
    """Deletes rows of one incarnation of a stream's topic, inside the caller's transaction.

    If the stream keeps its current state, it notes their keys and coordinates for ``State.replace``.

    Args:
        lists: Whether ``delete`` returns the offsets of the rows.
    """

    def __init__(self, connection: Connection, stream: Stream, incarnation: int, lists: bool = False) -> None:
        self._connection, self._stream, self._incarnation = connection, stream, incarnation
        self._lists = lists
        self._noted = State(stream, ()).removed_columns if stream.current else ()

    def delete(self, span: Mapping[str, object], likely: Sequence[Span], expected: int) -> list[int] | None:
        """Deletes the rows of a range, by their coordinates. Returns their offsets, if they are listed.

        If rows are missing in the likely partitions, it searches every partition, over a connection of its own that
        keeps no locks.

        Args:
            span: The parameters ``incarnation``, ``partition``, ``first``, ``next`` and ``missing``, offsets to keep.
            likely: The partitions of the table that most of the rows are in.
            expected: How many rows there are at most. Fewer are there if records were filtered, or if retention has
                dropped some.

        Raises:
            NonRetryableError: A trigger or a rule of the table prevents rows from being deleted.
        """
        within = placement.within(self._stream.event_time, likely)
        offsets: list[int] | None = [] if self._lists else None
        deleted = self._delete(within, span, offsets) if likely else 0
        if deleted >= expected:
            return offsets
        first, until, partition = (cast(int, span[name]) for name in ("first", "next", "partition"))
        existing = partitions.listed(self._connection, self._stream.name)
        bounded = partitions.default(self._connection, self._stream.name) is None
        with connected("millrace replay") as searching:
            placed = placement.place(
                placement.reader(searching), existing, bounded, self._stream, self._incarnation, partition
            )
        for where in placed.conditions(first, until):
            deleted += self._delete(where, span, offsets)
            self._require_deleted(where, span)
        return offsets

    def _delete(self, where: sql.Composable, span: Mapping[str, object], offsets: list[int] | None) -> int:
        """Deletes rows, and adds their offsets to the list, if there is one. Returns how many there were."""
        from psycopg2 import sql

        deletion = self._noting(self._rows_of("DELETE", where))
        if offsets is not None:
            deletion = sql.SQL("{} RETURNING kafka_offset").format(deletion)
        with self._connection.cursor() as cursor:
            cursor.execute(deletion, span)
            if offsets is not None:
                offsets += [offset for (offset,) in cursor]
            return cursor.rowcount

    def _noting(self, deletion: sql.Composable) -> sql.Composable:
        """The deletion, with a copy of the keys and coordinates of the deleted rows if the stream needs it."""
        from psycopg2 import sql

        if not self._noted:
            return deletion
        return sql.SQL("WITH gone AS ({} RETURNING {}) INSERT INTO {} SELECT * FROM gone").format(
            deletion, sql.SQL(", ").join(map(sql.Identifier, self._noted)), sql.Identifier("pg_temp", REMOVED)
        )

    def _require_deleted(self, where: sql.Composable, span: Mapping[str, object]) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(self._rows_of("SELECT count(*)", where), span)
            (left,) = cursor.fetchone() or (0,)
        if left:
            triggers = queries.load("landing").read_triggers(
                self._connection, table=f"{table.SCHEMA}.{self._stream.name}"
            )
            raise NonRetryableError(
                f"{left:,} rows of landing.{self._stream.name} cannot be deleted, so they cannot be landed again: "
                f"{', '.join(name for (name,) in triggers)} prevents it. The rows are unchanged.",
                "Disable the trigger or rule during the replay.",
                code=Code.BLOCKED_BY_TRIGGER,
            )

    def _rows_of(self, action: str, where: sql.Composable) -> sql.Composable:
        from psycopg2 import sql

        return sql.SQL(
            action + " FROM {} WHERE kafka_incarnation = %(incarnation)s AND kafka_partition = %(partition)s "
            "AND kafka_offset >= %(first)s AND kafka_offset < %(next)s "
            "AND kafka_offset <> ALL (CAST(%(missing)s AS bigint[])) AND {}"
        ).format(table.identifier(self._stream.name), where)
