"""Every table and view of the schema millrace.

Revision ID: 0001_baseline
Revises:
"""

from alembic import op

from include.warehouse.migrations import statements

revision = "0001_baseline"
down_revision = None


def upgrade() -> None:
    op.execute(statements("tables"))
    op.execute(statements("views"))
