"""One Airflow DAG per dataset with the policy `manual()`: a user approves or declines the promotion of a model."""

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, Param, get_current_context, task

from include.airflow import assets, dag_runs, run_notes
from include.airflow.approval import ApprovalOperator
from include.datasets import Dataset, definitions
from include.gate.policy import PolicyName

FORM = {
    "run": Param(
        type="integer",
        minimum=1,
        maximum=dag_runs.MAX_PARAMETER,
        title="Training run",
        description="The number of the training run whose model may become the champion.",
    )
}


def build(dataset: Dataset) -> DAG:
    with DAG(
        f"promote__{dataset.name}",
        description=f"Asks you whether a model becomes the champion of {dataset.name}",
        doc_md="The question waits under **Required Actions** for up to 90 days, without a worker. An approval is "
        "rejected when the champion has changed since the evidence was collected.",
        schedule=None,
        start_date=datetime(2020, 1, 1, tzinfo=UTC),
        # Many questions can be open at the same time, and none of them delays another.
        max_active_runs=100,
        is_paused_upon_creation=False,
        dagrun_timeout=timedelta(days=100),
        params=FORM,
        tags=["retraining", "promote", dataset.name],
        default_args={"owner": "millrace", "retries": 2, "retry_delay": timedelta(seconds=2)},
    ) as dag:

        @task(execution_timeout=timedelta(minutes=20), outlets=[assets.if_any(assets.champion(dataset.name))])
        def apply(answer: dict[str, Any]) -> None:
            from include.promotion import approval, summary

            run = get_current_context()["params"]["run"]
            with dag_runs.airflow_errors():
                decider = approval.apply(run, answer)
                assets.emit_promotions([run])
                run_notes.leave(f"{decider}: {summary.line_of_run(run)}")

        ask = ApprovalOperator(task_id="ask", response_timeout=timedelta(days=90))
        apply(ask.output)  # type: ignore[arg-type]
    return dag


for found in definitions.find().valid.values():
    if found.promotion.name is PolicyName.MANUAL and dag_runs.is_parsed_for(dag_id := f"promote__{found.name}"):
        globals()[dag_id] = build(found)
