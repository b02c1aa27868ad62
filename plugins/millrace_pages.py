"""The pages of Millrace in Airflow's UI; docs/pages.md describes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.plugins_manager import AirflowPlugin

from include.airflow.links import MillraceLink

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


async def pages(scope: Scope, receive: Receive, send: Send) -> None:
    """The app, imported at the first request: every task and every parser loads this file, and needs no app."""
    from include.airflow.pages import app

    await app.instance()(scope, receive, send)


def _view(name: str) -> dict[str, Any]:
    """An entry of the navigation. The UI resolves these addresses against its own base, which may have a prefix."""
    route = name.lower()
    return {
        "name": name,
        "href": f"millrace/{route}",
        "destination": "nav",
        "url_route": f"millrace-{route}",
        "icon": f"millrace/static/{route}.svg",
        "icon_dark_mode": f"millrace/static/{route}-dark.svg",
        "nav_top_level": True,
    }


APPS = [{"app": pages, "url_prefix": "/millrace", "name": "Millrace"}]
# Airflow 3.3 shows a tab on every DAG; from 3.4 on, applies_to limits it to ours.
TAGS = {"dag.tags.name": ["retraining", "landing"]}
TABS = [
    {
        "name": "Millrace",
        "href": href,
        "destination": destination,
        "url_route": f"millrace-{destination.replace('_', '-')}",
        "icon": "millrace/static/models.svg",
        "icon_dark_mode": "millrace/static/models-dark.svg",
        "applies_to": TAGS,
    }
    for destination, href in (
        ("dag", "millrace/dag?dag={DAG_ID}"),
        ("dag_run", "millrace/run?dag={DAG_ID}&run={RUN_ID}"),
    )
]
LINKS = [MillraceLink()]
VIEWS = [_view("Models"), _view("Streams"), *TABS]


class MillracePages(AirflowPlugin):
    """Mounts the app, and shows it in the navigation, as a tab, and as a link on tasks."""

    name = "millrace"
    fastapi_apps = APPS
    external_views = VIEWS
    global_operator_extra_links = LINKS
