"""Airflow DAGs that ask: for each dataset whose policy is manual one in which a person decides on a promotion."""

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, Param, get_current_context, task

from include.airflow import dag_runs
from include.airflow.approval import ApprovalOperator
from include.datasets import Dataset, definitions

FORM = {
    "run": Param(
        type="integer",
        minimum=1,
        maximum=dag_runs.MAX_PARAMETER,
        title="Run",
        description="The number of the training run.",
    )
}


def build(dataset: Dataset) -> DAG:
    with DAG(
        f"promote__{dataset.name}",
        description=f"Asks whether a model of {dataset.name} is to become the champion.",
        doc_md="The question waits under Required Actions and holds no slot. An approval is refused when the champion "
        "has changed since the evidence was gathered.",
        schedule=None,
        start_date=datetime(2020, 1, 1, tzinfo=UTC),
        # Questions may pile up while nobody answers; none of them holds back another.
        max_active_runs=100,
        is_paused_upon_creation=False,
        dagrun_timeout=timedelta(days=100),
        params=FORM,
        tags=["retraining", "promote", dataset.name],
        default_args={"owner": "millrace", "retries": 2, "retry_delay": timedelta(seconds=2)},
    ) as dag:

        @task(execution_timeout=timedelta(minutes=20))
        def apply(answer: dict) -> None:
            from include.promotion import approval

            with dag_runs.airflow_errors():
                approval.apply(get_current_context()["params"]["run"], answer)

        ask = ApprovalOperator(task_id="ask", response_timeout=timedelta(days=90))
        apply(ask.output)  # type: ignore[arg-type]
    return dag


for found in definitions.find().valid.values():
    if found.promotion.name == "manual" and dag_runs.is_parsed_for(dag_id := f"promote__{found.name}"):
        globals()[dag_id] = build(found)
