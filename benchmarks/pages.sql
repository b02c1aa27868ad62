-- Rows as years of work leave them. %(name)s are the amounts.

-- name: datasets
INSERT INTO millrace.dataset_version (
    version, dataset, topic, kind, interval_start, interval_end, train_rows, test_rows, split, content, asked_by, code,
    manifest, manifest_offset, sealed_at, started_at
)
SELECT encode(sha256(number::text::bytea), 'hex'), 'churn', 'millrace.dataset.churn', 'classification',
       now() - (%(versions)s - number + 1) * interval '1 day', now() - (%(versions)s - number) * interval '1 day',
       80000, 20000, '{}', number::text, 'schedule', 'code',
       convert_to(jsonb_build_object('messages', (
           SELECT jsonb_agg(jsonb_build_object('partition', part %% 4, 'offset', number * 100 + part, 'rows', 1000))
           FROM generate_series(0, 99) AS part
       ))::text, 'UTF8'),
       number, now() - (%(versions)s - number) * interval '1 day', now()
FROM generate_series(1, %(versions)s) AS number;

-- name: runs
INSERT INTO millrace.training_run (
    dataset, run_id, version, state, seed, parameters, cause, asked_by, definition, code, libraries, started_at, finished_at
)
SELECT dataset, 'train__' || left(version, 16), version, 'success', 0, '{}', 'sealed', 'schedule', 'digest', 'code',
       '{"scikit-learn": "1.9.0"}', sealed_at, sealed_at + interval '5 minutes'
FROM millrace.dataset_version ORDER BY number;

-- name: models
INSERT INTO millrace.model_result (
    run, model, parameters, train_rows, test_rows, read_s, fit_s, evaluate_s, peak_memory_mb, unfitted, fitted,
    fitted_sha256, outcomes, finished_at
)
SELECT run, CASE model WHEN 0 THEN 'baseline' ELSE 'model_' || lpad(model::text, 2, '0') END, '{"max_depth": 3}', 80000,
       20000, 1, 10, 1, 500, '', '', encode(sha256((run * 1000 + model)::text::bytea), 'hex'), '', started_at
FROM millrace.training_run CROSS JOIN generate_series(0, %(models)s - 1) AS model
ORDER BY run, model;

-- name: metrics
INSERT INTO millrace.metric (result, name, value, low, high)
SELECT result, name, value, value - 0.01, value + 0.01
FROM millrace.model_result
CROSS JOIN unnest(ARRAY['accuracy', 'balanced_accuracy', 'f1_macro', 'log_loss']) AS name
CROSS JOIN LATERAL (SELECT 0.5 + 0.4 * (hashint8(result) & 1023) / 1024.0 AS value) AS drawn;

-- name: classes
INSERT INTO millrace.class_metric (result, class, "precision", recall, f1, support)
SELECT result, class, 0.8, 0.7 + 0.2 * (hashint8(result) & 1023) / 1024.0, 0.8, 5000
FROM millrace.model_result CROSS JOIN unnest(ARRAY['gone', 'stays', 'unsure']) AS class;

-- name: confusions
INSERT INTO millrace.confusion (result, actual, predicted, count)
SELECT result, actual, predicted, 1 + (hashint8(result) & 4095)
FROM millrace.model_result
CROSS JOIN unnest(ARRAY['gone', 'stays', 'unsure']) AS actual
CROSS JOIN unnest(ARRAY['gone', 'stays', 'unsure']) AS predicted;

-- name: slices
INSERT INTO millrace.slice_metric (result, slice, part, name, value, low, high, rows)
SELECT result, 'country', 'part ' || part, 'accuracy', 0.8, 0.7, 0.9, 100
FROM millrace.model_result CROSS JOIN generate_series(1, 6) AS part;

-- name: logs
INSERT INTO millrace.run_log (run, model, at, level, logger, message)
SELECT run, 'model_01', started_at, 'INFO', 'include.training', 'line ' || line
FROM millrace.training_run CROSS JOIN generate_series(1, 300) AS line ORDER BY run, line;

-- name: gates
INSERT INTO millrace.gate (run, dataset, version, champion_number, state, test_rows, judged_at)
SELECT run, dataset, version, least(run - 1, 50), 'judged', 20000, finished_at FROM millrace.training_run;

-- name: verdicts
INSERT INTO millrace.verdict (
    run, model, outcome, sentence, policy, challengers, threshold, e_value, e_value_reverse, log_e, log_e_reverse,
    failed_guards, metric, gain, n, fresh_n, fitted_sha256
)
SELECT run, model, 'inconclusive', 'The evidence is not enough.', 'evidence', 99, 1980, exp(drawn.e), exp(-drawn.e), drawn.e,
       -drawn.e, '{}', 'accuracy', 0.01, 20000, 20000, fitted_sha256
