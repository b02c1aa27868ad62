-- name: lock_gate(dataset)$
-- Waits until no other gate of this dataset runs; the lock is held until the transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended('millrace gate ' || :dataset, 0));

-- name: next_to_judge(dataset, patience)^
-- The first successful run in version order that was not judged, unless an earlier version is still awaited.
SELECT run.run, run.seed, version.manifest, version_order.until, version_order.rank
FROM millrace.training_run AS run
JOIN millrace.dataset_version AS version USING (version)
JOIN millrace.version_order USING (version)
WHERE run.dataset = :dataset AND run.state = 'success'
  AND NOT EXISTS (SELECT FROM millrace.gate WHERE gate.run = run.run)
  AND NOT EXISTS (
      SELECT FROM millrace.version_order AS earlier
      JOIN millrace.dataset_version AS awaited USING (version)
      LEFT JOIN millrace.training_run AS other USING (version)
      WHERE earlier.dataset = :dataset AND earlier.rank < version_order.rank
      GROUP BY earlier.version, awaited.landed_at
      HAVING (count(other.run) = 0 AND awaited.landed_at > clock_timestamp() - CAST(:patience AS interval))
          OR (bool_or(other.state = 'running' AND other.started_at > clock_timestamp() - CAST(:patience AS interval))
              AND NOT bool_or(EXISTS (SELECT FROM millrace.gate WHERE gate.run = other.run)))
  )
ORDER BY version_order.rank, run.run
LIMIT 1;

-- name: current_champion(dataset)^
-- The last row of a dataset's history: its number, its artifact, its version's rank in the order of versions, and the
-- end of that version. After a retirement the last three are empty.
-- Null: artifact, until.
SELECT change.number, change.artifact, coalesce(version_order.rank, 0) AS rank, version_order.until
FROM millrace.champion_change AS change
LEFT JOIN millrace.artifact USING (artifact)
LEFT JOIN millrace.training_run AS run USING (run)
LEFT JOIN millrace.version_order ON version_order.version = run.version
WHERE change.dataset = :dataset
ORDER BY change.number DESC
LIMIT 1;

-- name: first_artifact(dataset)$
-- The first champion of a dataset since the last one was retired.
SELECT artifact FROM millrace.champion_change
WHERE dataset = :dataset AND artifact IS NOT NULL AND number > coalesce(
    (SELECT max(number) FROM millrace.champion_change WHERE dataset = :dataset AND artifact IS NULL), 0
)
ORDER BY number
LIMIT 1;

-- name: artifact_by_id(artifact)^
-- A registered model.
-- Always a row.
SELECT artifact.model, version.manifest, artifact.sha256, artifact.content, artifact.probe, artifact.trained_on
FROM millrace.artifact
JOIN millrace.training_run AS run USING (run)
JOIN millrace.dataset_version AS version USING (version)
WHERE artifact.artifact = :artifact;

-- name: results_to_judge(run)
-- The models of a run, with the baseline, and their outcomes on the test records.
SELECT model, outcomes, fitted_sha256 FROM millrace.model_result WHERE run = :run ORDER BY model;

-- name: fitted(run, model)^
-- A model as training stored it.
-- Null: probe.
-- Always a row.
SELECT fitted, fitted_sha256, probe FROM millrace.model_result WHERE run = :run AND model = :model;

-- name: digests_of(run)
-- The models of a run with the SHA-256 of their stored bytes.
SELECT model, fitted_sha256 FROM millrace.model_result WHERE run = :run ORDER BY model;

-- name: guarded_metrics(run)
-- The metrics of a run's models that a guard can name.
SELECT result.model, metric.name, metric.value
FROM millrace.model_result AS result JOIN millrace.metric USING (result)
WHERE result.run = :run
UNION ALL
SELECT result.model, part.name || ' of ' || part.slice || '=' || part.part, part.value
FROM millrace.model_result AS result JOIN millrace.slice_metric AS part USING (result)
WHERE result.run = :run
UNION ALL
SELECT result.model, measure.name || ' of ' || class_metric.class, measure.value
FROM millrace.model_result AS result
JOIN millrace.class_metric USING (result)
CROSS JOIN LATERAL (
    VALUES ('precision', class_metric.precision), ('recall', class_metric.recall), ('f1', class_metric.f1)
) AS measure (name, value)
WHERE result.run = :run;

-- name: records_counted(dataset, champion_number)
-- The records that have counted against a champion, one array of hashes for each gate.
SELECT counted FROM millrace.gate WHERE dataset = :dataset AND champion_number = :champion_number AND state = 'judged';

