"""Where the pages get their data: one pool of connections, one reader of lag, and Airflow's list of DAGs."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from airflow.models.dag import DagModel
from airflow.utils.session import create_session
from sqlalchemy import select

from include.pages.live_lag import LiveLag
from include.pages.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Mapping


@cache
def warehouse() -> Pool:
    """The connections of this process."""
    return Pool()


@cache
def lag() -> LiveLag:
    """The reader of lag of this process."""
    return LiveLag()


def paused_by_name(prefix: str) -> Mapping[str, bool]:
    """The names of Airflow's DAGs that begin with a prefix, without it, and whether each is paused."""
    with create_session() as session:
        rows = session.execute(
            select(DagModel.dag_id, DagModel.is_paused)
            .where(DagModel.dag_id.startswith(prefix, autoescape=True), DagModel.is_stale.is_(False))
            .order_by(DagModel.dag_id)
        )
        return {dag_id.removeprefix(prefix): bool(is_paused) for dag_id, is_paused in rows}
