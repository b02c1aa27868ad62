"""A champion can be retired: the dataset begins again with the baseline.

Revision ID: 0011_retirement
Revises: 0006_forgotten
"""

from alembic import op

revision = "0011_retirement"
down_revision = "0006_forgotten"


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE millrace.reign ALTER artifact DROP NOT NULL;
        ALTER TABLE millrace.reign DROP CONSTRAINT reign_cause_check;
        ALTER TABLE millrace.reign
            ADD CONSTRAINT reign_cause_check CHECK (cause IN ('evidence', 'approval', 'rollback', 'retirement')),
            ADD CONSTRAINT reign_retirement_check CHECK ((cause = 'retirement') = (artifact IS NULL));
        COMMENT ON COLUMN millrace.reign.artifact IS 'The champion; null once it is retired and the baseline stands in';

        CREATE OR REPLACE VIEW millrace.champion_history AS
        SELECT reign.dataset, reign.reign, artifact.model, left(run.version, 12) AS version, version.interval_start,
               version.interval_end, reign.since,
               lead(reign.since) OVER (PARTITION BY reign.dataset ORDER BY reign.reign) AS until,
               reign.cause, reign.decider, reign.reason, reign.former, artifact.run, artifact.artifact, artifact.sha256
        FROM millrace.reign
        LEFT JOIN millrace.artifact USING (artifact)
        LEFT JOIN millrace.training_run AS run USING (run)
        LEFT JOIN millrace.dataset_version AS version USING (version);

        CREATE OR REPLACE VIEW millrace.champion AS
        SELECT * FROM millrace.champion_history WHERE until IS NULL AND artifact IS NOT NULL;

        -- What was live and what was never retrained are averaged over the same records: a first champion that cannot
        -- answer a version leaves it out of both.
        CREATE OR REPLACE VIEW millrace.value_of_retraining AS
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
                   sum(never * rows) / sum(rows) AS never,
                   sum(newest * rows) FILTER (WHERE newest IS NOT NULL)
                       / sum(rows) FILTER (WHERE newest IS NOT NULL) AS newest
            FROM millrace.value
            WHERE reign > 0 AND rows > 0 AND never IS NOT NULL
            GROUP BY dataset
        ) AS value USING (dataset);
        """
    )
