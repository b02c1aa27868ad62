-- Streams that read several topics: each stream numbers its own topics, so that incarnation, partition and offset identify a
-- record in all of them.

ALTER TABLE millrace.topic_incarnation DROP CONSTRAINT topic_incarnation_pkey, ADD COLUMN stream text NOT NULL DEFAULT '';
INSERT INTO millrace.topic_incarnation (stream, topic, number, topic_id, met_at)
SELECT DISTINCT substr(position.reader, 9), known.topic, known.number, known.topic_id, known.met_at
FROM millrace.topic_incarnation AS known
JOIN millrace.position ON position.topic = known.topic
WHERE starts_with(position.reader, 'landing:');
DELETE FROM millrace.topic_incarnation AS known
WHERE stream = '' AND EXISTS (
    SELECT FROM millrace.topic_incarnation AS copy WHERE copy.stream <> '' AND copy.topic = known.topic
);
ALTER TABLE millrace.topic_incarnation ALTER COLUMN stream DROP DEFAULT, ADD PRIMARY KEY (stream, topic, number);
COMMENT ON TABLE millrace.topic_incarnation IS
    'Numbers the topics that a stream has read: topics of other names, or recreated ones, whose offsets begin again';
COMMENT ON COLUMN millrace.topic_incarnation.stream IS
    'The stream; empty for a topic that no stream had a position in when the column was added';

CREATE OR REPLACE VIEW millrace.stream_overview AS
SELECT stream.stream, coalesce(setting.topic, position.topic) AS topic, setting.stream IS NOT NULL AS is_defined,
       position.partitions, position.offsets, position.updated_at AS moved_at,
       ledger.newest_event, extract(epoch FROM statement_timestamp() - ledger.newest_event)::double precision AS newest_age_s,
       coalesce(ledger.landed, 0) AS landed, coalesce(ledger.dead_letters, 0) AS dead_letters,
       coalesce(ledger.quarantined, 0) AS quarantined, coalesce(ledger.skipped, 0) AS skipped,
       oldest.kept_at AS oldest_dead_letter_at,
       sample.lag, sample.behind_s, sample.sampled_at,
       (ledger.landed - hour.landed) / extract(epoch FROM statement_timestamp() - hour.sampled_at)::double precision
           AS rate_hour,
       (ledger.landed - day.landed) / extract(epoch FROM statement_timestamp() - day.sampled_at)::double precision
           AS rate_day,
       failure.task AS stopped_task, failure.since AS stopped_since, failure.code AS stopped_code,
       failure.error AS stopped_error, failure.remedy AS stopped_remedy,
       proof.ended_at AS proved_at, cardinality(proof.wrong) AS proof_errors,
       coalesce(ledger.filtered, 0) AS filtered
