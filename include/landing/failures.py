"""Tasks of streams that fail: recorded in the warehouse, for `status` and `doctor`, until one succeeds."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from include.errors import UserError
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

WAIT = "wait"
MAX_ERROR = 2_000


@dataclass(frozen=True)
class Failure:
    """A task that has failed, and has not succeeded since.

    Attributes:
        task: Such as ``drain 0``.
        since: When it failed first, and ``last_at`` when last; UTC.
        failures: How often.
        error: What the last one failed with.
    """

    task: str
    since: datetime
    last_at: datetime
    failures: int
    error: str


def drain_of(share: int) -> str:
    """The name of the task that drains one share of a stream."""
    return f"drain {share}"


def note(stream: str, task: str, error: BaseException) -> None:
    """Records that a task has failed, over a connection of its own; nothing when PostgreSQL does not answer."""
    import psycopg2

    from include.warehouse.connection import connected

    says = " ".join((str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}").split())
    with suppress(UserError, psycopg2.Error), connected("millrace failure") as connection:
        queries.load("landing").note_failure(
            connection, stream=stream, task=task, error=" ".join(says.split())[:MAX_ERROR]
        )
        connection.commit()


def forget(connection: Connection, stream: str, task: str) -> None:
    """Records that a task has succeeded, inside the caller's transaction."""
    queries.load("landing").forget_failure(connection, stream=stream, task=task)


def of(connection: Connection, stream: str) -> list[Failure]:
    """The tasks of a stream that fail."""
    return [Failure(*row) for row in queries.load("landing").read_failures(connection, stream=stream)]
