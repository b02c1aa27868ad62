"""Connections to a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from cli.doctor import Finding, _add
from embedded import postgres
from embedded.platform import Platform
from include.error_codes import Code
from include.errors import UserError
from include.warehouse.connection import connect, reconnecting
from include.warehouse.queries import load
from tests.errors import raises

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


def _backend(connection: Connection) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        found: tuple[int] = cursor.fetchone()  # type: ignore[assignment]
    connection.commit()
    return found[0]


def test_a_connection_that_breaks_between_transactions_is_replaced(warehouse: Connection) -> None:
    with reconnecting("test") as connection:
        first = _backend(connection())
        assert _backend(connection()) == first
        with warehouse.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", (first,))
        assert _backend(connection()) != first


def test_the_doctor_names_the_clients_of_a_server_without_free_connections(
    services: Platform, warehouse: Connection
) -> None:
    with closing(postgres.connect(services.home, services.home.state()["ports"]["postgres"])) as server:
        with server.cursor() as cursor:
            cursor.execute(f"ALTER DATABASE {warehouse.info.dbname} CONNECTION LIMIT 0")
        with raises(Code.CONNECTIONS_EXHAUSTED, "./millrace doctor"):
            connect()
        named = [name for name, *_ in load("platform").connection_holders(server, most=100)]
    assert {"test", "millrace platform"} <= set(named)


def test_a_check_of_the_doctor_that_fails_is_a_finding_and_hides_no_other() -> None:
    def found() -> Iterator[Finding]:
        yield Finding("one", "do this")
        raise UserError("PostgreSQL does not answer.", "End clients.", code=Code.CONNECTIONS_EXHAUSTED)

    findings = [Finding("before", "")]
    _add(findings, found())
    assert [each.what for each in findings] == ["before", "one", "PostgreSQL does not answer."]
