"""The Airflow DAG that starts a training run for each published version."""

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, get_current_context, task

from include.airflow.manifest_sensor import ManifestSensor
from include.datasets import definitions

datasets = sorted(definitions.find().valid)

with DAG(
    "dispatch",
    description="Waits for published versions, and starts one training run for each",
    doc_md="""
Waits for manifests in the topic `millrace.manifests` and stores them in `millrace.dataset_version`. One transaction
writes a manifest and moves the position in the topic. The id of a training run is derived from its version, so that a
version starts one run, even when a task is repeated after a crash.
""",
    schedule="@continuous",
    start_date=datetime(2020, 1, 1, tzinfo=UTC),
    max_active_runs=1,
    is_paused_upon_creation=False,
    dagrun_timeout=timedelta(hours=24),
    tags=["retraining"],
    default_args={
        "owner": "millrace",
        "retries": 20,
        "retry_delay": timedelta(seconds=2),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=2),
        "execution_timeout": timedelta(minutes=10),
    },
):

    @task
    def land() -> list[dict[str, Any]]:
        from include.training import dispatch, run

        context = get_current_context()
        dispatch.land(owner=f"dispatch {context['dag_run'].run_id}")
        return [
            {
                "trigger_dag_id": f"train__{dataset}",
                "trigger_run_id": run.sealed_run_id(version),
                "conf": {"version": version},
            }
            for dataset, version in dispatch.to_start(datasets)
        ]

    # When the run of one dataset cannot be started, the runs of others must still be recorded.
    @task(trigger_rule="all_done")
    def note(planned: list[dict[str, Any]] | None) -> None:
        from include.airflow import dag_runs, run_notes
        from include.training import dispatch

        context = get_current_context()
        run_id = context["dag_run"].run_id
        states = context["ti"].get_task_states(dag_id="dispatch", task_ids=["start"], run_ids=[run_id])
        with dag_runs.airflow_errors():
            dispatch.note(planned, states.get(run_id, {}))
        run_notes.leave({"training runs started": len(planned or [])})

    wait = ManifestSensor(
        task_id="wait", datasets=datasets, at_most=timedelta(hours=12), execution_timeout=timedelta(hours=13)
    )
    plan = land()
    start = TriggerDagRunOperator.partial(
        task_id="start",
        # Two runs of one DAG cannot have the same logical date, so these have none.
        logical_date=None,
        skip_when_already_exists=True,
        # A few minutes at most. The next run of this DAG tries again.
        retries=5,
        map_index_template="{{ task.trigger_dag_id }}",
    ).expand_kwargs(plan)
    wait >> plan
    start >> note(plan)  # type: ignore[arg-type]
