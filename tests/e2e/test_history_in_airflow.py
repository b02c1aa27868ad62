"""Airflow's tables in a real Airflow: old rows are deleted, runs that have not ended stay."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from embedded import postgres
from embedded.airflow_api import AirflowApi
from embedded.platform import Platform
from include.airflow import history
from include.error_codes import Code
from include.errors import NonRetryableError
from tests.errors import raises
from tests.integration.registry import ask, change
from tests.polling import until

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

DAG = "maintain__history"
WAITING = "maintain__datasets"
OLD = timedelta(days=60)


@pytest.fixture
def metadata(airflow_platform: Platform) -> Iterator[Connection]:
    home = airflow_platform.home
    with closing(postgres.connect(home, home.state()["ports"]["postgres"], "airflow")) as connection:
        yield connection


@pytest.fixture
def waiting(airflow_api: AirflowApi, metadata: Connection) -> Iterator[str]:
    """A run that began long ago and has not ended, like one that waits for an approval."""
    airflow_api.wait_for_dags([DAG, WAITING])
    # The scheduled run may have listed the unfinished runs before this one became old.
    ended = "SELECT run_id FROM dag_run WHERE dag_id = %s AND run_type = 'scheduled' AND state IN ('success', 'failed')"
    until("the end of the scheduled run", lambda: ask(metadata, ended, DAG), 200)
    airflow_api.pause(WAITING)
    run = airflow_api.trigger(WAITING).run_id
    change(
        metadata,
        "UPDATE dag_run SET state = 'running', start_date = now() - %s, queued_at = now() - %s WHERE run_id = %s",
        OLD,
        OLD,
        run,
    )
    yield run
    change(metadata, "DELETE FROM dag_run WHERE run_id = %s", run)
    airflow_api.unpause(WAITING)


def test_old_runs_are_deleted_and_waiting_ones_stay(
    airflow_api: AirflowApi, metadata: Connection, waiting: str
) -> None:
    airflow_api.wait_for_dags([DAG])
    run = airflow_api.trigger(DAG).run_id
    states = "SELECT state FROM dag_run WHERE run_id = %s AND state IN ('success', 'failed')"
    assert until("its end", lambda: ask(metadata, states, run), 200) == [("success",)]
    tasks = ask(metadata, "SELECT DISTINCT task_id FROM task_instance WHERE run_id = %s AND state = 'success'", run)
    assert {task for (task,) in tasks} == {"airflow_tables", "task_logs", "training", "ledger"}
    for table in ("dag_run", "task_instance"):
        change(metadata, f"UPDATE {table} SET start_date = start_date - %s WHERE run_id = %s", OLD, run)
    history.clean_airflow(datetime.now(UTC) - OLD / 2)
    left = [run for (run,) in ask(metadata, "SELECT run_id FROM dag_run")]
    assert run not in left
    assert waiting in left
    assert ask(metadata, "SELECT FROM task_instance WHERE run_id = %s", run) == []


def test_a_missing_database_url_is_an_error(airflow_platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(history.METADATA)
    with raises(Code.SETTING_MISSING, "MILLRACE_METADATA", kind=NonRetryableError):
        history.clean_airflow(datetime.now(UTC) - OLD)
