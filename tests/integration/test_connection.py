"""Connections to a real PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from include.warehouse.connection import lasting

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


def _backend(connection: Connection) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        found: tuple[int] = cursor.fetchone()  # type: ignore[assignment]
    connection.commit()
    return found[0]


def test_a_connection_that_breaks_between_transactions_is_replaced(warehouse: Connection) -> None:
    with lasting("test") as connection:
        first = _backend(connection())
        assert _backend(connection()) == first
        with warehouse.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", (first,))
        assert _backend(connection()) != first
