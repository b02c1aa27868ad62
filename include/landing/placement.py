"""Where in a stream's table the rows of some offsets are: in which partitions, so that no more of them are locked.

A query by offsets alone would touch every partition of the table, and the server holds a lock on each, and on each of
its indexes, until the transaction ends: with some thousand partitions it has none left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from include.landing import partitions, table
from include.landing.partitions import Partition, Span
from include.streams.definition import Stream

if TYPE_CHECKING:
    from psycopg2 import sql
    from psycopg2.extensions import connection as Connection

T = TypeVar("T")

# Partitions that one transaction touches.
PARTITIONS_PER_QUERY = 200
Read = Callable[["sql.Composable", Mapping[str, Any]], list[tuple]]
"""Runs a query with its parameters in a transaction of its own."""


@dataclass(frozen=True)
class Placed:
    """A partition with the lowest and the highest offset that it holds of one partition of the topic.

    Attributes:
        lowest, highest: None where they are not known: the partition is not Millrace's own, and may hold any.
    """

    span: Span
    lowest: int | None
    highest: int | None

    def may_hold(self, first: int, until: int) -> bool:
        """Whether it may hold an offset from ``first`` to ``until``, the end excluded."""
        if self.lowest is None or self.highest is None:
            return True
        return self.lowest < until and first <= self.highest


@dataclass(frozen=True)
class Placement:
    """Which partitions of a stream's table hold what of one partition of one incarnation of its topic.

    Attributes:
        bounded: Whether all of the table's partitions have bounds; a default partition has none.
    """

    placed: Sequence[Placed]
    bounded: bool
    event_time: str

    def conditions(self, first: int, until: int) -> Iterator[sql.Composable]:
        """Conditions for the rows of a range of offsets, each for at most ``PARTITIONS_PER_QUERY`` partitions."""
        from psycopg2 import sql

        spans = [placed.span for placed in self.placed if placed.may_hold(first, until)]
        if not self.bounded:
            yield sql.SQL("true")
        elif spans:
            for some in _some(spans, PARTITIONS_PER_QUERY):
                yield within(self.event_time, some)


def place(
    read: Read, there: Sequence[Partition], bounded: bool, stream: Stream, incarnation: int, partition: int
) -> Placement:
    """Looks into every partition of the table, some at a time.

    Args:
        there: The partitions.
        bounded: See ``Placement``.
    """
    placed = [Placed(each.span, None, None) for each in there if not each.is_made_for(stream) and not each.detaching]
    own = [each for each in there if each.is_made_for(stream) and not each.detaching]
    for some in _some(own, PARTITIONS_PER_QUERY):
        ends = read(_ends(some), {"incarnation": incarnation, "partition": partition})
        placed += [Placed(some[at].span, lowest, highest) for at, lowest, highest in ends if lowest is not None]
    return Placement(sorted(placed, key=lambda each: each.span), bounded, stream.event_time)


def within(event_time: str, spans: Iterable[Span]) -> sql.Composable:
    """The condition that an event's time lies in one of some spans: PostgreSQL leaves out the other partitions."""
    from psycopg2 import sql

    name = sql.Identifier(event_time)
    terms = []
    for span in _joined(spans):
        ends = [
            sql.SQL("{} " + operator + " {}").format(name, sql.Literal(moment))
            for operator, moment, infinite in ((">=", span.start, partitions.FIRST), ("<", span.end, partitions.LAST))
            if moment != infinite
        ]
        terms.append(sql.SQL("({})").format(sql.SQL(" AND ").join(ends or [sql.SQL("true")])))
    return sql.SQL("({})").format(sql.SQL(" OR ").join(terms))


def _joined(spans: Iterable[Span]) -> list[Span]:
    """The spans, in order, those that touch as one."""
    found: list[Span] = []
    for span in sorted(spans):
        if found and span.start <= found[-1].end:
            found[-1] = Span(found[-1].start, max(found[-1].end, span.end))
        else:
            found.append(span)
    return found


def _some(items: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    return (items[start : start + most] for start in range(0, len(items), most))


def _ends(some: Sequence[Partition]) -> sql.Composable:
    """The query for the lowest and the highest offset of each of some partitions, by their place in the list."""
    from psycopg2 import sql

    end = (
        "(SELECT {}(kafka_offset) FROM {} "
        "WHERE kafka_incarnation = %(incarnation)s AND kafka_partition = %(partition)s)"
    )
    selected = [
        sql.SQL("SELECT {}, " + end + ", " + end).format(
            sql.Literal(at), sql.SQL("min"), table.identifier(each.table), sql.SQL("max"), table.identifier(each.table)
        )
        for at, each in enumerate(some)
    ]
    return sql.SQL(" UNION ALL ").join(selected)


def reader(connection: Connection) -> Read:
    """Reads in transactions of a connection's own, each rolled back."""

    def read(query: sql.Composable, parameters: Mapping[str, Any]) -> list[tuple]:
        with connection.cursor() as cursor:
            cursor.execute(query, parameters)
            found = cursor.fetchall()
        connection.rollback()
        return found

    return read
