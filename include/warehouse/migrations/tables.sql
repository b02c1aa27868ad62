-- The tables of schema millrace, and the empty schema landing.

-- Positions: how far each reader has read.

CREATE TABLE millrace.position (
    reader        text        NOT NULL,
    topic         text        NOT NULL,
    partition     integer     NOT NULL CHECK (partition >= 0),
    topic_id      text        NOT NULL,
    next_offset   bigint      NOT NULL CHECK (next_offset >= 0),
    leader_epoch  integer,
    epoch         bigint      NOT NULL DEFAULT 0,
    owner         text        NOT NULL,
    backend_pid   integer     NOT NULL,
    backend_start timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (reader, topic, partition)
);
COMMENT ON TABLE  millrace.position IS 'How far each reader has read; moved by the transaction that writes the rows';
COMMENT ON COLUMN millrace.position.reader IS 'landing:<stream> or dispatch';
COMMENT ON COLUMN millrace.position.topic_id IS 'Kafka''s id of the topic; a recreated topic has another';
COMMENT ON COLUMN millrace.position.next_offset IS 'Every offset below it has its disposition';
COMMENT ON COLUMN millrace.position.leader_epoch IS 'Leader epoch of the last record below next_offset';
COMMENT ON COLUMN millrace.position.epoch IS 'Raised by each claim; a write with an older epoch is refused';
COMMENT ON COLUMN millrace.position.owner IS 'The task that holds the claim';
COMMENT ON COLUMN millrace.position.backend_pid IS 'The owner''s backend, so that a successor can end it';

-- Dataset versions.

CREATE TABLE millrace.dataset_version (
    version         text        PRIMARY KEY CHECK (version ~ '^[0-9a-f]{64}$'),
    number          bigint      GENERATED ALWAYS AS IDENTITY UNIQUE,
    dataset         text        NOT NULL,
    topic           text        NOT NULL,
    kind            text        NOT NULL CHECK (kind IN ('classification', 'regression')),
    interval_start  timestamptz,
    interval_end    timestamptz,
    train_rows      bigint      NOT NULL CHECK (train_rows > 0),
    test_rows       bigint      NOT NULL CHECK (test_rows > 0),
    split           jsonb       NOT NULL,
    content         text        NOT NULL,
    asked_by        text        NOT NULL,
    code            text        NOT NULL,
    manifest        bytea       NOT NULL,
    manifest_offset bigint      NOT NULL UNIQUE,
    sealed_at       timestamptz NOT NULL,
    landed_at       timestamptz NOT NULL DEFAULT now(),
    started_at      timestamptz,
    expired_at      timestamptz
);
CREATE INDEX ON millrace.dataset_version (dataset, number);
CREATE INDEX ON millrace.dataset_version (dataset, content);
CREATE INDEX ON millrace.dataset_version (dataset) WHERE started_at IS NULL;
CREATE INDEX ON millrace.dataset_version (topic, number);
COMMENT ON TABLE  millrace.dataset_version IS 'Every sealed version, landed from the control topic';
COMMENT ON COLUMN millrace.dataset_version.version IS 'SHA-256 of the list of its messages';
COMMENT ON COLUMN millrace.dataset_version.number IS 'Ascending in the order of the control topic';
COMMENT ON COLUMN millrace.dataset_version.content IS 'Equal for the same rows in the same split';
COMMENT ON COLUMN millrace.dataset_version.manifest IS 'The manifest as it was published, byte by byte';
COMMENT ON COLUMN millrace.dataset_version.sealed_at IS 'The manifest''s timestamp in Kafka';
COMMENT ON COLUMN millrace.dataset_version.started_at IS 'When its first training run was started';
COMMENT ON COLUMN millrace.dataset_version.expired_at IS
    'When the dataset''s keep removed its records from Kafka; it can no longer be trained on';

