-- name: count_trained()
-- How many versions there are, and how many of them have a finished training run.
SELECT count(*) AS versions, count(*) FILTER (WHERE EXISTS (
    SELECT FROM millrace.training_run AS run
    WHERE run.version = dataset_version.version AND run.state <> 'running'
)) AS trained
FROM millrace.dataset_version;

-- name: list_results()
-- The main metric of every model on every version, by its newest run: accuracy for classes, R2 for numbers.
-- Null: interval_end, low, high, baseline.
SELECT DISTINCT ON (dataset, version_number, model)
       dataset, version, interval_end, model, metric, value, low, high, baseline
FROM millrace.result
WHERE metric IN ('accuracy', 'r2')
ORDER BY dataset, version_number, model, run DESC;

-- name: list_failed_runs()
-- Training runs that did not succeed.
SELECT run_id FROM millrace.training_run WHERE state = 'failed' ORDER BY run;

-- name: list_reconciliation()
-- For each stream, the offsets below its positions beside what became of them, by the ledger.
SELECT stream, sum(next_offset) AS offsets, sum(landed) AS landed, sum(dead_letters) AS dead_letters,
       sum(quarantined) AS quarantined, sum(filtered) AS filtered, sum(skipped) AS skipped, sum(no_records) AS no_records
FROM millrace.reconciliation
GROUP BY stream
ORDER BY stream;
