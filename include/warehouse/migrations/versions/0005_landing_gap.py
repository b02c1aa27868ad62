"""The landing's gaps: what a person decided where going on would lose or repeat records; and replays in the ledger.

Revision ID: 0005_landing_gap
Revises: 0003_landing
"""

from alembic import op

revision = "0005_landing_gap"
down_revision = "0003_landing"


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE millrace.landing_gap (
            gap               bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            stream            text        NOT NULL,
            kafka_incarnation smallint    NOT NULL,
            kafka_partition   integer     NOT NULL,
            first_offset      bigint      NOT NULL,
            next_offset       bigint,
            choice            text        NOT NULL CHECK (choice IN ('lost', 'recreated', 'truncated', 'bad')),
            accepted_by       text        NOT NULL,
            accepted_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
            CHECK (next_offset >= first_offset)
        );
        CREATE INDEX ON millrace.landing_gap (stream);
        COMMENT ON TABLE millrace.landing_gap IS
            'What a person accepted with ./millrace accept, so that a stream could go on';
        COMMENT ON COLUMN millrace.landing_gap.next_offset IS
            'The end, exclusive; null when nobody can know it: a deleted topic took its records along';
        COMMENT ON COLUMN millrace.landing_gap.choice IS
            'lost: removed before they were read; recreated: the next incarnation begins at 0; truncated: Kafka has '
            'them no more, the tables do, and the next incarnation begins here; bad: all may become dead letters';

        ALTER TABLE millrace.topic_incarnation DROP CONSTRAINT topic_incarnation_topic_topic_id_key;
        COMMENT ON COLUMN millrace.topic_incarnation.topic_id IS
            'Kafka''s id of the topic; the same as before where its log was truncated and goes on anew';
        """
    )
