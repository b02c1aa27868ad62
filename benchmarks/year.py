"""A year of daily windows in fast motion: versions with keep, promotions, and Airflow's tables.

Every day a version is published, trained on and judged, what nothing needs is forgotten, and once a week
`maintain__history` does its work, with the cut-offs that it would have on that day.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from psycopg2.extras import execute_values

from benchmarks import figures
from benchmarks.out_of_core import own_warehouse
from include import history
from include.datasets import Dataset, HashSplit
from include.datasets.sources import Source
from include.kafka import topics
from include.platform import postgres
from include.platform.home import Home
from include.promotion import turns
from include.training import dispatch, fitting, run
from include.training.verification import verify_run
from include.versions import retention
from include.versions.manifest import Interval
from include.versions.publication import publish
from include.warehouse.connection import connected

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

ROWS = 400
SEASONS = 4
KEEP = 30
DAY = timedelta(days=1)
BEGIN = datetime(2025, 1, 1, tzinfo=UTC)


@dataclass
class Window(Source):
    """The records of a day; what predicts the target is another feature in each season."""

    day: int = 0
    season: int = 0

    def rows(self, start: datetime | None, end: datetime | None) -> pa.Table:
        draw = np.random.default_rng(self.day)
        columns = {f"x{number}": draw.normal(size=ROWS) for number in range(SEASONS)}
        target = np.where(columns[f"x{self.season}"] > 0, "yes", "no")
        return pa.table({"id": np.arange(ROWS) + self.day * ROWS, **columns, "target": target})


@dataclass(frozen=True)
class Size:
    """What is kept at the end of a day.

    Attributes:
        messages: Of the dataset's topic in Kafka.
        models_mb: Stored models of training runs, and what they got right.
        log_lines: Of training runs.
        champions: Changes of champion so far.
        runs, tasks, xcoms, events: Rows of Airflow's tables.
    """

    day: int
    messages: int
    models_mb: float
    log_lines: int
    champions: int
    runs: int = 0
    tasks: int = 0
    xcoms: int = 0
    events: int = 0


@dataclass
class Year:
    """The days so far, and when each began by the servers' clocks: a day of the year takes a second of theirs."""

    dataset: Dataset
    days: int
    began: list[datetime] = field(default_factory=list)
    runs: list[int] = field(default_factory=list)

    def live(self, connection: Connection, keep_models: int, keep_logs: int, every: int = 7) -> Iterator[int]:
        """Lives the days; yields the number of each at its end.

        Args:
            keep_models, keep_logs: Days for which ``maintain__history`` keeps them.
            every: Days from one of its runs to the next.
        """
        for day in range(self.days):
            self.began.append(datetime.now(UTC))
            self._window(day)
            retention.forget(connection, self.dataset)
            if (day + 1) % every == 0:
                history.empty_models(connection, self._ago(keep_models))
                history.remove_run_logs(connection, self._ago(keep_logs))
            yield day

    def _window(self, day: int) -> None:
        source = self.dataset.source
        assert isinstance(source, Window)
        source.day, source.season = day, SEASONS * day // self.days
        version = publish(self.dataset, Interval(BEGIN + day * DAY, BEGIN + (day + 1) * DAY), asked_by="bench").version
        dispatch.land("bench")
        planned = run.begin(self.dataset, run.sealed_run_id(version), {"version": version, "seed": 0}, "bench")
        for task in planned:
            fitting.fit(self.dataset, task["run"], task["model"])
        run.settle(planned)
        turns.judge(self.dataset)
        self.runs.append(int(planned[0]["run"]))

    def _ago(self, days: int) -> datetime:
        return self.began[max(0, len(self.began) - 1 - days)]

    def measure(self, connection: Connection, day: int, metadata: Connection | None = None) -> Size:
        """What is kept now."""
        extents = topics.extents(self.dataset.topic, topics.describe(self.dataset.topic).partitions)
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT (SELECT coalesce(sum(length(fitted) + length(unfitted) + length(outcomes)), 0) / 1e6"
                " FROM millrace.model_result), (SELECT count(*) FROM millrace.run_log),"
                " (SELECT count(*) FROM millrace.reign)"
            )
            models, lines, champions = cursor.fetchone() or (0, 0, 0)
        connection.rollback()
        rows: list[int] = []
        if metadata is not None:
            with metadata.cursor() as cursor:
                for table in ("dag_run", "task_instance", "xcom", "log"):
                    cursor.execute(f"SELECT count(*) FROM {table}")
                    rows += cursor.fetchone() or (0,)
        messages = sum(extent.end - extent.first for extent in extents.values())
        return Size(day, messages, float(models), lines, champions, *rows)


