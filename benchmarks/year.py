"""A simulated year of daily windows: streams with retention, versions with ``keep``, promotions, Airflow's tables.

Each day, events land in that day's partition, a version is published, trained on and judged, and the DAGs
``maintain__streams``, ``maintain__datasets`` and ``maintain__history`` do their work by that day's clock. Sizes are
measured at the end of each quarter. At the end nothing may wait, no size may keep growing, and everything is verified.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import figures, year_of_airflow
from benchmarks.out_of_core import own_warehouse
from benchmarks.peers import topic
from benchmarks.year_of_landing import Landing
from benchmarks.year_of_retraining import Retraining
from include.airflow import history
from include.error_codes import Code
from include.errors import UserError
from include.warehouse.connection import connected

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

DATABASE = "bench_year"
QUARTERS = 4
GROWTH, SLACK = 1.25, 20
# Kept permanently: a few rows for each version, each change of champion and each dead letter.
PERMANENT = {
    f"millrace.{name}"
    for name in (
        *("dataset_version", "training_run", "model_result", "metric", "class_metric", "slice_metric", "confusion"),
        *(
            "repeats",
            "gate",
            "verdict",
            "score",
            "champion_change",
            "artifact",
            "approval",
            "verification",
            "dead_letter",
        ),
    )
}
# PostgreSQL's clock in the temporary database: every query and column default gets the time of the simulated year.
_CLOCK = """
CREATE SCHEMA fast;
CREATE TABLE fast.clock (ahead interval NOT NULL);
INSERT INTO fast.clock VALUES (make_interval(days => {behind}));
CREATE FUNCTION fast.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
    AS 'SELECT pg_catalog.clock_timestamp() + ahead FROM fast.clock';
CREATE FUNCTION fast.now() RETURNS timestamptz LANGUAGE sql STABLE
    AS 'SELECT pg_catalog.now() + ahead FROM fast.clock';