-- name: evidence_against_champion(dataset, champion_number)
-- The evidence of each model line against a champion, by metric.
-- Null: n01, n10, n_right, weighted, information.
SELECT verdict.model, verdict.metric, CAST(sum(fresh_n) AS bigint) AS n, CAST(sum(fresh_n01) AS bigint) AS n01,
       CAST(sum(fresh_n10) AS bigint) AS n10, CAST(sum(fresh_right) AS bigint) AS n_right,
       sum(fresh_weighted) AS weighted, sum(fresh_information) AS information
FROM millrace.verdict JOIN millrace.gate USING (run)
WHERE gate.dataset = :dataset AND gate.champion_number = :champion_number
GROUP BY verdict.model, verdict.metric;

-- name: add_gate(run, dataset, version, champion_number, state, reason, test_rows, trained, repeated, counted)!
-- Stores the gate's decision about a run.
-- Null: reason.
INSERT INTO millrace.gate (run, dataset, version, champion_number, state, reason, test_rows, trained, repeated, counted)
VALUES (:run, :dataset, :version, :champion_number, :state, :reason, :test_rows, :trained, :repeated, :counted);

-- name: add_verdict(run, model, outcome, sentence, policy, challengers, threshold, e_value, e_value_reverse, log_e, log_e_reverse, log_e_margin, failed_guards, metric, gain, gain_se, n, n01, n10, discordance, champion_accuracy, challenger_accuracy, mcnemar_p, fresh_n, fresh_n01, fresh_n10, fresh_right, fresh_weighted, fresh_information, fitted_sha256)!
-- Stores the verdict on one challenger.
-- Null: log_e_margin, gain_se, n01, n10, discordance, champion_accuracy, challenger_accuracy, mcnemar_p, fresh_n01, fresh_n10, fresh_right, fresh_weighted, fresh_information.
INSERT INTO millrace.verdict (
    run, model, outcome, sentence, policy, challengers, threshold, e_value, e_value_reverse, log_e, log_e_reverse,
    log_e_margin, failed_guards, metric, gain, gain_se, n, n01, n10, discordance, champion_accuracy,
    challenger_accuracy, mcnemar_p, fresh_n, fresh_n01, fresh_n10, fresh_right, fresh_weighted, fresh_information,
    fitted_sha256
) VALUES (
    :run, :model, :outcome, :sentence, :policy, :challengers, :threshold, :e_value, :e_value_reverse, :log_e,
    :log_e_reverse, :log_e_margin, CAST(:failed_guards AS text[]), :metric, :gain, :gain_se, :n, :n01, :n10,
    :discordance, :champion_accuracy, :challenger_accuracy, :mcnemar_p, :fresh_n, :fresh_n01, :fresh_n10, :fresh_right,
    :fresh_weighted, :fresh_information, :fitted_sha256
);

-- name: add_score(run, role, model, metric, value, rows)!
-- Stores the metric of a model in one of the three roles on a version's test records.
INSERT INTO millrace.score (run, role, model, metric, value, rows)
VALUES (:run, :role, :model, :metric, :value, :rows);

-- name: register_artifact(dataset, trained_on, run, model, sha256)$
-- Registers a model of a run permanently, but nothing if the model was trained again meanwhile; a registered model stays
-- unchanged.
INSERT INTO millrace.artifact (dataset, run, model, sha256, content, probe, trained_on)
SELECT :dataset, run, model, fitted_sha256, fitted, probe, :trained_on
FROM millrace.model_result WHERE run = :run AND model = :model AND fitted_sha256 = :sha256
ON CONFLICT (run, model, sha256) DO UPDATE SET sha256 = excluded.sha256
RETURNING artifact;

-- name: add_champion_change(dataset, after, artifact, rollback_to, cause, decider, reason)$
-- Adds the change that follows another; returns nothing if that change already has a successor.
-- Null: artifact, rollback_to.
INSERT INTO millrace.champion_change (dataset, number, artifact, rollback_to, cause, decider, reason)
VALUES (:dataset, :after + 1, :artifact, :rollback_to, :cause, :decider, :reason)
ON CONFLICT (dataset, number) DO NOTHING
RETURNING number;

-- name: champion_of(dataset)^
-- The champion of a dataset, for display.
-- Null: interval_end, rollback_to.
SELECT number, artifact, model, version, interval_end, since, cause, decider, reason, rollback_to, run, sha256
FROM millrace.champion WHERE dataset = :dataset;

-- name: champion_numbered(dataset, number)^
-- A champion of a dataset by its number, for display.
-- Null: artifact, model, version, interval_end, rollback_to, run, sha256.
SELECT number, artifact, model, version, interval_end, since, cause, decider, reason, rollback_to, run, sha256
FROM millrace.champion_history WHERE dataset = :dataset AND number = :number;

-- name: last_change(dataset)^
-- The last change of a dataset's champion: its number, and the change whose champion a rollback restores.
-- Null: rollback_to.
SELECT number, artifact IS NULL AS retired, rollback_to, since, decider, reason
FROM millrace.champion_change WHERE dataset = :dataset
ORDER BY number DESC
LIMIT 1;

