-- What the pages and the metrics show.

CREATE TABLE millrace.stream_sample (
    stream       text        NOT NULL,
    sampled_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    lag          bigint,
    behind_s     double precision,
    landed       bigint      NOT NULL,
    dead_letters bigint      NOT NULL,
    newest_event timestamptz,
    stopped      text,
    PRIMARY KEY (stream, sampled_at)
);
COMMENT ON TABLE  millrace.stream_sample IS 'Lag and totals of each stream, one row a minute, kept for eight days';
COMMENT ON COLUMN millrace.stream_sample.lag IS 'Offsets past the position; null if Kafka did not answer';
COMMENT ON COLUMN millrace.stream_sample.behind_s IS 'Age in seconds of the oldest record that waits; null if unknown';
COMMENT ON COLUMN millrace.stream_sample.landed IS 'Rows landed since the beginning';
COMMENT ON COLUMN millrace.stream_sample.dead_letters IS 'Dead letters and quarantined records that are stored';
COMMENT ON COLUMN millrace.stream_sample.stopped IS 'The error that stops the stream; null if it can continue';

CREATE TABLE millrace.stream_setting (
    stream    text        PRIMARY KEY,
    topic     text        NOT NULL,
    partition interval    NOT NULL,
    keep      interval    NOT NULL,
    read_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE  millrace.stream_setting IS 'The streams that are defined, read from their definitions once a minute';
COMMENT ON COLUMN millrace.stream_setting.partition IS 'The time that one partition of the table spans';
COMMENT ON COLUMN millrace.stream_setting.keep IS 'How long a partition is kept after its end';

CREATE TABLE millrace.landing_proof (
    proof      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream     text        NOT NULL,
    proved_by  text        NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    compared   bigint      NOT NULL,
    dropped    bigint      NOT NULL,
    unfilled   bigint      NOT NULL,
    wrong      text[]      NOT NULL
);
CREATE INDEX ON millrace.landing_proof (stream, proof);
COMMENT ON TABLE  millrace.landing_proof IS 'Each ./millrace verify stream, with its result';
COMMENT ON COLUMN millrace.landing_proof.compared IS 'Records that were read from Kafka again and compared with the tables';
COMMENT ON COLUMN millrace.landing_proof.dropped IS 'Rows that retention has dropped since they landed';
COMMENT ON COLUMN millrace.landing_proof.unfilled IS 'Rows that wait for the values of new columns';
COMMENT ON COLUMN millrace.landing_proof.wrong IS 'What is wrong, one sentence each; empty when the stream is proven';

-- Sums of the ledger, which gets a row for each claim. Only the owner of a partition adds to its row, so that drains do not
-- wait for each other.
CREATE TABLE millrace.landing_total (
    stream            text        NOT NULL,
    kafka_incarnation smallint    NOT NULL,
    kafka_partition   integer     NOT NULL,
    landed            bigint      NOT NULL,
    dead_letters      bigint      NOT NULL,
    quarantined       bigint      NOT NULL,
    skipped           bigint      NOT NULL,
    no_records        bigint      NOT NULL,
    newest_event      timestamptz,
    updated_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (stream, kafka_incarnation, kafka_partition)
) WITH (fillfactor = 50);
COMMENT ON TABLE millrace.landing_total IS
    'The sums of millrace.landing_ledger for each partition, kept by a trigger in the transactions that change it';

CREATE FUNCTION millrace.add_to_landing_total() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO millrace.landing_total AS total
        SELECT stream, kafka_incarnation, kafka_partition, sum(landed), sum(dead_letters), sum(quarantined), sum(skipped),
               sum(no_records), max(newest_event)
        FROM added GROUP BY stream, kafka_incarnation, kafka_partition ORDER BY stream, kafka_incarnation, kafka_partition
        ON CONFLICT (stream, kafka_incarnation, kafka_partition) DO UPDATE
        SET landed = total.landed + excluded.landed, dead_letters = total.dead_letters + excluded.dead_letters,
            quarantined = total.quarantined + excluded.quarantined, skipped = total.skipped + excluded.skipped,
            no_records = total.no_records + excluded.no_records,
            newest_event = greatest(total.newest_event, excluded.newest_event), updated_at = clock_timestamp();
    ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO millrace.landing_total AS total
        SELECT stream, kafka_incarnation, kafka_partition, sum(landed), sum(dead_letters), sum(quarantined), sum(skipped),
               sum(no_records), max(newest_event)
        FROM (
            SELECT stream, kafka_incarnation, kafka_partition, landed, dead_letters, quarantined, skipped, no_records,
                   newest_event
            FROM added
            UNION ALL
            SELECT stream, kafka_incarnation, kafka_partition, -landed, -dead_letters, -quarantined, -skipped, -no_records,
                   NULL
            FROM removed
        ) AS changed
        GROUP BY stream, kafka_incarnation, kafka_partition ORDER BY stream, kafka_incarnation, kafka_partition
        ON CONFLICT (stream, kafka_incarnation, kafka_partition) DO UPDATE
        SET landed = total.landed + excluded.landed, dead_letters = total.dead_letters + excluded.dead_letters,
            quarantined = total.quarantined + excluded.quarantined, skipped = total.skipped + excluded.skipped,
            no_records = total.no_records + excluded.no_records,
            newest_event = greatest(total.newest_event, excluded.newest_event), updated_at = clock_timestamp();
    ELSE
        UPDATE millrace.landing_total AS total
        SET landed = total.landed - gone.landed, dead_letters = total.dead_letters - gone.dead_letters,
            quarantined = total.quarantined - gone.quarantined, skipped = total.skipped - gone.skipped,
            no_records = total.no_records - gone.no_records, updated_at = clock_timestamp()
        FROM (
            SELECT stream, kafka_incarnation, kafka_partition, sum(landed) AS landed, sum(dead_letters) AS dead_letters,
                   sum(quarantined) AS quarantined, sum(skipped) AS skipped, sum(no_records) AS no_records
            FROM removed GROUP BY stream, kafka_incarnation, kafka_partition
        ) AS gone
        WHERE total.stream = gone.stream AND total.kafka_incarnation = gone.kafka_incarnation
          AND total.kafka_partition = gone.kafka_partition;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION millrace.add_to_landing_total() IS 'Keeps millrace.landing_total';

INSERT INTO millrace.landing_total
SELECT stream, kafka_incarnation, kafka_partition, sum(landed), sum(dead_letters), sum(quarantined), sum(skipped),
       sum(no_records), max(newest_event), max(updated_at)
FROM millrace.landing_ledger GROUP BY stream, kafka_incarnation, kafka_partition;
CREATE TRIGGER add_inserted AFTER INSERT ON millrace.landing_ledger REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION millrace.add_to_landing_total();
CREATE TRIGGER add_updated AFTER UPDATE ON millrace.landing_ledger
    REFERENCING NEW TABLE AS added OLD TABLE AS removed
    FOR EACH STATEMENT EXECUTE FUNCTION millrace.add_to_landing_total();
CREATE TRIGGER subtract_deleted AFTER DELETE ON millrace.landing_ledger REFERENCING OLD TABLE AS removed
    FOR EACH STATEMENT EXECUTE FUNCTION millrace.add_to_landing_total();

ALTER TABLE millrace.landing_failure ADD code text, ADD remedy text;
COMMENT ON COLUMN millrace.landing_failure.code IS 'The code of the error, see docs/errors.md; null if it has none';
COMMENT ON COLUMN millrace.landing_failure.remedy IS 'What to do, with the command; null if the error does not say';

-- Reasons that differ only in numbers are one kind. An index entry must stay below 2,704 bytes.
ALTER TABLE millrace.dead_letter
    ADD kind  text   GENERATED ALWAYS AS (left(regexp_replace(reason, '[0-9]+([.,:][0-9]+)*', '…', 'g'), 300)) STORED,
    ADD bytes integer GENERATED ALWAYS AS (coalesce(octet_length(value), 0)) STORED;
COMMENT ON COLUMN millrace.dead_letter.kind IS 'The reason without its numbers, 300 characters at most';
COMMENT ON COLUMN millrace.dead_letter.bytes IS 'The length of the value';

CREATE INDEX ON millrace.dead_letter (stream, kind, disposition, sqlstate) INCLUDE (bytes, kept_at);
CREATE INDEX ON millrace.training_run (dataset, run);
CREATE INDEX ON millrace.gate (dataset, judged_at);
CREATE INDEX ON millrace.champion_change (artifact);

-- Models.

CREATE VIEW millrace.dataset_overview AS
SELECT dataset.dataset, dataset.versions, newest.version AS newest_version, newest.number AS newest_number,
       newest.interval_end AS newest_until, newest.sealed_at AS newest_sealed_at,
       live.number AS champion_number, live.model AS live_model, live.version AS live_version, live.run AS live_run,
       live.since AS live_since, extract(epoch FROM statement_timestamp() - live.since)::double precision AS live_age_s,
       score.metric, measured.value AS live_value, measured.rows AS live_rows, score.trend,
       run.run AS last_run, run.run_id AS last_run_id, run.state AS last_run_state, run.started_at AS last_run_started_at,
       run.finished_at AS last_run_finished_at, trained.finished_at AS last_success_at,
       gate.run AS judged_run, gate.judged_at, gate.state AS judged_state,
       verdict.model AS verdict_model, verdict.outcome AS verdict,
       coalesce(verdict.sentence, gate.reason) AS sentence, verdict.e_value, verdict.threshold
FROM (
    SELECT dataset, count(*) AS versions, max(number) AS newest FROM millrace.dataset_version GROUP BY dataset
) AS dataset
JOIN LATERAL (
    SELECT left(version, 12) AS version, number, interval_end, sealed_at
    FROM millrace.dataset_version AS version
    WHERE version.dataset = dataset.dataset AND version.number = dataset.newest
) AS newest ON true
LEFT JOIN LATERAL (
    SELECT change.number, change.since, change.artifact, artifact.model, artifact.run,
           left(run.version, 12) AS version
    FROM (
        SELECT * FROM millrace.champion_change
        WHERE champion_change.dataset = dataset.dataset ORDER BY number DESC LIMIT 1
    ) AS change
    JOIN millrace.artifact USING (artifact)
    JOIN millrace.training_run AS run USING (run)
) AS live ON true
LEFT JOIN LATERAL (
    SELECT min(metric) AS metric, array_agg(value ORDER BY judged_at) AS trend
    FROM (
        SELECT score.metric, score.value, gate.judged_at
        FROM millrace.gate JOIN millrace.score USING (run)
        WHERE gate.dataset = dataset.dataset AND score.role = 'live'
        ORDER BY gate.judged_at DESC LIMIT 20
    ) AS latest
) AS score ON true
LEFT JOIN LATERAL (
    SELECT gate.run, gate.champion_number
    FROM millrace.gate JOIN millrace.dataset_version AS version USING (version)
    WHERE gate.dataset = dataset.dataset
    ORDER BY coalesce(version.interval_end, version.sealed_at) DESC, version.number DESC, gate.run DESC
    LIMIT 1
) AS compared ON true
LEFT JOIN LATERAL (
    -- A model that was promoted on the newest version was not live there before.
    SELECT metric.value, result.test_rows AS rows
    FROM millrace.model_result AS result JOIN millrace.metric USING (result)
    WHERE result.run = compared.run AND live.run = compared.run AND result.model = live.model
      AND metric.name = score.metric
    UNION ALL
    SELECT own.value, own.rows
    FROM millrace.score AS own
    JOIN millrace.champion_change AS judged
      ON judged.dataset = dataset.dataset AND judged.number = compared.champion_number
    WHERE own.run = compared.run AND live.run <> compared.run AND own.role = 'live' AND own.rows > 0
      AND judged.artifact = live.artifact
) AS measured ON true
LEFT JOIN LATERAL (
    SELECT * FROM millrace.training_run AS run WHERE run.dataset = dataset.dataset ORDER BY run.run DESC LIMIT 1
) AS run ON true
LEFT JOIN LATERAL (
    SELECT finished_at FROM millrace.training_run AS run
    WHERE run.dataset = dataset.dataset AND run.state = 'success' ORDER BY run.run DESC LIMIT 1
) AS trained ON true
LEFT JOIN LATERAL (
    SELECT * FROM millrace.gate WHERE gate.dataset = dataset.dataset ORDER BY judged_at DESC LIMIT 1
) AS gate ON true
LEFT JOIN LATERAL (
    SELECT * FROM millrace.verdict WHERE verdict.run = gate.run ORDER BY outcome = 'promote' DESC, log_e DESC, model LIMIT 1
) AS verdict ON true;
COMMENT ON VIEW millrace.dataset_overview IS
    'One row for each dataset: what is live since when, its metric on the newest version that was compared (live_value, '
    'null if it was not measured there), the metric of what was live on the last 20 (trend), the newest version, the '
    'last run and the last verdict';

CREATE VIEW millrace.metric_by_version AS
SELECT version.dataset, version.number AS version_number, left(version.version, 12) AS version, version.interval_start,
       version.interval_end, run.run, run.run_id, result.model, metric.name AS metric, metric.value, metric.low,
       metric.high, baseline.value AS baseline, result.train_rows, result.test_rows, gate.champion_number,
       promoted.number AS promoted_to
FROM millrace.dataset_version AS version
JOIN LATERAL (
    SELECT run, run_id FROM millrace.training_run AS run
    WHERE run.version = version.version AND run.state = 'success' ORDER BY run.run DESC LIMIT 1
) AS run ON true
JOIN millrace.model_result AS result ON result.run = run.run
JOIN millrace.metric ON metric.result = result.result
LEFT JOIN millrace.model_result AS base ON base.run = result.run AND base.model = 'baseline'
LEFT JOIN millrace.metric AS baseline ON baseline.result = base.result AND baseline.name = metric.name
LEFT JOIN millrace.gate ON gate.run = run.run
LEFT JOIN (
    SELECT artifact.run, artifact.model, min(change.number) AS number
    FROM millrace.artifact JOIN millrace.champion_change AS change USING (artifact)
    WHERE change.cause <> 'rollback'
    GROUP BY artifact.run, artifact.model
) AS promoted ON promoted.run = result.run AND promoted.model = result.model;
COMMENT ON VIEW millrace.metric_by_version IS
    'Every metric of each model on each version, by its newest successful run. champion_number is the champion that the '
    'run was compared with, and promoted_to the number of the change that made this model champion. Filter by dataset, '
    'metric and model';

CREATE VIEW millrace.leading_model AS
SELECT run.dataset, result.model,
       row_number() OVER (
           PARTITION BY run.dataset
           ORDER BY result.model <> 'baseline', NOT EXISTS (
               SELECT FROM millrace.artifact WHERE artifact.dataset = run.dataset AND artifact.model = result.model
           ), CASE metric.name WHEN 'accuracy' THEN -metric.value ELSE metric.value END, result.model
       ) AS place
FROM (SELECT DISTINCT dataset FROM millrace.dataset_version) AS dataset
JOIN LATERAL (
    SELECT run.dataset, run.run FROM millrace.training_run AS run
    WHERE run.dataset = dataset.dataset AND run.state = 'success' ORDER BY run.run DESC LIMIT 1
) AS run ON true
JOIN millrace.model_result AS result ON result.run = run.run
JOIN millrace.metric ON metric.result = result.result AND metric.name IN ('accuracy', 'rmse');
COMMENT ON VIEW millrace.leading_model IS
    'The models of each dataset''s newest successful run in the order in which a chart should show them: the baseline, '
    'those that were champion, then the best';

CREATE VIEW millrace.evidence AS
SELECT gate.dataset, gate.champion_number, version.number AS version_number, left(gate.version, 12) AS version,
       version.interval_end, gate.run, run.run_id, verdict.model, verdict.metric, verdict.outcome, verdict.e_value,
       verdict.e_value_reverse, verdict.log_e, verdict.threshold, verdict.n, verdict.gain, verdict.sentence,
       verdict.policy, gate.judged_at
FROM millrace.gate
JOIN millrace.dataset_version AS version USING (version)
JOIN millrace.training_run AS run USING (run)
JOIN millrace.verdict USING (run);
COMMENT ON VIEW millrace.evidence IS
    'How the evidence for each model line grew from version to version within the tenure of a champion, with the '
    'threshold that it must reach. log_e is the natural logarithm of e_value. Filter by dataset, champion_number and model';

CREATE VIEW millrace.run_outcome AS
SELECT run.dataset, run.run, run.run_id, left(run.version, 12) AS version, version.number AS version_number,
       version.interval_end, run.state, run.cause, run.asked_by, run.started_at, run.finished_at,
       best.model AS best_model, best.metric, best.value, best.low, best.high, best.models,
       gate.state AS judged_state, verdict.model AS verdict_model, verdict.outcome AS verdict,
       coalesce(verdict.sentence, gate.reason) AS sentence, verdict.e_value, verdict.threshold,
       (
           SELECT min(artifact.model) FROM millrace.artifact JOIN millrace.champion_change AS change USING (artifact)
           WHERE artifact.run = run.run AND change.cause <> 'rollback'
       ) AS promoted,
       approval.answer, approval.decider, gate.judged_at
FROM millrace.training_run AS run
JOIN millrace.dataset_version AS version USING (version)
LEFT JOIN LATERAL (
    SELECT result.model, metric.name AS metric, metric.value, metric.low, metric.high, count(*) OVER () AS models
    FROM millrace.model_result AS result JOIN millrace.metric USING (result)
    WHERE result.run = run.run AND metric.name IN ('accuracy', 'rmse')
    ORDER BY CASE metric.name WHEN 'accuracy' THEN -metric.value ELSE metric.value END, result.model
    LIMIT 1
) AS best ON true
LEFT JOIN millrace.gate ON gate.run = run.run
LEFT JOIN LATERAL (
    SELECT * FROM millrace.verdict WHERE verdict.run = gate.run ORDER BY outcome = 'promote' DESC, log_e DESC, model LIMIT 1
) AS verdict ON true
LEFT JOIN millrace.approval ON approval.run = run.run;
COMMENT ON VIEW millrace.run_outcome IS
    'One row for each training run: its version, the best model by its main metric, the verdict with its sentence, what '
    'was promoted and who answered. Filter by dataset or run';

CREATE VIEW millrace.run_input AS
SELECT run.dataset, run.run, run.run_id, run.version, version.number AS version_number, version.interval_start,
       version.interval_end, version.train_rows, version.test_rows, version.split, version.topic, message.messages,
       message.offsets, version.content, version.sealed_at, version.manifest_offset, version.asked_by AS published_by,
       version.code AS published_with, version.expired_at, run.cause, run.asked_by, run.seed, run.parameters,
       run.definition, run.code, run.libraries, run.state, run.started_at, run.finished_at
FROM millrace.training_run AS run
JOIN millrace.dataset_version AS version USING (version)
LEFT JOIN LATERAL (
    SELECT sum(messages)::bigint AS messages,
           string_agg(format('partition %s: %s to %s', partition, first, last), ', ' ORDER BY partition) AS offsets
    FROM (
        SELECT (message ->> 'partition')::integer AS partition, min((message ->> 'offset')::bigint) AS first,
               max((message ->> 'offset')::bigint) AS last, count(*) AS messages
        FROM jsonb_array_elements(convert_from(version.manifest, 'UTF8')::jsonb -> 'messages') AS message
        GROUP BY 1
    ) AS part
) AS message ON true;
COMMENT ON VIEW millrace.run_input IS
    'What each run trained on: version, interval, rows, topic with first and last offsets, digest of the content, who '
    'asked for it, code and libraries. Filter by run';

CREATE VIEW millrace.previous_result AS
SELECT result.result, result.run, run.run_id, run.dataset, version.number AS version_number, result.model,
       before.result AS previous, before.version_number AS previous_number
FROM millrace.model_result AS result
JOIN millrace.training_run AS run USING (run)
JOIN millrace.dataset_version AS version USING (version)
LEFT JOIN LATERAL (
    SELECT other.result, earlier.number AS version_number
    FROM millrace.dataset_version AS earlier
    JOIN millrace.training_run AS trained ON trained.version = earlier.version AND trained.state = 'success'
    JOIN millrace.model_result AS other ON other.run = trained.run AND other.model = result.model
    WHERE earlier.dataset = run.dataset AND earlier.number < version.number
    ORDER BY earlier.number DESC, trained.run DESC
    LIMIT 1
) AS before ON true;
COMMENT ON VIEW millrace.previous_result IS
    'Each result with that of the same model line on the version before. Filter by run';

CREATE VIEW millrace.confusion_change AS
SELECT result.dataset, result.run, result.run_id, result.version_number, result.model, cell.actual, cell.predicted,
       coalesce(now.count, 0) AS count,
       coalesce(now.count, 0) / nullif(sum(now.count) OVER now_row, 0)::double precision AS share,
       result.previous_number,
       CASE WHEN result.previous IS NOT NULL THEN coalesce(before.count, 0) END AS previous_count,
       coalesce(before.count, 0) / nullif(sum(before.count) OVER now_row, 0)::double precision AS previous_share
FROM millrace.previous_result AS result
CROSS JOIN LATERAL (
    SELECT actual, predicted FROM millrace.confusion WHERE confusion.result = result.result
    UNION
    SELECT actual, predicted FROM millrace.confusion WHERE confusion.result = result.previous
) AS cell
LEFT JOIN millrace.confusion AS now
    ON now.result = result.result AND now.actual = cell.actual AND now.predicted = cell.predicted
LEFT JOIN millrace.confusion AS before
    ON before.result = result.previous AND before.actual = cell.actual AND before.predicted = cell.predicted
WINDOW now_row AS (PARTITION BY result.run, result.model, cell.actual);
COMMENT ON VIEW millrace.confusion_change IS
    'The confusion matrix of each model of a run, and that of the same model line on the version before. share is the '
    'part of the records of a class that were predicted so. Filter by run and model';

CREATE VIEW millrace.class_change AS
SELECT result.dataset, result.run, result.run_id, result.version_number, result.model, now.class AS class_name, now."precision",
       now.recall, now.f1, now.support, result.previous_number, before."precision" AS previous_precision,
       before.recall AS previous_recall, before.f1 AS previous_f1
FROM millrace.previous_result AS result
JOIN millrace.class_metric AS now ON now.result = result.result
LEFT JOIN millrace.class_metric AS before ON before.result = result.previous AND before.class = now.class;
COMMENT ON VIEW millrace.class_change IS
    'Precision, recall and F1 of each class, and those of the same model line on the version before. Filter by run and model';

-- Streams.

CREATE VIEW millrace.stream_overview AS
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
       proof.ended_at AS proved_at, cardinality(proof.wrong) AS proof_errors
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
           sum(quarantined)::bigint AS quarantined, sum(skipped)::bigint AS skipped, max(newest_event) AS newest_event
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
COMMENT ON VIEW millrace.stream_overview IS
    'One row for each stream: position, totals, newest event, rows a second over the last hour and day (null without '
    'samples), the last sample of its lag, the error that stops it with the remedy, and the last proof';

CREATE VIEW millrace.stream_history AS
SELECT sample.stream, sample.sampled_at, sample.lag, sample.behind_s, sample.landed, sample.dead_letters,
       sample.newest_event, sample.stopped,
       extract(epoch FROM sample.sampled_at - sample.newest_event)::double precision AS newest_age_s,
       (sample.landed - before.landed)
           / nullif(extract(epoch FROM sample.sampled_at - before.sampled_at), 0)::double precision AS rate
FROM millrace.stream_sample AS sample
LEFT JOIN LATERAL (
    SELECT landed, sampled_at FROM millrace.stream_sample AS earlier
    WHERE earlier.stream = sample.stream AND earlier.sampled_at < sample.sampled_at
    ORDER BY sampled_at DESC LIMIT 1
) AS before ON true;
COMMENT ON VIEW millrace.stream_history IS
    'Lag, freshness, totals and rows a second of each stream, minute by minute. Filter by stream';

-- Their cost lets PostgreSQL call them after LIMIT, for the rows that are shown.
CREATE FUNCTION millrace.partition_bound(relation oid, side text) RETURNS timestamptz LANGUAGE plpgsql STABLE COST 1000 AS $$
BEGIN
    RETURN (
        SELECT (regexp_match(pg_get_expr(relpartbound, oid), side || ' \(''([^'']+)''\)'))[1]
        FROM pg_class WHERE oid = relation
    );
END
$$;
COMMENT ON FUNCTION millrace.partition_bound(oid, text) IS 'Where a partition begins (FROM) or ends (TO)';

CREATE FUNCTION millrace.partition_bytes(relation oid) RETURNS bigint LANGUAGE plpgsql STABLE COST 1000 AS $$
BEGIN
    RETURN pg_total_relation_size(relation);
END
$$;
COMMENT ON FUNCTION millrace.partition_bytes(oid) IS 'The size of a partition with its indexes';

CREATE VIEW millrace.stream_partition AS
SELECT parent.relname::text AS stream, child.relname::text AS partition,
       millrace.partition_bound(child.oid, 'FROM') AS starts_at, millrace.partition_bound(child.oid, 'TO') AS ends_at,
       millrace.partition_bound(child.oid, 'TO') + setting.keep AS drops_at, pg_inherits.inhdetachpending AS is_detaching,
       CASE WHEN child.reltuples >= 0 THEN child.reltuples::bigint END AS rows,
       millrace.partition_bytes(child.oid) AS bytes
FROM pg_class AS parent
JOIN pg_inherits ON pg_inherits.inhparent = parent.oid
JOIN pg_class AS child ON child.oid = pg_inherits.inhrelid
LEFT JOIN millrace.stream_setting AS setting ON setting.stream = parent.relname::text
WHERE parent.relnamespace = 'landing'::regnamespace AND parent.relkind = 'p';
COMMENT ON VIEW millrace.stream_partition IS
    'The partitions of each stream''s table with their size, and when retention drops them. rows is PostgreSQL''s '
    'estimate. It waits for sessions that hold an exclusive lock on a partition, so set lock_timeout. Filter by stream, '
    'order by partition, and set a limit';

CREATE VIEW millrace.dead_letter_reason AS
SELECT stream, disposition, sqlstate, kind AS reason, count(*) AS records, sum(bytes)::bigint AS bytes,
       min(kept_at) AS oldest_at, max(kept_at) AS newest_at,
       extract(epoch FROM statement_timestamp() - min(kept_at))::double precision AS oldest_age_s
FROM millrace.dead_letter
GROUP BY stream, kind, disposition, sqlstate;
COMMENT ON VIEW millrace.dead_letter_reason IS
    'Dead letters and quarantined records of each stream by reason, without the numbers in it: how many, the bytes of '
    'their values, and the oldest and newest. Filter by stream';

CREATE VIEW millrace.reconciliation AS
SELECT substr(position.reader, 9) AS stream, position.topic, incarnation.number AS kafka_incarnation,
       position.partition AS kafka_partition, coalesce(cut.first_offset, 0) AS first_offset, position.next_offset,
       ledger.landed, ledger.dead_letters, ledger.quarantined, ledger.skipped, ledger.no_records, lost.offsets AS lost,
       position.next_offset - coalesce(cut.first_offset, 0) - ledger.landed - ledger.dead_letters - ledger.quarantined
           - ledger.skipped - ledger.no_records - lost.offsets AS unaccounted
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
           coalesce(sum(no_records), 0)::bigint AS no_records
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
COMMENT ON VIEW millrace.reconciliation IS
    'For each partition of a stream''s topic, the offsets below its position, and their dispositions in the ledger. '
    'unaccounted is 0 unless an offset was lost or counted twice; ./millrace verify stream compares the rows, too';
