"""Once a day: delete old rows of Airflow's tables, old logs and old stored models, and merge old ledger entries.

Settings such as MILLRACE_AIRFLOW__MILLRACE__KEEP_HISTORY="30 days" say how old; docs/platform.md lists them.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import dag, get_current_context, task

from include.airflow import dag_runs
from include.streams import definitions

STREAMS = sorted(definitions.find().valid)


@dag(
    dag_id="maintain__history",
    description="Deletes old history, logs and models, and merges old ledger entries",
    doc_md=__doc__,
    tags=["upkeep"],
    schedule="@daily",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    dagrun_timeout=timedelta(hours=6),
    default_args={
        "owner": "millrace",
        "retries": 3,
        "retry_delay": timedelta(minutes=1),
        "execution_timeout": timedelta(hours=1),
    },
)
def maintain_history() -> None:
    @task
    def airflow_tables() -> None:
        from include.airflow import history

        with dag_runs.airflow_errors():
            dag_runs.require_known(get_current_context())
            print(history.clean_airflow(history.cut_off("keep_history")))

    @task
    def task_logs() -> None:
        from pathlib import Path

        from airflow.configuration import conf

        from include.airflow import history

        with dag_runs.airflow_errors():
            dag_runs.require_known(get_current_context())
            before = history.cut_off("keep_history")
            removed = history.remove_logs(Path(conf.get("logging", "base_log_folder")), before)
        print(f"{removed:,} log files from before {before:%Y-%m-%d} deleted")

    @task
    def training() -> None:
        from include.airflow import history
        from include.warehouse.connection import connected

        with dag_runs.airflow_errors(), connected("millrace maintain history") as connection:
            dag_runs.require_known(get_current_context())
            lines = history.remove_run_logs(connection, history.cut_off("keep_run_log"))
            models = history.empty_models(connection, history.cut_off("keep_models"))
        print(f"{lines:,} lines of run logs and {models:,} models of expired versions deleted")

    @task(map_index_template="{{ task.op_kwargs['stream'] }}")
    def ledger(stream: str) -> None:
        from include.airflow import history
        from include.landing import ledger
        from include.streams import definitions
        from include.warehouse.connection import connected

        with dag_runs.airflow_errors(), connected(f"millrace maintain {stream}") as connection:
            dag_runs.require_known(get_current_context())
            merged = ledger.merge(connection, definitions.get(stream), history.cut_off("keep_ledger"))
        print(f"{merged:,} ledger entries merged from older ones")

    airflow_tables()
    task_logs()
    training()
    ledger.expand(stream=STREAMS)


maintain_history()
