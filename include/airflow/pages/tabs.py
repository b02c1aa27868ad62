"""The tabs on a DAG and on a run."""

from __future__ import annotations

from typing import Annotated

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from include.airflow.links import DATASETS, STREAMS, name_of
from include.airflow.pages import airflow_runs, sources
from include.airflow.pages.access import dag_of_dataset, may, on_dag, require
from include.airflow.pages.rendering import page
from include.airflow.pages.streams import stream_facts
from include.pages import datasets

router = APIRouter()


@router.get("/dag")
def dag(request: Request, dag: Annotated[str, Depends(on_dag("GET"))]) -> Response:
    """The tab on a DAG: the dataset or the stream that it belongs to."""
    dataset, stream = name_of(dag, DATASETS), name_of(dag, STREAMS)
    if stream is not None:
        facts = stream_facts(stream)
        paused = sources.paused_by_name("land__").get(stream)
        return page(request, "stream.html", name=stream, facts=facts, is_paused=paused, is_tab=True)
    if dataset is None:
        return page(request, "foreign.html", dag=dag)
    require(request, "GET", dag_of_dataset(dataset))
    with sources.warehouse().connection() as connection:
        found = datasets.dataset(connection, dataset, run_id=None, model=None)
    return page(
        request,
        "dataset.html",
        name=dataset,
        facts=found,
        run=found and found.run,
        versions=datasets.MAX_VERSIONS,
        can_read_log=may(request, "GET", dag_of_dataset(dataset), DagAccessEntity.TASK_LOGS),
        questions=airflow_runs.open_questions(f"promote__{dataset}"),
        is_tab=True,
    )


@router.get("/run")
def run(
    request: Request,
    dag: Annotated[str, Depends(on_dag("GET", DagAccessEntity.RUN))],
    run: Annotated[str, Query(max_length=500)],
    model: Annotated[str | None, Query(max_length=500)] = None,
) -> Response:
    """The tab on a run: what it trained on, and its result."""
    dataset, run_id = name_of(dag, ("train__",)), run
    with sources.warehouse().connection() as connection:
        if (asking := name_of(dag, ("promote__",))) is not None:
            # The gate names the run of a question by the number of the training run.
            number = run.removeprefix("promote__")
            asked = datasets.run_to_approve(connection, int(number)) if number.isdecimal() else None
            dataset, run_id = asked if asked is not None and asked[0] == asking else (None, run)
        if dataset is not None:
            require(request, "GET", dag_of_dataset(dataset))
        facts = None if dataset is None else datasets.run(connection, dataset, run_id, model)
    if dataset is None:
        name, stream = name_of(dag, DATASETS), name_of(dag, STREAMS)
        return page(request, "other_run.html", dag=dag, asked=run, dataset=name, stream=stream)
    return page(
        request,
        "run.html",
        name=dataset,
        run=facts,
        run_id=run_id,
        dag=dag,
        asked=run,
        is_open=run in airflow_runs.open_questions(dag),
        can_read_log=may(request, "GET", dag_of_dataset(dataset), DagAccessEntity.TASK_LOGS),
    )
