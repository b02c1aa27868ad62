"""The scripts, styles and icons of the pages, and the charts' library from its package. None comes from elsewhere."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request
from starlette.responses import FileResponse, Response

from include.airflow.pages.access import only_plugins

DIRECTORY = Path(__file__).parent / "static"
CHARTS = "plotly.min.js"

router = APIRouter()


@cache
def files() -> dict[str, Path]:
    """Every static file by its name."""
    own = {file.name: file for file in DIRECTORY.iterdir() if file.is_file()}
    # Found and not imported: the package would import much that only its Python side needs.
    package = find_spec("plotly")
    assert package is not None and package.submodule_search_locations
    return {**own, CHARTS: Path(next(iter(package.submodule_search_locations))) / "package_data" / CHARTS}


@cache
def address(name: str) -> str:
    """The address of a static file, relative to the app. It changes with the content, so that it can be cached."""
    return f"static/{name}?v={hashlib.sha256(files()[name].read_bytes()).hexdigest()[:12]}"


@cache
def _compressed(name: str) -> bytes:
    """A large file, compressed once: Airflow's own middleware would do it in the event loop at each request."""
    return gzip.compress(files()[name].read_bytes(), 6)


@router.get("/static/{name}")
def static_file(name: str, request: Request, _: Annotated[str, Depends(only_plugins)]) -> Response:
    """A static file. Its address changes with its content, so that a browser asks for it once."""
    path = files().get(name)
    if path is None:
        raise HTTPException(404, "There is no such file.")
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    headers = {"cache-control": "private, max-age=31536000, immutable"}
    if name == CHARTS and "gzip" in request.headers.get("accept-encoding", ""):
        return Response(_compressed(name), headers={**headers, "content-encoding": "gzip"}, media_type=kind)
    return FileResponse(path, media_type=kind, headers=headers)
