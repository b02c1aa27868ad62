-- name: datasets()
-- One row for each dataset.
-- Null: live_model, live_version, live_since, live_age_s, metric, live_value, trend, last_run, last_run_id, last_run_state, judged_at, judged_state, verdict_model, verdict, sentence, newest_until.
SELECT dataset, versions, newest_version, newest_until, newest_sealed_at, live_model, live_version, live_since, live_age_s, metric,
       live_value, trend, last_run, last_run_id, last_run_state, judged_at, judged_state, verdict_model, verdict, sentence
FROM millrace.dataset_overview
ORDER BY dataset;

-- name: dataset(dataset)^
-- What is live of one dataset, and what the gate said last.
-- Null: champion_number, live_model, live_version, live_run, live_since, live_age_s, metric, live_value, live_rows, last_run, last_run_id, last_run_state, last_run_started_at, last_success_at, judged_run, judged_at, judged_state, verdict_model, verdict, sentence, newest_until.
SELECT versions, newest_version, newest_until, newest_sealed_at, champion_number, live_model, live_version, live_run,
       live_since, live_age_s, metric, live_value, live_rows, last_run, last_run_id, last_run_state,
       last_run_started_at, last_success_at, judged_run, judged_at, judged_state, verdict_model, verdict, sentence
FROM millrace.dataset_overview
WHERE dataset = :dataset;

-- name: metrics(dataset, most)
-- Every metric of the twelve leading models on a dataset's newest versions, oldest version first.
-- Null: interval_end, low, high, promoted_to.
SELECT version_number, version, interval_end, run, run_id, model, metric, value, low, high, promoted_to
FROM millrace.metric_by_version
WHERE dataset = :dataset AND version_number >= coalesce((
    SELECT number FROM millrace.dataset_version WHERE dataset_version.dataset = :dataset
    ORDER BY number DESC OFFSET :most - 1 LIMIT 1
), 0) AND model = ANY (ARRAY(SELECT model FROM millrace.leading_model WHERE dataset = :dataset AND place <= 12))
ORDER BY version_number, metric, model;

-- name: values(dataset, most)
-- What was live, the first champion kept for ever, and the newest model, on the newest versions, the oldest first.
-- Null: interval_end, never_model, never, newest_model, newest.
SELECT version, interval_end, metric, rows, live_model, live, never_model, never, newest_model, newest
FROM (
    SELECT * FROM millrace.value WHERE dataset = :dataset ORDER BY rank DESC LIMIT :most
) AS latest
ORDER BY rank;

-- name: value(dataset)^
-- What retraining has gained over all versions.
-- Null: versions, metric, live, never, newest, gained.
SELECT trainings, promotions, useless, versions, metric, live, never, newest, gained
FROM millrace.value_of_retraining
WHERE dataset = :dataset;

-- name: champions(dataset, most)
-- The newest changes of a dataset's champion, the newest first.
-- Null: model, version, until, run, run_id, rollback_to.
SELECT history.number, history.model, history.version, history.since, history.until, history.cause, history.decider,
       history.reason, history.rollback_to, history.run, run.run_id
FROM millrace.champion_history AS history
LEFT JOIN millrace.training_run AS run USING (run)
WHERE history.dataset = :dataset
ORDER BY history.number DESC
LIMIT :most;

-- name: evidence(dataset, champion_number, most)
-- The evidence of the leading models against one champion on the newest versions, the oldest first.
-- Null: interval_end.
SELECT champion_number, version_number, version, interval_end, run, run_id, model, e_value, threshold, n, gain, outcome
FROM millrace.evidence
WHERE dataset = :dataset AND champion_number = :champion_number AND run > coalesce((
    SELECT run FROM millrace.gate
    WHERE gate.dataset = :dataset AND gate.champion_number = :champion_number
    ORDER BY run DESC OFFSET :most LIMIT 1
), 0) AND model = ANY (ARRAY(SELECT model FROM millrace.leading_model WHERE dataset = :dataset AND place <= 12))
ORDER BY version_number, model;