CREATE TABLE millrace.refused_manifest (
    manifest_offset bigint      PRIMARY KEY,
    reason          text        NOT NULL,
    value           bytea,
    landed_at       timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE millrace.refused_manifest IS 'Records of the control topic that are not valid manifests, and why';

CREATE TABLE millrace.repeats (
    version text   PRIMARY KEY REFERENCES millrace.dataset_version,
    train   bigint NOT NULL,
    test    bigint NOT NULL,
    shared  bigint NOT NULL
);
COMMENT ON TABLE  millrace.repeats IS 'How many records of a version have the same features, which is not an error';
COMMENT ON COLUMN millrace.repeats.train IS 'Training records whose features an earlier training record has';
COMMENT ON COLUMN millrace.repeats.test IS 'Test records whose features an earlier test record has';
COMMENT ON COLUMN millrace.repeats.shared IS 'Test records whose features a training record has';

-- Training.

CREATE TABLE millrace.training_run (
    run         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dataset     text        NOT NULL,
    run_id      text        NOT NULL,
    version     text        NOT NULL REFERENCES millrace.dataset_version,
    state       text        NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'success', 'failed')),
    seed        bigint      NOT NULL,
    parameters  jsonb       NOT NULL,
    cause       text        NOT NULL,
    asked_by    text        NOT NULL,
    definition  text        NOT NULL,
    code        text        NOT NULL,
    libraries   jsonb       NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    UNIQUE (dataset, run_id)
);
CREATE INDEX ON millrace.training_run (version);
COMMENT ON TABLE  millrace.training_run IS 'Every training run';
COMMENT ON COLUMN millrace.training_run.run_id IS 'The run of the DAG train__<dataset> in Airflow';
COMMENT ON COLUMN millrace.training_run.parameters IS 'The form''s parameters as Airflow received them';
COMMENT ON COLUMN millrace.training_run.cause IS 'What started it: a sealed version, or a person';
COMMENT ON COLUMN millrace.training_run.definition IS 'SHA-256 of the dataset''s definition file';

CREATE TABLE millrace.model_result (
    result             bigint           GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run                bigint           NOT NULL REFERENCES millrace.training_run ON DELETE CASCADE,
    model              text             NOT NULL,
    parameters         jsonb            NOT NULL,
    train_rows         bigint           NOT NULL,
    test_rows          bigint           NOT NULL,
    read_s             double precision NOT NULL,
    fit_s              double precision NOT NULL,
    evaluate_s         double precision NOT NULL,
    peak_memory_mb     double precision NOT NULL,
    unfitted           bytea            NOT NULL,
    fitted             bytea            NOT NULL,
    fitted_sha256      text             NOT NULL,
    outcomes           bytea            NOT NULL,
    finished_at        timestamptz      NOT NULL DEFAULT clock_timestamp(),
    probe              bytea,
    passes             integer,
    predictions_sha256 text,
    UNIQUE (run, model)
);
ALTER TABLE millrace.model_result ALTER unfitted SET STORAGE EXTERNAL, ALTER fitted SET STORAGE EXTERNAL;
COMMENT ON TABLE  millrace.model_result IS 'The fitted models of every run; the baseline is one of them';
COMMENT ON COLUMN millrace.model_result.parameters IS 'The estimator''s parameters, nested ones with __';
COMMENT ON COLUMN millrace.model_result.unfitted IS 'The estimator before the fit, as skops stores it';
COMMENT ON COLUMN millrace.model_result.fitted IS 'The fitted model, as skops stores it; check fitted_sha256 first';
COMMENT ON COLUMN millrace.model_result.outcomes IS 'Arrow: id (hash), row, correct or error';
COMMENT ON COLUMN millrace.model_result.probe IS 'Arrow: some test rows and, last, what was predicted for them';
COMMENT ON COLUMN millrace.model_result.passes IS
    'How many times it learned from every row, batch by batch; null when all rows were in memory';
COMMENT ON COLUMN millrace.model_result.predictions_sha256 IS 'Of its predictions for the test rows';

CREATE TABLE millrace.metric (
    result bigint           NOT NULL REFERENCES millrace.model_result ON DELETE CASCADE,
    name   text             NOT NULL,
    value  double precision NOT NULL,
    low    double precision,
    high   double precision,
    PRIMARY KEY (result, name)
);
COMMENT ON TABLE  millrace.metric IS 'Metrics on the test rows';
COMMENT ON COLUMN millrace.metric.low IS 'With high: a 95 % interval, Wilson''s for the accuracy';

CREATE TABLE millrace.class_metric (
    result      bigint           NOT NULL REFERENCES millrace.model_result ON DELETE CASCADE,
    class       text             NOT NULL,
    "precision" double precision NOT NULL,
    recall      double precision NOT NULL,
    f1          double precision NOT NULL,
    support     bigint           NOT NULL,
    PRIMARY KEY (result, class)
);
COMMENT ON TABLE millrace.class_metric IS 'Metrics of each class on the test rows';

