"""Locks on a stream's table: short waits, so that other sessions do not queue, and errors that name the holders.

Sessions that come after a statement that waits for a lock wait, too. So each change of a table waits for a lock only
briefly, rolls back, and tries again a few times. Then it is left for later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from include.error_codes import Code
from include.errors import UserError
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

T = TypeVar("T")

# Readers and writers queue behind a change of the columns, so it waits only briefly.
WAIT_MS = 100
MAX_ATTEMPTS = 5
MAX_HOLDERS_SHOWN = 3
END_THE_HOLDER = (
    "It is tried again later. To end that session now, give its pid: "
    "./millrace psql -c 'SELECT pg_terminate_backend(PID)'."
)


class Locked(UserError):
    """A table could not be changed, because other sessions hold locks on it."""

    def __init__(self, what: str, remedy: str = END_THE_HOLDER) -> None:
        super().__init__(what, remedy, code=Code.LOCK_TIMEOUT)


def with_short_waits(
    connection: Connection,
    stream: str,
    purpose: str,
    work: Callable[[], T],
    *,
    wait_ms: int = WAIT_MS,
    max_attempts: int = MAX_ATTEMPTS,
    any_reader: bool = True,
) -> T:
    """Does the work in a transaction that waits ``wait_ms`` at most for each lock, and commits; tries a few times.

    Args:
        connection: Not inside a transaction with uncommitted work.
        stream: The stream whose table is changed.
        purpose: What needs the locks, as the beginning of a sentence.
        any_reader: Whether sessions that only read or write rows conflict, and not only those that change tables.

    Raises:
        Locked: Other sessions held a lock during all attempts; the message names them.
    """
    from psycopg2 import errors
    from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

    def attempt() -> T:
        try:
            with connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL lock_timeout = {wait_ms}")
            done = work()
            connection.commit()
            return done
        except BaseException:
            if not connection.closed:
                connection.rollback()
            raise

    try:
        return Retrying(
            retry=retry_if_exception_type((errors.LockNotAvailable, errors.DeadlockDetected)),
            stop=stop_after_attempt(max_attempts),
            wait=wait_random_exponential(multiplier=0.04),
            reraise=True,
        )(attempt)
    except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
        held = _describe_holders(connection, stream, any_reader)
        raise Locked(f"{purpose} needs a lock on landing.{stream}, which another session holds: {held}.") from error


def holders(connection: Connection, stream: str, any_reader: bool = True) -> list[str]:
    """The sessions that hold locks on a stream's table or its partitions, longest first, each described in words.

    Args:
        any_reader: Whether to include sessions that only read or write rows.
    """
    found = []
    for pid, program, user, kind, since, query in queries.load("landing").read_holders(
        connection, stream=stream, any_reader=any_reader
    ):
        if pid is None:
            found.append("a prepared transaction (see pg_prepared_xacts)")
            continue
        name = program or "no application_name" if kind in (None, "client backend") else kind
        name += f", user {user}" if user else ""
        moment = f", since {since:%Y-%m-%d %H:%M:%S} UTC" if since else ""
        found.append(f"pid {pid} ({name}{moment}){f': {query}' if query else ''}")
    return found


def _describe_holders(connection: Connection, stream: str, any_reader: bool) -> str:
    found = holders(connection, stream, any_reader)
    connection.rollback()
    if not found:
        return "the holder has just released it"
    more = f" and {len(found) - MAX_HOLDERS_SHOWN} more" if len(found) > MAX_HOLDERS_SHOWN else ""
    return "; ".join(found[:MAX_HOLDERS_SHOWN]) + more