-- name: runs(dataset, most)
-- The newest training runs of a dataset, the newest first.
-- Null: interval_end, finished_at, best_model, metric, value, low, high, judged_state, verdict_model, verdict, sentence, promoted, answer, decider.
SELECT run, run_id, version, version_number, interval_end, state, cause, asked_by, started_at, finished_at, best_model, metric,
       value, low, high, judged_state, verdict_model, verdict, sentence, promoted, answer, decider
FROM millrace.run_outcome
WHERE dataset = :dataset
ORDER BY run DESC
LIMIT :most;

-- name: run_of(dataset, run_id)^
-- One training run by its id in Airflow.
-- Null: interval_end, finished_at, best_model, metric, value, low, high, judged_state, verdict_model, verdict, sentence, promoted, answer, decider.
SELECT run, run_id, version, version_number, interval_end, state, cause, asked_by, started_at, finished_at, best_model, metric,
       value, low, high, judged_state, verdict_model, verdict, sentence, promoted, answer, decider
FROM millrace.run_outcome
WHERE dataset = :dataset AND run_id = :run_id;

-- name: run_to_approve(run)^
-- The dataset of a training run and its id in Airflow, by its number.
SELECT dataset, run_id FROM millrace.training_run WHERE run = :run;

-- name: run_input(run)^
-- What a run trained on.
-- Null: interval_start, interval_end, messages, offsets, expired_at, finished_at.
SELECT dataset, run_id, version, version_number, interval_start, interval_end, train_rows, test_rows, topic, messages, offsets,
       content, sealed_at, published_by, published_with, expired_at, cause, asked_by, seed,
       jsonb_pretty(parameters) AS parameters, definition, code, libraries, state, started_at, finished_at
FROM millrace.run_input
WHERE run = :run;

-- name: run_metrics(run)
-- Every metric of every model of a run.
-- Null: low, high, baseline.
SELECT result.model, result.metric, result.value, result.low, result.high, result.baseline, own.fit_s,
       own.peak_memory_mb
FROM millrace.result
JOIN millrace.model_result AS own USING (run, model)
WHERE result.run = :run
ORDER BY result.model, result.metric;

-- name: run_verdicts(run)
-- The verdicts on a run's models, the strongest evidence first.
SELECT model, outcome, sentence, e_value, threshold, n, failed_guards
FROM millrace.verdict
WHERE run = :run
ORDER BY log_e DESC, model;

-- name: run_classes(run, model)
-- Precision, recall and F1 of each class, and what they were on the version before.
-- Null: previous_number, previous_precision, previous_recall, previous_f1.
SELECT class_name AS name, "precision", recall, f1, support, previous_number, previous_precision, previous_recall, previous_f1
FROM millrace.class_change
WHERE run = :run AND model = :model
ORDER BY class_name;

-- name: run_confusion(run, model)
-- The confusion matrix of a model, and what it was on the version before.
-- Null: share, previous_number, previous_count, previous_share.
SELECT actual, predicted, count AS records, share, previous_number, previous_count, previous_share
FROM millrace.confusion_change
WHERE run = :run AND model = :model
ORDER BY actual, predicted;

-- name: run_slices(run, model, most)
-- The metrics of a model on parts of the test rows.
-- Null: low, high, whole.
SELECT slice, part, metric, value, low, high, rows, whole
FROM millrace.sliced
WHERE run = :run AND model = :model
ORDER BY slice, metric, part
LIMIT :most;

-- name: run_log(run, most)
-- The last lines that the tasks of a run logged, the oldest first.
-- Null: model.
SELECT line, at, level, model, message
FROM (SELECT * FROM millrace.run_log WHERE run = :run ORDER BY line DESC LIMIT :most) AS latest
ORDER BY line;