def dataset(name: str, keep: int) -> Dataset:
    """A dataset of daily windows, of which the newest versions are kept."""
    return Dataset(
        name=name,
        source=Window(),
        record_id="id",
        target="target",
        split=HashSplit(test=0.5),
        models=_models,
        keep=f"{keep} versions",
    )


def main(json_path: str | None = None, days: int = 365) -> None:
    """Lives a year, prints what is kept at the end of each month, and proves what can be proven at its end."""
    with own_warehouse("bench_year"), _own_metadata("bench_year_airflow") as metadata, connected("bench") as connection:
        year = Year(dataset(f"bench_year_{int(time.time())}", KEEP), days)
        sizes: list[Size] = []
        started = time.monotonic()
        for day in year.live(connection, keep_models=100, keep_logs=365):
            _add_day(metadata, day)
            if day % 30 == 29 or day == days - 1:
                history.clean_airflow(BEGIN + (day - 30) * DAY)
                sizes.append(year.measure(connection, day + 1, metadata))
                print(sizes[-1], flush=True)
        took = time.monotonic() - started
        outcomes = [verify_run(number, "bench").outcome for number in year.runs[-KEEP:]]
    assert set(outcomes) == {"identical"}, outcomes
    rows = [[f"{v:,.1f}" if isinstance(v, float) else f"{v:,}" for v in asdict(size).values()] for size in sizes]
    figures.show(
        f"A year of {days} daily windows in {took:.0f} s",
        ["day", "messages", "models MB", "log lines", "champions", "runs", "tasks", "XComs", "events"],
        rows,
        [f"The runs on the {len(outcomes)} versions that are kept were derived again: identical."],
    )
    figures.write(json_path, {"sizes": [asdict(size) for size in sizes]}, {}, days=days, keep=KEEP)


def _models() -> dict[str, Any]:
    from sklearn.tree import DecisionTreeClassifier

    return {"tree": DecisionTreeClassifier(max_depth=3)}


@contextmanager
def _own_metadata(name: str) -> Iterator[Connection]:
    """An empty database of Airflow's, whose address is the one that ``maintain__history`` takes."""
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


def _add_day(metadata: Connection, day: int) -> None:
    """What a busy stream adds in a day: 288 runs of two tasks, each with an XCom and three events."""
    moments = [BEGIN + day * DAY + number * DAY / 288 for number in range(288)]
    dag, ids = "land__busy", [f"run_{moment:%Y-%m-%dT%H:%M:%S}" for moment in moments]
    runs = list(zip(ids, moments, strict=True))
    tasks = [(name, one, at) for one, at in runs for name in ("wait", "drain")]
    with metadata.cursor() as cursor:
        execute_values(
            cursor,
            "INSERT INTO dag_run (dag_id, run_id, run_type, state, logical_date, run_after, start_date, end_date,"
            " queued_at, log_template_id, clear_number, created_at, updated_at, span_status) VALUES %s",
            [(dag, one, "scheduled", "success", *[at] * 5, None, 0, at, at, "ended") for one, at in runs],
        )
        execute_values(
            cursor,
            "INSERT INTO task_instance (id, task_id, dag_id, run_id, map_index, start_date, end_date, state, pool,"
            " pool_slots, try_number, max_tries) VALUES %s",
            [(task, dag, one, -1, at, at, "success", "default_pool", 1, 1, 0) for task, one, at in tasks],
            "(gen_random_uuid(), %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        )
        execute_values(
            cursor,
            "INSERT INTO xcom (dag_run_id, task_id, map_index, key, dag_id, run_id, value, timestamp)"
            " SELECT dag_run.id, given.task_id, -1, 'return_value', dag_run.dag_id, dag_run.run_id, '1', given.at"
            " FROM (VALUES %s) AS given (task_id, run_id, at)"
            " JOIN dag_run USING (run_id)",
            tasks,
        )
        execute_values(
            cursor,
            "INSERT INTO log (dttm, dag_id, task_id, run_id, event) VALUES %s",
            [(at, dag, task, one, event) for task, one, at in tasks for event in ("running", "success", "state")],
        )
