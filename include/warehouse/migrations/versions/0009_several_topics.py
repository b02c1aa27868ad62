"""Streams that read several topics.

Revision ID: 0009_several_topics
Revises: 0008_withheld_letters
"""

from alembic import op

from include.warehouse.migrations import statements

revision = "0009_several_topics"
down_revision = "0008_withheld_letters"


def upgrade() -> None:
    op.execute(statements("several_topics"))