GRANT USAGE ON SCHEMA fast TO warehouse;
GRANT SELECT, UPDATE ON fast.clock TO warehouse;
ALTER DATABASE {database} SET search_path = fast, pg_catalog, public;
"""


@dataclass(frozen=True)
class Kept:
    """How many days things are kept in a year of 365 days; there is one version a day."""

    versions: int = 30
    rows: int = 30
    in_kafka: int = 45
    ledger: int = 30
    models: int = 60
    run_logs: int = 60
    airflow: int = 30

    @classmethod
    def in_a_year_of(cls, days: int) -> Kept:
        """The same share of a shorter year, so that old data is deleted from its second quarter on."""
        return cls(**{name: max(4, round(kept * days / 365)) for name, kept in asdict(cls()).items()})


@dataclass
class Year:
    """A simulated year.

    Args:
        a_drain_lasts: Days until the next drain takes over.

    Attributes:
        sizes: By day, at the end of each quarter: row counts or bytes, by name.
        seconds: The time that each part of the work took.
    """

    landing: Landing
    retraining: Retraining
    kept: Kept
    days: int
    a_drain_lasts: int = 1
    sizes: dict[int, dict[str, int]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def live(self, connection: Connection, metadata: Connection | None, logs: Path) -> Iterator[int]:
        """Simulates the days; yields the number of each at its end.

        Args:
            metadata: Airflow's database, or None to leave it out.
            logs: The directory of the tasks' logs.
        """
        ends = [self.days * (number + 1) // QUARTERS for number in range(QUARTERS)]
        for day in range(self.days):
            today = _next_day(connection)
            if day % self.a_drain_lasts == 0:
                self.landing.take_over()
            with self._timed("retraining"):
                self.retraining.live(connection, day, today)
            with self._timed("landing"):
                self.landing.live(connection, today)
            with self._timed("maintenance"):
                self._maintain(connection, today)
            with self._timed("Airflow"):
                self._clean(metadata, logs, day, today)
            if day + 1 in ends:
                self.sizes[day + 1] = self._measure(connection, metadata, logs)
            yield day + 1

    def wrong(self, connection: Connection) -> list[str]:
        """What waits, what keeps growing, and what fails verification; empty after a good year."""
        return [
            *self._stuck(connection),
            *growing(list(self.sizes.values())),
            *self.landing.wrong(connection),
            *self.retraining.wrong(),
        ]

    def _maintain(self, connection: Connection, today: datetime) -> None:
        self.landing.upkeep(connection, today - timedelta(days=self.kept.ledger))
        history.remove_run_logs(connection, today - timedelta(days=self.kept.run_logs))
        history.empty_models(connection, today - timedelta(days=self.kept.models))

    def _clean(self, metadata: Connection | None, logs: Path, day: int, today: datetime) -> None:
        year_of_airflow.add_logs(logs, today)
        before = today - timedelta(days=self.kept.airflow)
        history.remove_logs(logs, before)
        if metadata is not None:
            year_of_airflow.add_day(metadata, today)
            # It starts a program, which takes seconds.
            if day % 15 == 14 or day == self.days - 1:
                history.clean_airflow(before)

    def _measure(self, connection: Connection, metadata: Connection | None, logs: Path) -> dict[str, int]:
        found: dict[str, int] = {}
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT relname, oid::regclass::text FROM pg_class"
                " WHERE relnamespace = 'millrace'::regnamespace AND relkind = 'r' ORDER BY relname"
            )
            for _, table in cursor.fetchall():
                cursor.execute(f"SELECT count(*) FROM {table}")
                (found[table],) = cursor.fetchone() or (0,)
            cursor.execute(
                "SELECT count(*) - 1, sum(pg_total_relation_size(relid)),"
                " (SELECT count(*) FROM landing.year),"
                " (SELECT count(*) FROM pg_class WHERE relnamespace = 'landing'::regnamespace AND relkind = 'r'),"
                " (SELECT sum(length(fitted) + length(unfitted) + length(outcomes)) FROM millrace.model_result)"
                " FROM pg_partition_tree('landing.year')"
            )
            names = ("partitions", "bytes of partitions", "rows landed", "tables of landing", "bytes of models")
            found |= {name: int(value) for name, value in zip(names, cursor.fetchone() or (), strict=True)}
        connection.rollback()
        found["messages of the stream"] = self.landing.messages()
        found["messages of the dataset"] = self.retraining.messages()
        return found | year_of_airflow.count(metadata, logs)

    def _stuck(self, connection: Connection) -> list[str]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT run, state FROM millrace.training_run WHERE state <> 'success'")
            found = [f"training run {run}: {state}" for run, state in cursor.fetchall()]
            cursor.execute(
                "SELECT count(*) FROM millrace.dataset_version AS version WHERE dataset = %s"
                " AND NOT EXISTS (SELECT FROM millrace.training_run AS run WHERE run.version = version.version)",
                (self.retraining.name,),
            )
            (waiting,) = cursor.fetchone() or (0,)
        connection.rollback()
        if waiting:
            found.append(f"{waiting} versions wait for their training")
        return found + self.landing.stuck(connection)

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[what] = self.seconds.get(what, 0.0) + time.monotonic() - started


def growing(sizes: Sequence[Mapping[str, int]]) -> list[str]:
    """What keeps growing: the last quarter compared with the second, in which deletion begins.

    What is kept permanently may grow by as much in the last quarter as in the second.
    """
    first, second, *_, third, last = sizes
    found = []
    for name, size in last.items():
        if name in PERMANENT:
            grown, before = size - third[name], second[name] - first[name]
            if grown > GROWTH * before + SLACK:
                found.append(f"{name} grew by {grown:,} in the last quarter, by {before:,} in the second")
        elif size > GROWTH * second[name] + SLACK:
            found.append(f"{name} grew from {second[name]:,} to {size:,} since the second quarter")
    return found


@contextmanager
def fast_warehouse(days: int) -> Iterator[Connection]:
    """A migrated temporary warehouse, whose clock is ``days`` days behind."""
    with own_warehouse(DATABASE, _CLOCK.format(behind=-days, database=DATABASE)), connected("bench") as connection:
        yield connection


def main(json_path: str | None = None, days: int = 365) -> None:
    """Simulates a year, prints the sizes at the end of each quarter, and verifies everything.

    Raises:
        UserError: Something waits, keeps growing, or fails verification.
    """
    name, kept = f"bench_year_{int(time.time())}", Kept.in_a_year_of(days)
    year = Year(Landing(f"{name}.events", kept.rows, kept.in_kafka), Retraining(name, days, kept.versions), kept, days)
    logging.disable(logging.INFO)
    started = time.monotonic()
    try:
        with ExitStack() as stack:
            connection = stack.enter_context(fast_warehouse(days))
            stack.enter_context(year.landing.ending(connection))
            metadata = stack.enter_context(year_of_airflow.own_metadata(f"{DATABASE}_airflow"))
            logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            for day in year.live(connection, metadata, logs):
                if day % 10 == 0:
                    figures.progress.print(f"day {day} of {days}, {time.monotonic() - started:.0f} s")
            figures.progress.print("verifying …")
            with year._timed("verify"):
                wrong = year.wrong(connection)
    finally:
        logging.disable(logging.NOTSET)
        for used in (year.landing.topic, year.retraining.dataset.topic):
            topic.forget(used)
    _report(year, wrong, time.monotonic() - started, json_path)
    if wrong:
        raise UserError("The year ended with errors: " + "; ".join(wrong) + ".", code=Code.BENCHMARK_FAILED)


def _report(year: Year, wrong: Sequence[str], took: float, json_path: str | None) -> None:
    quarters = list(year.sizes.values())
    names = sorted(quarters[-1], key=lambda name: (name in PERMANENT, name))
    # Small sizes are not shown.
    shown = [name for name in names if name in PERMANENT or quarters[-1][name] > SLACK]
    notes = [f"Took {took:.0f} s: " + ", ".join(f"{what} {spent:.0f} s" for what, spent in year.seconds.items()) + "."]
    if not wrong:
        notes.append(
            f"All sizes that are not permanent are flat, nothing waits; verify stream and verify run of the last "
            f"{len(year.retraining.runs[-year.kept.versions :])} versions pass."
        )
    figures.show(
        f"A simulated year of {year.days} daily windows: sizes at the end of each quarter",
        ["", *(f"day {day}" for day in year.sizes), ""],
        [[name, *(f"{size[name]:,}" for size in quarters), "permanent" if name in PERMANENT else ""] for name in shown],
        notes,
    )
    results = {"sizes": year.sizes, "wrong": list(wrong), "seconds": year.seconds}
    figures.write(json_path, results, {}, days=year.days, kept=vars(year.kept), cpus=os.cpu_count())


def _next_day(connection: Connection) -> datetime:
    """Moves the clock of the year by a day, and returns its time."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE fast.clock SET ahead = ahead + interval '1 day'")
        connection.commit()
        cursor.execute("SELECT clock_timestamp()")
        (today,) = cursor.fetchone() or (None,)
    connection.rollback()
    assert isinstance(today, datetime)
    return today
