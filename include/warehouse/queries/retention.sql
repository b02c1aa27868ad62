-- name: lock_versions(topic)
-- Locks the versions of a topic until the transaction ends, so that no run begins on one.
SELECT version FROM millrace.dataset_version WHERE topic = :topic ORDER BY number FOR UPDATE;

-- name: versions_on(dataset, keep, patience, topic)
-- The versions whose messages are on a topic, the oldest first: whether they are expired, and why they are needed.
-- Null: keep, expired_at, needed.
WITH live AS (
    SELECT number, artifact, rollback_to FROM millrace.champion_change
    WHERE dataset = :dataset AND number = (SELECT max(number) FROM millrace.champion_change WHERE dataset = :dataset)
),
champion (version, as_what) AS (
    SELECT run.version, CASE WHEN change.number = live.number THEN 'the champion' ELSE 'the champion of a rollback' END
    FROM live
    JOIN millrace.champion_change AS change
        ON change.dataset = :dataset AND change.number IN (live.number, live.rollback_to)
    JOIN millrace.artifact ON artifact.artifact = change.artifact
    JOIN millrace.training_run AS run USING (run)
)
SELECT version.version, version.sealed_at, version.manifest, version.expired_at,
       CASE
           WHEN version.dataset <> :dataset
               THEN 'it belongs to the dataset ' || version.dataset
           WHEN CAST(:keep AS bigint) IS NULL
               THEN 'all are kept'
           WHEN version.number > coalesce((
                   SELECT number FROM millrace.dataset_version WHERE dataset = :dataset
                   ORDER BY number DESC OFFSET CAST(:keep AS bigint) LIMIT 1
               ), 0)
               THEN 'it is among the newest ' || :keep
           WHEN version.version IN (SELECT version FROM champion)
               THEN (SELECT min(as_what) FROM champion WHERE champion.version = version.version) || ' trained on it'
           WHEN (version.started_at IS NULL OR version.started_at > clock_timestamp() - CAST(:patience AS interval))
                AND NOT EXISTS (SELECT FROM millrace.training_run AS run WHERE run.version = version.version)
               THEN 'its training has not begun'
           WHEN EXISTS (
                   SELECT FROM millrace.training_run AS run
                   WHERE run.version = version.version
                     AND coalesce(run.finished_at, run.started_at) > clock_timestamp() - CAST(:patience AS interval)
                     AND (run.state = 'running' OR run.state = 'success'
                          AND NOT EXISTS (SELECT FROM millrace.gate WHERE gate.run = run.run))
               )
               THEN 'a run on it has not ended'
           WHEN EXISTS (
                   SELECT FROM millrace.verification AS proof
                   WHERE proof.version = version.version AND proof.outcome IS NULL
                     AND proof.started_at > clock_timestamp() - CAST(:patience AS interval)
               )
               THEN 'it is being verified'
       END AS needed
FROM millrace.dataset_version AS version
WHERE version.topic = :topic
ORDER BY version.number;

-- name: mark_expired(versions)!
-- Marks versions as expired.
UPDATE millrace.dataset_version SET expired_at = clock_timestamp() WHERE version = ANY (:versions);

-- name: expired_at(version)$
-- When a version expired, or null. The row is locked, so that this does not change until the transaction ends.
SELECT expired_at FROM millrace.dataset_version WHERE version = :version FOR SHARE;

-- name: drop_run_logs(before)!
-- Deletes the logs of training runs that ended before a moment, except of runs that made a champion.
DELETE FROM millrace.run_log
USING millrace.training_run AS run
WHERE run_log.run = run.run AND coalesce(run.finished_at, run.started_at) < :before
  AND NOT EXISTS (SELECT FROM millrace.artifact WHERE artifact.run = run.run);

-- name: empty_models(before)!
-- Empties the stored models and outcomes of versions that expired before a moment.
UPDATE millrace.model_result AS result
SET unfitted = '', fitted = '', outcomes = '', probe = NULL
FROM millrace.training_run AS run
JOIN millrace.dataset_version AS version USING (version)
WHERE result.run = run.run AND version.expired_at < :before AND result.fitted <> '';
