"""Partitions that are kept forever.

Revision ID: 0005_partitions_forever
Revises: 0004_user_actions
"""

from alembic import op

from include.warehouse.migrations import statements

revision = "0005_partitions_forever"
down_revision = "0004_user_actions"


def upgrade() -> None:
    op.execute(statements("partitions_forever"))