CREATE TABLE millrace.slice_metric (
    result bigint           NOT NULL REFERENCES millrace.model_result ON DELETE CASCADE,
    slice  text             NOT NULL,
    part   text             NOT NULL,
    name   text             NOT NULL,
    value  double precision NOT NULL,
    low    double precision,
    high   double precision,
    rows   bigint           NOT NULL,
    PRIMARY KEY (result, slice, part, name)
);
COMMENT ON TABLE  millrace.slice_metric IS 'Metrics on parts of the test rows, as the definition slices them';
COMMENT ON COLUMN millrace.slice_metric.slice IS 'The name of the slice in the definition';
COMMENT ON COLUMN millrace.slice_metric.part IS 'The value that these test rows have there';
COMMENT ON COLUMN millrace.slice_metric.rows IS 'How many test rows have it';

CREATE TABLE millrace.confusion (
    result    bigint NOT NULL REFERENCES millrace.model_result ON DELETE CASCADE,
    actual    text   NOT NULL,
    predicted text   NOT NULL,
    count     bigint NOT NULL,
    PRIMARY KEY (result, actual, predicted)
);
COMMENT ON TABLE millrace.confusion IS 'The confusion matrix on the test rows, without its zeros';

CREATE TABLE millrace.run_log (
    line    bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run     bigint      NOT NULL REFERENCES millrace.training_run ON DELETE CASCADE,
    model   text,
    at      timestamptz NOT NULL,
    level   text        NOT NULL,
    logger  text        NOT NULL,
    message text        NOT NULL
);
CREATE INDEX ON millrace.run_log (run, line);
COMMENT ON TABLE millrace.run_log IS 'What the tasks of a run logged, written while they run';

CREATE TABLE millrace.checkpoint (
    run       bigint      NOT NULL REFERENCES millrace.training_run ON DELETE CASCADE,
    model     text        NOT NULL,
    plan      text        NOT NULL,
    step      integer     NOT NULL,
    epoch     integer     NOT NULL,
    batch     integer     NOT NULL,
    estimator bytea       NOT NULL,
    sha256    text        NOT NULL,
    saved_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run, model)
);
COMMENT ON TABLE  millrace.checkpoint IS 'The state of a model that learns batch by batch; deleted once it is fitted';
COMMENT ON COLUMN millrace.checkpoint.plan IS 'SHA-256 of what it is fitted with; other plans cannot use it';
COMMENT ON COLUMN millrace.checkpoint.estimator IS 'The estimator at this step, as skops stores it';

CREATE TABLE millrace.verification (
    verification bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dataset      text        NOT NULL,
    version      text        NOT NULL REFERENCES millrace.dataset_version,
    run          bigint      REFERENCES millrace.training_run ON DELETE CASCADE,
    asked_by     text        NOT NULL,
    started_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at  timestamptz,
    outcome      text CHECK (outcome IN ('identical', 'same data, other library versions', 'different')),
    findings     text[]      NOT NULL DEFAULT '{}',
    libraries    jsonb       NOT NULL DEFAULT '{}',
    CHECK ((outcome IS NULL) = (finished_at IS NULL))
);
CREATE INDEX ON millrace.verification (run);
COMMENT ON TABLE  millrace.verification IS 'Every verification of a version or a run: by whom, when, with what result';
COMMENT ON COLUMN millrace.verification.run IS 'The run that was trained again; null when only the version was read';
COMMENT ON COLUMN millrace.verification.outcome IS 'Null while it runs, or when it was interrupted';
COMMENT ON COLUMN millrace.verification.findings IS 'The differences, one sentence each';
COMMENT ON COLUMN millrace.verification.libraries IS 'Libraries whose versions differ: name to [then, now]';

-- Promotion.

CREATE TABLE millrace.artifact (
    artifact      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dataset       text        NOT NULL,
    run           bigint      NOT NULL REFERENCES millrace.training_run,
    model         text        NOT NULL,
    sha256        text        NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    content       bytea       NOT NULL,
    probe         bytea       NOT NULL,
    trained_on    bytea       NOT NULL,
    registered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (run, model, sha256),
    UNIQUE (dataset, artifact)
);
ALTER TABLE millrace.artifact ALTER content SET STORAGE EXTERNAL, ALTER trained_on SET STORAGE EXTERNAL;
COMMENT ON TABLE  millrace.artifact IS 'Every model that was ever champion';
COMMENT ON COLUMN millrace.artifact.content IS 'The fitted model, as skops stores it; check sha256 first';
COMMENT ON COLUMN millrace.artifact.probe IS 'Arrow: some test rows and, last, what was predicted for them';
COMMENT ON COLUMN millrace.artifact.trained_on IS 'Hashes of the ids of its training records, 8 bytes each';

