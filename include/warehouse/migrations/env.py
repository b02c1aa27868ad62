"""Alembic's environment: the warehouse's connection, one transaction, and an advisory lock around all migrations."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, create_engine, text

from include.error_codes import Code
from include.errors import UserError
from include.warehouse.connection import connect
from include.warehouse.migrations import BASELINE, FORMER, FORMER_HEADS, comments, revisions, statements

# An arbitrary constant: every process that migrates takes this lock.
MIGRATION_LOCK = 7_126_254


def adopt(connection: Connection) -> None:
    """Converts a warehouse of the former, branched history to the baseline of this one.

    Raises:
        UserError: The warehouse has a revision that cannot be upgraded.
    """
    if connection.scalar(text("SELECT to_regclass('millrace.schema_revision')")) is None:
        return
    found = set(connection.scalars(text("SELECT version_num FROM millrace.schema_revision")))
    if found == FORMER_HEADS:
        connection.execute(text(statements("adopt")))
        connection.execute(text(statements("views")))
        connection.execute(text(comments()))
        connection.execute(text("DELETE FROM millrace.schema_revision"))
        connection.execute(text("INSERT INTO millrace.schema_revision VALUES (:baseline)"), {"baseline": BASELINE})
    elif found & FORMER:
        raise UserError(
            f"The warehouse's schema is that of an older Millrace ({', '.join(sorted(found))}).",
            "Start it once with the last version that has the migration 0011_retirement, then with this one.",
            code=Code.SCHEMA_OUTDATED,
        )
    elif found - set(revisions()):
        raise UserError(
            f"The warehouse's schema is that of a newer Millrace ({', '.join(sorted(found))}).",
            "Use that version, or restore a backup that this version made.",
            code=Code.SCHEMA_TOO_NEW,
        )


engine = create_engine("postgresql+psycopg2://", creator=lambda: connect("millrace migrate"))
with engine.begin() as connection:
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
    connection.execute(text("CREATE SCHEMA IF NOT EXISTS millrace"))
    adopt(connection)
    context.configure(connection=connection, version_table_schema="millrace", version_table="schema_revision")
    context.run_migrations()
engine.dispose()
