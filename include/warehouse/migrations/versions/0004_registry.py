"""The registry: verdicts with their evidence, models that were champion, and every reign of one.

Revision ID: 0004_registry
Revises: 0002_training
"""

from alembic import op

revision = "0004_registry"
down_revision = "0002_training"


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE millrace.model_result ADD COLUMN probe bytea;
        COMMENT ON COLUMN millrace.model_result.probe IS 'Arrow: some test rows, and last what was predicted for them';

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
        COMMENT ON COLUMN millrace.artifact.content IS 'The fitted model, by skops; check sha256 first';
        COMMENT ON COLUMN millrace.artifact.probe IS 'Arrow: some test rows, and last what was predicted for them';
        COMMENT ON COLUMN millrace.artifact.trained_on IS 'Hashes of the ids of its training records, 8 bytes each';

        CREATE TABLE millrace.gate (
            run       bigint      PRIMARY KEY REFERENCES millrace.training_run,
            dataset   text        NOT NULL,
            version   text        NOT NULL REFERENCES millrace.dataset_version,
            reign     integer     NOT NULL CHECK (reign >= 0),
            state     text        NOT NULL CHECK (state IN ('judged', 'superseded', 'incomparable')),
            reason    text,
            test_rows bigint      NOT NULL DEFAULT 0,
            trained   bigint      NOT NULL DEFAULT 0,
            repeated  bigint      NOT NULL DEFAULT 0,
            counted   bytea       NOT NULL DEFAULT '',
            judged_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            CHECK (state = 'judged' OR reason IS NOT NULL)
        );
        ALTER TABLE millrace.gate ALTER counted SET STORAGE EXTERNAL;
        CREATE INDEX ON millrace.gate (dataset, reign);
        COMMENT ON TABLE  millrace.gate IS 'Every training run that came before the gate; each does so once';
        COMMENT ON COLUMN millrace.gate.reign IS 'Against whom: a reign''s number, 0 for the baseline';
        COMMENT ON COLUMN millrace.gate.reason IS 'Why it was not judged';
        COMMENT ON COLUMN millrace.gate.trained IS 'Test records left out: one of the two had trained on them';
        COMMENT ON COLUMN millrace.gate.repeated IS 'Test records left out: they had counted before in this reign';
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
        COMMENT ON TABLE  millrace.verdict IS 'What the gate said of each challenger, with the evidence of the reign';
        COMMENT ON COLUMN millrace.verdict.n01 IS 'Records of the reign that only the challenger won';
        COMMENT ON COLUMN millrace.verdict.n10 IS 'Records of the reign that only the champion won';
        COMMENT ON COLUMN millrace.verdict.mcnemar_p IS 'Shown, never decides';
        COMMENT ON COLUMN millrace.verdict.fresh_n IS 'With the others named fresh: what this version added';
        COMMENT ON COLUMN millrace.verdict.fitted_sha256 IS 'The model that was judged';

        -- The champion of a dataset is its last reign. A change of champion inserts the row that follows the one it was
        -- decided on: of two changes at the same moment the key lets one through, and no moment is without a champion.
        CREATE TABLE millrace.reign (
            dataset  text        NOT NULL,
            reign    integer     NOT NULL CHECK (reign >= 1),
            previous integer     GENERATED ALWAYS AS (nullif(reign - 1, 0)) STORED,
            artifact bigint      NOT NULL,
            former   integer     CHECK (former < reign),
            cause    text        NOT NULL CHECK (cause IN ('evidence', 'approval', 'rollback')),
            decider  text        NOT NULL,
            reason   text        NOT NULL,
            since    timestamptz NOT NULL DEFAULT clock_timestamp(),
            PRIMARY KEY (dataset, reign),
            FOREIGN KEY (dataset, previous) REFERENCES millrace.reign,
            FOREIGN KEY (dataset, former) REFERENCES millrace.reign,
            FOREIGN KEY (dataset, artifact) REFERENCES millrace.artifact (dataset, artifact)
        );
        COMMENT ON TABLE  millrace.reign IS 'Every champion of every dataset; the last reign is the present one';
        COMMENT ON COLUMN millrace.reign.former IS 'The reign whose champion a rollback brings back';
        COMMENT ON COLUMN millrace.reign.decider IS 'Who: the gate, or a person';

        CREATE TABLE millrace.approval (
            run         bigint      PRIMARY KEY REFERENCES millrace.gate,
            answer      text        NOT NULL CHECK (answer IN ('approved', 'declined', 'refused')),
            model       text,
            decider     text        NOT NULL,
            reason      text        NOT NULL,
            answered_at timestamptz NOT NULL DEFAULT clock_timestamp()
        );
        COMMENT ON TABLE  millrace.approval IS 'What people answered where the policy is manual';
        COMMENT ON COLUMN millrace.approval.answer IS 'refused: the champion had changed meanwhile';

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
            'live: the champion then; never: the first champion; newest: the champion''s line as just trained';
        """
    )
    op.execute(
        """
        CREATE VIEW millrace.version_order AS
        SELECT dataset, version, number, coalesce(interval_end, sealed_at) AS until,
               row_number() OVER (PARTITION BY dataset ORDER BY coalesce(interval_end, sealed_at), number) AS place
        FROM millrace.dataset_version;
        COMMENT ON VIEW millrace.version_order IS 'The order in which versions come before the gate: by where they end';

        CREATE VIEW millrace.champion_history AS
        SELECT reign.dataset, reign.reign, artifact.model, left(run.version, 12) AS version, version.interval_start,
               version.interval_end, reign.since,
               lead(reign.since) OVER (PARTITION BY reign.dataset ORDER BY reign.reign) AS until,
               reign.cause, reign.decider, reign.reason, reign.former, artifact.run, artifact.artifact, artifact.sha256
        FROM millrace.reign
        JOIN millrace.artifact USING (artifact)
        JOIN millrace.training_run AS run USING (run)
        JOIN millrace.dataset_version AS version USING (version);
        COMMENT ON VIEW millrace.champion_history IS 'Every champion: since when, by whom, on what evidence';

        CREATE VIEW millrace.champion AS
        SELECT * FROM millrace.champion_history WHERE until IS NULL;
        COMMENT ON VIEW millrace.champion IS 'The one champion of each dataset';

        CREATE VIEW millrace.judgement AS
        SELECT gate.dataset, left(gate.version, 12) AS version, version.interval_start, version.interval_end, gate.run,
               gate.reign, gate.state, gate.reason, verdict.model, verdict.outcome, verdict.sentence, verdict.policy,
               verdict.challengers, verdict.threshold, verdict.e_value, verdict.e_value_reverse, verdict.failed_guards,
               verdict.metric, verdict.gain, verdict.n, verdict.n01, verdict.n10, verdict.discordance,
               verdict.champion_accuracy, verdict.challenger_accuracy, verdict.mcnemar_p, verdict.fresh_n,
               gate.test_rows, gate.trained, gate.repeated,
               EXISTS (
                   SELECT FROM millrace.reign JOIN millrace.artifact USING (artifact)
                   WHERE reign.cause <> 'rollback' AND (artifact.run, artifact.model) = (verdict.run, verdict.model)
               ) AS promoted,
               approval.answer, approval.decider, gate.judged_at
        FROM millrace.gate
        JOIN millrace.dataset_version AS version USING (version)
        LEFT JOIN millrace.verdict USING (run)
        LEFT JOIN millrace.approval USING (run);
        COMMENT ON VIEW millrace.judgement IS 'Every verdict with its evidence, and whether it made the champion';

        CREATE VIEW millrace.value AS
        SELECT DISTINCT ON (version_order.dataset, version_order.place)
               version_order.dataset, left(version_order.version, 12) AS version, version.interval_start,
               version.interval_end, gate.run, gate.reign, live.metric, live.rows,
               live.model AS live_model, live.value AS live,
               never.model AS never_model, never.value AS never,
               newest.model AS newest_model, newest.value AS newest,
               version_order.place
        FROM millrace.gate
        JOIN millrace.version_order USING (version)
        JOIN millrace.dataset_version AS version USING (version)
        JOIN millrace.score AS live ON live.run = gate.run AND live.role = 'live'
        LEFT JOIN millrace.score AS never ON never.run = gate.run AND never.role = 'never'
        LEFT JOIN millrace.score AS newest ON newest.run = gate.run AND newest.role = 'newest'
        ORDER BY version_order.dataset, version_order.place, gate.run;
        COMMENT ON VIEW millrace.value IS
            'On each version''s test split: what was live, the first champion kept for ever, the newest model';

        CREATE VIEW millrace.value_of_retraining AS
        SELECT trained.dataset, trained.trainings, trained.promotions,
               trained.trainings - trained.promotions AS useless, value.versions, value.metric,
               value.live, value.never, value.newest,
               CASE value.metric WHEN 'rmse' THEN value.never - value.live ELSE value.live - value.never END AS gained
        FROM (
            SELECT gate.dataset, count(*) AS trainings,
                   count(*) FILTER (WHERE EXISTS (
                       SELECT FROM millrace.reign JOIN millrace.artifact USING (artifact)
                       WHERE artifact.run = gate.run AND reign.cause <> 'rollback'
                   )) AS promotions
            FROM millrace.gate
            GROUP BY gate.dataset
        ) AS trained
        LEFT JOIN (
            SELECT dataset, min(metric) AS metric, count(*) AS versions,
                   sum(live * rows) / sum(rows) AS live,
                   sum(never * rows) FILTER (WHERE never IS NOT NULL)
                       / sum(rows) FILTER (WHERE never IS NOT NULL) AS never,
                   sum(newest * rows) FILTER (WHERE newest IS NOT NULL)
                       / sum(rows) FILTER (WHERE newest IS NOT NULL) AS newest
            FROM millrace.value
            WHERE reign > 0 AND rows > 0
            GROUP BY dataset
        ) AS value USING (dataset);
        COMMENT ON VIEW millrace.value_of_retraining IS
            'What retraining gained over all test records since the first champion; how many trainings changed nothing';
        """
    )
