-- name: begin_verification(dataset, version, run, asked_by)$
-- Begins a verification.
-- Null: run.
-- Always a row.
INSERT INTO millrace.verification (dataset, version, run, asked_by)
VALUES (:dataset, :version, :run, :asked_by)
RETURNING verification;

-- name: end_verification(outcome, findings, libraries, verification)!
-- Stores the result of a verification.
UPDATE millrace.verification
SET finished_at = clock_timestamp(), outcome = :outcome, findings = CAST(:findings AS text[]),
    libraries = CAST(:libraries AS jsonb)
WHERE verification = :verification;

-- name: run_to_verify(run)^
-- A run by its number or by its id in Airflow.
-- Null: expired_at.
SELECT run.run, run.dataset, run.state, run.libraries, version.manifest, version.expired_at
FROM millrace.training_run AS run JOIN millrace.dataset_version AS version USING (version)
WHERE CAST(run.run AS text) = :run OR run.run_id = :run
ORDER BY CAST(run.run AS text) = :run DESC
LIMIT 1;

-- name: models_of(run)
-- The models of a run that have a result.
SELECT model FROM millrace.model_result WHERE run = :run ORDER BY result;

-- name: result_to_verify(run, model)^
-- The estimator before the fit and the results, as training stored them.
-- Null: passes, predictions_sha256, metrics.
-- Always a row.
SELECT unfitted, passes, outcomes, predictions_sha256,
       (SELECT jsonb_object_agg(name, value) FROM millrace.metric WHERE metric.result = model_result.result)
           AS metrics
FROM millrace.model_result WHERE run = :run AND model = :model;

-- name: run_to_sample()$
-- The successful run that was verified longest ago, or one that was never verified.
SELECT run.run
FROM millrace.training_run AS run JOIN millrace.dataset_version AS version USING (version)
WHERE run.state = 'success' AND version.expired_at IS NULL
ORDER BY (
    SELECT max(verification.started_at) FROM millrace.verification
    WHERE verification.run = run.run AND verification.outcome IS NOT NULL
) NULLS FIRST, random()
LIMIT 1;
