"""Locks on a stream's table: waited for briefly, so that other sessions do not queue, and their holders are named.

A statement that waits for a lock makes everybody wait who comes after it. So each change of a table waits for some
tenths of a second only, lets go, and tries again a few times; then it is left for later.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from include.errors import UserError
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

T = TypeVar("T")

# Readers and writers wait behind a change of the columns: it lets go soon.
WAIT_MS = 100
TRIES = 5
SHOWN = 3


class Locked(UserError):
    """A table could not be changed, because others keep it locked."""


def briefly(
    connection: Connection,
    stream: str,
    purpose: str,
    work: Callable[[], T],
    *,
    wait_ms: int = WAIT_MS,
    tries: int = TRIES,
    any_reader: bool = True,
) -> T:
    """Does the work in a transaction that waits for each lock ``wait_ms`` at most, tries it again, and commits.

    Args:
        connection: Not inside a transaction with uncommitted work.
        stream: Whose table is changed.
        purpose: What cannot be done without the locks, as the beginning of a sentence.
        any_reader: Whether readers and writers of rows are in the way, and not only those who change tables.

    Raises:
        Locked: Somebody kept a lock all the time; names who.
    """
    from psycopg2 import errors

    for attempt in range(1, tries + 1):
        try:
            with connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL lock_timeout = {wait_ms}")
            done = work()
            connection.commit()
            return done
        except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
            connection.rollback()
            if attempt == tries:
                raise Locked(
                    f"{purpose} waits for a lock on landing.{stream}: {_held(connection, stream, any_reader)}.",
                    "It is tried again later; or end who holds it: SELECT pg_terminate_backend(pid).",
                ) from error
            time.sleep(random.uniform(0, 0.02 * 2**attempt))
        except BaseException:
            if not connection.closed:
                connection.rollback()
            raise
    raise AssertionError("unreachable")


def holders(connection: Connection, stream: str, any_reader: bool = True) -> list[str]:
    """Who holds locks on a stream's table or its partitions now, longest first: pid, program, user, since when, query.

    Args:
        any_reader: Also who only reads or writes rows.
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


def _held(connection: Connection, stream: str, any_reader: bool) -> str:
    found = holders(connection, stream, any_reader)
    connection.rollback()
    if not found:
        return "it has just been released"
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return "; ".join(found[:SHOWN]) + more
