"""What PostgreSQL's errors mean for landing: a row is refused, the statement may succeed later, or it never will."""

from __future__ import annotations

from typing import TYPE_CHECKING

from include.error_codes import Code
from include.errors import NonRetryableError, UserError
from include.warehouse import revision

if TYPE_CHECKING:
    import psycopg2

# SQLSTATE classes, PostgreSQL's documentation, appendix "PostgreSQL Error Codes".
_OF_ROWS = ("22", "23", "44", "54", "P0")
_TRANSIENT = ("08", "25006", "40", "53", "55", "57", "58")
# Unsupported by the table's settings, dependent objects, no permission, no such column or table, wrong kind of object.
_PERMANENT = ("0A", "23", "2B", "42501", "42703", "42704", "42804", "42809", "42P01", "42P10", "42P16", "55000")
_CHECK_VIOLATION = "23514"


def is_of_rows(error: BaseException) -> bool:
    """Whether PostgreSQL refuses a row because of its values."""
    return _sqlstate(error).startswith(_OF_ROWS)


def is_transient(error: psycopg2.Error) -> bool:
    """Whether the same statement can succeed later: no connection, no space, a lock, a shutdown, a standby."""
    from psycopg2 import InterfaceError, OperationalError

    if error.pgcode is None:
        return isinstance(error, OperationalError | InterfaceError)
    return error.pgcode.startswith(_TRANSIENT)


def is_of_partition(error: BaseException) -> bool:
    """Whether there is no partition for a row: PostgreSQL reports a check violation without a constraint's name."""
    import psycopg2

    return isinstance(error, psycopg2.Error) and error.pgcode == _CHECK_VIOLATION and error.diag.constraint_name is None


def explained(error: BaseException) -> UserError | None:
    """The user's error for an error of PostgreSQL that a retry cannot fix; None for any other error.

    Its cause is a change that a user made to a table: permissions, row security, dependent objects. If the cause is
    that the warehouse was not migrated, the error is one that Airflow tries again.
    """
    import psycopg2

    if not isinstance(error, psycopg2.Error) or not _sqlstate(error).startswith(_PERMANENT):
        return None
    if (mismatch := revision.mismatch(error)) is not None:
        return mismatch
    message = (error.diag.message_primary, error.diag.message_detail, error.diag.message_hint)
    text = " ".join(part.rstrip(".") + "." for part in message if part)
    return NonRetryableError(
        f"PostgreSQL refuses a statement, SQLSTATE {error.pgcode}: {text} Nothing was written.",
        "Grant the permission, or undo the change of the table that its message names.",
        code=Code.STATEMENT_REFUSED,
    )


def _sqlstate(error: BaseException) -> str:
    import psycopg2

    return (error.pgcode or "") if isinstance(error, psycopg2.Error) else ""
