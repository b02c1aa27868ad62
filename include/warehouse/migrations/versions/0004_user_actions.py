"""What users did on the pages.

Revision ID: 0004_user_actions
Revises: 0003_expectations
"""

from alembic import op

from include.warehouse.migrations import statements

revision = "0004_user_actions"
down_revision = "0003_expectations"


def upgrade() -> None:
    op.execute(statements("user_actions"))
