-- name: keep_settings(streams, topics, widths, kept)!
-- Stores what the pages need from the definitions of streams.
-- Null: kept[].
INSERT INTO millrace.stream_setting AS setting (stream, topic, partition, keep)
SELECT * FROM unnest(
    CAST(:streams AS text[]), CAST(:topics AS text[]), CAST(:widths AS interval[]), CAST(:kept AS interval[])
)
ON CONFLICT (stream) DO UPDATE
SET topic = excluded.topic, partition = excluded.partition, keep = excluded.keep, read_at = clock_timestamp();

-- name: drop_settings(streams)!
-- Deletes the settings of streams that are not defined any more.
DELETE FROM millrace.stream_setting WHERE stream <> ALL (CAST(:streams AS text[]));

-- name: add_samples(streams, lags, behind, stopped)!
-- Stores a sample of each stream. An error that is stored as its failure comes before the one that was measured.
-- Null: lags[], behind[], stopped[].
INSERT INTO millrace.stream_sample (stream, lag, behind_s, landed, dead_letters, newest_event, stopped)
SELECT asked.stream, asked.lag, asked.behind_s, overview.landed, overview.dead_letters + overview.quarantined,
       overview.newest_event, coalesce(overview.stopped_error, asked.stopped)
FROM unnest(
    CAST(:streams AS text[]), CAST(:lags AS bigint[]), CAST(:behind AS double precision[]), CAST(:stopped AS text[])
) AS asked (stream, lag, behind_s, stopped)
JOIN millrace.stream_overview AS overview USING (stream);

-- name: drop_samples(age)!
-- Deletes samples that are older than this.
DELETE FROM millrace.stream_sample WHERE sampled_at < clock_timestamp() - CAST(:age AS interval);

-- name: streams()
-- What the metrics show of each stream.
-- Null: topic, newest_event, oldest_dead_letter_at.
SELECT stream, topic, newest_event, landed + unlanded.records AS landed, dead_letters, quarantined,
       filtered + unlanded.unfiltered AS filtered, oldest_dead_letter_at
FROM millrace.stream_overview
CROSS JOIN LATERAL (
    -- A counter must not fall, so rows that a replay has removed stay counted.
    SELECT coalesce(sum(-least(more_landed, 0)), 0)::bigint AS records,
           coalesce(sum(-least(more_filtered, 0)), 0)::bigint AS unfiltered
    FROM millrace.landing_replay AS replay WHERE replay.stream = stream_overview.stream
) AS unlanded
ORDER BY stream;

-- name: failing_tasks()
-- The tasks of streams that fail.
-- Null: code.
SELECT stream, task, code FROM millrace.landing_failure ORDER BY stream, task;

-- name: partitioned_until()
-- Until when partitions of each stream's table exist. The names of partitions sort by time.
SELECT stream.stream, newest.until
FROM (SELECT relname::text AS stream FROM pg_class WHERE relnamespace = 'landing'::regnamespace AND relkind = 'p') AS stream
CROSS JOIN LATERAL (
    SELECT max(ends_at) AS until
    FROM (
        SELECT ends_at FROM millrace.stream_partition AS partition
        WHERE partition.stream = stream.stream ORDER BY partition.partition DESC LIMIT 4
    ) AS last
) AS newest
WHERE newest.until IS NOT NULL
ORDER BY stream.stream;

-- name: datasets()
-- What the metrics show of each dataset.
-- Null: live_model, live_since, metric, live_value, last_success_at, verdict_model, e_value, threshold.
SELECT dataset, newest_sealed_at, live_model, live_since, metric, live_value, last_success_at, verdict_model, e_value,
       threshold
FROM millrace.dataset_overview
ORDER BY dataset;

-- name: failed_expectations()
-- The expectations that fail now.
SELECT subject, expectation, failed_at FROM millrace.failed_expectation WHERE ended_at IS NULL
ORDER BY subject, expectation;
