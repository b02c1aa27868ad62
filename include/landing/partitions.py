"""The partitions of a stream's table: half-open spans of UTC time, made ahead and on demand, without blocking readers.

A partition is made as a table of its own and then attached, in a transaction before the one that needs it: attaching
takes a lock that readers and writers of the table do not feel. There is no default partition, so that old ones can be
detached concurrently.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING

from include.errors import NonRetryableError
from include.landing import locks, table
from include.streams.definition import Stream
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

# Neither readers nor writers wait behind a partition that is attached.
LOCK_TIMEOUT_MS = 2_000
TRIES = 8
# Partitions that one transaction makes at most: each holds some locks until its end, and the server has thousands.
MADE_AT_ONCE = 100
# The comment on a partition that is detached in order to be dropped. A table without it is never dropped.
TO_BE_DROPPED = "Millrace: to be dropped"
_BOUNDS = re.compile(r"FOR VALUES FROM \((.+)\) TO \((.+)\)")
FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, order=True)
class Span:
    """Time from ``start`` to ``end``, the end excluded; both UTC."""

    start: datetime
    end: datetime

    def __contains__(self, moment: datetime) -> bool:
        return self.start <= moment < self.end


@dataclass(frozen=True)
class Partition:
    """A partition of a stream's table.

    Attributes:
        table: Its name.
        schema: ``landing``, unless a person has attached a table of another.
        span: Its bounds; those that no ``datetime`` can express are the first and the last that one can.
        detaching: Whether it is half detached: it is no longer read with the stream's table.
        marked: Whether it was to be dropped.
    """

    table: str
    span: Span
    detaching: bool = False
    schema: str = "landing"
    marked: bool = False

    def is_made_for(self, stream: Stream) -> bool:
        """Whether it has the name that Millrace gives; a partition that a person has attached by hand has another."""
        return self.schema == table.SCHEMA and self.table in _names(stream.name, self.span.start)


class Partitions:
    """The partitions of one stream as far as this process knows them; asks and makes what is missing."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._known: list[Span] = []

    def ensure(self, connection: Connection, starts: Iterable[datetime]) -> None:
        """Makes sure that the spans of the stream's width that begin at ``starts`` have their partitions; commits.

        Raises:
            NonRetryableError, Locked: See ``make``.
        """
        wanted = [Span(start, start + self._stream.width) for start in starts]
        if any(list(gaps(span, self._known)) for span in wanted):
            self._known = make(connection, self._stream, wanted)

    def forget(self) -> None:
        """Asks again at the next ``ensure``: a partition that was known has been dropped."""
        self._known = []


def make(connection: Connection, stream: Stream, wanted: Iterable[Span]) -> list[Span]:
    """Makes the partitions that the spans lack, some at a time, and returns all that there are; commits.

    Raises:
        NonRetryableError: A table of a person's is in the way of one of them.
        Locked: The table stayed locked for too long.
    """
    todo = iter(sorted(wanted))
    known: list[Span] = []
    while some := list(islice(todo, MADE_AT_ONCE)):
        known = locks.briefly(
            connection,
            stream.name,
            f"A new partition of landing.{stream.name}",
            lambda some=some: _make(connection, stream, some),  # type: ignore[misc]
            wait_ms=LOCK_TIMEOUT_MS,
            tries=TRIES,
            any_reader=False,
        )
    return known


def _make(connection: Connection, stream: Stream, wanted: Iterable[Span]) -> list[Span]:
    queries.load("landing").lock_stream(connection, stream=stream.name)
    there = listed(connection, stream.name)
    in_the_way = default(connection, stream.name)
    known = [partition.span for partition in there if not partition.detaching]
    for span in wanted:
        for gap in list(gaps(span, known)):
            _make_room(connection, stream, gap, there, in_the_way)
            _attach(connection, stream, gap)
            known.append(gap)
    return known


def listed(connection: Connection, stream: str) -> list[Partition]:
    """The partitions of a stream's table, oldest first, without a default partition."""
    found = []
    for schema, name, bounds, detaching, marked in _read(connection, stream):
        if match := _BOUNDS.fullmatch(bounds or ""):
            span = Span(*(_moment(*bound) for bound in zip(match.groups(), (FIRST, LAST), strict=True)))
            found.append(Partition(name, span, detaching, schema, marked))
    return sorted(found, key=lambda partition: partition.span)


def default(connection: Connection, stream: str) -> str | None:
    """The default partition, which a person has made; None when there is none."""
    return next((f"{s}.{name}" for s, name, bounds, *_ in _read(connection, stream) if bounds == "DEFAULT"), None)


def _read(connection: Connection, stream: str) -> list[tuple]:
    return list(queries.load("landing").read_partitions(connection, stream=stream, mark=TO_BE_DROPPED))


