"""One Airflow DAG per dataset: publish a version of it to Kafka."""

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, Param, get_current_context, task
from airflow.timetables.interval import CronDataIntervalTimetable

from include.airflow import assets, dag_runs, deadlines, run_notes
from include.datasets import Dataset, definitions

MAX_TIME = timedelta(hours=2)
FORM = {
    "interval_start": Param(
        None,
        type=["null", "string"],
        format="date-time",
        pattern=dag_runs.DAY,
        title="From",
        description="Start of the data interval. Empty: the interval of the run, or the latest complete one.",
    ),
    "interval_end": Param(
        None,
        type=["null", "string"],
        format="date-time",
        pattern=dag_runs.DAY,
        title="Until",
        description="End of the data interval, exclusive.",
    ),
    "rows": Param(
        None,
        type=["null", "integer"],
        minimum=2,
        maximum=dag_runs.MAX_PARAMETER,
        title="Rows",
        description="Publish a sample of at most this many rows. Empty: all rows.",
    ),
    "seed": Param(
        0,
        type=["null", "integer"],
        minimum=-dag_runs.MAX_PARAMETER,
        maximum=dag_runs.MAX_PARAMETER,
        title="Seed",
        description="Seed of the sample. Another seed gives another sample. Empty: 0.",
    ),
}


def build(dataset: Dataset) -> DAG:
    with DAG(
        f"publish__{dataset.name}",
        description=f"Publishes a version of {dataset.name} to Kafka; training then starts by itself",
        doc_md=f"{dataset.doc}\n\nPublishes to the topic `{dataset.topic}`, in one transaction with the manifest.",
        schedule=CronDataIntervalTimetable(dataset.schedule, timezone="UTC") if dataset.schedule else None,
        start_date=dag_runs.midnight(dataset.start) if dataset.start else datetime(2020, 1, 1, tzinfo=UTC),
        end_date=dag_runs.midnight(dataset.end) - timedelta(microseconds=1) if dataset.end else None,
        # A dataset with a schedule has a version for each interval since its start.
        catchup=True,
        max_active_runs=1,
        dagrun_timeout=MAX_TIME,
        deadline=deadlines.deadlines(dataset, "publish", MAX_TIME),
        # A schedule starts immediately, also when it is added to an existing definition.
        is_paused_upon_creation=False,
        params=FORM,
        tags=["retraining", "publish", dataset.name],
        default_args={"owner": "millrace", "retries": 3, "retry_delay": timedelta(seconds=5)},
    ) as dag:
        # One task at a time for each dataset, also across backfills: its transactional id has one owner.
        @task(
            max_active_tis_per_dag=1,
            execution_timeout=timedelta(hours=1),
            outlets=[assets.dataset_version(dataset.name)],
        )
        def publish() -> str:
            from include.versions import publication

            context = get_current_context()
            with dag_runs.airflow_errors():
                dag_runs.require_known(context)
                interval = dag_runs.interval(dataset, context)
                published = publication.publish(
                    dataset,
                    interval,
                    max_rows=context["params"]["rows"],
                    seed=context["params"]["seed"] or 0,
                    asked_by=dag_runs.cause(context),
                    parameters=context["params"],
                )
                deadlines.met(dataset, "publish")
            known = "" if published.new else ", published before"
            run_notes.leave(f"version {published.version[:12]}, {published.rows:,} rows{known}")
            context["outlet_events"][assets.dataset_version(dataset.name)].extra = {
                "dataset": dataset.name,
                "version": published.version,
                "rows": published.rows,
                "interval_start": interval.start.isoformat() if interval.start else None,
                "interval_end": interval.end.isoformat() if interval.end else None,
                "new": published.new,
            }
            return published.version

        publish()
    return dag


for found in definitions.find().valid.values():
    if dag_runs.is_parsed_for(dag_id := f"publish__{found.name}"):
        globals()[dag_id] = build(found)
