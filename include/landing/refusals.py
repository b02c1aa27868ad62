"""What PostgreSQL's errors mean for a batch, and which of its rows are to blame."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from include.landing.batch import Refusal

if TYPE_CHECKING:
    import psycopg2
    from psycopg2.extensions import connection as Connection

    from include.landing.copy import Rows

PROBED_ROWS = 500
# SQLSTATE classes, PostgreSQL's documentation, appendix "PostgreSQL Error Codes".
_OF_ROWS = ("22", "23", "44", "54", "P0")
_PASSING = ("08", "25006", "40", "53", "55", "57", "58")
_CHECK_VIOLATION = "23514"
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


def accepts(connection: Connection, rows: Rows, table: str, columns: tuple[str, ...]) -> bool:
    """Copies the rows, unless the server refuses one of them; then the transaction is as it was."""
    import psycopg2

    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE; SAVEPOINT whole")
        try:
            rows.send(connection, table, columns)
        except psycopg2.Error as error:
            if not is_of_rows(error):
                raise
            cursor.execute("ROLLBACK TO SAVEPOINT whole")
            return False
    return True


def find(connection: Connection, rows: Rows, table: str, columns: tuple[str, ...]) -> dict[int, Refusal]:
    """The rows that the server refuses, by their indices, inside a transaction in which nothing stays of the search.

    The server names the row that it refuses, so each bad row costs one round trip, and no good one is sent twice.
    Where it names none, as a foreign key's check does, halving finds it.
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
                rows.send(connection, table, columns, start, stop, before=undo)
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
    match = _LINE.search(error.diag.context or "")
    return int(match[1]) if match else None
