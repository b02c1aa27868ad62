"""The partitions of a stream's table: half-open spans of UTC time, made ahead and on demand, without blocking readers.

A partition is made as a table of its own and then attached, in a transaction before the one that needs it: attaching
takes a lock that readers and writers of the table do not feel. There is no default partition, so that old ones can be
detached concurrently.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from include.errors import LastingError, UserError
from include.landing import table
from include.streams.definition import Stream
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

LOCK_TIMEOUT_MS = 2_000
TRIES = 8
# The comment on a partition that is detached in order to be dropped. A table without it is never dropped.
TO_BE_DROPPED = "Millrace: to be dropped"
_BOUNDS = re.compile(r"FOR VALUES FROM \('(.+)'\) TO \('(.+)'\)")


@dataclass(frozen=True, order=True)
class Span:
    """Time from ``start`` to ``end``, the end excluded; both UTC."""

    start: datetime
    end: datetime

    def __contains__(self, moment: datetime) -> bool:
        return self.start <= moment < self.end


@dataclass(frozen=True)
class Partition:
    """A partition of a stream's table: a table in the schema ``landing``."""

    table: str
    span: Span
    detaching: bool = False


class Partitions:
    """The partitions of one stream as far as this process knows them; asks and makes what is missing."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._known: list[Span] = []

    def ensure(self, connection: Connection, starts: Iterable[datetime]) -> None:
        """Makes sure that the spans of the stream's width that begin at ``starts`` have their partitions; commits.

        Raises:
            UserError: The table stayed locked for too long.
        """
        wanted = [Span(start, start + self._stream.width) for start in starts]
        if any(list(gaps(span, self._known)) for span in wanted):
            self._known = make(connection, self._stream, wanted)

    def forget(self) -> None:
        """Asks anew at the next ``ensure``: a partition that was known has been dropped."""
        self._known = []


def make(connection: Connection, stream: Stream, wanted: Iterable[Span]) -> list[Span]:
    """Makes the partitions that the spans lack, and returns all that there are; commits."""
    from psycopg2 import errors

    for attempt in range(1, TRIES + 1):
        try:
            with connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
            queries.load("landing").lock_stream(connection, stream=stream.name)
            known = [partition.span for partition in _attached(connection, stream)]
            for span in wanted:
                for gap in list(gaps(span, known)):
                    _attach(connection, stream, gap)
                    known.append(gap)
            connection.commit()
        except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
            connection.rollback()
            if attempt == TRIES:
                raise UserError(
                    f"No partition can be added to landing.{stream.name}: somebody has kept it locked for "
                    f"{TRIES * LOCK_TIMEOUT_MS // 1000} s.",
                    "./millrace doctor names open transactions.",
                ) from error
            time.sleep(random.uniform(0, 0.1 * 2**attempt))
        else:
            return known
    raise AssertionError("unreachable")


def listed(connection: Connection, stream: str) -> list[Partition]:
    """The partitions of a stream's table, oldest first."""
    rows = queries.load("landing").read_partitions(connection, stream=stream)
    found = []
    for name, bounds, detaching in rows:
        match = _BOUNDS.fullmatch(bounds or "")
        if match is None:
            raise LastingError(
                f"The table landing.{name} is a partition {bounds!r} of landing.{stream}, which Millrace did not make.",
                f"Detach it: ALTER TABLE landing.{stream} DETACH PARTITION landing.{name}.",
            )
        found.append(Partition(name, Span(*map(datetime.fromisoformat, match.groups())), detaching))
    return sorted(found, key=lambda partition: partition.span)


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
    whole_days = span.start.time() == datetime.min.time() and span.end - span.start >= timedelta(days=1)
    # strftime writes a year before 1000 with fewer digits.
    return f"{stream.name}_{span.start.year:04}{span.start:{'%m%d' if whole_days else '%m%d_%H%M'}}"


def leftovers(connection: Connection, stream: Stream) -> list[str]:
    """The tables that were detached to be dropped by somebody who was interrupted."""
    found = queries.load("landing").read_detached(connection, stream=stream.name, mark=TO_BE_DROPPED)
    return [name for (name,) in found]


def _attached(connection: Connection, stream: Stream) -> list[Partition]:
    """The partitions that rows can go to; a detachment that was interrupted, or is under way, is finished first."""
    from psycopg2 import sql

    there = listed(connection, stream.name)
    for partition in there:
        if partition.detaching:
            with connection.cursor() as cursor:
                cursor.execute(
                    sql.SQL("ALTER TABLE {} DETACH PARTITION {} FINALIZE").format(
                        table.identifier(stream.name), table.identifier(partition.table)
                    )
                )
    return [partition for partition in there if not partition.detaching]


def _attach(connection: Connection, stream: Stream, span: Span) -> None:
    from psycopg2 import sql

    name = name_of(stream, span)
    partition, parent = table.identifier(name), table.identifier(stream.name)
    with connection.cursor() as cursor:
        if name in leftovers(connection, stream):
            cursor.execute(sql.SQL("DROP TABLE {}").format(partition))
        cursor.execute("SELECT to_regclass(%s)", (partition.as_string(cursor),))
        if cursor.fetchone() != (None,):
            raise LastingError(
                f"A partition landing.{name} has to be made for landing.{stream.name}, and there is a table of that "
                "name already, which is none of its partitions.",
                f"Attach it again if it was one, or rename it: ALTER TABLE landing.{name} RENAME TO …",
            )
        cursor.execute(sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL)").format(partition, parent))
        cursor.execute(
            sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM (%s) TO (%s)").format(parent, partition),
            (span.start, span.end),
        )