-- name: streams()
-- One row for each stream; is_final says whether its failing task cannot succeed without a person.
-- Null: topic, partitions, offsets, moved_at, newest_event, newest_age_s, oldest_dead_letter_at, lag, behind_s, sampled_at, rate_hour, rate_day, stopped_task, stopped_since, stopped_code, stopped_error, stopped_remedy, proved_at, proof_errors.
SELECT stream, topic, is_defined, partitions, offsets, moved_at, newest_event, newest_age_s, landed, dead_letters, quarantined,
       filtered, skipped, oldest_dead_letter_at, lag, behind_s, sampled_at, rate_hour, rate_day, stopped_task, stopped_since, stopped_code,
       stopped_error, stopped_remedy, proved_at, proof_errors,
       EXISTS (
           SELECT FROM millrace.landing_failure AS failure
           WHERE failure.stream = stream_overview.stream AND failure.is_final
       ) AS is_final
FROM millrace.stream_overview
ORDER BY stream;

-- name: history(stream, hours)
-- Lag, freshness and rate of a stream in the last hours, minute by minute.
-- Null: lag, behind_s, newest_event, stopped, newest_age_s, rate.
SELECT sampled_at, lag, behind_s, newest_event, stopped, newest_age_s, rate
FROM millrace.stream_history
WHERE stream = :stream AND sampled_at >= statement_timestamp() - make_interval(hours => :hours)
ORDER BY sampled_at;

-- name: partitions(stream, most)
-- The newest partitions of a stream's table.
-- Null: starts_at, ends_at, drops_at, rows.
SELECT partition, starts_at, ends_at, drops_at, is_detaching, rows, bytes
FROM millrace.stream_partition
WHERE stream = :stream
ORDER BY partition DESC
LIMIT :most;

-- name: count_partitions(stream)$
-- How many partitions a stream's table has.
-- Always a row.
SELECT count(*) FROM pg_inherits WHERE inhparent = to_regclass('landing.' || quote_ident(:stream));

-- name: reasons(stream, most)
-- The dead letters and quarantined records of a stream by reason, the most frequent first.
-- Null: sqlstate.
SELECT disposition, sqlstate, reason, records, bytes, oldest_at, newest_at
FROM millrace.dead_letter_reason
WHERE stream = :stream
ORDER BY records DESC, reason
LIMIT :most;

-- name: letters(stream, most)
-- The newest dead letters of a stream, with the beginning of their bytes.
-- Null: key, value, bytes.
SELECT kafka_incarnation, kafka_partition, kafka_offset, disposition, reason, appended_at,
       substring(key FROM 1 FOR 200) AS key, substring(value FROM 1 FOR 1000) AS value, length(value) AS bytes
FROM millrace.dead_letter
WHERE stream = :stream
ORDER BY kept_at DESC, kafka_incarnation DESC, kafka_partition, kafka_offset DESC
LIMIT :most;

-- name: gaps(stream, most)
-- What users accepted as lost or bad, the newest first.
-- Null: next_offset.
SELECT kafka_incarnation, kafka_partition, first_offset, next_offset, choice, accepted_by, accepted_at
FROM millrace.landing_gap
WHERE stream = :stream
ORDER BY gap DESC
LIMIT :most;

-- name: replays(stream, most)
-- The ranges that were landed again, the newest first.
SELECT kafka_incarnation, kafka_partition, first_offset, next_offset, landed, dead_letters, quarantined, filtered, more_landed,
       more_dead_letters, more_quarantined, more_filtered, replayed_by, replayed_at
FROM millrace.landing_replay
WHERE stream = :stream
ORDER BY replay DESC
LIMIT :most;

-- name: failures(stream)
-- The failing tasks of a stream.
-- Null: code, remedy.
SELECT task, since, last_at, failures, error, code, remedy, is_final
FROM millrace.landing_failure
WHERE stream = :stream
ORDER BY since, task;

-- name: reconciliation(stream)
-- The offsets of each partition, and their dispositions.
-- Null: kafka_incarnation.
SELECT topic, kafka_incarnation, kafka_partition, first_offset, next_offset, landed, dead_letters, quarantined, filtered,
       skipped, no_records, lost, unaccounted
FROM millrace.reconciliation
WHERE stream = :stream
ORDER BY topic, kafka_partition;