CREATE TABLE millrace.gate (
    run             bigint      PRIMARY KEY REFERENCES millrace.training_run,
    dataset         text        NOT NULL,
    version         text        NOT NULL REFERENCES millrace.dataset_version,
    champion_number integer     NOT NULL CHECK (champion_number >= 0),
    state           text        NOT NULL CHECK (state IN ('judged', 'superseded', 'incomparable')),
    reason          text,
    test_rows       bigint      NOT NULL DEFAULT 0,
    trained         bigint      NOT NULL DEFAULT 0,
    repeated        bigint      NOT NULL DEFAULT 0,
    counted         bytea       NOT NULL DEFAULT '',
    judged_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (state = 'judged' OR reason IS NOT NULL)
);
ALTER TABLE millrace.gate ALTER counted SET STORAGE EXTERNAL;
CREATE INDEX ON millrace.gate (dataset, champion_number);
COMMENT ON TABLE  millrace.gate IS 'The training runs that the gate has handled; each once';
COMMENT ON COLUMN millrace.gate.champion_number IS
    'The champion it was compared with, see champion_change; 0 for the baseline before the first champion';
COMMENT ON COLUMN millrace.gate.reason IS 'Why it was not judged';
COMMENT ON COLUMN millrace.gate.trained IS 'Test records left out because the champion or the run trained on them';
COMMENT ON COLUMN millrace.gate.repeated IS 'Test records left out because they have counted against this champion';
COMMENT ON COLUMN millrace.gate.counted IS 'Hashes of the ids of the records that counted, 8 bytes each';

CREATE TABLE millrace.verdict (
    run                 bigint           NOT NULL REFERENCES millrace.gate,
    model               text             NOT NULL,
    outcome             text             NOT NULL CHECK (outcome IN ('promote', 'reject', 'inconclusive')),
    sentence            text             NOT NULL,
    policy              text             NOT NULL,
    challengers         integer          NOT NULL,
    threshold           double precision NOT NULL,
    e_value             double precision NOT NULL,
    e_value_reverse     double precision NOT NULL,
    log_e               double precision NOT NULL,
    log_e_reverse       double precision NOT NULL,
    log_e_margin        double precision,
    failed_guards       text[]           NOT NULL,
    metric              text             NOT NULL,
    gain                double precision NOT NULL,
    gain_se             double precision,
    n                   bigint           NOT NULL,
    n01                 bigint,
    n10                 bigint,
    discordance         double precision,
    champion_accuracy   double precision,
    challenger_accuracy double precision,
    mcnemar_p           double precision,
    fresh_n             bigint           NOT NULL,
    fresh_n01           bigint,
    fresh_n10           bigint,
    fresh_right         bigint,
    fresh_weighted      double precision,
    fresh_information   double precision,
    fitted_sha256       text             NOT NULL,
    PRIMARY KEY (run, model)
);
COMMENT ON TABLE  millrace.verdict IS 'The gate''s verdict on each challenger, with the evidence against this champion';
COMMENT ON COLUMN millrace.verdict.n01 IS 'Records since the last change of champion that only the challenger got right';
COMMENT ON COLUMN millrace.verdict.n10 IS 'Records since the last change of champion that only the champion got right';
COMMENT ON COLUMN millrace.verdict.mcnemar_p IS 'For information; it decides nothing';
COMMENT ON COLUMN millrace.verdict.fresh_n IS 'Like all fresh_ columns: what this version added';
COMMENT ON COLUMN millrace.verdict.fitted_sha256 IS 'The model that was judged';

-- The champion of a dataset is its last row here. A change of champion inserts the row that follows the one it was
-- decided on: of two changes at the same moment the primary key lets one through.
CREATE TABLE millrace.champion_change (
    dataset     text        NOT NULL,
    number      integer     NOT NULL CHECK (number >= 1),
    previous    integer     GENERATED ALWAYS AS (nullif(number - 1, 0)) STORED,
    artifact    bigint,
    rollback_to integer     CHECK (rollback_to < number),
    cause       text        NOT NULL CHECK (cause IN ('evidence', 'approval', 'rollback', 'retirement')),
    decider     text        NOT NULL,
    reason      text        NOT NULL,
    since       timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (dataset, number),
    FOREIGN KEY (dataset, previous) REFERENCES millrace.champion_change,
    FOREIGN KEY (dataset, rollback_to) REFERENCES millrace.champion_change,
    FOREIGN KEY (dataset, artifact) REFERENCES millrace.artifact (dataset, artifact),
    CONSTRAINT champion_change_retirement_check CHECK ((cause = 'retirement') = (artifact IS NULL))
);
COMMENT ON TABLE  millrace.champion_change IS 'Every change of champion of every dataset; the last one is in force';
COMMENT ON COLUMN millrace.champion_change.artifact IS 'The champion; null after a retirement, for the baseline';
COMMENT ON COLUMN millrace.champion_change.rollback_to IS 'The number of the change that a rollback restores';
COMMENT ON COLUMN millrace.champion_change.decider IS 'The gate, or the name of a person';

