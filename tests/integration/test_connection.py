"""Connections to a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from cli.doctor import Finding, _add
from embedded import postgres
from embedded.platform import Platform
from include.errors import UserError
from include.warehouse.connection import connect, lasting
from include.warehouse.queries import load

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


def test_a_server_without_free_connections_points_to_the_doctor_which_names_who_has_them(
    services: Platform, warehouse: Connection
) -> None:
    with closing(postgres.connect(services.home, services.home.state()["ports"]["postgres"])) as server:
        with server.cursor() as cursor:
            cursor.execute(f"ALTER DATABASE {warehouse.info.dbname} CONNECTION LIMIT 0")
        with pytest.raises(UserError, match=r"too many connections.*/millrace doctor names them"):
            connect()
        named = [name for name, *_ in load("platform").connection_holders(server, most=100)]
    assert {"test", "millrace platform"} <= set(named)


def test_what_the_doctor_cannot_look_at_is_a_finding_and_hides_no_other() -> None:
    def found() -> Iterator[Finding]:
        yield Finding("one", "do this")
        raise UserError("PostgreSQL does not answer.", "End clients.")

    findings = [Finding("before", "")]
    _add(findings, found())
    assert [each.what for each in findings] == ["before", "one", "PostgreSQL does not answer."]
