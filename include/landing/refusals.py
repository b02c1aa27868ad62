"""What PostgreSQL's errors mean for a batch, and which of its rows cause them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from include.landing import database_errors, table
from include.landing.batch import Refusal
from include.warehouse import queries

if TYPE_CHECKING:
    import psycopg2
    from psycopg2.extensions import connection as Connection

    from include.landing.batch import PreparedBatch, Preparer
    from include.landing.copy import Rows

ROWS_PER_TRIAL = 500
_FORBIDDEN = "42501"
_LIMIT = "54"
_ROW = '"row of the batch"'
_LINE = re.compile(r"COPY \w+, \S+ (\d+)")


def copy_accepted(connection: Connection, preparer: Preparer, batch: PreparedBatch) -> PreparedBatch:
    """Copies the rows that PostgreSQL accepts, and returns the batch with its other rows as dead letters.

    It searches until no row is refused: a later search can find a row that an earlier one hid.
    """
    stream, columns = preparer.stream.name, preparer.copied
    name = f"{table.SCHEMA}.{stream}"
    if screened := screen(connection, batch.rows, stream, columns):
        batch = preparer.refuse(batch, screened)
    while not accepts(connection, batch.rows, name, columns):
        batch = preparer.refuse(batch, find(connection, batch.rows, name, columns))
    return batch


def accepts(connection: Connection, rows: Rows, name: str, columns: tuple[str, ...]) -> bool:
    """Copies the rows and returns True; or leaves the transaction unchanged if PostgreSQL refuses one of them."""
    import psycopg2

    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE; SAVEPOINT whole")
        try:
            rows.send(connection, name, columns)
        except psycopg2.Error as error:
            if not database_errors.is_of_rows(error):
                raise
            cursor.execute("ROLLBACK TO SAVEPOINT whole")
            return False
    return True


def screen(connection: Connection, rows: Rows, stream: str, columns: tuple[str, ...]) -> dict[int, Refusal]:
    """The rows that violate a CHECK or FOREIGN KEY constraint of the stream's table, by their indices, in one pass.

    It copies the rows into a temporary table, without indexes and WAL, and applies the constraints in one query. That
    finds most refused rows for the price of a fast COPY; ``find`` finds the others. It returns none if a trigger could
    change rows before they are checked, if an expression fails, or if the role may not create temporary tables. It runs
    inside a transaction and leaves nothing in it.
    """
    import psycopg2

    constraints = list(queries.load("landing").read_constraints(connection, stream=stream))
    if not constraints or not len(rows):
        return {}
    with connection.cursor() as cursor:
        cursor.execute("SAVEPOINT screen")
        try:
            cursor.execute(
                f'CREATE TEMP TABLE screened (LIKE {table.SCHEMA}."{stream}" '
                "INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING IDENTITY); "
                f"ALTER TABLE screened ADD {_ROW} integer GENERATED ALWAYS AS IDENTITY (CACHE 10000)"
            )
            rows.send(connection, "pg_temp.screened", columns)
            cursor.execute(_violations([holds for *_, holds in constraints]))
            broken = cursor.fetchall()
        except psycopg2.Error as error:
            if not database_errors.is_of_rows(error) and error.pgcode != _FORBIDDEN:
                raise
            broken = []
        cursor.execute("ROLLBACK TO SAVEPOINT screen; RELEASE SAVEPOINT screen")
    refused = [
        Refusal(sqlstate, f'new row for relation "{stream}" violates {kind} constraint "{name}"')
        for sqlstate, kind, name, _ in constraints
    ]
    return {row - 1: refused[constraint] for row, constraint in broken}


def _violations(constraints: list[str]) -> str:
    """The query for the rows that violate a constraint: their numbers, each with the first constraint it violates."""
    cases = " ".join(f"WHEN ({holds}) IS FALSE THEN {index}" for index, holds in enumerate(constraints))
    return f"SELECT * FROM (SELECT {_ROW}, CASE {cases} END AS broken FROM screened) AS judged WHERE broken IS NOT NULL"


def find(connection: Connection, rows: Rows, name: str, columns: tuple[str, ...]) -> dict[int, Refusal]:
    """The rows that PostgreSQL refuses, by their indices. It runs inside a transaction and leaves nothing in it.

    PostgreSQL's error names the refused row, so that each bad row costs one round trip and no good row is sent twice.
    If the error names no row (a foreign key) or another one (a row too large for a page), bisection finds it.
    """
    import psycopg2

    refused: dict[int, Refusal] = {}
    spans = [(start, min(start + ROWS_PER_TRIAL, len(rows))) for start in range(0, len(rows), ROWS_PER_TRIAL)][::-1]
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE; SAVEPOINT search")
        undo = ""
        while spans:
            start, stop = spans.pop()
            try:
                rows.send(connection, name, columns, start, stop, before=undo)
                undo = ""
            except psycopg2.Error as error:
                if not database_errors.is_of_rows(error):
                    raise
                undo = "ROLLBACK TO SAVEPOINT search; "
                line = _line(error)
                if line is None and stop - start > 1:
                    middle = (start + stop) // 2
                    spans += [(middle, stop), (start, middle)]
                    continue
                bad = start + (line or 1) - 1
                refused[bad] = Refusal(error.pgcode or "", error.diag.message_primary or str(error))
                if bad + 1 < stop:
                    spans.append((bad + 1, stop))
        cursor.execute("ROLLBACK TO SAVEPOINT search; RELEASE SAVEPOINT search")
    return refused


def _line(error: psycopg2.Error) -> int | None:
    """The number of the refused row, from 1, from the error's context; None if it has none."""
    if (error.pgcode or "").startswith(_LIMIT):
        # Rows are written a thousand at a time, and the context names the last one that was read.
        return None
    match = _LINE.search(error.diag.context or "")
    return int(match[1]) if match else None
