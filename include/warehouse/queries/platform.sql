-- name: open_transactions(idle_s, open_s)
-- Transactions of any database that are open for long: they hold locks, and keep vacuum from cleaning.
-- Null: datname, state.
SELECT pid, datname, application_name, state, extract(epoch FROM now() - xact_start)::integer AS seconds, left(query, 80) AS query
FROM pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
  AND (starts_with(state, 'idle in transaction') AND now() - state_change > make_interval(secs => :idle_s)
       OR now() - xact_start > make_interval(secs => :open_s))
ORDER BY xact_start;

-- name: connections()^
-- How many of the server's connections are taken.
-- Always a row.
SELECT count(*) AS taken, current_setting('max_connections')::integer AS of
FROM pg_stat_activity
WHERE backend_type = 'client backend';

-- name: connection_holders(most)
-- Which programs hold the most connections, by their state.
SELECT application_name, coalesce(state, backend_type) AS state, count(*) AS connections
FROM pg_stat_activity
WHERE backend_type = 'client backend'
GROUP BY 1, 2 ORDER BY 3 DESC, 1 LIMIT :most;

-- name: is_migrated()$
-- Whether the warehouse has its tables.
-- Always a row.
SELECT to_regclass('millrace.position') IS NOT NULL;

-- name: readers()
-- Who reads which topic.
SELECT DISTINCT reader, topic FROM millrace.position ORDER BY reader, topic;
