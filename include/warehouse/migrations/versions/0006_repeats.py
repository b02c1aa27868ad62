"""Repeats: records of a version that have the same features.

Revision ID: 0006_repeats
Revises: 0006_verification
"""

from alembic import op

revision = "0006_repeats"
down_revision = "0006_verification"


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE millrace.repeats (
            version text   PRIMARY KEY REFERENCES millrace.dataset_version,
            train   bigint NOT NULL,
            test    bigint NOT NULL,
            shared  bigint NOT NULL
        );
        COMMENT ON TABLE  millrace.repeats IS 'Records of a version with the same features, which is no error';
        COMMENT ON COLUMN millrace.repeats.train IS 'Training records whose features an earlier training record has';
        COMMENT ON COLUMN millrace.repeats.test IS 'Test records whose features an earlier test record has';
        COMMENT ON COLUMN millrace.repeats.shared IS 'Test records whose features a training record has';
        """
    )
