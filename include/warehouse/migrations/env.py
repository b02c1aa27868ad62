"""How alembic reaches the warehouse: through the Airflow connection, in one transaction, under one advisory lock."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, create_engine, text

from include.errors import UserError
from include.warehouse.connection import connect
from include.warehouse.migrations import BASELINE, FORMER, FORMER_HEADS, comments, revisions, statements

# Any constant serves, as long as everybody who migrates takes the same lock.
MIGRATION_LOCK = 7_126_254


def adopt(connection: Connection) -> None:
    """Takes a warehouse of the former, branched history to the baseline of this one.

    Raises:
        UserError: The warehouse has a revision from which there is no way to this history.
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
        )
    elif found - set(revisions()):
        raise UserError(
            f"The warehouse's schema is that of a newer Millrace ({', '.join(sorted(found))}).",
            "Use that version, or restore a backup that this one made.",
        )


engine = create_engine("postgresql+psycopg2://", creator=lambda: connect("millrace migrate"))
with engine.begin() as connection:
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
    connection.execute(text("CREATE SCHEMA IF NOT EXISTS millrace"))
    adopt(connection)
    context.configure(connection=connection, version_table_schema="millrace", version_table="schema_revision")
    context.run_migrations()
engine.dispose()
