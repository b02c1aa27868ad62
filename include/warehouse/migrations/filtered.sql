-- Records that a stream's definition filters: a disposition that the ledger counts.

ALTER TABLE millrace.landing_ledger
    DROP CONSTRAINT landing_ledger_check,
    ADD COLUMN filtered bigint NOT NULL DEFAULT 0,
    ADD CHECK (next_offset - first_offset = landed + dead_letters + quarantined + filtered + skipped + no_records);
COMMENT ON COLUMN millrace.landing_ledger.filtered IS 'Records that where in the definition filters';

ALTER TABLE millrace.landing_total ADD COLUMN filtered bigint NOT NULL DEFAULT 0;

ALTER TABLE millrace.landing_replay
    DROP CONSTRAINT landing_replay_check1,
    ADD COLUMN filtered bigint NOT NULL DEFAULT 0,
    ADD COLUMN more_filtered bigint NOT NULL DEFAULT 0,
    ADD CHECK (more_landed + more_dead_letters + more_quarantined + more_filtered + more_skipped = 0);
COMMENT ON COLUMN millrace.landing_replay.filtered IS 'How many of these records are filtered now';
COMMENT ON COLUMN millrace.landing_replay.more_filtered IS
    'How many more than before the replay are filtered; negative for fewer';

CREATE OR REPLACE FUNCTION millrace.add_to_landing_total() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO millrace.landing_total AS total (
            stream, kafka_incarnation, kafka_partition, landed, dead_letters, quarantined, skipped, no_records, newest_event,
            filtered
        )
        SELECT stream, kafka_incarnation, kafka_partition, sum(landed), sum(dead_letters), sum(quarantined), sum(skipped),
               sum(no_records), max(newest_event), sum(filtered)
        FROM added GROUP BY stream, kafka_incarnation, kafka_partition ORDER BY stream, kafka_incarnation, kafka_partition
        ON CONFLICT (stream, kafka_incarnation, kafka_partition) DO UPDATE
        SET landed = total.landed + excluded.landed, dead_letters = total.dead_letters + excluded.dead_letters,
            quarantined = total.quarantined + excluded.quarantined, skipped = total.skipped + excluded.skipped,
            no_records = total.no_records + excluded.no_records, filtered = total.filtered + excluded.filtered,
            newest_event = greatest(total.newest_event, excluded.newest_event), updated_at = clock_timestamp();
    ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO millrace.landing_total AS total (
            stream, kafka_incarnation, kafka_partition, landed, dead_letters, quarantined, skipped, no_records, newest_event,
            filtered
        )
        SELECT stream, kafka_incarnation, kafka_partition, sum(landed), sum(dead_letters), sum(quarantined), sum(skipped),
               sum(no_records), max(newest_event), sum(filtered)
        FROM (
            SELECT stream, kafka_incarnation, kafka_partition, landed, dead_letters, quarantined, skipped, no_records,
                   newest_event, filtered
            FROM added
            UNION ALL
            SELECT stream, kafka_incarnation, kafka_partition, -landed, -dead_letters, -quarantined, -skipped, -no_records,
                   NULL, -filtered
            FROM removed
        ) AS changed
        GROUP BY stream, kafka_incarnation, kafka_partition ORDER BY stream, kafka_incarnation, kafka_partition
        ON CONFLICT (stream, kafka_incarnation, kafka_partition) DO UPDATE
        SET landed = total.landed + excluded.landed, dead_letters = total.dead_letters + excluded.dead_letters,
            quarantined = total.quarantined + excluded.quarantined, skipped = total.skipped + excluded.skipped,
            no_records = total.no_records + excluded.no_records, filtered = total.filtered + excluded.filtered,
            newest_event = greatest(total.newest_event, excluded.newest_event), updated_at = clock_timestamp();
    ELSE
        UPDATE millrace.landing_total AS total
        SET landed = total.landed - gone.landed, dead_letters = total.dead_letters - gone.dead_letters,
            quarantined = total.quarantined - gone.quarantined, skipped = total.skipped - gone.skipped,
            no_records = total.no_records - gone.no_records,
            filtered = total.filtered - gone.filtered, updated_at = clock_timestamp()
        FROM (
            SELECT stream, kafka_incarnation, kafka_partition, sum(landed) AS landed, sum(dead_letters) AS dead_letters,
                   sum(quarantined) AS quarantined, sum(skipped) AS skipped, sum(no_records) AS no_records,
                   sum(filtered) AS filtered
            FROM removed GROUP BY stream, kafka_incarnation, kafka_partition
        ) AS gone
        WHERE total.stream = gone.stream AND total.kafka_incarnation = gone.kafka_incarnation
          AND total.kafka_partition = gone.kafka_partition;
    END IF;
    RETURN NULL;
END
$$;

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
    SELECT min(topic) AS topic, count(*) AS partitions, sum(next_offset)::bigint AS offsets, max(updated_at) AS updated_at
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
    WHERE known.topic = position.topic AND known.topic_id = position.topic_id
) AS incarnation
LEFT JOIN LATERAL (
    SELECT first_offset FROM millrace.landing_gap AS gap
    WHERE gap.stream = substr(position.reader, 9) AND gap.kafka_incarnation = incarnation.number - 1
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
