CREATE OR REPLACE VIEW millrace.result AS
SELECT run.dataset, left(run.version, 12) AS version, version.number AS version_number,
       version.interval_start, version.interval_end, run.run, run.run_id, result.model,
       result.train_rows, result.test_rows, metric.name AS metric, metric.value, metric.low, metric.high,
       baseline.value AS baseline, result.finished_at
FROM millrace.model_result AS result
JOIN millrace.training_run AS run USING (run)
JOIN millrace.dataset_version AS version ON version.version = run.version
JOIN millrace.metric ON metric.result = result.result
LEFT JOIN millrace.model_result AS base ON base.run = result.run AND base.model = 'baseline'
LEFT JOIN millrace.metric AS baseline ON baseline.result = base.result AND baseline.name = metric.name;
COMMENT ON VIEW millrace.result IS 'Every metric of every model of every run, with the baseline''s';

CREATE OR REPLACE VIEW millrace.accuracy AS
SELECT dataset, version, version_number, interval_start, interval_end, run, run_id, model,
       value AS accuracy, low, high, baseline, train_rows, test_rows, finished_at
FROM millrace.result
WHERE metric = 'accuracy';
COMMENT ON VIEW millrace.accuracy IS 'The accuracy of every classifier, with Wilson''s 95 % interval';

CREATE OR REPLACE VIEW millrace.version_order AS
SELECT dataset, version, number, coalesce(interval_end, sealed_at) AS until,
       row_number() OVER (PARTITION BY dataset ORDER BY coalesce(interval_end, sealed_at), number) AS rank
FROM millrace.dataset_version;
COMMENT ON VIEW millrace.version_order IS 'The order in which the gate handles versions: by where they end';

CREATE OR REPLACE VIEW millrace.champion_history AS
SELECT change.dataset, change.number, artifact.model, left(run.version, 12) AS version, version.interval_start,
       version.interval_end, change.since,
       lead(change.since) OVER (PARTITION BY change.dataset ORDER BY change.number) AS until,
       change.cause, change.decider, change.reason, change.rollback_to, artifact.run, artifact.artifact, artifact.sha256
FROM millrace.champion_change AS change
LEFT JOIN millrace.artifact USING (artifact)
LEFT JOIN millrace.training_run AS run USING (run)
LEFT JOIN millrace.dataset_version AS version USING (version);
COMMENT ON VIEW millrace.champion_history IS 'Every champion: since when, by whom, on what evidence';

CREATE OR REPLACE VIEW millrace.champion AS
SELECT * FROM millrace.champion_history WHERE until IS NULL AND artifact IS NOT NULL;
COMMENT ON VIEW millrace.champion IS 'The one champion of each dataset';

CREATE OR REPLACE VIEW millrace.judgement AS
SELECT gate.dataset, left(gate.version, 12) AS version, version.interval_start, version.interval_end, gate.run,
       gate.champion_number, gate.state, gate.reason, verdict.model, verdict.outcome, verdict.sentence, verdict.policy,
       verdict.challengers, verdict.threshold, verdict.e_value, verdict.e_value_reverse, verdict.failed_guards,
       verdict.metric, verdict.gain, verdict.n, verdict.n01, verdict.n10, verdict.discordance,
       verdict.champion_accuracy, verdict.challenger_accuracy, verdict.mcnemar_p, verdict.fresh_n,
       gate.test_rows, gate.trained, gate.repeated,
       EXISTS (
           SELECT FROM millrace.champion_change AS change JOIN millrace.artifact USING (artifact)
           WHERE change.cause <> 'rollback' AND (artifact.run, artifact.model) = (verdict.run, verdict.model)
       ) AS promoted,
       approval.answer, approval.decider, gate.judged_at
FROM millrace.gate
JOIN millrace.dataset_version AS version USING (version)
LEFT JOIN millrace.verdict USING (run)
LEFT JOIN millrace.approval USING (run);
COMMENT ON VIEW millrace.judgement IS 'Every verdict with its evidence, and whether it made the champion';

CREATE OR REPLACE VIEW millrace.value AS
SELECT DISTINCT ON (version_order.dataset, version_order.rank)
       version_order.dataset, left(version_order.version, 12) AS version, version.interval_start,
       version.interval_end, gate.run, gate.champion_number, live.metric, live.rows,
       live.model AS live_model, live.value AS live,
       never.model AS never_model, never.value AS never,
       newest.model AS newest_model, newest.value AS newest,
       version_order.rank
FROM millrace.gate
JOIN millrace.version_order USING (version)
JOIN millrace.dataset_version AS version USING (version)
JOIN millrace.score AS live ON live.run = gate.run AND live.role = 'live'
LEFT JOIN millrace.score AS never ON never.run = gate.run AND never.role = 'never'
LEFT JOIN millrace.score AS newest ON newest.run = gate.run AND newest.role = 'newest'
ORDER BY version_order.dataset, version_order.rank, gate.run;
COMMENT ON VIEW millrace.value IS
    'On each version''s test split: what was live, the first champion kept for ever, the newest model';

CREATE OR REPLACE VIEW millrace.value_of_retraining AS
SELECT trained.dataset, trained.trainings, trained.promotions,
       trained.trainings - trained.promotions AS useless, value.versions, value.metric,
       value.live, value.never, value.newest,
       CASE value.metric WHEN 'rmse' THEN value.never - value.live ELSE value.live - value.never END AS gained
FROM (
    SELECT gate.dataset, count(*) AS trainings,
           count(*) FILTER (WHERE EXISTS (
               SELECT FROM millrace.champion_change AS change JOIN millrace.artifact USING (artifact)
               WHERE artifact.run = gate.run AND change.cause <> 'rollback'
           )) AS promotions
    FROM millrace.gate
    GROUP BY gate.dataset
) AS trained
LEFT JOIN (
    SELECT dataset, min(metric) AS metric, count(*) AS versions,
           sum(live * rows) / sum(rows) AS live,
           sum(never * rows) / sum(rows) AS never,
           sum(newest * rows) FILTER (WHERE newest IS NOT NULL)
               / sum(rows) FILTER (WHERE newest IS NOT NULL) AS newest
    FROM millrace.value
    WHERE champion_number > 0 AND rows > 0 AND never IS NOT NULL
    GROUP BY dataset
) AS value USING (dataset);
COMMENT ON VIEW millrace.value_of_retraining IS
    'What retraining gained over all test records since the first champion; how many trainings changed nothing';

CREATE OR REPLACE VIEW millrace.sliced AS
SELECT run.dataset, left(run.version, 12) AS version, run.run, result.model, metric.slice, metric.part,
       metric.name AS metric, metric.value, metric.low, metric.high, metric.rows, whole.value AS whole
FROM millrace.slice_metric AS metric
JOIN millrace.model_result AS result USING (result)
JOIN millrace.training_run AS run USING (run)
LEFT JOIN millrace.metric AS whole ON whole.result = metric.result AND whole.name = metric.name;
COMMENT ON VIEW millrace.sliced IS 'Every metric of every model on every slice, with that on all test rows';
