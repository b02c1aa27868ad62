"""The pages on models."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from include.airflow.pages.access import on_dataset, only_plugins
from include.airflow.pages.rendering import page

router = APIRouter()


@router.get("/models")
def models(request: Request, _: Annotated[str, Depends(only_plugins)]) -> Response:
    """One line for each dataset."""
    return page(request, "models.html")


@router.get("/models/{dataset}")
def dataset(request: Request, dataset: Annotated[str, Depends(on_dataset("GET"))]) -> Response:
    """One dataset."""
    return page(request, "dataset.html", dataset=dataset)
