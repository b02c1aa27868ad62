"""The pages on streams."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from include.airflow.pages.access import on_stream, only_plugins
from include.airflow.pages.rendering import page

router = APIRouter()


@router.get("/streams")
def streams(request: Request, _: Annotated[str, Depends(only_plugins)]) -> Response:
    """One line for each stream."""
    return page(request, "streams.html")


@router.get("/streams/{stream}")
def stream(request: Request, stream: Annotated[str, Depends(on_stream("GET"))]) -> Response:
    """One stream."""
    return page(request, "stream.html", stream=stream)
