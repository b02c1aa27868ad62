"""Connections to the warehouse, the PostgreSQL database of the Airflow connection ``millrace_postgres``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from include import connections
from include.error_codes import Code
from include.errors import UserError

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

CONNECT_TIMEOUT_S = 10


def connect(application_name: str = "millrace", **options: Any) -> Connection:
    """Opens a connection in psycopg2's default mode, one transaction at a time, with the time zone UTC.

    Args:
        application_name: Shown in ``pg_stat_activity``, which names the holder of a lock.
        **options: Further libpq parameters; they override the extra of the Airflow connection.

    Raises:
        UserError: The connection is undefined or invalid, or the server does not answer.
    """
    import psycopg2

    settings = connections.postgres()
    parameters = {
        "host": settings.host,
        "port": settings.port or 5432,
        "user": settings.login,
        "password": settings.password,
        "dbname": settings.database,
        "connect_timeout": CONNECT_TIMEOUT_S,
        # The kernel's default would keep the locks of a client whose machine is gone for two hours.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "application_name": application_name,
        "options": "-c timezone=UTC",
        **settings.extra,
        **options,
    }
    try:
        connection: Connection = psycopg2.connect(**parameters)
        return connection
    except psycopg2.ProgrammingError as error:
        raise connections.invalid(
            connections.POSTGRES,
            f"{str(error).strip()}.",
            "Correct its extra. ./millrace reads it from MILLRACE_CONN_POSTGRES, if that is set.",
        ) from error
    except psycopg2.OperationalError as error:
        # libpq's further lines repeat the remedy.
        reason = str(error).strip().partition("\n")[0]
        server = f"PostgreSQL at {settings.host}:{parameters['port']}"
        if "connection slots" in reason or "too many" in reason:
            raise UserError(
                f"{server} has no free connection: {reason}.",
                "End clients that stay connected; ./millrace doctor names them.",
                code=Code.CONNECTIONS_EXHAUSTED,
            ) from error
        raise UserError(
            f"{server} does not answer: {reason}.",
            "Start the platform with ./millrace up, or correct the connection millrace_postgres.",
            code=Code.POSTGRES_UNREACHABLE,
        ) from error


@contextmanager
def connected(application_name: str = "millrace", **options: Any) -> Iterator[Connection]:
    """Opens a connection for a ``with`` block and closes it at the end; what was not committed is rolled back."""
    connection = connect(application_name, **options)
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def reconnecting(application_name: str = "millrace", **options: Any) -> Iterator[Callable[[], Connection]]:
    """Keeps a connection open for work with long pauses.

    Yields:
        A function that returns the connection. Call it at the beginning of each transaction: it replaces a connection
        that broke while it was idle, because of a firewall or a restart of the server. A new connection for each
        transaction would cost the server 30 ms of a core.
    """
    import psycopg2

    current = connect(application_name, **options)

    def usable() -> Connection:
        nonlocal current
        if current.status == psycopg2.extensions.STATUS_READY:
            try:
                with current.cursor() as cursor:
                    cursor.execute("SELECT 1")
            except (psycopg2.OperationalError, psycopg2.InterfaceError):
                current.close()
                current = connect(application_name, **options)
        return current

    try:
        yield usable
    finally:
        current.close()
