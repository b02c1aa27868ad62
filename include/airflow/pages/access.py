"""Who may see and do what on the pages: Airflow's own permissions, whichever auth manager is in use.

Two checks stand before every answer. ``Guard`` wraps the whole app: it refuses callers who are not signed in or lack
the permission on *Plugins*, and unsafe requests of other sites. Each route then names the DAG whose permission it
needs, with a dependency such as ``on_dataset("GET")``; ``tests/e2e/test_pages_access.py`` finds a route without one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import bearer_scheme, get_user
from airflow.models.dag import DagModel
from fastapi import HTTPException, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

if TYPE_CHECKING:
    from airflow.api_fastapi.auth.managers.base_auth_manager import ResourceMethod
    from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

# The SHA-256 of the style of a map control, which plotly.js adds to the page when it loads.
PLOTLY_STYLE = "sha256-ji27qzEtxXZW+7dun6UwjHXJ18e6WAin1VvNtkzIE/o="
HEADERS = {
    # Scripts and styles come from this app only, so that a name or a reason that gets past the escaping runs nothing.
    "content-security-policy": (
        f"default-src 'none'; script-src 'self'; style-src 'self' '{PLOTLY_STYLE}'; img-src 'self' data:; "
        # plotly.js styles elements with attributes.
        "style-src-attr 'unsafe-inline'; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'self'; base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}

Refusal = Callable[[Request, int, str], Response]


class Forbidden(HTTPException):
    """The signed-in user lacks a permission. The detail says which one."""

    def __init__(self, detail: str) -> None:
        super().__init__(403, detail)


class Guard:
    """ASGI middleware that lets only signed-in users with access to Airflow's plugins through.

    It also refuses methods that change something unless the request comes from a page of this origin: the cookie of
    Airflow's session does not protect against other sites.

    Args:
        app: The app behind it.
        refuse: Makes the answer from the request, the status and a sentence.
    """

    def __init__(self, app: ASGIApp, refuse: Refusal) -> None:
        self.app = app
        self.refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                if b"cache-control" not in present:
                    own.append((b"cache-control", b"no-store"))
                message["headers"] = [*message["headers"], *(pair for pair in own if pair[0] not in present)]
            await send(message)

        try:
            if request.method not in SAFE_METHODS and not is_same_origin(request):
                raise Forbidden("This request comes from another site, so it is refused. Use the form on the page.")
            user = await _authenticate(request)
            plugins = get_auth_manager().is_authorized_view
            if not await run_in_threadpool(plugins, access_view=AccessView.PLUGINS, user=user):
                raise Forbidden("Your role lacks the permission to see Airflow's plugins, so these pages are closed.")
        except HTTPException as error:
            answer = self.refuse(request, error.status_code, error.detail)
            await answer(scope, receive, send_with_headers)
            return
        request.state.millrace_user = user
        await self.app(scope, receive, send_with_headers)


def is_same_origin(request: Request) -> bool:
    """Whether a page of this origin sent the request, or a client that is not a browser.

    Browsers send ``Sec-Fetch-Site`` or, the older ones, ``Origin``. A client that sends neither is let through only
    with a token of its own in ``Authorization``, which no other site can set.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin")
    if origin is not None:
        return urlsplit(origin).netloc == request.headers.get("host")
    return request.headers.get("authorization", "").lower().startswith("bearer ")


async def _authenticate(request: Request) -> BaseUser:
    """The signed-in user. Raises HTTPException with status 401, also for a token that is not valid."""
    try:
        return await get_user(request, None, await bearer_scheme(request))
    except HTTPException as error:
        raise HTTPException(401, "You are not signed in to Airflow, or your session has ended.") from error


def user(request: Request) -> BaseUser:
    """The user whom ``Guard`` has let through; usable as a dependency."""
    found: BaseUser = request.state.millrace_user
    return found


def username(request: Request) -> str:
    """The name under which an action of this user is recorded; usable as a dependency."""
    return user(request).get_name()


def dag_of_dataset(dataset: str) -> str:
    """The DAG whose permissions decide about a dataset."""
    return f"train__{dataset}"


def dag_of_stream(stream: str) -> str:
    """The DAG whose permissions decide about a stream."""
    return f"land__{stream}"


def may(request: Request, method: ResourceMethod, dag_id: str, entity: DagAccessEntity | None = None) -> bool:
    """Whether the user may do this to a DAG, or to an entity of it such as its runs."""
    return get_auth_manager().is_authorized_dag(
        method=method,
        access_entity=entity,
        details=DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id)),
        user=user(request),
    )


def visible(request: Request, dag_ids: Collection[str]) -> set[str]:
    """The DAGs among these that the user may see, with as few questions to the auth manager as it allows."""
    teams = DagModel.get_dag_id_to_team_name_mapping(list(dag_ids))
    by_team: dict[str | None, set[str]] = {}
    for dag_id in dag_ids:
        by_team.setdefault(teams.get(dag_id), set()).add(dag_id)
    manager, own = get_auth_manager(), user(request)
    found = (
        manager.filter_authorized_dag_ids(dag_ids=ids, user=own, method="GET", team_name=team)
        for team, ids in by_team.items()
    )
    return set().union(*found)


def require(request: Request, method: ResourceMethod, dag_id: str, entity: DagAccessEntity | None = None) -> None:
    """See ``may``. Raises Forbidden."""
    if not may(request, method, dag_id, entity):
        what = "see" if method == "GET" else "change"
        of = f" ({entity.value.lower()})" if entity is not None else ""
        raise Forbidden(
            f"Your role lacks the permission to {what} the DAG {dag_id}{of}. Ask an administrator of Airflow."
        )


def _checks(check: Callable[..., str]) -> Callable[..., str]:
    """Marks a dependency as one that checks a permission; a test requires one on every route."""
    check.checks_access = True  # type: ignore[attr-defined]
    return check


def on_dataset(method: ResourceMethod, entity: DagAccessEntity | None = None) -> Callable[..., str]:
    """A dependency that checks the permission on the DAG of the dataset in the path, and returns the dataset's name."""

    def check(dataset: str, request: Request) -> str:
        require(request, method, dag_of_dataset(dataset), entity)
        return dataset

    return _checks(check)


def on_stream(method: ResourceMethod, entity: DagAccessEntity | None = None) -> Callable[..., str]:
    """A dependency that checks the permission on the DAG of the stream in the path, and returns the stream's name."""

    def check(stream: str, request: Request) -> str:
        require(request, method, dag_of_stream(stream), entity)
        return stream

    return _checks(check)


def on_dag(method: ResourceMethod, entity: DagAccessEntity | None = None) -> Callable[..., str]:
    """A dependency that checks the permission on the DAG in the parameter ``dag``, and returns its id."""

    def check(dag: str, request: Request) -> str:
        require(request, method, dag, entity)
        return dag

    return _checks(check)


@_checks
def on_all_dags(request: Request) -> str:
    """A dependency that checks the permission to see every DAG, for what shows all of them at once."""
    if not get_auth_manager().is_authorized_dag(method="GET", user=user(request)):
        raise Forbidden("Your role lacks the permission to see all DAGs. Ask an administrator of Airflow.")
    return ""


@_checks
def only_plugins(request: Request) -> str:
    """A dependency of routes that need no more than ``Guard`` checks, and of lists that filter by ``visible``."""
    return username(request)
