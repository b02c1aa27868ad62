-- The current state of streams.

CREATE TABLE millrace.landing_current (
    stream text PRIMARY KEY,
    key text[] NOT NULL,
    order_by text,
    deletes text,
    filled_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE millrace.landing_current IS
    'The streams whose current state is kept up to date, in the table landing.<stream>_state and the view '
    'landing.<stream>_current';
COMMENT ON COLUMN millrace.landing_current.key IS 'The fields of the key';
COMMENT ON COLUMN millrace.landing_current.order_by IS
    'The field that orders the records of a key; null for their offsets';
COMMENT ON COLUMN millrace.landing_current.deletes IS 'Which records delete their key, as in the definition; null for none';
COMMENT ON COLUMN millrace.landing_current.filled_at IS 'When the state was filled from the history';

ALTER TABLE millrace.landing_replay
    DROP CONSTRAINT landing_replay_check1,
    ADD COLUMN more_skipped bigint NOT NULL DEFAULT 0,
    ADD CHECK (more_landed + more_dead_letters + more_quarantined + more_skipped = 0);
COMMENT ON COLUMN millrace.landing_replay.more_skipped IS
    'How many more tombstones than before the replay are skipped, because they were dead letters; negative for fewer';
