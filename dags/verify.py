"""The Airflow DAG that derives an old training run again, once a week, and compares the predictions."""

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, Param, get_current_context, task

from include.airflow import dag_runs

with DAG(
    "verify",
    description="Fits the models of a past run again, and compares what they predict with what was stored.",
    doc_md="""
Takes the run whose last proof lies furthest back, or the one that the form names. What comes out is kept in
`millrace.verification`; the task fails when a prediction is not what it was. `./millrace verify run RUN` does the same.
""",
    schedule="@weekly",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    dagrun_timeout=timedelta(hours=7),
    params={
        "run": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            maximum=dag_runs.MAX_PARAMETER,
            title="Run",
            description="Its number. Left empty: a sample.",
        )
    },
    tags=["retraining", "upkeep"],
    default_args={"owner": "millrace", "retries": 2, "retry_delay": timedelta(minutes=1)},
):

    @task(execution_timeout=timedelta(hours=6))
    def verify() -> str | None:
        from include.training import verification

        context = get_current_context()
        with dag_runs.airflow_errors():
            dag_runs.require_known(context)
            return verification.verify_one(context["params"]["run"], dag_runs.cause(context))

    verify()
