"""The pages on models."""

from __future__ import annotations

from typing import Annotated

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from fastapi import APIRouter, Depends, HTTPException, Query, Request
from starlette.responses import Response

from include.airflow.pages import airflow_runs, sources
from include.airflow.pages.access import dag_of_dataset, may, on_dataset, only_plugins, visible
from include.airflow.pages.rendering import page
from include.pages import datasets

router = APIRouter()


@router.get("/models")
def models(request: Request, _: Annotated[str, Depends(only_plugins)]) -> Response:
    """One line for each dataset whose DAG the user may see."""
    paused = sources.paused_by_name("train__")
    with sources.warehouse().connection() as connection:
        rows = {row.dataset: row for row in datasets.overview(connection)}
    seen = visible(request, [dag_of_dataset(name) for name in {*rows, *paused}])
    names = [name for name in sorted({*rows, *paused}) if dag_of_dataset(name) in seen]
    return page(request, "models.html", names=names, rows=rows, paused=paused)


@router.get("/models/{dataset}")
def dataset(
    request: Request,
    dataset: Annotated[str, Depends(on_dataset("GET"))],
    run: Annotated[str | None, Query(max_length=500)] = None,
    model: Annotated[str | None, Query(max_length=500)] = None,
    versions: Annotated[int, Query(ge=2, le=datasets.MOST_VERSIONS)] = datasets.MAX_VERSIONS,
) -> Response:
    """One dataset, with one of its runs and one of the run's models in detail."""
    with sources.warehouse().connection() as connection:
        facts = datasets.dataset(connection, dataset, run_id=run, model=model, versions=versions)
    if facts is None and dataset not in sources.paused_by_name("train__"):
        raise HTTPException(404, f"There is no dataset {dataset!r}.")
    if run is not None and facts is not None and facts.run is None:
        raise HTTPException(404, f"The dataset {dataset!r} has no run {run!r}.")
    can_read_log = may(request, "GET", dag_of_dataset(dataset), DagAccessEntity.TASK_LOGS)
    return page(
        request,
        "dataset.html",
        name=dataset,
        facts=facts,
        run=facts and facts.run,
        versions=versions,
        most_versions=datasets.MOST_VERSIONS,
        can_read_log=can_read_log,
        questions=airflow_runs.open_questions(f"promote__{dataset}"),
    )
