"""One Airflow DAG per dataset: fit its models on a published version, evaluate them, and compare with the champion."""

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, Context, Param, get_current_context, task

from include.airflow import assets, dag_runs, deadlines, run_notes
from include.datasets import Dataset, definitions, model_names
from include.durations import duration
from include.gate.policy import PolicyName
from include.training.grid import SCHEMA


def form(dataset: Dataset) -> dict[str, Param]:
    """The parameters of a run."""
    listed = model_names.names(dataset.models)
    models: dict[str, Any] = {"type": ["null", "array"], "items": {"type": "string"}}
    if listed:
        # Airflow shows a list to choose from, and does not check the choice.
        models["examples"] = listed
    return {
        "version": Param(
            None,
            type=["null", "string"],
            title="Version",
            description="The id of the version, or its first characters. Empty: the newest version.",
        ),
        "until": Param(
            None,
            type=["null", "string"],
            format="date",
            title="Until",
            description="Train on the version whose data interval ends on this day (UTC). Empty: any version.",
        ),
        "models": Param(
            None,
            **models,
            title="Models",
            description="Which models to train. Empty: all." if listed else "Names, one per line. Empty: all models.",
        ),
        "grid": Param(
            None,
            **SCHEMA,
            title="Grid",
            description="Parameter values to train in addition to the models, one candidate for each combination: "
            '{"logistic": {"C": [0.1, 1, 10]}}. Each candidate has its own task and is a challenger in the gate.',
        ),
        "seed": Param(
            0,
            type=["null", "integer"],
            minimum=0,
            maximum=2**32 - 1,
            title="Seed",
            description="Seed of every random state. Empty: 0.",
        ),
    }


def describe(context: Context) -> tuple[str, dict[str, Any], str]:
    """The id of the run, its parameters and its cause."""
    return context["dag_run"].run_id, dict(context["params"]), dag_runs.cause(context)


def build(dataset: Dataset) -> DAG:
    max_time = timedelta(hours=4) + duration(dataset.time_limit)
    with DAG(
        f"train__{dataset.name}",
        description=f"Trains the models of {dataset.name} on a version, and compares them with the champion",
        doc_md=f"{dataset.doc}\n\nReads exactly the messages that the manifest lists, and verifies the digest of each.",
        schedule=None,
        start_date=datetime(2020, 1, 1, tzinfo=UTC),
        # Versions train in parallel; the gate compares them in their order.
        max_active_runs=4,
        is_paused_upon_creation=False,
        dagrun_timeout=max_time,
        deadline=deadlines.deadlines(dataset, "train", max_time),
        params=form(dataset),
        tags=["retraining", "train", dataset.name],
        default_args={"owner": "millrace", "retries": 2, "retry_delay": timedelta(seconds=2)},
    ) as dag:

        @task(execution_timeout=timedelta(minutes=5))
        def plan() -> list[dict[str, Any]]:
            from include.training import run

            context = get_current_context()
            facts = describe(context)
            with dag_runs.airflow_errors(), run.recorded(dataset, *facts):
                dag_runs.require_known(context)
                return run.begin(dataset, *facts)

        # The definition's time_limit ends the fit before this timeout, with an error of its own.
        @task(
            map_index_template="{{ task.op_kwargs['model'] }}",
            execution_timeout=duration(dataset.time_limit) + timedelta(minutes=5),
        )
        def fit(run: int, model: str) -> None:
            from include.training import fitting

            with dag_runs.airflow_errors():
                fitting.fit(dataset, run, model)

        @task(
            trigger_rule="all_done",
            execution_timeout=timedelta(minutes=20),
            outlets=[assets.if_any(assets.champion(dataset.name))],
        )
        def gate(planned: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
            from include.promotion import evaluation_queue
            from include.training import run

            with dag_runs.airflow_errors():
                if planned:
                    run.settle(planned)
                else:
                    run.record_missing_plan(dataset, *describe(get_current_context()))
                compared = evaluation_queue.evaluate_pending_runs(dataset)
                assets.emit_promotions(compared)
                return [{"trigger_run_id": f"promote__{number}", "conf": {"run": number}} for number in compared]

        @task(execution_timeout=timedelta(minutes=10))
        def finish(planned: list[dict[str, Any]] | None) -> None:
            from include.promotion import summary
            from include.training import run

            with dag_runs.airflow_errors():
                run.end(planned)
                deadlines.met(dataset, "train")
                if planned:
                    run_notes.leave(summary.line_of_run(planned[0]["run"]))

        planned = plan()
        judged = gate(planned)  # type: ignore[arg-type]
        fit.expand_kwargs(planned) >> judged >> finish(planned)  # type: ignore[arg-type]
        if dataset.promotion.name is PolicyName.MANUAL:
            TriggerDagRunOperator.partial(
                task_id="propose",
                trigger_dag_id=f"promote__{dataset.name}",
                skip_when_already_exists=True,
                execution_timeout=timedelta(minutes=5),
            ).expand_kwargs(judged)
    return dag


for found in definitions.find().valid.values():
    if dag_runs.is_parsed_for(dag_id := f"train__{found.name}"):
        globals()[dag_id] = build(found)
