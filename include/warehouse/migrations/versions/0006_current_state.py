"""The current state of streams.

Revision ID: 0006_current_state
Revises: 0005_partitions_forever
"""

from alembic import op

from include.warehouse.migrations import statements

revision = "0006_current_state"
down_revision = "0005_partitions_forever"


def upgrade() -> None:
    op.execute(statements("current_state"))