FROM (
    SELECT stream FROM millrace.stream_setting
    UNION
    SELECT substr(reader, 9) FROM millrace.position WHERE starts_with(reader, 'landing:')
    UNION
    SELECT stream FROM millrace.landing_failure
) AS stream
LEFT JOIN millrace.stream_setting AS setting ON setting.stream = stream.stream
LEFT JOIN LATERAL (
    SELECT string_agg(DISTINCT topic, ', ') AS topic, count(*) AS partitions, sum(next_offset)::bigint AS offsets, max(updated_at) AS updated_at
    FROM millrace.position WHERE reader = 'landing:' || stream.stream
) AS position ON true
LEFT JOIN LATERAL (
    SELECT sum(landed)::bigint AS landed, sum(dead_letters)::bigint AS dead_letters,
           sum(quarantined)::bigint AS quarantined, sum(skipped)::bigint AS skipped,
           sum(filtered)::bigint AS filtered, max(newest_event) AS newest_event
    FROM millrace.landing_total AS total WHERE total.stream = stream.stream
) AS ledger ON true
LEFT JOIN LATERAL (
    SELECT kept_at FROM millrace.dead_letter WHERE dead_letter.stream = stream.stream ORDER BY kept_at LIMIT 1
) AS oldest ON true
LEFT JOIN LATERAL (
    SELECT * FROM millrace.stream_sample AS sample
    WHERE sample.stream = stream.stream ORDER BY sampled_at DESC LIMIT 1
) AS sample ON true
LEFT JOIN LATERAL (
    SELECT landed, sampled_at FROM millrace.stream_sample AS sample
    WHERE sample.stream = stream.stream AND sampled_at >= statement_timestamp() - interval '1 hour'
    ORDER BY sampled_at LIMIT 1
) AS hour ON true
LEFT JOIN LATERAL (
    SELECT landed, sampled_at FROM millrace.stream_sample AS sample
    WHERE sample.stream = stream.stream AND sampled_at >= statement_timestamp() - interval '1 day'
    ORDER BY sampled_at LIMIT 1
) AS day ON true
LEFT JOIN LATERAL (
    SELECT * FROM millrace.landing_failure AS failure
    WHERE failure.stream = stream.stream ORDER BY since, task LIMIT 1
) AS failure ON true
LEFT JOIN LATERAL (
    SELECT ended_at, wrong FROM millrace.landing_proof AS proof
    WHERE proof.stream = stream.stream ORDER BY proof DESC LIMIT 1
) AS proof ON true;

CREATE OR REPLACE VIEW millrace.reconciliation AS
SELECT substr(position.reader, 9) AS stream, position.topic, incarnation.number AS kafka_incarnation,
       position.partition AS kafka_partition, coalesce(cut.first_offset, 0) AS first_offset, position.next_offset,
       ledger.landed, ledger.dead_letters, ledger.quarantined, ledger.skipped, ledger.no_records, lost.offsets AS lost,
       position.next_offset - coalesce(cut.first_offset, 0) - ledger.landed - ledger.dead_letters - ledger.quarantined
           - ledger.skipped - ledger.filtered - ledger.no_records - lost.offsets AS unaccounted,
       ledger.filtered
FROM millrace.position
CROSS JOIN LATERAL (
    SELECT max(number) AS number FROM millrace.topic_incarnation AS known
    WHERE known.stream = substr(position.reader, 9) AND known.topic = position.topic
      AND known.topic_id = position.topic_id
) AS incarnation
LEFT JOIN LATERAL (
    SELECT first_offset FROM millrace.landing_gap AS gap
    WHERE gap.stream = substr(position.reader, 9) AND gap.kafka_incarnation = (
        SELECT max(number) FROM millrace.topic_incarnation AS known
        WHERE known.stream = gap.stream AND known.topic = position.topic AND known.number < incarnation.number
    )
      AND gap.kafka_partition = position.partition AND gap.choice = 'truncated'
    ORDER BY gap DESC LIMIT 1
) AS cut ON true
CROSS JOIN LATERAL (
    SELECT coalesce(sum(landed), 0)::bigint AS landed, coalesce(sum(dead_letters), 0)::bigint AS dead_letters,
           coalesce(sum(quarantined), 0)::bigint AS quarantined, coalesce(sum(skipped), 0)::bigint AS skipped,
           coalesce(sum(no_records), 0)::bigint AS no_records, coalesce(sum(filtered), 0)::bigint AS filtered
    FROM millrace.landing_total AS total
    WHERE total.stream = substr(position.reader, 9) AND total.kafka_incarnation = incarnation.number
      AND total.kafka_partition = position.partition
) AS ledger
CROSS JOIN LATERAL (
    SELECT coalesce(sum(next_offset - first_offset), 0)::bigint AS offsets
    FROM millrace.landing_gap AS gap
    WHERE gap.stream = substr(position.reader, 9) AND gap.kafka_incarnation = incarnation.number
      AND gap.kafka_partition = position.partition AND gap.choice = 'lost'
) AS lost
WHERE starts_with(position.reader, 'landing:');
