"""Once a day, for each dataset: delete versions past ``keep``, and report topic settings that delete others."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import dag, get_current_context, task

from include.airflow import dag_runs
from include.datasets import definitions

DATASETS = sorted(definitions.find().valid)


@dag(
    dag_id="maintain__datasets",
    description="Deletes dataset versions past their retention from Kafka",
    doc_md="""
Keeps as many of the newest versions as the definition's `keep` says, and deletes the messages of older ones from Kafka,
unless the champion or an unfinished run needs them. Fails when a setting of the topic deletes a version that is needed.
""",
    tags=["retraining", "upkeep"],
    schedule="@daily",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    dagrun_timeout=timedelta(hours=2),
    default_args={"owner": "millrace", "retries": 3, "retry_delay": timedelta(seconds=30)},
)
def maintain_datasets() -> None:
    @task(map_index_template="{{ task.op_kwargs['dataset'] }}", execution_timeout=timedelta(minutes=20))
    def maintain(dataset: str) -> list[str]:
        from include.datasets import definitions
        from include.versions import retention

        with dag_runs.airflow_errors():
            dag_runs.require_known(get_current_context())
            return retention.maintain(definitions.get(dataset))

    maintain.expand(dataset=DATASETS)


maintain_datasets()
