"""Dead letters without their bytes.

Revision ID: 0008_withheld_letters
Revises: 0007_filtered
"""

from alembic import op

from include.warehouse.migrations import statements

revision = "0008_withheld_letters"
down_revision = "0007_filtered"


def upgrade() -> None:
    op.execute(statements("withheld_letters"))
