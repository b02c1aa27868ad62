"""Dataset versions, the runs that trained on them, and what came out.

Revision ID: 0002_training
Revises: 0001_position
"""

from alembic import op

revision = "0002_training"
down_revision = "0001_position"
branch_labels = ("training",)


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE millrace.dataset_version (
            version        text        PRIMARY KEY CHECK (version ~ '^[0-9a-f]{64}$'),
            number         bigint      GENERATED ALWAYS AS IDENTITY UNIQUE,
            dataset        text        NOT NULL,
            topic          text        NOT NULL,
            kind           text        NOT NULL CHECK (kind IN ('classification', 'regression')),
            interval_start timestamptz,
            interval_end   timestamptz,
            train_rows     bigint      NOT NULL CHECK (train_rows > 0),
            test_rows      bigint      NOT NULL CHECK (test_rows > 0),
            split          jsonb       NOT NULL,
            content        text        NOT NULL,
            asked_by       text        NOT NULL,
            code           text        NOT NULL,
            manifest       bytea       NOT NULL,
            manifest_offset bigint     NOT NULL UNIQUE,
            sealed_at      timestamptz NOT NULL,
            landed_at      timestamptz NOT NULL DEFAULT now(),
            started_at     timestamptz
        );
        CREATE INDEX ON millrace.dataset_version (dataset, number);
        CREATE INDEX ON millrace.dataset_version (dataset, content);
        CREATE INDEX ON millrace.dataset_version (dataset) WHERE started_at IS NULL;
        COMMENT ON TABLE  millrace.dataset_version IS 'Every sealed version, landed from the control topic';
        COMMENT ON COLUMN millrace.dataset_version.version IS 'SHA-256 of the list of its messages';
        COMMENT ON COLUMN millrace.dataset_version.number IS 'Ascending in the order of the control topic';
        COMMENT ON COLUMN millrace.dataset_version.content IS 'Equal for the same rows in the same split';
        COMMENT ON COLUMN millrace.dataset_version.manifest IS 'The manifest as it was published, byte by byte';
        COMMENT ON COLUMN millrace.dataset_version.sealed_at IS 'The manifest''s timestamp in Kafka';
        COMMENT ON COLUMN millrace.dataset_version.started_at IS 'When its first training run was started';

        CREATE TABLE millrace.refused_manifest (
            manifest_offset bigint      PRIMARY KEY,
            reason          text        NOT NULL,
            value           bytea,
            landed_at       timestamptz NOT NULL DEFAULT now()
        );
        COMMENT ON TABLE millrace.refused_manifest IS 'Records that are no sound manifest, and why';

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
            result           bigint           GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            run              bigint           NOT NULL REFERENCES millrace.training_run ON DELETE CASCADE,
            model            text             NOT NULL,
            parameters       jsonb            NOT NULL,
            train_rows       bigint           NOT NULL,
            test_rows        bigint           NOT NULL,
            read_s           double precision NOT NULL,
            fit_s            double precision NOT NULL,
            evaluate_s       double precision NOT NULL,
            peak_memory_mb   double precision NOT NULL,
            unfitted         bytea            NOT NULL,
            fitted           bytea            NOT NULL,
            fitted_sha256    text             NOT NULL,
            outcomes         bytea            NOT NULL,
            finished_at      timestamptz      NOT NULL DEFAULT clock_timestamp(),
            UNIQUE (run, model)
        );
        ALTER TABLE millrace.model_result ALTER unfitted SET STORAGE EXTERNAL, ALTER fitted SET STORAGE EXTERNAL;
        COMMENT ON TABLE  millrace.model_result IS 'One fitted model of a run; the baseline is one too';
        COMMENT ON COLUMN millrace.model_result.parameters IS 'The estimator''s parameters, nested ones with __';
        COMMENT ON COLUMN millrace.model_result.unfitted IS 'The estimator before the fit, by skops';
        COMMENT ON COLUMN millrace.model_result.fitted IS 'The fitted model; check fitted_sha256 first';
        COMMENT ON COLUMN millrace.model_result.outcomes IS 'Arrow: id (hash), row, correct or error';

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
        COMMENT ON TABLE millrace.run_log IS 'What a run''s tasks logged, line by line while it happened';

        CREATE VIEW millrace.result AS
        SELECT run.dataset, left(run.version, 12) AS version, version.number AS version_number,
               version.interval_start, version.interval_end, run.run, run.run_id, result.model,
               result.train_rows, result.test_rows, metric.name AS metric, metric.value, metric.low, metric.high,
               baseline.value AS baseline, result.finished_at
        FROM millrace.model_result AS result
        JOIN millrace.training_run AS run USING (run)
        JOIN millrace.dataset_version AS version ON version.version = run.version
        JOIN millrace.metric ON metric.result = result.result
        LEFT JOIN millrace.model_result AS base ON base.run = result.run AND base.model = 'baseline'
        LEFT JOIN millrace.metric AS baseline ON baseline.result = base.result AND baseline.name = metric.name;
        COMMENT ON VIEW millrace.result IS 'Every metric of every model of every run, beside the baseline''s';

        CREATE VIEW millrace.accuracy AS
        SELECT dataset, version, version_number, interval_start, interval_end, run, run_id, model,
               value AS accuracy, low, high, baseline, train_rows, test_rows, finished_at
        FROM millrace.result
        WHERE metric = 'accuracy';
        COMMENT ON VIEW millrace.accuracy IS 'The accuracy of every classifier, with Wilson''s 95 % interval';
        """
    )
