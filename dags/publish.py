"""Airflow DAGs that publish: for each dataset one that seals versions of it in Kafka."""

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, Asset, Param, get_current_context, task
from airflow.timetables.interval import CronDataIntervalTimetable

from include.airflow import dag_runs
from include.datasets import Dataset, definitions

# Airflow does not look at the format; the form's widget does.
DAY = r"^\d{4}-\d\d-\d\d([T ].*)?$"
FORM = {
    "interval_start": Param(
        None,
        type=["null", "string"],
        format="date-time",
        pattern=DAY,
        title="From",
        description="Where the data interval begins. Left empty: the run's own, or the latest complete one.",
    ),
    "interval_end": Param(
        None, type=["null", "string"], format="date-time", pattern=DAY, title="Until", description="Exclusive."
    ),
    "rows": Param(
        None,
        type=["null", "integer"],
        minimum=2,
        maximum=dag_runs.MAX_PARAMETER,
        title="Rows",
        description="A sample of at most so many.",
    ),
    "seed": Param(
        0,
        type="integer",
        minimum=-dag_runs.MAX_PARAMETER,
        maximum=dag_runs.MAX_PARAMETER,
        title="Seed",
        description="Another seed draws another sample.",
    ),
}


def build(dataset: Dataset) -> DAG:
    with DAG(
        f"publish__{dataset.name}",
        description=f"Seals a version of {dataset.name} in Kafka; its training starts by itself.",
        doc_md=f"{dataset.doc}\n\nPublishes to the topic `{dataset.topic}` in one transaction with a manifest.",
        schedule=CronDataIntervalTimetable(dataset.schedule, timezone="UTC") if dataset.schedule else None,
        start_date=dag_runs.midnight(dataset.start) if dataset.start else datetime(2020, 1, 1, tzinfo=UTC),
        end_date=dag_runs.midnight(dataset.end) - timedelta(microseconds=1) if dataset.end else None,
        # A version for every interval since the start is what a dataset with a schedule means.
        catchup=True,
        max_active_runs=1,
        dagrun_timeout=timedelta(hours=2),
        # A schedule begins at once, whether the definition had it from the beginning or got it later.
        is_paused_upon_creation=False,
        params=FORM,
        tags=["retraining", "publish", dataset.name],
        default_args={"owner": "millrace", "retries": 3, "retry_delay": timedelta(seconds=5)},
    ) as dag:
        # One at a time for each dataset, also across backfills: its transactional id has one owner.
        @task(
            max_active_tis_per_dag=1,
            execution_timeout=timedelta(hours=1),
            outlets=[Asset(name=dataset.topic, uri=f"kafka://millrace/{dataset.topic}")],
        )
        def publish() -> str:
            from include.versions import publication

            context = get_current_context()
            with dag_runs.airflow_errors():
                dag_runs.require_known(context)
                published = publication.publish(
                    dataset,
                    dag_runs.interval(dataset, context),
                    most_rows=context["params"]["rows"],
                    seed=context["params"]["seed"],
                    asked_by=dag_runs.cause(context),
                    parameters=context["params"],
                )
            return published.version

        publish()
    return dag


for found in definitions.find().valid.values():
    if dag_runs.is_parsed_for(dag_id := f"publish__{found.name}"):
        globals()[dag_id] = build(found)
