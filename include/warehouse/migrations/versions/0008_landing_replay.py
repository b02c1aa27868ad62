"""The landing's replays: ranges below the position that were landed again.

Revision ID: 0008_landing_replay
Revises: 0005_landing_gap
"""

from alembic import op

revision = "0008_landing_replay"
down_revision = "0005_landing_gap"


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE millrace.landing_replay (
            replay            bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            stream            text        NOT NULL,
            kafka_incarnation smallint    NOT NULL,
            kafka_partition   integer     NOT NULL,
            first_offset      bigint      NOT NULL,
            next_offset       bigint      NOT NULL CHECK (next_offset > first_offset),
            landed            bigint      NOT NULL,
            dead_letters      bigint      NOT NULL,
            quarantined       bigint      NOT NULL,
            more_landed       bigint      NOT NULL,
            more_dead_letters bigint      NOT NULL,
            more_quarantined  bigint      NOT NULL,
            replayed_by       text        NOT NULL,
            replayed_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
            CHECK (more_landed + more_dead_letters + more_quarantined = 0)
        );
        CREATE INDEX ON millrace.landing_replay (stream);
        COMMENT ON TABLE millrace.landing_replay IS
            'Ranges below the position that were landed again from Kafka, each in one transaction; an entry supersedes '
            'what was counted of its offsets before, and its transaction corrected millrace.landing_ledger by it';
        COMMENT ON COLUMN millrace.landing_replay.landed IS
            'What became of the records now; those that Kafka no longer has kept their fate, and are not counted';
        COMMENT ON COLUMN millrace.landing_replay.more_landed IS
            'How many more there are than before the replay; negative when there are fewer';
        """
    )
