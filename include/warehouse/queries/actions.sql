-- name: lock_subject(subject)$
-- Waits until no other action on this subject is under way; the lock is held until the transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended('millrace action ' || :subject, 0));

-- name: action_of(token)^
-- What became of the action that was confirmed with this token.
SELECT outcome, detail FROM millrace.user_action WHERE token = CAST(CAST(:token AS text) AS uuid);

-- name: last_action(subject, actions)^
-- The last of these actions that was done on a subject.
SELECT number, acted_at, username, action, detail FROM millrace.user_action
WHERE subject = :subject AND action = ANY (CAST(:actions AS text[])) AND outcome = 'done'
ORDER BY number DESC
LIMIT 1;

-- name: add_action(token, username, action, subject, parameters, outcome, detail)!
-- Records an action.
INSERT INTO millrace.user_action (token, username, action, subject, parameters, outcome, detail)
VALUES (
    CAST(CAST(:token AS text) AS uuid), :username, :action, :subject, CAST(:parameters AS jsonb), :outcome, :detail
);

-- name: versions_to_train(dataset)
-- The versions of a dataset that a run can train on, the newest first.
-- Null: interval_end.
SELECT version, number, interval_end, sealed_at, train_rows + test_rows AS rows
FROM millrace.dataset_version
WHERE dataset = :dataset AND expired_at IS NULL
ORDER BY number DESC
LIMIT 200;
