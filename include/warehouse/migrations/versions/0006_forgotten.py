"""Forgotten versions: those whose records keep has removed from Kafka.

Revision ID: 0006_forgotten
Revises: 0006_repeats
"""

from alembic import op

revision = "0006_forgotten"
down_revision = "0006_repeats"


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE millrace.dataset_version ADD COLUMN forgotten_at timestamptz;
        CREATE INDEX ON millrace.dataset_version (topic, number);
        COMMENT ON COLUMN millrace.dataset_version.forgotten_at IS
            'When keep gave up its records in Kafka; nothing can be trained on it any more';
        """
    )
