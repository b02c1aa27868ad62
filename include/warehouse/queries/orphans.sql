-- name: orphaned_streams(named)
-- What is there of streams that are not among the given ones: tables, records by the ledger, topics they were read from.
WITH tables AS (
    -- A table that retention has detached and not yet dropped is still named as a partition.
    SELECT CASE WHEN kept.stream IS NOT NULL THEN kept.stream
                WHEN relkind = 'r' THEN regexp_replace(relname, '_[0-9]{8}(_[0-9]{4})?$', '') ELSE relname END AS stream,
           array_agg(CAST(relname AS text) ORDER BY relname) AS tables
    FROM pg_class
    LEFT JOIN millrace.landing_current AS kept ON relkind = 'r' AND relname = kept.stream || '_state'
    WHERE relnamespace = to_regnamespace('landing') AND relkind IN ('p', 'r') AND NOT relispartition
    GROUP BY 1
), ledgers AS (
    SELECT stream, sum(landed) AS landed, sum(dead_letters + quarantined) AS kept_aside
    FROM millrace.landing_ledger
    GROUP BY stream
), readers AS (
    SELECT substr(reader, length('landing:') + 1) AS stream, array_agg(DISTINCT topic ORDER BY topic) AS topics
    FROM millrace.position
    WHERE starts_with(reader, 'landing:')
    GROUP BY reader
)
SELECT stream, coalesce(tables, '{}') AS tables, CAST(coalesce(landed, 0) AS bigint) AS landed,
       CAST(coalesce(kept_aside, 0) AS bigint) AS kept_aside,
       coalesce(topics, '{}') AS topics
FROM tables FULL JOIN ledgers USING (stream) FULL JOIN readers USING (stream)
WHERE stream <> ALL (CAST(:named AS text[]))
ORDER BY stream;

-- name: orphaned_datasets(named)
-- What is there of datasets that are not among the given ones: versions, training runs, champions.
SELECT dataset, count(*) AS versions,
       (SELECT count(*) FROM millrace.training_run AS run WHERE run.dataset = version.dataset) AS runs,
       (SELECT count(*) FROM millrace.champion_change AS change WHERE change.dataset = version.dataset)
           AS changes
FROM millrace.dataset_version AS version
WHERE dataset <> ALL (CAST(:named AS text[]))
GROUP BY dataset
ORDER BY dataset;
