"""One Airflow DAG per stream: retry its dead letters."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG, dag, get_current_context, task

from include.airflow import dag_runs, run_notes
from include.streams import definitions
from include.streams.definition import Stream


def build(stream: Stream) -> DAG:
    """The DAG of one stream."""

    @dag(
        dag_id=f"retry__{stream.name}",
        description=f"Retries the dead letters of {stream.name} with its present definition",
        doc_md=f"""
Decodes the stored bytes of each dead letter again, and lands in `landing.{stream.name}` those that can land now. Run it
after you have corrected the definition. The log of the task says how many landed and how many remain. Quarantined
records stay. `./millrace dead-letters {stream.name} retry` does the same.
""",
        tags=["landing", "retry"],
        schedule=None,
        start_date=datetime(2026, 1, 1),
        max_active_runs=1,
        is_paused_upon_creation=False,
        dagrun_timeout=timedelta(hours=25),
        default_args={"owner": "millrace", "retries": 3, "retry_delay": timedelta(seconds=5)},
    )
    def retry_dead_letters() -> None:
        @task(execution_timeout=timedelta(hours=24))
        def retry() -> dict[str, int]:
            from include.landing import retry as retries
            from include.streams import definitions
            from include.warehouse.connection import connected

            def report(landed: int, kept: int, filtered: int) -> None:
                print(f"{landed + kept + filtered:,} tried, {landed:,} landed …")

            with dag_runs.airflow_errors():
                dag_runs.require_known(get_current_context())
                with connected(f"millrace retry {stream.name}") as connection:
                    retried = retries.retry(connection, definitions.get(stream.name), report)
            print(f"{retried}.")
            run_notes.leave(str(retried))
            return {"landed": retried.landed, "remain": retried.kept, "filtered": retried.filtered}

        retry()

    return retry_dead_letters()


for each in definitions.find().valid.values():
    if dag_runs.is_parsed_for(f"retry__{each.name}"):
        build(each)
