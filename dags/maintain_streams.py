"""Once an hour, for each stream: create the next partitions of its table, and drop those past its retention."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import dag, get_current_context, task

from include.airflow import dag_runs, run_notes
from include.streams import definitions

STREAMS = sorted(definitions.find().valid)


@dag(
    dag_id="maintain__streams",
    description="Creates the next partitions of each stream's table, and drops those past its retention",
    doc_md=__doc__,
    tags=["landing", "upkeep"],
    schedule="@hourly",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    dagrun_timeout=timedelta(minutes=50),
    default_args={"owner": "millrace", "retries": 3, "retry_delay": timedelta(seconds=30)},
)
def maintain_streams() -> None:
    @task(map_index_template="{{ task.op_kwargs['stream'] }}", execution_timeout=timedelta(minutes=20))
    def maintain(stream: str) -> None:
        from include.landing import maintenance
        from include.streams import definitions
        from include.warehouse.connection import connected

        with dag_runs.airflow_errors():
            dag_runs.require_known(get_current_context())
        with dag_runs.airflow_errors(), connected(f"millrace maintain {stream}") as connection:
            created, dropped = maintenance.maintain(connection, definitions.get(stream))
        run_notes.leave({"partitions created": len(created), "dropped": len(dropped)})
        print(f"created: {', '.join(created) or 'none'}; dropped: {', '.join(dropped) or 'none'}")

    maintain.expand(stream=STREAMS)


maintain_streams()
