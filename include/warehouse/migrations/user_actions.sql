-- What users did on the pages.

CREATE TABLE millrace.user_action (
    number     bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    token      uuid        NOT NULL UNIQUE,
    acted_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    username   text        NOT NULL,
    action     text        NOT NULL,
    subject    text        NOT NULL,
    parameters jsonb       NOT NULL DEFAULT '{}',
    outcome    text        NOT NULL CHECK (outcome IN ('done', 'refused')),
    detail     text        NOT NULL DEFAULT ''
);
CREATE INDEX ON millrace.user_action (subject, number);
COMMENT ON TABLE  millrace.user_action IS 'Each action of a user on a page, whether it was done or refused';
COMMENT ON COLUMN millrace.user_action.token IS 'Of the page on which it was confirmed; a second click repeats nothing';
COMMENT ON COLUMN millrace.user_action.action IS 'rollback, retire, approve, decline, retry, replay, accept or trigger';
COMMENT ON COLUMN millrace.user_action.subject IS 'stream:<name>, dataset:<name> or run:<DAG>/<id of the run>';
COMMENT ON COLUMN millrace.user_action.detail IS 'Why it was refused; else the result in one line';
