"""Templates to answers. Everything is escaped, and all addresses are relative, so that a path prefix works."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import jinja2
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from fastapi import Request
from starlette.responses import HTMLResponse

from include.airflow.pages import access, static_files
from include.airflow.pages.access import HEADERS
from include.landing.choice import CHOICES
from include.pages import charts, wording

if TYPE_CHECKING:
    from airflow.api_fastapi.auth.managers.base_auth_manager import ResourceMethod

DIRECTORY = Path(__file__).parent / "templates"
FILTERS = ("ago", "change", "evidence", "figure", "moment", "number", "rate", "share", "size", "span", "until")


@cache
def templates() -> jinja2.Environment:
    """The templates. A name that a page does not pass is an error, and every value is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(DIRECTORY),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        segment=lambda value: quote(str(value), safe=""),
        sparkline=charts.sparkline,
        text=wording.text_of,
        **{name: getattr(wording, name) for name in FILTERS},
    )
    environment.globals["asset"] = static_files.address
    environment.globals["choices"] = CHOICES
    return environment


def page(
    request: Request, template: str, *, status: int = 200, headers: Mapping[str, str] | None = None, **values: Any
) -> HTMLResponse:
    """A rendered page.

    Args:
        request: The request, for relative addresses.
        template: The name of a file in ``templates/``.
        status: The HTTP status.
        headers: Further headers.
        **values: What the template shows. It also gets ``root``, the relative address of the app, and ``airflow``, that
            of Airflow, both with a slash at the end; ``framed``, which makes the address of a page within Airflow's
            UI; ``may``, which says whether the user may do something to a DAG or its runs; and ``is_tab``, which is
            false unless the page says otherwise.
    """
    root, airflow = addresses(request)
    shown = {"root": root, "airflow": airflow, "framed": partial(framed, request), "may": partial(_may, request)}
    shown |= {"is_tab": False, **values}
    text = templates().get_template(template).render(shown)
    return HTMLResponse(text, status, headers)


def _may(request: Request, method: ResourceMethod, dag_id: str, entity: str | None = None) -> bool:
    return access.may(request, method, dag_id, DagAccessEntity[entity] if entity else None)


def framed(request: Request, path: str) -> str:
    """The relative address of one of our pages inside Airflow's UI, such as ``models/digits``.

    Airflow appends the frame's own path to the address of the plugin's page.
    """
    route = path.partition("/")[0]
    return f"{addresses(request)[1]}plugin/millrace-{route}{request.scope.get('root_path', '')}/{path}"


def error(request: Request, status: int, title: str, sentence: str, headers: Mapping[str, str]) -> HTMLResponse:
    """A page that states an error. It holds its style, because a caller who is signed out gets no file."""
    style = static_files.files()["error.css"].read_text()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = HEADERS["content-security-policy"].replace("style-src 'self'", f"style-src 'sha256-{digest}'", 1)
    return page(
        request,
        "error.html",
        status=status,
        headers={**headers, "content-security-policy": policy},
        title=title,
        sentence=sentence,
        is_signed_out=status == 401,
        style=style,
    )


def addresses(request: Request) -> tuple[str, str]:
    """The relative addresses of the app and of Airflow, as seen from the requested page."""
    path = request.url.path
    root_path = str(request.scope.get("root_path", ""))
    below = path[len(root_path) :] if path.startswith(root_path) else path
    depth = max(1, below.count("/"))
    return "../" * (depth - 1) or "./", "../" * depth
