"""The landing of streams: topic incarnations, dead letters and the ledger; the tables of streams are their own schema.

Revision ID: 0003_landing
Revises: 0001_position
"""

from alembic import op

revision = "0003_landing"
down_revision = "0001_position"
branch_labels = ("landing",)


def upgrade() -> None:
    op.execute(
        """
        CREATE SCHEMA landing;
        COMMENT ON SCHEMA landing IS 'One partitioned table for each stream; every event is in it exactly once';

        CREATE TABLE millrace.topic_incarnation (
            topic    text        NOT NULL,
            number   smallint    NOT NULL CHECK (number > 0),
            topic_id text        NOT NULL,
            met_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
            PRIMARY KEY (topic, number),
            UNIQUE (topic, topic_id)
        );
        COMMENT ON TABLE millrace.topic_incarnation IS
            'Numbers the topics that had one name after each other: offsets are unique within one only';

        CREATE TABLE millrace.dead_letter (
            stream            text        NOT NULL,
            kafka_incarnation smallint    NOT NULL,
            kafka_partition   integer     NOT NULL,
            kafka_offset      bigint      NOT NULL,
            disposition       text        NOT NULL CHECK (disposition IN ('dead letter', 'quarantined')),
            reason            text        NOT NULL,
            sqlstate          text,
            appended_at       timestamptz NOT NULL,
            event_time        timestamptz,
            key               bytea,
            value             bytea,
            headers           jsonb,
            kept_at           timestamptz NOT NULL DEFAULT clock_timestamp(),
            PRIMARY KEY (stream, kafka_incarnation, kafka_partition, kafka_offset)
        );
        COMMENT ON TABLE millrace.dead_letter IS
            'Records that could not be landed (dead letter) or came too late or early (quarantined), as they were';
        COMMENT ON COLUMN millrace.dead_letter.sqlstate IS
            'What PostgreSQL called it, when it was PostgreSQL that refused the row';
        COMMENT ON COLUMN millrace.dead_letter.appended_at IS
            'When the record was appended in Kafka; late and early are judged against it';
        COMMENT ON COLUMN millrace.dead_letter.headers IS
            'Pairs of name and value, the value base64';

        CREATE TABLE millrace.landing_ledger (
            stream            text        NOT NULL,
            kafka_incarnation smallint    NOT NULL,
            kafka_partition   integer     NOT NULL,
            epoch             bigint      NOT NULL,
            first_offset      bigint      NOT NULL,
            next_offset       bigint      NOT NULL,
            landed            bigint      NOT NULL,
            dead_letters      bigint      NOT NULL,
            quarantined       bigint      NOT NULL,
            skipped           bigint      NOT NULL,
            no_records        bigint      NOT NULL,
            checksum          numeric     NOT NULL,
            newest_event      timestamptz,
            started_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
            updated_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
            PRIMARY KEY (stream, kafka_incarnation, kafka_partition, epoch),
            CHECK (next_offset - first_offset = landed + dead_letters + quarantined + skipped + no_records)
        ) WITH (fillfactor = 50);
        COMMENT ON TABLE millrace.landing_ledger IS
            'What became of every offset: a row for each claim of a partition, kept in the transactions that land';
        COMMENT ON COLUMN millrace.landing_ledger.epoch IS
            'The claim of millrace.position under which these offsets were landed';
        COMMENT ON COLUMN millrace.landing_ledger.skipped IS
            'Tombstones: records without a value';
        COMMENT ON COLUMN millrace.landing_ledger.no_records IS
            'Offsets of commit markers, of aborted and of compacted records';
        COMMENT ON COLUMN millrace.landing_ledger.checksum IS
            'Sum of the CRC-32 of every record''s value, begun with its offset';
        """
    )