def _moment(bound: str, otherwise: datetime) -> datetime:
    """A bound as PostgreSQL words it; infinite ones, and those that no datetime can express, are ``otherwise``."""
    try:
        return datetime.fromisoformat(bound.strip("'"))
    except ValueError:
        return otherwise


def gaps(span: Span, known: Iterable[Span]) -> Iterator[Span]:
    """What of a span no known one covers, in order; several pieces only after a change of the partitions' width."""
    start = span.start
    for other in sorted(known):
        if other.end <= start or other.start >= span.end:
            continue
        if other.start > start:
            yield Span(start, other.start)
        start = max(start, other.end)
    if start < span.end:
        yield Span(start, span.end)


def ahead(stream: Stream, now: datetime, count: int) -> list[Span]:
    """The span that holds ``now`` and the ``count`` after it."""
    from include.landing.copy import UNIX_EPOCH

    first = UNIX_EPOCH + (now - UNIX_EPOCH) // stream.width * stream.width
    return [Span(start, start + stream.width) for start in (first + n * stream.width for n in range(count + 1))]


def name_of(stream: Stream, span: Span) -> str:
    """The table's name: the stream's and the span's start, with the time of day when there is one."""
    by_day, by_minute = _names(stream.name, span.start)
    whole_days = span.start.time() == datetime.min.time() and span.end - span.start >= timedelta(days=1)
    return by_day if whole_days else by_minute


def _names(stream: str, start: datetime) -> tuple[str, str]:
    # strftime writes a year before 1000 with fewer digits.
    by_day = f"{stream}_{start.year:04}{start:%m%d}"
    return by_day, f"{by_day}_{start:%H%M}"


def leftovers(connection: Connection, stream: Stream) -> list[str]:
    """The tables that were detached in order to be dropped, and are there still."""
    found = queries.load("landing").read_detached(connection, stream=stream.name, mark=TO_BE_DROPPED)
    return [name for (name,) in found]


def dependents(connection: Connection, name: str, schema: str = table.SCHEMA) -> list[str]:
    """What depends on a partition, so that it cannot be dropped: views, foreign keys and the like, in words."""
    quoted = table.identifier(name, schema).as_string(connection)
    return [what for (what,) in queries.load("landing").read_dependents(connection, table=quoted)]


def mark(connection: Connection, name: str, marked: bool = True) -> None:
    """Marks a table as to be dropped, or takes the mark away, inside the caller's transaction."""
    from psycopg2 import sql

    comment = sql.Literal(TO_BE_DROPPED if marked else None)
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(table.identifier(name), comment))


def attach_again(connection: Connection, stream: Stream, name: str, span: Span) -> None:
    """Makes a table a partition again that was detached in order to be dropped, inside the caller's transaction."""
    mark(connection, name, False)
    _attach_table(connection, stream, name, span)


def finish_detaching(connection: Connection, stream: Stream, name: str) -> None:
    """Finishes a detachment that was interrupted, or is under way, inside the caller's transaction."""
    from psycopg2 import sql

    with connection.cursor() as cursor:
        cursor.execute(
            sql.SQL("ALTER TABLE {} DETACH PARTITION {} FINALIZE").format(
                table.identifier(stream.name), table.identifier(name)
            )
        )


def _make_room(connection: Connection, stream: Stream, gap: Span, there: Iterable[Partition], name: str | None) -> None:
    """Finishes the detachment of what a new partition would overlap with, and names the default partition, if any.

    Raises:
        NonRetryableError: There is a default partition, whose rows all would have to be searched.
    """
    for partition in there:
        if partition.detaching and list(gaps(gap, [partition.span])) != [gap]:
            finish_detaching(connection, stream, partition.table)
    if name is not None:
        raise NonRetryableError(
            f"A partition of landing.{stream.name} has to be made for {gap.start:%Y-%m-%d %H:%M} UTC, and the table "
            f"{name} is the default partition, which Millrace did not make.",
            f"Detach it: ALTER TABLE landing.{stream.name} DETACH PARTITION {name}.",
        )


def _attach(connection: Connection, stream: Stream, span: Span) -> None:
    from psycopg2 import sql

    name = name_of(stream, span)
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
                f"A partition landing.{name} has to be made for landing.{stream.name}, and there is a table of that "
                "name already, which is none of its partitions.",
                f"Attach it again if it was one, or rename it: ALTER TABLE landing.{name} RENAME TO …",
            )
        # A partition takes its identity columns from the table it is attached to, and may not have any before.
        cursor.execute(sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL EXCLUDING IDENTITY)").format(partition, parent))
    _attach_table(connection, stream, name, span)


def _attach_table(connection: Connection, stream: Stream, name: str, span: Span) -> None:
    from psycopg2 import sql

    with connection.cursor() as cursor:
        cursor.execute(
            sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM (%s) TO (%s)").format(
                table.identifier(stream.name), table.identifier(name)
            ),
            (span.start, span.end),
        )
