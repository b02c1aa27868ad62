-- name: land_version(version, dataset, topic, kind, interval_start, interval_end, train_rows, test_rows, split, content, asked_by, code, manifest, manifest_offset, sealed_at)!
-- Stores a sealed version; one that is already stored stays unchanged.
-- Null: interval_start, interval_end.
INSERT INTO millrace.dataset_version (
    version, dataset, topic, kind, interval_start, interval_end, train_rows, test_rows, split, content, asked_by, code,
    manifest, manifest_offset, sealed_at
) VALUES (
    :version, :dataset, :topic, :kind, :interval_start, :interval_end, :train_rows, :test_rows, CAST(:split AS jsonb),
    :content, :asked_by, :code, :manifest, :manifest_offset, to_timestamp(:sealed_at)
)
ON CONFLICT DO NOTHING;

-- name: refuse_manifest(manifest_offset, reason, value)!
-- Stores a record of the control topic that is not a valid manifest, with the reason.
-- Null: value.
INSERT INTO millrace.refused_manifest (manifest_offset, reason, value)
VALUES (:manifest_offset, :reason, :value)
ON CONFLICT DO NOTHING;

-- name: versions_to_start(datasets, most)
-- Versions of these datasets without a run: the oldest of each dataset, then the second of each, …
SELECT dataset, version
FROM (
    SELECT dataset, version, number, row_number() OVER (PARTITION BY dataset ORDER BY number) AS turn
    FROM millrace.dataset_version
    WHERE started_at IS NULL AND dataset = ANY (:datasets)
) AS waiting
ORDER BY turn, number
LIMIT :most;

-- name: mark_started(versions)!
-- Marks that each of these versions has its run.
UPDATE millrace.dataset_version SET started_at = clock_timestamp()
WHERE version = ANY (:versions) AND started_at IS NULL;

-- name: versions_alike(dataset, train_rows, test_rows, split)
-- The digests of content and the ids of a dataset's versions with as many rows and the same rule, the oldest last.
SELECT content, version FROM millrace.dataset_version
WHERE dataset = :dataset AND train_rows = :train_rows AND test_rows = :test_rows
    AND split = CAST(:split AS jsonb) AND content <> '' AND expired_at IS NULL
ORDER BY number DESC;

-- name: find_versions(dataset, prefix, until)
-- The manifests of a dataset's versions with these first digits whose interval ends then, the newest first. An expired
-- version is found only by its digits.
-- Null: until, expired_at.
SELECT manifest, expired_at FROM millrace.dataset_version
WHERE dataset = :dataset AND starts_with(version, :prefix)
  AND (CAST(:until AS timestamptz) IS NULL OR interval_end = :until)
  AND (expired_at IS NULL OR :prefix <> '')
ORDER BY number DESC
LIMIT 2;

-- name: begin_run(dataset, run_id, version, seed, parameters, cause, asked_by, definition, code, libraries)$
-- Begins a training run, or begins an existing one again.
-- Always a row.
INSERT INTO millrace.training_run (
    dataset, run_id, version, seed, parameters, cause, asked_by, definition, code, libraries
) VALUES (
    :dataset, :run_id, :version, :seed, CAST(:parameters AS jsonb), :cause, :asked_by, :definition, :code,
    CAST(:libraries AS jsonb)
)
ON CONFLICT (dataset, run_id) DO UPDATE
SET state = 'running', finished_at = NULL, version = excluded.version, seed = excluded.seed,
    parameters = excluded.parameters, definition = excluded.definition, code = excluded.code,
    libraries = excluded.libraries
RETURNING run;

-- name: fail_run(dataset, run_id, version, seed, parameters, cause, asked_by, definition, code, libraries, kept)$
-- Stores a training run that failed before its models were planned; a run in one of these states stays unchanged.
INSERT INTO millrace.training_run (
    dataset, run_id, version, state, seed, parameters, cause, asked_by, definition, code, libraries, finished_at
) VALUES (
    :dataset, :run_id, :version, 'failed', :seed, CAST(:parameters AS jsonb), :cause, :asked_by, :definition, :code,
    CAST(:libraries AS jsonb), clock_timestamp()
)
ON CONFLICT (dataset, run_id) DO UPDATE SET state = 'failed', finished_at = clock_timestamp()
WHERE training_run.state <> ALL (:kept)
RETURNING run;

-- name: end_run(state, run)!
-- Ends a training run.
UPDATE millrace.training_run SET state = :state, finished_at = clock_timestamp() WHERE run = :run;

-- name: run_plan(run)^
-- The version, the seed and the parameters of a run.
-- Always a row.
SELECT run.version, run.seed, version.manifest, run.parameters
FROM millrace.training_run AS run JOIN millrace.dataset_version AS version USING (version)
WHERE run.run = :run;

-- name: drop_result(run, model)!
-- Deletes the result of an earlier try.
DELETE FROM millrace.model_result WHERE run = :run AND model = :model;

-- name: add_result(run, model, parameters, train_rows, test_rows, read_s, fit_s, evaluate_s, peak_memory_mb, unfitted, fitted, fitted_sha256, outcomes, predictions_sha256, probe, passes)$
-- Stores a fitted model.
-- Null: predictions_sha256, probe, passes.
-- Always a row.
INSERT INTO millrace.model_result (
    run, model, parameters, train_rows, test_rows, read_s, fit_s, evaluate_s, peak_memory_mb,
    unfitted, fitted, fitted_sha256, outcomes, predictions_sha256, probe, passes
) VALUES (
    :run, :model, CAST(:parameters AS jsonb), :train_rows, :test_rows, :read_s, :fit_s, :evaluate_s, :peak_memory_mb,
    :unfitted, :fitted, :fitted_sha256, :outcomes, :predictions_sha256, :probe, :passes
)
RETURNING result;

