"""What the pages and the metrics show, and the sizes that are sampled once a minute.

Revision ID: 0002_monitoring
Revises: 0001_baseline
"""

from alembic import op

from include.warehouse.migrations import statements

revision = "0002_monitoring"
down_revision = "0001_baseline"


def upgrade() -> None:
    op.execute(statements("monitoring"))
