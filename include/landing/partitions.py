"""The partitions of a stream's table: created ahead of time and on demand, without blocking readers or writers.

A partition is created as a table of its own and then attached, in a transaction before the one that needs it. Attaching
takes a lock that does not conflict with readers and writers. There is no default partition, so that old partitions can
be detached concurrently.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING

from include.error_codes import Code
from include.errors import NonRetryableError
from include.landing import locks, spans, table
from include.landing.spans import FIRST, LAST, Span
from include.streams.definition import Stream
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2 import sql
    from psycopg2.extensions import connection as Connection

    from include.warehouse.queries.signatures.landing import ReadPartitionsRow

# Attaching a partition does not make readers or writers wait, so this timeout is longer than for other changes.
LOCK_TIMEOUT_MS = 2_000
MAX_ATTEMPTS = 8
# The most partitions that one transaction creates: each needs some locks until its end, and the server has thousands.
PARTITIONS_PER_TRANSACTION = 100
# The comment on a partition that is detached to be dropped. A table without it is never dropped.
TO_BE_DROPPED = "Millrace: to be dropped"
_BOUNDS = re.compile(r"FOR VALUES FROM \((.+)\) TO \((.+)\)")


@dataclass(frozen=True)
class Partition:
    """A partition of a stream's table.

    Attributes:
        table: Its name.
        schema: ``landing``, unless a user attached a table of another schema.
        span: Its bounds; ``FIRST`` or ``LAST`` for a bound that a ``datetime`` cannot express.
        detaching: Whether its detachment was interrupted: it is no longer read with the stream's table.
        marked: Whether it has the comment ``TO_BE_DROPPED``.
    """

    table: str
    span: Span
    detaching: bool = False
    schema: str = "landing"
    marked: bool = False

    def is_made_for(self, stream: Stream) -> bool:
        """Whether it has a name that Millrace gives, and not that of a table that a user attached."""
        return self.schema == table.SCHEMA and self.table in spans.possible_names(stream.name, self.span.start)


class Partitions:
    """Creates the partitions that a drain needs, and keeps those that exist in memory."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._known: list[Span] = []

    def ensure(self, connection: Connection, wanted: Sequence[Span]) -> None:
        """Creates the partitions that the spans lack; commits.

        Raises:
            NonRetryableError, Locked: See ``create``.
        """
        if any(list(spans.gaps(span, self._known)) for span in wanted):
            self._known = create(connection, self._stream, wanted)

    def forget(self) -> None:
        """Reads the partitions again at the next ``ensure``, because a known one was dropped."""
        self._known = []


def create(connection: Connection, stream: Stream, wanted: Iterable[Span]) -> list[Span]:
    """Creates the partitions that the spans lack, and returns the spans of all partitions, joined; commits.

    Raises:
        NonRetryableError: A user's table has the name of one of them, or there is a default partition.
        Locked: Other sessions held locks on the table for too long.
    """
    todo = iter(sorted(wanted))
    known: list[Span] = []
    while some := list(islice(todo, PARTITIONS_PER_TRANSACTION)):
        known = locks.with_short_waits(
            connection,
            stream.name,
            f"A new partition of landing.{stream.name}",
            lambda some=some: _create(connection, stream, some),  # type: ignore[misc]
            wait_ms=LOCK_TIMEOUT_MS,
            max_attempts=MAX_ATTEMPTS,
            any_reader=False,
        )
    return known


def _create(connection: Connection, stream: Stream, wanted: Iterable[Span]) -> list[Span]:
    queries.load("landing").lock_stream(connection, stream=stream.name)
    existing = listed(connection, stream.name)
    default_partition = default(connection, stream.name)
    # Joined, because a search among thousands of spans for each wanted one would take seconds.
    known = spans.joined(partition.span for partition in existing if not partition.detaching)
    for span in wanted:
        for gap in list(spans.gaps(span, known)):
            _make_room(connection, stream, gap, existing, default_partition)
            _attach(connection, stream, gap)
            known.append(gap)
    return spans.joined(known)


def listed(connection: Connection, stream: str) -> list[Partition]:
    """The partitions of a stream's table, oldest first, without a default partition."""
    found = []
    for row in _read(connection, stream):
        if match := _BOUNDS.fullmatch(row.bounds or ""):
            span = Span(*(_moment(*bound) for bound in zip(match.groups(), (FIRST, LAST), strict=True)))
            found.append(Partition(row.name, span, row.is_detaching, row.schema_name, row.is_marked))
    return sorted(found, key=lambda partition: partition.span)


def default(connection: Connection, stream: str) -> str | None:
    """The default partition, which only a user can have created; None when there is none."""
    found = (f"{row.schema_name}.{row.name}" for row in _read(connection, stream) if row.bounds == "DEFAULT")
    return next(found, None)


