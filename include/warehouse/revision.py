"""Whether the warehouse has the schema that this code needs: new code may run before the warehouse is migrated."""

from __future__ import annotations

from include.error_codes import Code
from include.errors import UserError
from include.warehouse.connection import connected
from include.warehouse.migrations import revisions

# No such column, table or view, function, schema.
_MISSING = frozenset({"42703", "42P01", "42883", "3F000"})


def mismatch(error: BaseException) -> UserError | None:
    """The user's error for an error of PostgreSQL whose cause is a schema of another version; None for another cause.

    It asks the warehouse only if something is missing, so that a connection costs no query.
    """
    import psycopg2

    if not isinstance(error, psycopg2.Error) or error.pgcode not in _MISSING:
        return None
    try:
        found = _revision()
    except (psycopg2.Error, UserError):
        return None
    known = revisions()
    if found == known[-1]:
        return None
    if found is not None and found not in known:
        return UserError(
            f"The warehouse's schema is that of a newer Millrace ({found}).",
            "Use that version, or restore a backup that this version made.",
            code=Code.SCHEMA_TOO_NEW,
        )
    return UserError(
        f"The warehouse's schema is {found or 'missing'}, and this code needs {known[-1]}.",
        "Run ./millrace up, which migrates it. With your own Airflow, see docs/platform.md.",
        code=Code.SCHEMA_NOT_MIGRATED,
    )


def _revision() -> str | None:
    """The revision of the warehouse's schema; None before the first migration."""
    with connected("millrace revision") as connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('millrace.schema_revision') IS NOT NULL")
        if cursor.fetchone() == (False,):
            return None
        cursor.execute("SELECT version_num FROM millrace.schema_revision")
        row = cursor.fetchone()
    return None if row is None else str(row[0])
