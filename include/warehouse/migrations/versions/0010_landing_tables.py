"""The landing's tables: which columns Millrace made, which values wait for their column, and why a stream fails.

Revision ID: 0010_landing_tables
Revises: 0008_landing_replay
"""

from alembic import op

revision = "0010_landing_tables"
down_revision = "0008_landing_replay"


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE millrace.landing_column (
            stream   text    NOT NULL,
            name     text    NOT NULL,
            required boolean NOT NULL,
            PRIMARY KEY (stream, name)
        );
        COMMENT ON TABLE millrace.landing_column IS
            'The columns of the streams'' tables that Millrace made; it changes no others';
        COMMENT ON COLUMN millrace.landing_column.required IS
            'Whether Millrace made it NOT NULL';
        -- Until now nothing was recorded. A column that fills itself is a person's.
        INSERT INTO millrace.landing_column
        SELECT relname, attname, attnotnull
        FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
        WHERE relnamespace = 'landing'::regnamespace AND relkind = 'p'
          AND attnum > 0 AND NOT attisdropped AND NOT atthasdef AND attidentity = '';

        CREATE TABLE millrace.landing_unfilled (
            stream            text        NOT NULL,
            kafka_incarnation smallint    NOT NULL,
            kafka_partition   integer     NOT NULL,
            first_offset      bigint      NOT NULL,
            next_offset       bigint      NOT NULL CHECK (next_offset > first_offset),
            columns           text[]      NOT NULL,
            since             timestamptz NOT NULL DEFAULT clock_timestamp(),
            PRIMARY KEY (stream, kafka_incarnation, kafka_partition)
        );
        COMMENT ON TABLE millrace.landing_unfilled IS
            'Ranges of offsets that landed without the values of new columns, because the table was locked when these '
            'were to be added; a replay of the range fills them, and removes the entry';

        CREATE TABLE millrace.landing_failure (
            stream   text        NOT NULL,
            task     text        NOT NULL,
            since    timestamptz NOT NULL DEFAULT clock_timestamp(),
            last_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
            failures integer     NOT NULL DEFAULT 1,
            error    text        NOT NULL,
            PRIMARY KEY (stream, task)
        );
        COMMENT ON TABLE millrace.landing_failure IS
            'Tasks of streams that fail: since when, how often, and the newest error; a success removes the entry';
        """
    )
