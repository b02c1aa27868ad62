"""The app of the pages: its routes, its errors and its static files."""

from __future__ import annotations

from functools import cache

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, Response

from include.airflow.pages import actions, metrics, models, rendering, static_files, streams, tabs
from include.airflow.pages.access import Guard
from include.errors import UserError

TITLES = {
    401: "You are signed out",
    403: "You may not do this",
    404: "There is no such page",
    405: "There is no such action",
    422: "This address is incomplete",
    500: "This page has an error",
    503: "The warehouse does not answer",
}


def create() -> FastAPI:
    """The app. It publishes neither its schema nor documentation of its routes."""
    app = FastAPI(
        title="Millrace",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        middleware=[Middleware(Guard, refuse=refuse)],
    )
    for part in (metrics, models, streams, tabs, actions, static_files):
        app.include_router(part.router)
    app.add_exception_handler(StarletteHTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(UserError, _on_user_error)
    app.add_exception_handler(Exception, _on_error)
    return app


@cache
def instance() -> FastAPI:
    """The app of this process."""
    return create()


def refuse(request: Request, status: int, sentence: str) -> Response:
    """An error: a page for a browser, JSON for everyone else."""
    headers = {"www-authenticate": "Bearer"} if status == 401 else {}
    if "text/html" not in request.headers.get("accept", ""):
        return JSONResponse({"detail": sentence}, status, headers)
    return rendering.error(request, status, TITLES.get(status, "This did not work"), sentence, headers)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    answer = refuse(request, error.status_code, str(error.detail))
    for name, value in (error.headers or {}).items():
        answer.headers[name] = value
    return answer


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    names = ", ".join(sorted({str(each["loc"][-1]) for each in error.errors()}))
    return refuse(request, 422, f"A parameter is missing or invalid: {names}.")


async def _on_user_error(request: Request, error: Exception) -> Response:
    return refuse(request, 503, str(error))


async def _on_error(request: Request, error: Exception) -> Response:
    return refuse(request, 500, "It failed unexpectedly. Read the log with ./millrace logs api-server.")
