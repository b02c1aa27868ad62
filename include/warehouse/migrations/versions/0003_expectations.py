"""The expectations of definitions, and the messages about them.

Revision ID: 0003_expectations
Revises: 0002_monitoring
"""

from alembic import op

from include.warehouse.migrations import statements

revision = "0003_expectations"
down_revision = "0002_monitoring"


def upgrade() -> None:
    op.execute(statements("expectations"))
