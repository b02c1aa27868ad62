-- The state of each stream, sampled once a minute.

CREATE TABLE millrace.stream_sample (
    stream       text        NOT NULL,
    sampled_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    lag          bigint,
    behind_s     double precision,
    landed       bigint      NOT NULL,
    dead_letters bigint      NOT NULL,
    newest_event timestamptz,
    stopped      text,
    PRIMARY KEY (stream, sampled_at)
);
COMMENT ON TABLE  millrace.stream_sample IS 'Lag and totals of each stream, one row a minute, kept for some days';
COMMENT ON COLUMN millrace.stream_sample.lag IS 'Offsets past the position; null if Kafka did not answer';
COMMENT ON COLUMN millrace.stream_sample.behind_s IS 'Age in seconds of the oldest record that waits; null if unknown';
COMMENT ON COLUMN millrace.stream_sample.landed IS 'Rows landed since the beginning';
COMMENT ON COLUMN millrace.stream_sample.dead_letters IS 'Dead letters and quarantined records that are stored';
COMMENT ON COLUMN millrace.stream_sample.stopped IS 'The error that stops the stream; null if it can continue';
