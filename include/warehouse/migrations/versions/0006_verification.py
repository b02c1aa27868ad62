"""Verification: a digest of what each model predicted, and every proof that somebody asked for.

Revision ID: 0006_verification
Revises: 0007_checkpoint
"""

from alembic import op

revision = "0006_verification"
down_revision = "0007_checkpoint"


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE millrace.model_result ADD COLUMN predictions_sha256 text;
        COMMENT ON COLUMN millrace.model_result.predictions_sha256 IS 'Of its predictions for the test rows';

        CREATE TABLE millrace.verification (
            verification bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            dataset      text        NOT NULL,
            version      text        NOT NULL REFERENCES millrace.dataset_version,
            run          bigint      REFERENCES millrace.training_run ON DELETE CASCADE,
            asked_by     text        NOT NULL,
            started_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
            finished_at  timestamptz,
            outcome      text CHECK (outcome IN ('identical', 'same data, other library versions', 'different')),
            findings     text[]      NOT NULL DEFAULT '{}',
            libraries    jsonb       NOT NULL DEFAULT '{}',
            CHECK ((outcome IS NULL) = (finished_at IS NULL))
        );
        CREATE INDEX ON millrace.verification (run);
        COMMENT ON TABLE  millrace.verification IS 'Every proof of a version or a run: who asked, when, what came out';
        COMMENT ON COLUMN millrace.verification.run IS 'What was derived again; null: the version was read alone';
        COMMENT ON COLUMN millrace.verification.outcome IS 'Null while it is at work, or when it was broken off';
        COMMENT ON COLUMN millrace.verification.findings IS 'What differs, a sentence each';
        COMMENT ON COLUMN millrace.verification.libraries IS 'Those that are others now: name to [then, now]';
        """
    )
