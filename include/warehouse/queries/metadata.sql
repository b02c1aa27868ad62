-- name: stuck_deferrals(silent_s)
-- Deferred tasks that no live triggerer watches.
SELECT instance.dag_id, instance.run_id, instance.task_id, instance.map_index,
       extract(epoch FROM now() - instance.updated_at)::integer AS seconds
FROM task_instance AS instance
LEFT JOIN trigger ON trigger.id = instance.trigger_id
LEFT JOIN job ON job.id = trigger.triggerer_id
    AND job.state = 'running' AND job.latest_heartbeat > now() - make_interval(secs => :silent_s)
WHERE instance.state = 'deferred' AND job.id IS NULL
  AND now() - instance.updated_at > make_interval(secs => :silent_s)
ORDER BY instance.updated_at;

-- name: stuck_queue(queued_s)
-- Tasks that wait for a worker for long.
SELECT dag_id, run_id, task_id, map_index, extract(epoch FROM now() - queued_dttm)::integer AS seconds
FROM task_instance
WHERE state = 'queued' AND now() - queued_dttm > make_interval(secs => :queued_s)
ORDER BY queued_dttm;

-- name: paused_dags()
-- DAGs that are paused, by whatever.
SELECT dag_id FROM dag WHERE is_paused ORDER BY dag_id;

-- name: paused_by_failures()
-- DAGs that paused themselves: as many of their newest runs as they allow have failed.
SELECT dag.dag_id, newest.run_id, dag.max_consecutive_failed_dag_runs AS runs
FROM dag
CROSS JOIN LATERAL (
    SELECT (array_agg(latest.run_id ORDER BY latest.run_after DESC))[1] AS run_id,
           count(*) FILTER (WHERE latest.state = 'failed') AS failed
    FROM (
        SELECT run_id, run_after, state FROM dag_run
        WHERE dag_run.dag_id = dag.dag_id
        ORDER BY run_after DESC
        LIMIT dag.max_consecutive_failed_dag_runs
    ) AS latest
) AS newest
WHERE dag.is_paused AND dag.max_consecutive_failed_dag_runs > 0
  AND newest.failed = dag.max_consecutive_failed_dag_runs
ORDER BY dag.dag_id;

-- name: import_errors()
-- Files of dags/ that Airflow cannot load.
-- Null: filename, stacktrace.
SELECT filename, stacktrace FROM import_error ORDER BY filename;

-- name: last_runs()
-- The latest run of every DAG.
-- Null: state, start_date, end_date.
SELECT DISTINCT ON (dag_id) dag_id, run_id, state, start_date, end_date
FROM dag_run
ORDER BY dag_id, run_after DESC;

-- name: unfinished_dags(before)
-- DAGs with a run that began, or should have begun, before a moment and has not ended.
SELECT DISTINCT dag_id
FROM dag_run
WHERE state IN ('running', 'queued') AND coalesce(start_date, queued_at, created_at) < :before
ORDER BY dag_id;

-- name: last_successes()
-- When each scheduled DAG last succeeded, by its runs that are still stored.
SELECT dag_run.dag_id, max(dag_run.end_date) AS ended
FROM dag_run
JOIN dag USING (dag_id)
WHERE dag_run.state = 'success' AND dag_run.end_date IS NOT NULL AND NOT dag.is_stale
  AND dag.timetable_type <> 'airflow.timetables.simple.NullTimetable'
GROUP BY dag_run.dag_id
ORDER BY dag_run.dag_id;
