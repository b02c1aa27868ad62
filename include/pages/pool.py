"""A few connections to the warehouse, shared by the threads of the api-server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore, Lock
from typing import TYPE_CHECKING

from include.error_codes import Code
from include.errors import UserError
from include.warehouse.connection import connect

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

SIZE = 4
WAIT_S = 5.0
# A page must not hold a connection for long, and waits for no lock of a landing transaction.
OPTIONS = "-c timezone=UTC -c statement_timeout=5s -c lock_timeout=500ms"


class Pool:
    """Connections for reading; each is used for one transaction that sees one state of the warehouse."""

    def __init__(self, size: int = SIZE) -> None:
        self._free = BoundedSemaphore(size)
        self._lock = Lock()
        self._idle: list[Connection] = []

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection for a ``with`` block.

        Raises:
            UserError: PostgreSQL does not answer, not in time, or all connections are in use.
        """
        import psycopg2

        if not self._free.acquire(timeout=WAIT_S):
            raise UserError(
                "All connections of the pages to the warehouse are in use.",
                "Try again in a moment.",
                code=Code.CONNECTIONS_EXHAUSTED,
            )
        try:
            connection = self._take()
            try:
                yield connection
                connection.rollback()
            except BaseException:
                connection.close()
                raise
            with self._lock:
                self._idle.append(connection)
        except psycopg2.Error as error:
            raise UserError(
                f"The warehouse did not answer: {str(error).strip().partition(chr(10))[0]}.",
                "Start the platform with ./millrace up, or try again in a moment.",
                code=Code.POSTGRES_UNREACHABLE,
            ) from error
        finally:
            self._free.release()

    def _take(self) -> Connection:
        import psycopg2

        while self._idle:
            with self._lock:
                if not self._idle:
                    break
                connection = self._idle.pop()
            try:
                with connection.cursor() as cursor:
                    cursor.execute("SELECT 1")
                return connection
            except (psycopg2.OperationalError, psycopg2.InterfaceError):
                # The server was restarted meanwhile.
                connection.close()
        connection = connect("millrace pages", options=OPTIONS)
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        return connection
