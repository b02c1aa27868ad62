"""The Airflow DAG that starts one training run for every sealed version."""

from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, get_current_context, task

from include.airflow.manifest_sensor import ManifestSensor
from include.datasets import definitions

datasets = sorted(definitions.find().valid)

with DAG(
    "dispatch",
    description="Waits for manifests, and starts one training run for each sealed version.",
    doc_md="""
Manifests and the position on the control topic `millrace.manifests` are written to `millrace.dataset_version` in one
transaction. A version's run has an id made from the version: it starts once, whatever is repeated after a crash.
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
    def land() -> list[dict]:
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

    # One dataset whose run cannot be started must not hold up what was started of the others.
    @task(trigger_rule="all_done")
    def note(planned: list[dict] | None) -> None:
        from include.airflow import dag_runs
        from include.training import dispatch

        context = get_current_context()
        run_id = context["dag_run"].run_id
        states = context["ti"].get_task_states(dag_id="dispatch", task_ids=["start"], run_ids=[run_id])
        with dag_runs.airflow_errors():
            dispatch.note(planned, states.get(run_id, {}))

    wait = ManifestSensor(
        task_id="wait", datasets=datasets, at_most=timedelta(hours=12), execution_timeout=timedelta(hours=13)
    )
    plan = land()
    start = TriggerDagRunOperator.partial(
        task_id="start",
        # Two runs of one DAG cannot share a logical date; these have none.
        logical_date=None,
        skip_when_already_exists=True,
        # Some minutes at most; the next run of the dispatch tries again.
        retries=5,
        map_index_template="{{ task.trigger_dag_id }}",
    ).expand_kwargs(plan)
    wait >> plan
    start >> note(plan)  # type: ignore[arg-type]
