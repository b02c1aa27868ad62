"""Once a minute: compare the expectations of all definitions with the facts, and send the messages that are due."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import dag, get_current_context, task

from include.airflow import dag_runs


@dag(
    dag_id="maintain__expectations",
    description="Checks the expectations of streams and datasets, and sends alerts",
    doc_md="""
Compares `fresh` and `max_dead_letters` of each stream, and `retrain_within` and `min_accuracy` of each dataset, with
the facts. When an expectation fails, the definition's `notify` gets one message; one more when it holds again, and a
reminder after each day. While this DAG is paused, no messages are sent.
""",
    tags=["upkeep"],
    schedule="* * * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    dagrun_timeout=timedelta(minutes=5),
    default_args={"owner": "millrace", "retries": 1, "retry_delay": timedelta(seconds=5)},
)
def maintain_expectations() -> None:
    @task(execution_timeout=timedelta(minutes=2))
    def check() -> None:
        from include.airflow.expectation_check import check_in_task

        with dag_runs.airflow_errors():
            dag_runs.require_known(get_current_context())
            check_in_task(get_current_context())

    check()


maintain_expectations()
