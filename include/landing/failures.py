"""Failing tasks of streams, recorded in the warehouse until they succeed; ``status`` and ``doctor`` report them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from include.errors import NonRetryableError, UserError
from include.kafka.position_errors import PositionError
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

WAIT = "wait"
MAX_ERROR = 2_000


@dataclass(frozen=True)
class Failure:
    """A task that has failed and has not succeeded since.

    Attributes:
        task: Its name, such as ``drain 0``.
        since, last_at: When it failed first and last; UTC.
        failures: How often it failed.
        error: The message of the last failure.
    """

    task: str
    since: datetime
    last_at: datetime
    failures: int
    error: str


def drain_of(shard: int) -> str:
    """The name of the task that drains one shard of a stream."""
    return f"drain {shard}"


def note(stream: str, task: str, error: BaseException) -> None:
    """Records that a task failed, over a connection of its own. Does nothing if PostgreSQL does not answer."""
    import psycopg2

    from include.warehouse.connection import connected

    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    with suppress(UserError, psycopg2.Error), connected("millrace failure") as connection:
        queries.load("landing").note_failure(
            connection,
            stream=stream,
            task=task,
            error=_line(text),
            code=error.code if isinstance(error, UserError) else None,
            remedy=_line(error.remedy) or None if isinstance(error, UserError) else None,
            is_final=isinstance(error, NonRetryableError | PositionError),
        )
        connection.commit()


def forget(connection: Connection, stream: str, task: str) -> None:
    """Records that a task has succeeded, inside the caller's transaction."""
    queries.load("landing").forget_failure(connection, stream=stream, task=task)


def of(connection: Connection, stream: str) -> list[Failure]:
    """The failing tasks of a stream."""
    return [Failure(*row) for row in queries.load("landing").read_failures(connection, stream=stream)]


def _line(text: str) -> str:
    return " ".join(text.split())[:MAX_ERROR]
