"""The link from a task in Airflow's UI to the page on its dataset or stream."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from airflow.sdk import BaseOperatorLink
from airflow.sdk.configuration import conf

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

DATASETS = ("train__", "publish__", "promote__")
STREAMS = ("land__", "replay__", "retry__")


class MillraceLink(BaseOperatorLink):
    """A button on every task of a DAG of Millrace. The api-server makes its address; tasks have no part in it."""

    @property
    def name(self) -> str:
        """The text of the button."""
        return "Millrace"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """The address of the page, or nothing for a DAG that is not of Millrace."""
        return address(ti_key.dag_id, ti_key.run_id)


def name_of(dag_id: str, prefixes: tuple[str, ...]) -> str | None:
    """The dataset or the stream in the id of a DAG; None if the id has none of the prefixes."""
    return next((dag_id.removeprefix(prefix) for prefix in prefixes if dag_id.startswith(prefix)), None)


def address(dag_id: str, run_id: str) -> str:
    """The address of the page on a run of a DAG, within Airflow's UI; empty for a DAG that is not of Millrace."""
    root = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")
    if (stream := name_of(dag_id, STREAMS)) is not None:
        return f"{root}/plugin/millrace-streams{root}/millrace/streams/{quote(stream, safe='')}"
    if (dataset := name_of(dag_id, DATASETS)) is not None:
        query = f"?run={quote(run_id, safe='')}" if dag_id.startswith("train__") else ""
        return f"{root}/plugin/millrace-models{root}/millrace/models/{quote(dataset, safe='')}{query}"
    return ""
