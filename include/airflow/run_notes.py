"""The notes of DAG runs: each states its run's result in one line, so that Airflow's list of runs reads as a history.

Airflow 3.3.2 lets no task set the note of its run: the task's interface has none, and the REST API needs a user. So
tasks leave their results as XCom values, and a listener, Airflow's interface for plugins, puts them together when a run
ends. The scheduler calls it inside the transaction that ends the run, and stores the note with the run's state.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow.listeners import hookimpl

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun

KEY = "millrace_note"
MAX_NOTE = 1_000
"""As many characters as Airflow's REST API accepts."""

log = logging.getLogger(__name__)


def leave(result: str | Mapping[str, int]) -> None:
    """Leaves the result of the task that runs for the note of its run.

    Args:
        result: A phrase; or numbers by what they count, which are added up over the run's tasks.
    """
    from airflow.sdk import get_current_context

    get_current_context()["ti"].xcom_push(key=KEY, value=result if isinstance(result, str) else dict(result))


def text(results: Iterable[str | Mapping[str, int]]) -> str:
    """The note with these results."""
    counts: Counter[str] = Counter()
    phrases: list[str] = []
    for result in results:
        if isinstance(result, str):
            phrases.append(result)
        else:
            counts.update({what: int(count) for what, count in result.items()})
    if counts:
        # What was counted first is shown even if there is none of it.
        first = next(iter(counts))
        phrases.insert(0, ", ".join(f"{n:,} {what}" for what, n in counts.items() if n or what == first))
    whole = "; ".join(dict.fromkeys(phrases))
    return whole if len(whole) <= MAX_NOTE else f"{whole[: MAX_NOTE - 1]}…"


@hookimpl
def on_dag_run_success(dag_run: DagRun, msg: str) -> None:
    """Airflow calls this when a run has succeeded."""
    _write(dag_run)


@hookimpl
def on_dag_run_failed(dag_run: DagRun, msg: str) -> None:
    """Airflow calls this when a run has failed."""
    _write(dag_run)


def _write(dag_run: DagRun) -> None:
    """Stores the note, unless a person has written one. An error must not disturb the scheduler."""
    from airflow.models.dagrun import DagRunNote
    from airflow.models.xcom import XComModel
    from sqlalchemy import insert, select, update
    from sqlalchemy.orm import object_session

    try:
        session = object_session(dag_run)
        if session is None:
            return
        left = XComModel.get_many(run_id=dag_run.run_id, dag_ids=dag_run.dag_id, key=KEY)
        found: Iterable[Any] = session.scalars(left)
        rows = sorted(found, key=lambda row: (row.timestamp, row.map_index))
        note = text(map(XComModel.deserialize_value, rows))
        if not note:
            return
        connection, its = session.connection(), DagRunNote.dag_run_id == dag_run.id
        # A savepoint of the connection: the scheduler's session refuses commits, also those of its own savepoints.
        with connection.begin_nested():
            writers = connection.scalars(select(DagRunNote.user_id).where(its)).all()
            if not writers:
                connection.execute(insert(DagRunNote).values(dag_run_id=dag_run.id, content=note))
            elif writers == [None]:
                connection.execute(update(DagRunNote).where(its).values(content=note))
    except Exception:
        log.exception("The run %s of %s has no note.", dag_run.run_id, dag_run.dag_id)
