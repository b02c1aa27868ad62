"""Checkpoints of models that learn batch by batch, and how often such a model saw each row.

Revision ID: 0007_checkpoint
Revises: 0009_slices
"""

from alembic import op

revision = "0007_checkpoint"
down_revision = "0009_slices"


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE millrace.model_result ADD COLUMN passes integer;
        COMMENT ON COLUMN millrace.model_result.passes
            IS 'How often it saw every row, batch by batch; null: all rows were in memory';

        CREATE TABLE millrace.checkpoint (
            run       bigint      NOT NULL REFERENCES millrace.training_run ON DELETE CASCADE,
            model     text        NOT NULL,
            plan      text        NOT NULL,
            step      integer     NOT NULL,
            epoch     integer     NOT NULL,
            batch     integer     NOT NULL,
            estimator bytea       NOT NULL,
            sha256    text        NOT NULL,
            saved_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
            PRIMARY KEY (run, model)
        );
        COMMENT ON TABLE  millrace.checkpoint IS 'How far a model that learns batch by batch has come; gone at its end';
        COMMENT ON COLUMN millrace.checkpoint.plan IS 'SHA-256 of what it is fitted by; of another plan it is no use';
        COMMENT ON COLUMN millrace.checkpoint.estimator IS 'The estimator as it is then, by skops';
        """
    )
