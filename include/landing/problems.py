"""What is wrong with a stream, by the warehouse: tasks that fail, a table that is locked, partitions that stay."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from include.errors import UserError
from include.landing import failures, locks, maintenance, partitions, table
from include.streams.definition import Stream
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

# The maintenance runs once an hour.
OVERDUE = timedelta(hours=2)
_END_THE_HOLDER = "It is tried again; or end who holds it: ./millrace psql -c 'SELECT pg_terminate_backend(pid)'"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and what to do about it."""

    what: str
    remedy: str


def of(connection: Connection, stream: Stream) -> list[Problem]:
    """What is wrong with a stream now; Kafka is not asked. A table that is locked is not waited for."""
    found = list(_failing(connection, stream))
    connection.rollback()
    purpose = f"Stream {stream.name!r}: a look at the table"
    try:
        found += locks.briefly(connection, stream.name, purpose, lambda: list(_table(connection, stream)))
    except locks.Locked as locked:
        found.append(Problem(locked.what, _END_THE_HOLDER))
    return found


def _failing(connection: Connection, stream: Stream) -> Iterator[Problem]:
    for failure in failures.of(connection, stream.name):
        times = "once" if failure.failures == 1 else f"{failure.failures} times"
        yield Problem(
            f"land__{stream.name}, task {failure.task}, fails since {failure.since:%Y-%m-%d %H:%M:%S} UTC ({times}): "
            f"{failure.error}",
            "Its log in Airflow's UI says more.",
        )


def _table(connection: Connection, stream: Stream) -> Iterator[Problem]:
    try:
        needed = table.changes(connection, stream)
    except UserError as error:
        yield Problem(error.what, error.remedy)
        return
    if any(change.creates for change in needed):
        return
    held = locks.holders(connection, stream.name) if needed else []
    if held:
        yield Problem(
            f"Stream {stream.name!r}: to {'; '.join(change.says for change in needed)} waits for a lock on "
            f"landing.{stream.name}: {'; '.join(held[: locks.SHOWN])}.",
            _END_THE_HOLDER,
        )
    for _, partition, first, until, columns, since in queries.load("landing").read_unfilled(
        connection, stream=stream.name
    ):
        yield Problem(
            f"Stream {stream.name!r}, partition {partition}, offsets {first} to {until - 1}: since "
            f"{since:%Y-%m-%d %H:%M:%S} UTC records have landed without their values of {', '.join(columns)}, because "
            "the table was locked when the column was to be added.",
            f"maintain__streams fills them within an hour of the lock's end; or now: ./millrace replay {stream.name}",
        )
    yield from _partitions(connection, stream)


def _partitions(connection: Connection, stream: Stream) -> Iterator[Problem]:
    now = queries.load("landing").read_clock(connection)
    for kept in maintenance.overdue(connection, stream, now - stream.retention - OVERDUE):
        yield Problem(kept.what, kept.remedy)
    for partition in partitions.listed(connection, stream.name):
        if partition.detaching and (held := locks.holders(connection, stream.name)):
            yield Problem(
                f"landing.{partition.table} is past its retention, and half detached: it waits for "
                f"{'; '.join(held[: locks.SHOWN])}.",
                "The next maintenance goes on with it.",
            )
    if (name := partitions.default(connection, stream.name)) is not None:
        yield Problem(
            f"{name} is the default partition of landing.{stream.name}, which Millrace did not make: no new partition "
            "can be made.",
            f"Detach it: ALTER TABLE landing.{stream.name} DETACH PARTITION {name}.",
        )
