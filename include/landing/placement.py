"""Which partitions of a stream's table hold the rows of some offsets, so that a query locks only these.

A query by offsets alone would touch every partition of the table, and PostgreSQL holds a lock on each, and on each of
its indexes, until the transaction ends. A table with thousands of partitions would exhaust its lock table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from include.landing import spans, table
from include.landing.partitions import Partition
from include.landing.spans import Span
from include.streams.definition import Stream

if TYPE_CHECKING:
    from psycopg2 import sql
    from psycopg2.extensions import connection as Connection

T = TypeVar("T")

# The most partitions that one transaction touches.
PARTITIONS_PER_QUERY = 200
Read = Callable[["sql.Composable", Mapping[str, Any]], list[tuple[Any, ...]]]
"""Runs a query with its parameters in a transaction of its own."""


@dataclass(frozen=True)
class Placed:
    """A partition of the table, with the lowest and the highest offset of one partition of the topic that it holds.

    Attributes:
        lowest, highest: None if unknown: a user attached the partition, and it may hold any offset.
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
    """Which partitions of a stream's table hold which offsets of one partition of one incarnation of its topic.

    Attributes:
        bounded: Whether all of the table's partitions have bounds; a default partition has none.
    """

    placed: Sequence[Placed]
    bounded: bool
    event_time: str

    def conditions(self, first: int, until: int) -> Iterator[sql.Composable]:
        """Conditions for the rows of a range of offsets, each for at most ``PARTITIONS_PER_QUERY`` partitions."""
        from psycopg2 import sql

        holding = [placed.span for placed in self.placed if placed.may_hold(first, until)]
        if not self.bounded:
            yield sql.SQL("true")
        else:
            for some in _chunks(holding, PARTITIONS_PER_QUERY):
                yield within(self.event_time, some)


def place(
    read: Read, existing: Sequence[Partition], bounded: bool, stream: Stream, incarnation: int, partition: int
) -> Placement:
    """Reads the lowest and the highest offset of every partition of the table, some partitions at a time.

    Args:
        existing: The table's partitions.
        bounded: See ``Placement``.
    """
    placed = [Placed(each.span, None, None) for each in existing if not each.is_made_for(stream) and not each.detaching]
    own = [each for each in existing if each.is_made_for(stream) and not each.detaching]
    for some in _chunks(own, PARTITIONS_PER_QUERY):
        ends = read(_ends(some), {"incarnation": incarnation, "partition": partition})
        placed += [Placed(some[at].span, lowest, highest) for at, lowest, highest in ends if lowest is not None]
    return Placement(sorted(placed, key=lambda each: each.span), bounded, stream.event_time)


def within(event_time: str, wanted: Iterable[Span], of: str = "") -> sql.Composable:
    """The condition that an event's time lies in one of the spans, so that PostgreSQL prunes all other partitions.

    Args:
        of: The name of the relation, if a query has several.
    """
    from psycopg2 import sql

    name = sql.Identifier(of, event_time) if of else sql.Identifier(event_time)
    terms = []
    for span in spans.joined(wanted):
        ends = [
            sql.SQL("{} " + operator + " {}").format(name, sql.Literal(moment))
            for operator, moment, infinite in ((">=", span.start, spans.FIRST), ("<", span.end, spans.LAST))
            if moment != infinite
        ]
        terms.append(sql.SQL("({})").format(sql.SQL(" AND ").join(ends or [sql.SQL("true")])))
    return sql.SQL("({})").format(sql.SQL(" OR ").join(terms))


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _ends(some: Sequence[Partition]) -> sql.Composable:
    """The query for the lowest and the highest offset of each partition, with its index in the list."""
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
    """Runs each query in a transaction of its own, which is rolled back."""

    def read(query: sql.Composable, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        with connection.cursor() as cursor:
            cursor.execute(query, parameters)
            found = cursor.fetchall()
        connection.rollback()
        return found

    return read
