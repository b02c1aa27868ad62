"""What PostgreSQL's errors mean for a batch, and which of its rows are to blame."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from include.errors import NonRetryableError
from include.landing import table
from include.landing.batch import Refusal
from include.warehouse import queries

if TYPE_CHECKING:
    import psycopg2
    from psycopg2.extensions import connection as Connection

    from include.landing.batch import Prepared, Preparer
    from include.landing.copy import Rows

PROBED_ROWS = 500
# SQLSTATE classes, PostgreSQL's documentation, appendix "PostgreSQL Error Codes".
_OF_ROWS = ("22", "23", "44", "54", "P0")
_FORBIDDEN = "42501"
_PASSING = ("08", "25006", "40", "53", "55", "57", "58")
# A feature that a table's settings exclude, something that depends, a missing right, column, table, a wrong kind.
_LASTING = ("0A", "23", "2B", "42501", "42703", "42704", "42804", "42809", "42P01", "42P10", "42P16", "55000")
_CHECK_VIOLATION = "23514"
_LIMIT = "54"
_ROW = '"row of the batch"'
_LINE = re.compile(r"COPY \w+, \S+ (\d+)")


def is_of_rows(error: psycopg2.Error) -> bool:
    """Whether the server refuses rows for what is in them."""
    return (error.pgcode or "").startswith(_OF_ROWS)


def is_passing(error: psycopg2.Error) -> bool:
    """Whether the same may well succeed later: no connection, no space, a lock, a shutdown, a standby."""
    from psycopg2 import InterfaceError, OperationalError

    if error.pgcode is None:
        return isinstance(error, OperationalError | InterfaceError)
    return error.pgcode.startswith(_PASSING)


def is_of_partition(error: psycopg2.Error) -> bool:
    """Whether a row has no partition to go to: a check is violated that has no name."""
    return error.pgcode == _CHECK_VIOLATION and error.diag.constraint_name is None


def named(error: psycopg2.Error) -> NonRetryableError | None:
    """An error of PostgreSQL that trying again does not help, in a sentence; None for every other.

    It is of something that a person has done to a table: rights, security, what depends on it.
    """
    if not (error.pgcode or "").startswith(_LASTING):
        return None
    said = (error.diag.message_primary, error.diag.message_detail, error.diag.message_hint)
    text = " ".join(part.rstrip(".") + "." for part in said if part)
    return NonRetryableError(
        f"PostgreSQL refuses ({error.pgcode}): {text}", "Nothing was written; see what forbids it."
    )


def copy_accepted(connection: Connection, preparer: Preparer, batch: Prepared) -> Prepared:
    """Copies what the server takes of a batch, and returns that: its other rows have become dead letters.

    A search may uncover what an earlier one could not see.
    """
    stream, columns = preparer.stream.name, preparer.copied
    name = f"{table.SCHEMA}.{stream}"
    if screened := screen(connection, batch.rows, stream, columns):
        batch = preparer.refuse(batch, screened)
    while not accepts(connection, batch.rows, name, columns):
        batch = preparer.refuse(batch, find(connection, batch.rows, name, columns))
    return batch


def accepts(connection: Connection, rows: Rows, name: str, columns: tuple[str, ...]) -> bool:
    """Copies the rows, unless the server refuses one of them; then the transaction is as it was."""
    import psycopg2

    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE; SAVEPOINT whole")
        try:
            rows.send(connection, name, columns)
        except psycopg2.Error as error:
            if not is_of_rows(error):
                raise
            cursor.execute("ROLLBACK TO SAVEPOINT whole")
            return False
    return True


def screen(connection: Connection, rows: Rows, stream: str, columns: tuple[str, ...]) -> dict[int, Refusal]:
    """The rows that break a CHECK or FOREIGN KEY constraint of the stream's table, by their indices, in one pass.

    The rows are copied into a temporary table, which has no index and no log, and one query applies the constraints to
    them. That finds most of what a server refuses for the price of a fast COPY; the rest is for ``find``. Nothing is
    found where the server may judge otherwise (a trigger can change rows), where an expression fails, or where the role
    may make no temporary table. Inside a transaction, in which nothing stays.
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
            if not is_of_rows(error) and error.pgcode != _FORBIDDEN:
                raise
            broken = []
        cursor.execute("ROLLBACK TO SAVEPOINT screen; RELEASE SAVEPOINT screen")
    refused = [
        Refusal(sqlstate, f'new row for relation "{stream}" violates {kind} constraint "{name}"')
        for sqlstate, kind, name, _ in constraints
    ]
    return {row - 1: refused[constraint] for row, constraint in broken}


def _violations(constraints: list[str]) -> str:
    """The query for rows that break a constraint: their numbers, with the first constraint that each breaks."""
    cases = " ".join(f"WHEN ({holds}) IS FALSE THEN {index}" for index, holds in enumerate(constraints))
    return f"SELECT * FROM (SELECT {_ROW}, CASE {cases} END AS broken FROM screened) AS judged WHERE broken IS NOT NULL"


def find(connection: Connection, rows: Rows, name: str, columns: tuple[str, ...]) -> dict[int, Refusal]:
    """The rows that the server refuses, by their indices, inside a transaction in which nothing stays of the search.

    The server names the row that it refuses, so each bad row costs one round trip, and no good one is sent twice.
    Where it names none, as a foreign key's check does, or another, as for a row that no page can hold, halving finds
    it.
    """
    import psycopg2

    refused: dict[int, Refusal] = {}
    spans = [(start, min(start + PROBED_ROWS, len(rows))) for start in range(0, len(rows), PROBED_ROWS)][::-1]
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE; SAVEPOINT search")
        undo = ""
        while spans:
            start, stop = spans.pop()
            try:
                rows.send(connection, name, columns, start, stop, before=undo)
                undo = ""
            except psycopg2.Error as error:
                if not is_of_rows(error):
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
    """The number of the refused row, the first being 1, from the error's context; None when it does not tell."""
    if (error.pgcode or "").startswith(_LIMIT):
        # Rows are written a thousand at a time: the context names the last one that was read.
        return None
    match = _LINE.search(error.diag.context or "")
    return int(match[1]) if match else None
