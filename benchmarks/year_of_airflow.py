"""The Airflow side of a simulated year: the rows and task logs of a busy stream."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from psycopg2.extras import execute_values

from embedded import postgres
from embedded.home import Home
from include.airflow import history

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

RUNS = 288
LOGS = 8
PAGE = 2_000


@contextmanager
def own_metadata(name: str) -> Iterator[Connection]:
    """An empty database for Airflow, whose URL ``maintain__history`` uses."""
    home = Home.current()
    port = home.state()["ports"]["postgres"]
    usual = os.environ[history.METADATA]
    url = usual.rpartition("/")[0] + f"/{name}"
    with closing(postgres.connect(home, port)) as server, server.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        cursor.execute(f"CREATE DATABASE {name} OWNER airflow")
        environment = os.environ | {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url}
        command = [sys.executable, "-P", "-m", "airflow", "db", "migrate"]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        os.environ[history.METADATA] = url
        try:
            with closing(postgres.connect(home, port, name)) as metadata:
                yield metadata
        finally:
            os.environ[history.METADATA] = usual
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


def add_day(metadata: Connection, today: datetime) -> None:
    """Adds the rows of a busy stream's day: 288 runs of two tasks, each with an XCom and three events."""
    moments = [today - number * timedelta(days=1) / RUNS for number in range(RUNS)]
    dag, ids = "land__busy", [f"run_{moment:%Y-%m-%dT%H:%M:%S.%f}" for moment in moments]
    runs = list(zip(ids, moments, strict=True))
    tasks = [(name, one, at) for one, at in runs for name in ("wait", "drain")]
    with metadata.cursor() as cursor:
        execute_values(
            cursor,
            "INSERT INTO dag_run (dag_id, run_id, run_type, state, logical_date, run_after, start_date, end_date,"
            " queued_at, log_template_id, clear_number, created_at, updated_at, span_status) VALUES %s",
            [(dag, one, "scheduled", "success", *[at] * 5, None, 0, at, at, "ended") for one, at in runs],
            page_size=PAGE,
        )
        execute_values(
            cursor,
            "INSERT INTO task_instance (id, task_id, dag_id, run_id, map_index, start_date, end_date, state, pool,"
            " pool_slots, try_number, max_tries) VALUES %s",
            [(task, dag, one, -1, at, at, "success", "default_pool", 1, 1, 0) for task, one, at in tasks],
            "(gen_random_uuid(), %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            page_size=PAGE,
        )
        execute_values(
            cursor,
            "INSERT INTO xcom (dag_run_id, task_id, map_index, key, dag_id, run_id, value, timestamp)"
            " SELECT dag_run.id, given.task_id, -1, 'return_value', dag_run.dag_id, dag_run.run_id, '1', given.at"
            " FROM (VALUES %s) AS given (task_id, run_id, at)"
            " JOIN dag_run USING (run_id)",
            tasks,
            page_size=PAGE,
        )
        execute_values(
            cursor,
            "INSERT INTO log (dttm, dag_id, task_id, run_id, event) VALUES %s",
            [(at, dag, task, one, event) for task, one, at in tasks for event in ("running", "success", "state")],
            page_size=PAGE,
        )


def add_logs(directory: Path, today: datetime) -> None:
    """Writes task logs with the modification time of that day."""
    for number in range(LOGS):
        file = directory / f"dag_id=land__busy/run_id={today:%Y-%m-%d}/{number}.log"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("landed\n")
        for path in (file, file.parent):
            os.utime(path, (today.timestamp(), today.timestamp()))


def count(metadata: Connection | None, logs: Path) -> dict[str, int]:
    """The number of rows in Airflow's tables, and of files with task logs."""
    counts = {"task logs": sum(path.is_file() for path in logs.rglob("*"))}
    if metadata is None:
        return counts
    with metadata.cursor() as cursor:
        for table in ("dag_run", "task_instance", "xcom", "log"):
            cursor.execute(f"SELECT count(*) FROM {table}")
            (counts[f"airflow.{table}"],) = cursor.fetchone() or (0,)
    return counts
