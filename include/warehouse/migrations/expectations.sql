-- Expectations that failed, and the messages about them.

CREATE TABLE millrace.failed_expectation (
    number       bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subject      text        NOT NULL,
    expectation  text        NOT NULL,
    detail       text        NOT NULL,
    failed_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    notified_at  timestamptz,
    ended_at     timestamptz
);
CREATE UNIQUE INDEX ON millrace.failed_expectation (subject, expectation) WHERE ended_at IS NULL;
COMMENT ON TABLE  millrace.failed_expectation IS 'Each time that an expectation of a definition failed';
COMMENT ON COLUMN millrace.failed_expectation.subject IS 'stream:<name> or dataset:<name>';
COMMENT ON COLUMN millrace.failed_expectation.expectation IS 'The field of the definition, such as fresh';
COMMENT ON COLUMN millrace.failed_expectation.notified_at IS 'When the last message about it was sent';
COMMENT ON COLUMN millrace.failed_expectation.ended_at IS 'When it held again; null while it fails';
