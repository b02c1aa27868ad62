"""Metrics on slices of the test rows.

Revision ID: 0009_slices
Revises: 0004_registry
"""

from alembic import op

revision = "0009_slices"
down_revision = "0004_registry"


def upgrade() -> None:
    op.execute(
        """
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

        CREATE VIEW millrace.sliced AS
        SELECT run.dataset, left(run.version, 12) AS version, run.run, result.model, metric.slice, metric.part,
               metric.name AS metric, metric.value, metric.low, metric.high, metric.rows, whole.value AS whole
        FROM millrace.slice_metric AS metric
        JOIN millrace.model_result AS result USING (result)
        JOIN millrace.training_run AS run USING (run)
        LEFT JOIN millrace.metric AS whole ON whole.result = metric.result AND whole.name = metric.name;
        COMMENT ON VIEW millrace.sliced IS 'Every metric of every model on every slice, beside that on all test rows';
        """
    )
