"""Records that are filtered.

Revision ID: 0007_filtered
Revises: 0006_current_state
"""

from alembic import op

from include.warehouse.migrations import statements

revision = "0007_filtered"
down_revision = "0006_current_state"


def upgrade() -> None:
    op.execute(statements("filtered"))