-- name: rollback_target(dataset, after)$
-- The change whose champion a rollback of the next change restores: this one, or the retired one if this is a
-- retirement.
SELECT CASE WHEN artifact IS NULL THEN rollback_to ELSE number END AS number
FROM millrace.champion_change WHERE dataset = :dataset AND number = :after;

-- name: judged(run)^
-- The champion that a run was compared with.
-- Null: reason.
SELECT gate.dataset, gate.champion_number, gate.state, gate.reason, version.manifest
FROM millrace.gate JOIN millrace.dataset_version AS version USING (version)
WHERE gate.run = :run;

-- name: run_summary(run)^
-- The result of a run in one row: its best model, what the gate decided, and the model that it made champion.
-- Null: model, metric, value, gate, outcome, judged, promoted.
SELECT left(version.version, 12) AS version, best.model, best.name AS metric, best.value, gate.state AS gate,
       verdict.outcome, verdict.model AS judged, promoted.model AS promoted
FROM millrace.training_run AS run
JOIN millrace.dataset_version AS version USING (version)
LEFT JOIN LATERAL (
    SELECT result.model, metric.name, metric.value
    FROM millrace.model_result AS result JOIN millrace.metric USING (result)
    WHERE result.run = run.run AND result.model <> 'baseline'
      AND metric.name = CASE version.kind WHEN 'regression' THEN 'rmse' ELSE 'accuracy' END
    ORDER BY CASE version.kind WHEN 'regression' THEN metric.value ELSE -metric.value END, result.model
    LIMIT 1
) AS best ON true
LEFT JOIN millrace.gate USING (run)
LEFT JOIN LATERAL (
    SELECT verdict.model, verdict.outcome FROM millrace.verdict WHERE verdict.run = run.run
    ORDER BY verdict.outcome = 'promote' DESC, verdict.log_e DESC, verdict.model
    LIMIT 1
) AS verdict ON true
LEFT JOIN LATERAL (
    SELECT artifact.model FROM millrace.champion_change AS change JOIN millrace.artifact USING (artifact)
    WHERE artifact.run = run.run AND change.cause <> 'rollback'
    LIMIT 1
) AS promoted ON true
WHERE run.run = :run;

-- name: promotions_of(runs)
-- The changes of champion that promoted a model of these runs, in their order.
SELECT change.dataset, change.number, artifact.model, run.version, artifact.run, artifact.sha256, change.cause,
       change.decider
FROM millrace.champion_change AS change
JOIN millrace.artifact USING (artifact)
JOIN millrace.training_run AS run USING (run)
WHERE artifact.run = ANY (CAST(:runs AS bigint[])) AND change.cause IN ('evidence', 'approval')
ORDER BY change.dataset, change.number;

-- name: verdicts_of(run)
-- The verdicts on a run, the strongest evidence first.
SELECT model, outcome, sentence, e_value, fitted_sha256
FROM millrace.verdict WHERE run = :run
ORDER BY log_e DESC, model;

-- name: add_approval(run, answer, model, decider, reason)!
-- Stores a person's answer; of two answers the first is kept.
-- Null: model.
INSERT INTO millrace.approval (run, answer, model, decider, reason)
VALUES (:run, :answer, :model, :decider, :reason)
ON CONFLICT (run) DO NOTHING;

-- name: approval_of(run)^
-- The answer that is stored.
-- Always a row.
SELECT answer, decider, answered_at, reason FROM millrace.approval WHERE run = :run;

-- name: value_by_version(dataset)
-- The metric of the live model, the first champion and the newest model on each version's test split.
-- Null: interval_end, never_model, never, newest_model, newest.
SELECT version, interval_end, metric, rows, champion_number, live_model, live, never_model, never, newest_model, newest
FROM millrace.value WHERE dataset = :dataset ORDER BY rank;

-- name: value_of_retraining(dataset)^
-- What retraining has gained, and how many trainings changed nothing.
-- Null: versions, metric, live, never, newest, gained.
SELECT trainings, promotions, useless, versions, metric, live, never, newest, gained
FROM millrace.value_of_retraining WHERE dataset = :dataset;

-- name: latest_judgement(dataset)^
-- The run that the gate handled last.
-- Null: reason, promoted.
SELECT left(gate.version, 12) AS version, gate.state, gate.reason,
       ARRAY(SELECT sentence FROM millrace.verdict WHERE verdict.run = gate.run ORDER BY log_e DESC, model)
           AS sentences,
       (SELECT model FROM millrace.judgement WHERE judgement.run = gate.run AND promoted) AS promoted
FROM millrace.gate WHERE gate.dataset = :dataset
ORDER BY gate.judged_at DESC
LIMIT 1;