def _read(connection: Connection, stream: str) -> list[ReadPartitionsRow]:
    return list(queries.load("landing").read_partitions(connection, stream=stream, mark=TO_BE_DROPPED))


def _moment(bound: str, otherwise: datetime) -> datetime:
    """A bound from PostgreSQL's text; ``otherwise`` if it is infinite or a datetime cannot express it."""
    try:
        return datetime.fromisoformat(bound.strip("'"))
    except ValueError:
        return otherwise


def leftovers(connection: Connection, stream: Stream) -> list[str]:
    """The tables that were detached to be dropped, and still exist."""
    found = queries.load("landing").read_detached(connection, stream=stream.name, mark=TO_BE_DROPPED)
    return [name for (name,) in found]


def dependents(connection: Connection, name: str, schema: str = table.SCHEMA) -> list[str]:
    """The objects that depend on a partition, such as views and foreign keys, so that it cannot be dropped."""
    quoted = table.identifier(name, schema).as_string(connection)
    return [what for (what,) in queries.load("landing").read_dependents(connection, table=quoted)]


def mark(connection: Connection, name: str, marked: bool = True) -> None:
    """Sets or removes the comment ``TO_BE_DROPPED`` of a table, inside the caller's transaction."""
    from psycopg2 import sql

    comment = sql.Literal(TO_BE_DROPPED if marked else None)
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(table.identifier(name), comment))


def attach_again(connection: Connection, stream: Stream, name: str, span: Span) -> None:
    """Attaches a table again that was detached to be dropped, inside the caller's transaction."""
    mark(connection, name, False)
    _attach_table(connection, stream, name, span)


def finish_detaching(connection: Connection, stream: Stream, name: str) -> None:
    """Finishes a detachment that was interrupted or is in progress, inside the caller's transaction."""
    from psycopg2 import sql

    with connection.cursor() as cursor:
        cursor.execute(
            sql.SQL("ALTER TABLE {} DETACH PARTITION {} FINALIZE").format(
                table.identifier(stream.name), table.identifier(name)
            )
        )


def _make_room(
    connection: Connection, stream: Stream, gap: Span, existing: Iterable[Partition], default_partition: str | None
) -> None:
    """Finishes the detachment of partitions that a new one would overlap with.

    Raises:
        NonRetryableError: There is a default partition: PostgreSQL would have to search all of its rows.
    """
    for partition in existing:
        if partition.detaching and list(spans.gaps(gap, [partition.span])) != [gap]:
            finish_detaching(connection, stream, partition.table)
    if default_partition is not None:
        raise NonRetryableError(
            f"landing.{stream.name} needs a partition for {gap.start:%Y-%m-%d %H:%M} UTC, but {default_partition} is "
            "its default partition: PostgreSQL would lock the table while it searches all of its rows.",
            f"Detach it: ALTER TABLE landing.{stream.name} DETACH PARTITION {default_partition}. Its rows are then no "
            "longer part of the table; insert them again if you need them there.",
            code=Code.DEFAULT_PARTITION,
        )


def _attach(connection: Connection, stream: Stream, span: Span) -> None:
    from psycopg2 import sql

    name = spans.name_of(stream, span)
    partition, parent = table.identifier(name), table.identifier(stream.name)
    with connection.cursor() as cursor:
        if name in leftovers(connection, stream):
            if dependents(connection, name):
                attach_again(connection, stream, name, span)
                return
            cursor.execute(sql.SQL("DROP TABLE {}").format(partition))
        cursor.execute("SELECT to_regclass(%s)", (partition.as_string(cursor),))
        if cursor.fetchone() != (None,):
            raise NonRetryableError(
                f"landing.{stream.name} needs a partition landing.{name}, but a table of that name exists already and "
                "is not one of its partitions.",
                f"Attach it again if it was a partition, or rename it: ALTER TABLE landing.{name} RENAME TO …",
                code=Code.NAME_TAKEN,
            )
        # A partition gets its identity columns when it is attached, and must not have any before.
        cursor.execute(
            sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL EXCLUDING IDENTITY){}").format(
                partition, parent, _storage(stream)
            )
        )
    _attach_table(connection, stream, name, span)


def _storage(stream: Stream) -> sql.Composable:
    """The clause with the storage parameters of a new partition."""
    from psycopg2 import sql

    # The definition allows known names only.
    settings = [sql.SQL(f"{name} = ") + sql.Literal(str(value)) for name, value in stream.storage.items()]
    return sql.SQL(" WITH ({})").format(sql.SQL(", ").join(settings)) if settings else sql.SQL("")


def _attach_table(connection: Connection, stream: Stream, name: str, span: Span) -> None:
    from psycopg2 import sql

    with connection.cursor() as cursor:
        cursor.execute(
            sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM (%s) TO (%s)").format(
                table.identifier(stream.name), table.identifier(name)
            ),
            (span.start, span.end),
        )
