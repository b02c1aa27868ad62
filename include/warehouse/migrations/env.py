"""How alembic reaches the warehouse: through the Airflow connection, in one transaction, under one advisory lock."""

from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine, text

from include.warehouse.connection import connect

# Any constant serves, as long as everybody who migrates takes the same lock.
MIGRATION_LOCK = 7_126_254

engine = create_engine("postgresql+psycopg2://", creator=lambda: connect("millrace migrate"))
with engine.begin() as connection:
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
    connection.execute(text("CREATE SCHEMA IF NOT EXISTS millrace"))
    context.configure(connection=connection, version_table_schema="millrace", version_table="schema_revision")
    context.run_migrations()
engine.dispose()