-- name: append_outcomes(piece, result)!
-- Appends to a result's outcomes.
UPDATE millrace.model_result SET outcomes = outcomes || :piece WHERE result = :result;

-- name: add_metrics(result, names, values, lows, highs)!
-- Stores a result's metrics.
-- Null: lows[], highs[].
INSERT INTO millrace.metric (result, name, value, low, high)
SELECT :result, * FROM unnest(
    CAST(:names AS text[]), CAST(:values AS double precision[]),
    CAST(:lows AS double precision[]), CAST(:highs AS double precision[])
);

-- name: add_class_metrics(result, classes, precisions, recalls, f1s, supports)!
-- Stores a result's metrics by class.
INSERT INTO millrace.class_metric (result, class, "precision", recall, f1, support)
SELECT :result, * FROM unnest(
    CAST(:classes AS text[]), CAST(:precisions AS double precision[]), CAST(:recalls AS double precision[]),
    CAST(:f1s AS double precision[]), CAST(:supports AS bigint[])
);

-- name: add_slice_metrics(result, slices, parts, rows, names, values, lows, highs)!
-- Stores a result's metrics by slice.
-- Null: lows[], highs[].
INSERT INTO millrace.slice_metric (result, slice, part, rows, name, value, low, high)
SELECT :result, * FROM unnest(
    CAST(:slices AS text[]), CAST(:parts AS text[]), CAST(:rows AS bigint[]), CAST(:names AS text[]),
    CAST(:values AS double precision[]), CAST(:lows AS double precision[]), CAST(:highs AS double precision[])
);

-- name: add_confusion(result, actual, predicted, counts)!
-- Stores a result's confusion matrix.
INSERT INTO millrace.confusion (result, actual, predicted, count)
SELECT :result, * FROM unnest(CAST(:actual AS text[]), CAST(:predicted AS text[]), CAST(:counts AS bigint[]));

-- name: add_repeats(version, train, test, shared)!
-- Stores how many records of a version have the same features; the numbers of a version never change.
INSERT INTO millrace.repeats (version, train, test, shared)
VALUES (:version, :train, :test, :shared)
ON CONFLICT (version) DO NOTHING;

-- name: results_of(run)
-- The models of a run that have a result, with their main metric, the best first.
-- Null: low, high.
SELECT model, value, low, high, metric
FROM millrace.result
WHERE run = :run AND metric IN ('accuracy', 'rmse')
ORDER BY CASE metric WHEN 'accuracy' THEN -value ELSE value END, model;

-- name: run_of(dataset, run_id)^
-- A run by its id in Airflow.
SELECT run, version, state FROM millrace.training_run WHERE dataset = :dataset AND run_id = :run_id;

-- name: log_lines(run, model, ats, levels, loggers, messages)!
-- Stores log lines of a task.
-- Null: model.
INSERT INTO millrace.run_log (run, model, at, level, logger, message)
SELECT :run, :model, to_timestamp(at), level, logger, message
FROM unnest(
    CAST(:ats AS double precision[]), CAST(:levels AS text[]), CAST(:loggers AS text[]), CAST(:messages AS text[])
) AS line (at, level, logger, message);

-- name: checkpoint_of(run, model, plan)^
-- The checkpoint of a run's model, if it belongs to the same plan.
SELECT step, epoch, batch, estimator, sha256
FROM millrace.checkpoint
WHERE run = :run AND model = :model AND plan = :plan;

-- name: save_checkpoint(run, model, plan, step, epoch, batch, estimator, sha256)!
-- Stores or replaces a checkpoint.
INSERT INTO millrace.checkpoint (run, model, plan, step, epoch, batch, estimator, sha256)
VALUES (:run, :model, :plan, :step, :epoch, :batch, :estimator, :sha256)
ON CONFLICT (run, model) DO UPDATE
SET plan = excluded.plan, step = excluded.step, epoch = excluded.epoch, batch = excluded.batch,
    estimator = excluded.estimator, sha256 = excluded.sha256, saved_at = clock_timestamp();

-- name: drop_checkpoint(run, model)!
-- Deletes the checkpoint of a model that has its result.
DELETE FROM millrace.checkpoint WHERE run = :run AND model = :model;

-- name: last_training(dataset, version)^
-- The newest version of a dataset, or the one that is named, with its newest training run and that run's last error.
-- Null: version, run, state, model, message.
SELECT version.version AS id, version.started_at IS NOT NULL AS is_started, run.run, run.state, failure.model, failure.message
FROM millrace.dataset_version AS version
LEFT JOIN LATERAL (
    SELECT run, state FROM millrace.training_run AS run WHERE run.version = version.version
    -- A success is not undone by a later failure.
    ORDER BY state = 'success' DESC, run DESC LIMIT 1
) AS run ON true
LEFT JOIN LATERAL (
    SELECT model, message FROM millrace.run_log AS line
    WHERE line.run = run.run AND line.level IN ('ERROR', 'CRITICAL') ORDER BY line.line DESC LIMIT 1
) AS failure ON true
WHERE version.dataset = :dataset AND (CAST(:version AS text) IS NULL OR version.version = :version)
ORDER BY version.number DESC
LIMIT 1;
