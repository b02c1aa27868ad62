"""The Airflow DAG that repeats a past training run once a week and compares the predictions."""

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, Param, get_current_context, task

from include.airflow import dag_runs, run_notes

with DAG(
    "verify",
    description="Repeats a past training run, and compares its predictions with the stored ones",
    doc_md="""
Reads the version of a past training run again, fits its models again, and compares their predictions with the stored
ones. Without a run in the form, it verifies the run whose last verification is the oldest. The result is stored in
`millrace.verification`. The task fails when a prediction differs. `./millrace verify run RUN` does the same.
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
            title="Training run",
            description="The number of the training run. Empty: the run whose last verification is the oldest.",
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
            outcome = verification.verify_one(context["params"]["run"], dag_runs.cause(context))
            run_notes.leave(outcome or "no training run to verify")
            return outcome

    verify()
