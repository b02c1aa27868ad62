-- name: hold_benchmark$
-- Keeps a second benchmark away for as long as the connection lives; whether this is the first.
SELECT pg_try_advisory_lock(hashtextextended('millrace bench landing', 0));

-- name: make_schema#
-- Makes the schema of the peers' tables, without what an interrupted run has left.
DROP SCHEMA IF EXISTS bench CASCADE;
CREATE SCHEMA bench;

-- name: drop_schema#
-- Drops it with whatever is in it.
DROP SCHEMA IF EXISTS bench CASCADE;

-- name: make_position#
-- The table of the peers that are written by hand: as Millrace's own, but for the incarnation of the topic in its key.
CREATE TABLE bench.position (
    kafka_offset    bigint           NOT NULL,
    kafka_partition integer          NOT NULL,
    vehicle         text             NOT NULL,
    trip            text             NOT NULL,
    ts              timestamptz      NOT NULL,
    lat             double precision NOT NULL,
    lon             double precision NOT NULL,
    bearing         double precision,
    speed           double precision NOT NULL,
    stop_sequence   bigint           NOT NULL,
    status          text             NOT NULL,
    PRIMARY KEY (kafka_partition, kafka_offset, ts)
) PARTITION BY RANGE (ts);
CREATE TABLE bench.position_earlier PARTITION OF bench.position FOR VALUES FROM (MINVALUE) TO ('yesterday');
CREATE TABLE bench.position_yesterday PARTITION OF bench.position FOR VALUES FROM ('yesterday') TO ('today');
CREATE TABLE bench.position_today PARTITION OF bench.position FOR VALUES FROM ('today') TO ('tomorrow');
CREATE TABLE bench.position_later PARTITION OF bench.position FOR VALUES FROM ('tomorrow') TO (MAXVALUE);

-- name: drop_position#
-- Drops it.
DROP TABLE bench.position;

-- name: make_debezium#
-- The table of Debezium's sink, not partitioned, because its upsert needs a key without the time. Made here because the
-- sink's tasks, each trying to make it, end one another.
CREATE TABLE bench.debezium (
    __connect_topic     text             NOT NULL,
    __connect_partition integer          NOT NULL,
    __connect_offset    bigint           NOT NULL,
    vehicle             text             NOT NULL,
    trip                text             NOT NULL,
    ts                  timestamptz      NOT NULL,
    lat                 double precision NOT NULL,
    lon                 double precision NOT NULL,
    bearing             double precision,
    speed               double precision NOT NULL,
    stop_sequence       bigint           NOT NULL,
    status              text             NOT NULL,
    PRIMARY KEY (__connect_topic, __connect_partition, __connect_offset)
);

-- name: drop_debezium#
-- Drops it.
DROP TABLE bench.debezium;

-- name: make_debezium_state#
-- The table of Debezium's sink with one row for each key. An index on the offsets, by which the observer could find the
-- newest, would make each update slower.
CREATE TABLE bench.debezium_state (
    __connect_topic     text             NOT NULL,
    __connect_partition integer          NOT NULL,
    __connect_offset    bigint           NOT NULL,
    vehicle             text             NOT NULL,
    trip                text             NOT NULL,
    ts                  timestamptz      NOT NULL,
    lat                 double precision NOT NULL,
    lon                 double precision NOT NULL,
    bearing             double precision,
    speed               double precision NOT NULL,
    stop_sequence       bigint           NOT NULL,
    status              text             NOT NULL,
    PRIMARY KEY (vehicle, ts)
);

-- name: drop_debezium_state#
-- Drops it.
DROP TABLE bench.debezium_state;

-- name: ours_exists$
-- Whether Millrace's own table is there yet.
SELECT to_regclass('landing.bench_landing') IS NOT NULL;

-- name: forget_ours#
-- Drops Millrace's own table and whatever the warehouse knows of its stream.
DROP TABLE IF EXISTS landing.bench_landing;
DROP TABLE IF EXISTS landing.bench_landing_state CASCADE;
DELETE FROM millrace.landing_current WHERE stream = 'bench_landing';
DELETE FROM millrace.position WHERE reader = 'landing:bench_landing';
DELETE FROM millrace.landing_ledger WHERE stream = 'bench_landing';
DELETE FROM millrace.dead_letter WHERE stream = 'bench_landing';
DELETE FROM millrace.topic_incarnation WHERE topic LIKE 'bench-%';

-- name: seen_position$
-- How many rows are visible: the offsets of a partition become so in their order and without gaps.
SELECT coalesce(sum(last + 1), 0)
FROM generate_series(0, 3) AS number
CROSS JOIN LATERAL (SELECT max(kafka_offset) AS last FROM bench.position WHERE kafka_partition = number) AS newest;

-- name: seen_debezium$
-- How many rows are visible.
SELECT coalesce(sum(last + 1), 0)
FROM generate_series(0, 3) AS number
CROSS JOIN LATERAL (
    SELECT max(__connect_offset) AS last FROM bench.debezium
    WHERE __connect_topic = :topic AND __connect_partition = number
) AS newest;

-- name: seen_debezium_state$
-- How many records are visible.
SELECT coalesce(sum(last + 1), 0)
FROM (
    SELECT max(__connect_offset) AS last FROM bench.debezium_state
    WHERE __connect_topic = :topic GROUP BY __connect_partition
) AS newest;

-- name: seen_ours$
-- How many rows are visible.
SELECT coalesce(sum(last + 1), 0)
FROM generate_series(0, 3) AS number
CROSS JOIN LATERAL (
    SELECT max(kafka_offset) AS last FROM landing.bench_landing
    WHERE kafka_incarnation = 1 AND kafka_partition = number
) AS newest;

-- name: count_position$
-- How many rows there are.
SELECT count(*) FROM bench.position;

-- name: count_debezium$
-- How many rows there are.
SELECT count(*) FROM bench.debezium;

-- name: count_debezium_state$
-- How many rows there are.
SELECT count(*) FROM bench.debezium_state;

-- name: count_ours$
-- How many rows there are.
SELECT count(*) FROM landing.bench_landing;

-- name: count_ours_state$
-- How many rows the current state has.
SELECT count(*) FROM landing.bench_landing_state;