CREATE TABLE millrace.approval (
    run         bigint      PRIMARY KEY REFERENCES millrace.gate,
    answer      text        NOT NULL CHECK (answer IN ('approved', 'declined', 'refused')),
    model       text,
    decider     text        NOT NULL,
    reason      text        NOT NULL,
    answered_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE  millrace.approval IS 'The answers of people where the policy is manual';
COMMENT ON COLUMN millrace.approval.answer IS 'refused: the champion had changed before the answer';

CREATE TABLE millrace.score (
    run    bigint           NOT NULL REFERENCES millrace.gate,
    role   text             NOT NULL CHECK (role IN ('live', 'never', 'newest')),
    model  text             NOT NULL,
    metric text             NOT NULL,
    value  double precision NOT NULL,
    rows   bigint           NOT NULL,
    PRIMARY KEY (run, role)
);
COMMENT ON TABLE  millrace.score IS 'Three ways to run a dataset, on the same test records of a version';
COMMENT ON COLUMN millrace.score.role IS
    'live: the champion at that time; never: the first champion; newest: the champion''s line as trained in this run';

-- Landing.

CREATE SCHEMA landing;
COMMENT ON SCHEMA landing IS 'One partitioned table for each stream; every event is in it exactly once';

CREATE TABLE millrace.topic_incarnation (
    topic    text        NOT NULL,
    number   smallint    NOT NULL CHECK (number > 0),
    topic_id text        NOT NULL,
    met_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (topic, number)
);
COMMENT ON TABLE  millrace.topic_incarnation IS
    'Numbers the topics that have had the same name, since offsets are unique within one topic only';
COMMENT ON COLUMN millrace.topic_incarnation.topic_id IS
    'Kafka''s id of the topic; two incarnations share it when the log was truncated in between';

CREATE TABLE millrace.dead_letter (
    stream            text        NOT NULL,
    kafka_incarnation smallint    NOT NULL,
    kafka_partition   integer     NOT NULL,
    kafka_offset      bigint      NOT NULL,
    disposition       text        NOT NULL CHECK (disposition IN ('dead letter', 'quarantined')),
    reason            text        NOT NULL,
    sqlstate          text,
    appended_at       timestamptz NOT NULL,
    event_time        timestamptz,
    key               bytea,
    value             bytea,
    headers           jsonb,
    kept_at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (stream, kafka_incarnation, kafka_partition, kafka_offset)
);
COMMENT ON TABLE  millrace.dead_letter IS
    'Records that could not be landed (dead letter), or that came too late or too early (quarantined), unchanged';
COMMENT ON COLUMN millrace.dead_letter.sqlstate IS 'PostgreSQL''s error code, when PostgreSQL refused the row';
COMMENT ON COLUMN millrace.dead_letter.appended_at IS
    'When the record was appended in Kafka; whether it is late or early is decided by this time';
COMMENT ON COLUMN millrace.dead_letter.headers IS 'Pairs of name and value, the value base64';

CREATE TABLE millrace.landing_ledger (
    stream            text        NOT NULL,
    kafka_incarnation smallint    NOT NULL,
    kafka_partition   integer     NOT NULL,
    epoch             bigint      NOT NULL,
    first_offset      bigint      NOT NULL,
    next_offset       bigint      NOT NULL,
    landed            bigint      NOT NULL,
    dead_letters      bigint      NOT NULL,
    quarantined       bigint      NOT NULL,
    skipped           bigint      NOT NULL,
    no_records        bigint      NOT NULL,
    checksum          numeric     NOT NULL,
    newest_event      timestamptz,
    started_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (stream, kafka_incarnation, kafka_partition, epoch),
    CHECK (next_offset - first_offset = landed + dead_letters + quarantined + skipped + no_records)
) WITH (fillfactor = 50);
COMMENT ON TABLE  millrace.landing_ledger IS
    'How many offsets had which disposition: a row for each claim of a partition, written by landing transactions';
COMMENT ON COLUMN millrace.landing_ledger.epoch IS 'The claim in millrace.position that landed these offsets';
COMMENT ON COLUMN millrace.landing_ledger.skipped IS 'Tombstones: records without a value';
COMMENT ON COLUMN millrace.landing_ledger.no_records IS 'Offsets of commit markers, aborted and compacted records';
COMMENT ON COLUMN millrace.landing_ledger.checksum IS
    'The sum of the CRC-32 of every record''s value, each started with the record''s offset';

CREATE TABLE millrace.landing_gap (
    gap               bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream            text        NOT NULL,
    kafka_incarnation smallint    NOT NULL,
    kafka_partition   integer     NOT NULL,
    first_offset      bigint      NOT NULL,
    next_offset       bigint,
    choice            text        NOT NULL CHECK (choice IN ('lost', 'recreated', 'truncated', 'bad')),
    accepted_by       text        NOT NULL,
    accepted_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (next_offset >= first_offset)
);
CREATE INDEX ON millrace.landing_gap (stream);
COMMENT ON TABLE  millrace.landing_gap IS 'What a person accepted with ./millrace accept, so that a stream could go on';
COMMENT ON COLUMN millrace.landing_gap.next_offset IS
    'The end, exclusive; null when it cannot be known, because the topic was deleted with its records';
COMMENT ON COLUMN millrace.landing_gap.choice IS
    'lost: removed before they were read; recreated: the next incarnation begins at offset 0; truncated: Kafka no '
    'longer has them, the table does, and the next incarnation begins here; bad: all of them may become dead letters';

CREATE TABLE millrace.landing_replay (
    replay            bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream            text        NOT NULL,
    kafka_incarnation smallint    NOT NULL,
    kafka_partition   integer     NOT NULL,
    first_offset      bigint      NOT NULL,
    next_offset       bigint      NOT NULL CHECK (next_offset > first_offset),
    landed            bigint      NOT NULL,
    dead_letters      bigint      NOT NULL,
    quarantined       bigint      NOT NULL,
    more_landed       bigint      NOT NULL,
    more_dead_letters bigint      NOT NULL,
    more_quarantined  bigint      NOT NULL,
    replayed_by       text        NOT NULL,
    replayed_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (more_landed + more_dead_letters + more_quarantined = 0)
);
CREATE INDEX ON millrace.landing_replay (stream);
COMMENT ON TABLE  millrace.landing_replay IS
    'Ranges that were landed again from Kafka, each in one transaction that also corrected millrace.landing_ledger; a '
    'row replaces what was counted for its offsets before';
COMMENT ON COLUMN millrace.landing_replay.landed IS
    'Like the next two: the dispositions now, of the records that Kafka still had';
COMMENT ON COLUMN millrace.landing_replay.more_landed IS
    'Like the next two: how many more than before the replay; negative for fewer';

CREATE TABLE millrace.landing_column (
    stream   text    NOT NULL,
    name     text    NOT NULL,
    required boolean NOT NULL,
    PRIMARY KEY (stream, name)
);
COMMENT ON TABLE  millrace.landing_column IS 'The columns of streams'' tables that Millrace made; it changes no others';
COMMENT ON COLUMN millrace.landing_column.required IS 'Whether Millrace made it NOT NULL';

CREATE TABLE millrace.landing_unfilled (
    stream            text        NOT NULL,
    kafka_incarnation smallint    NOT NULL,
    kafka_partition   integer     NOT NULL,
    first_offset      bigint      NOT NULL,
    next_offset       bigint      NOT NULL CHECK (next_offset > first_offset),
    columns           text[]      NOT NULL,
    since             timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (stream, kafka_incarnation, kafka_partition)
);
COMMENT ON TABLE  millrace.landing_unfilled IS
    'Ranges that landed without the values of new columns, because the table was locked when the columns were to be '
    'added; a replay of the range fills them and deletes the row';

CREATE TABLE millrace.landing_failure (
    stream   text        NOT NULL,
    task     text        NOT NULL,
    since    timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    failures integer     NOT NULL DEFAULT 1,
    error    text        NOT NULL,
    PRIMARY KEY (stream, task)
);
COMMENT ON TABLE  millrace.landing_failure IS
    'Tasks of streams that fail: since when, how often, and the last error; a success deletes the row';
