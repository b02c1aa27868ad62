"""The durable position of every reader of every topic.

Revision ID: 0001_position
Revises:
"""

from alembic import op

revision = "0001_position"
down_revision = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE millrace.position (
            reader        text        NOT NULL,
            topic         text        NOT NULL,
            partition     integer     NOT NULL CHECK (partition >= 0),
            topic_id      text        NOT NULL,
            next_offset   bigint      NOT NULL CHECK (next_offset >= 0),
            leader_epoch  integer,
            epoch         bigint      NOT NULL DEFAULT 0,
            owner         text        NOT NULL,
            backend_pid   integer     NOT NULL,
            backend_start timestamptz NOT NULL,
            updated_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
            PRIMARY KEY (reader, topic, partition)
        );
        COMMENT ON TABLE  millrace.position IS 'How far each reader has read; moved by the transaction that writes';
        COMMENT ON COLUMN millrace.position.reader IS 'Who reads: landing:<stream> or dispatch';
        COMMENT ON COLUMN millrace.position.topic_id IS 'The topic''s incarnation; a recreated one has another';
        COMMENT ON COLUMN millrace.position.next_offset IS 'Every offset below has its disposition';
        COMMENT ON COLUMN millrace.position.leader_epoch IS 'Leader epoch of the last record below next_offset';
        COMMENT ON COLUMN millrace.position.epoch IS 'Raised by each claim; a write with an older one is refused';
        COMMENT ON COLUMN millrace.position.backend_pid IS 'The owner''s backend, so that a successor can end it';
        """
    )
