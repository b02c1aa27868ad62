"""The metrics for Prometheus."""

from __future__ import annotations

from typing import Annotated

from airflow.configuration import conf
from fastapi import APIRouter, Depends
from starlette.responses import Response

from include.airflow.pages.access import on_all_dags
from include.monitoring import metrics as data

router = APIRouter()


@router.get("/metrics")
def metrics(_: Annotated[str, Depends(on_all_dags)]) -> Response:
    """All metrics, in the OpenMetrics format."""
    return Response(data.render(conf.get_mandatory_value("database", "sql_alchemy_conn")), media_type=data.CONTENT_TYPE)
