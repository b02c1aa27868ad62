"""Problems of a stream that the warehouse shows: failing tasks, a locked table, partitions that cannot be dropped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from include.errors import UserError
from include.landing import failures, locks, maintenance, partitions, spans, table
from include.streams.definition import Stream
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

# The maintenance runs once an hour.
OVERDUE = timedelta(hours=2)


@dataclass(frozen=True)
class Problem:
    """One problem, and its remedy."""

    what: str
    remedy: str


def of(connection: Connection, stream: Stream) -> list[Problem]:
    """The problems of a stream now. It does not read Kafka and does not wait for a locked table."""
    found = list(_failing(connection, stream))
    connection.rollback()
    purpose = f"Stream {stream.name!r}: reading the table's definition"
    try:
        found += locks.with_short_waits(connection, stream.name, purpose, lambda: list(_table(connection, stream)))
    except locks.Locked as locked:
        found.append(Problem(locked.what, locked.remedy))
    return found


def _failing(connection: Connection, stream: Stream) -> Iterator[Problem]:
    for failure in failures.of(connection, stream.name):
        times = "once" if failure.failures == 1 else f"{failure.failures} times"
        yield Problem(
            f"land__{stream.name}, task {failure.task}, has been failing since {failure.since:%Y-%m-%d %H:%M:%S} UTC "
            f"({times}): {failure.error}",
            "See its log in Airflow's UI.",
        )


def _table(connection: Connection, stream: Stream) -> Iterator[Problem]:
    try:
        needed = table.changes(connection, stream)
    except UserError as error:
        yield Problem(error.what, error.remedy)
        return
    if any(change.creates_table for change in needed):
        return
    held = locks.holders(connection, stream.name) if needed else []
    if held:
        yield Problem(
            f"Stream {stream.name!r}: the change to {'; '.join(change.description for change in needed)} needs a lock "
            f"on landing.{stream.name}, which another session holds: {'; '.join(held[: locks.MAX_HOLDERS_SHOWN])}.",
            locks.END_THE_HOLDER,
        )
    for _, partition, first, until, columns, since in queries.load("landing").read_unfilled(
        connection, stream=stream.name
    ):
        yield Problem(
            f"Stream {stream.name!r}, partition {partition}, offsets {first} to {until - 1}: records have landed since "
            f"{since:%Y-%m-%d %H:%M:%S} UTC without the values of {', '.join(columns)}, because a lock prevented the "
            "column from being added.",
            f"maintain__streams fills them within an hour after the lock is released; to fill them now: "
            f"./millrace replay {stream.name}",
        )
    yield from _partitions(connection, stream)


def _partitions(connection: Connection, stream: Stream) -> Iterator[Problem]:
    now = queries.load("landing").read_clock(connection)
    for kept in maintenance.overdue(connection, stream, spans.cut_off(stream, now - OVERDUE)):
        yield Problem(kept.what, kept.remedy)
    for partition in partitions.listed(connection, stream.name):
        if partition.detaching and (held := locks.holders(connection, stream.name)):
            yield Problem(
                f"landing.{partition.table} is past its retention, and its detachment is unfinished: it waits for "
                f"{'; '.join(held[: locks.MAX_HOLDERS_SHOWN])}.",
                "The next maintenance continues it.",
            )
    if (name := partitions.default(connection, stream.name)) is not None:
        yield Problem(
            f"{name} is a default partition of landing.{stream.name}, which a user created: Millrace cannot add "
            "partitions.",
            f"Detach it: ALTER TABLE landing.{stream.name} DETACH PARTITION {name}.",
        )