FROM millrace.model_result CROSS JOIN LATERAL (SELECT (hashint8(result) & 1023) / 256.0 AS e) AS drawn
WHERE model <> 'baseline';

-- name: scores
INSERT INTO millrace.score (run, role, model, metric, value, rows)
SELECT run, role, 'model_01', 'accuracy', 0.8, 20000
FROM millrace.gate CROSS JOIN unnest(ARRAY['live', 'never', 'newest']) AS role;

-- name: artifacts
INSERT INTO millrace.artifact (dataset, run, model, sha256, content, probe, trained_on)
SELECT 'churn', run, model, fitted_sha256, '', '', '' FROM millrace.model_result WHERE run <= 50 AND model = 'model_01'
ORDER BY run;

-- name: champions
INSERT INTO millrace.champion_change (dataset, number, artifact, cause, decider, reason, since)
SELECT 'churn', artifact, artifact, 'evidence', 'the gate', 'better', finished_at
FROM millrace.artifact JOIN millrace.training_run USING (run) ORDER BY artifact;

-- name: settings
INSERT INTO millrace.stream_setting (stream, topic, partition, keep)
SELECT 'stream_' || number, 'stream_' || number, interval '1 hour', interval '90 days' FROM generate_series(1, 10) AS number;

-- name: positions
INSERT INTO millrace.position (reader, topic, partition, topic_id, next_offset, owner, backend_pid, backend_start)
SELECT 'landing:' || stream, topic, part, stream, %(rows)s / 8, 'bench', 0, now()
FROM millrace.stream_setting CROSS JOIN generate_series(0, 7) AS part;

-- name: incarnations
INSERT INTO millrace.topic_incarnation (stream, topic, number, topic_id) SELECT stream, topic, 1, stream FROM millrace.stream_setting;

-- Two days of claims every five minutes, and a year of days before.
-- name: ledger
INSERT INTO millrace.landing_ledger (
    stream, kafka_incarnation, kafka_partition, epoch, first_offset, next_offset, landed, dead_letters, quarantined,
    skipped, no_records, checksum, newest_event
)
SELECT stream, 1, part, epoch, epoch * size, (epoch + 1) * size, size, 0, 0, 0, 0, 1, now()
FROM millrace.stream_setting CROSS JOIN generate_series(0, 7) AS part CROSS JOIN generate_series(0, 940) AS epoch
CROSS JOIN (SELECT %(rows)s / 8 / 941 AS size) AS drawn;

-- name: letters
INSERT INTO millrace.dead_letter (
    stream, kafka_incarnation, kafka_partition, kafka_offset, disposition, reason, appended_at, value, kept_at
)
SELECT 'stream_1', 1, number %% 8, number, CASE WHEN number %% 10 = 0 THEN 'quarantined' ELSE 'dead letter' END,
       'JSON is malformed: field ' || chr(97 + number %% 20) || ' at byte ' || number, now(),
       convert_to(repeat('x', 300), 'UTF8'), now() - number * interval '1 second'
FROM generate_series(1, %(letters)s) AS number;

-- name: samples
INSERT INTO millrace.stream_sample (stream, sampled_at, lag, behind_s, landed, dead_letters, newest_event)
SELECT stream, minute, 100, 1, 1000 * extract(epoch FROM minute - now() + interval '8 days')::bigint, 0, minute
FROM millrace.stream_setting
CROSS JOIN generate_series(now() - interval '8 days' + interval '1 minute', now(), interval '1 minute') AS minute;

-- name: replays
INSERT INTO millrace.landing_replay (
    stream, kafka_incarnation, kafka_partition, first_offset, next_offset, landed, dead_letters, quarantined, more_landed,
    more_dead_letters, more_quarantined, replayed_by
)
SELECT 'stream_1', 1, 0, number, number + 1, 1, 0, 0, 1, -1, 0, 'ann' FROM generate_series(1, 1000) AS number;

-- name: gaps
INSERT INTO millrace.landing_gap (stream, kafka_incarnation, kafka_partition, first_offset, next_offset, choice, accepted_by)
SELECT 'stream_1', 1, 0, number, number + 1, 'bad', 'ann' FROM generate_series(1, 1000) AS number;

-- name: landed
INSERT INTO landing.stream_1 (kafka_incarnation, kafka_partition, kafka_offset, ts, text, number)
SELECT 1, number %% 8, number, %(begins)s + number * (%(ends)s - %(begins)s) / (%(rows)s + 1), 'text', number
FROM generate_series(1, %(rows)s) AS number;
