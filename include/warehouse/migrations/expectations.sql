-- Expectations that failed, and the messages about them.

CREATE TABLE millrace.failed_expectation (
    number       bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subject      text        NOT NULL,
    expectation  text        NOT NULL,
    detail       text        NOT NULL,
    failed_at    timestamptz NOT NULL,
    calm         interval    NOT NULL DEFAULT '0',
    held_since   timestamptz,
    ended_at     timestamptz
);
CREATE UNIQUE INDEX ON millrace.failed_expectation (subject, expectation) WHERE ended_at IS NULL;
CREATE INDEX ON millrace.failed_expectation (subject, expectation, ended_at);
COMMENT ON TABLE  millrace.failed_expectation IS 'Each time that an expectation of a definition failed';
COMMENT ON COLUMN millrace.failed_expectation.subject IS 'stream:<name>, dataset:<name>, or kafka';
COMMENT ON COLUMN millrace.failed_expectation.expectation IS 'The field of the definition, such as fresh; or stopped';
COMMENT ON COLUMN millrace.failed_expectation.detail IS 'What was found; the last finding while it failed';
COMMENT ON COLUMN millrace.failed_expectation.calm IS 'How long it must hold before it has ended; more if it failed shortly before';
COMMENT ON COLUMN millrace.failed_expectation.held_since IS 'Since when it holds again; null while it fails';
COMMENT ON COLUMN millrace.failed_expectation.ended_at IS 'When it was over; null until then';

CREATE TABLE millrace.expectation_message (
    failure    bigint      NOT NULL REFERENCES millrace.failed_expectation ON DELETE CASCADE,
    message    text        NOT NULL,
    notifier   text        NOT NULL,
    claimed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempts   integer     NOT NULL DEFAULT 1,
    sent_at    timestamptz,
    error      text,
    retry_at   timestamptz,
    PRIMARY KEY (failure, message, notifier)
);
COMMENT ON TABLE  millrace.expectation_message IS 'The messages about failed expectations, one row for each recipient';
COMMENT ON COLUMN millrace.expectation_message.message IS 'failed; reminder 1, 2, … after as many days; or over';
COMMENT ON COLUMN millrace.expectation_message.notifier IS 'Its class, and a hash of its settings';
COMMENT ON COLUMN millrace.expectation_message.claimed_at IS 'When a check began to send it; no other check sends it then';
COMMENT ON COLUMN millrace.expectation_message.error IS 'Why the last attempt failed';
COMMENT ON COLUMN millrace.expectation_message.retry_at IS 'From when on a check tries again; null if none does';

CREATE INDEX ON millrace.dead_letter (stream, kept_at);

ALTER TABLE millrace.landing_failure ADD is_final boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN millrace.landing_failure.is_final IS 'Whether a retry cannot fix it, so that the stream has stopped';
