"""Connections to the warehouse, the PostgreSQL database behind the connection ``millrace_postgres``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from include import connections
from include.errors import UserError

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

CONNECT_TIMEOUT_S = 10


def connect(application_name: str = "millrace", **options: Any) -> Connection:
    """Opens a new connection, in a transaction as psycopg2 leaves it, with the session's time zone set to UTC.

    Args:
        application_name: Shown in ``pg_stat_activity``, so that a person sees who holds a lock.
        **options: Further libpq parameters; they win over the Airflow connection's extra.

    Raises:
        UserError: The connection is not defined or usable, or the server does not answer.
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
        # A client whose machine vanished must not hold its locks for the two hours of the kernel's default.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "application_name": application_name,
        "options": "-c timezone=UTC",
        **settings.extra,
        **options,
    }
    try:
        return psycopg2.connect(**parameters)
    except psycopg2.ProgrammingError as error:
        raise UserError(
            f"The Airflow connection {connections.POSTGRES!r} is not usable: {str(error).strip()}.",
            "Fix its extra; ./millrace takes it from MILLRACE_CONN_POSTGRES, if that is set.",
        ) from error
    except psycopg2.OperationalError as error:
        # libpq's further lines ask whether the server runs, which is what the remedy says.
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"PostgreSQL at {settings.host}:{parameters['port']} does not answer: {reason}.",
            "End clients that never close; ./millrace doctor names them."
            if "connection slots" in reason or "too many" in reason
            else "Start the platform with ./millrace up, or fix the connection millrace_postgres.",
        ) from error


@contextmanager
def connected(application_name: str = "millrace", **options: Any) -> Iterator[Connection]:
    """A connection for the length of a ``with`` block; closed at its end, whatever was not committed is rolled back."""
    connection = connect(application_name, **options)
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def lasting(application_name: str = "millrace", **options: Any) -> Iterator[Callable[[], Connection]]:
    """A connection for work with long pauses: call what is yielded to get it, at the beginning of each transaction.

    A connection that broke while it was idle (a firewall, a restart of the server) is replaced by a new one. A new one
    for each transaction would cost the server 30 ms of a core each.
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
