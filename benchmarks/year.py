"""A year of daily windows in fast motion: streams with retention, versions with keep, promotions, Airflow's tables.

Every day events land in the partitions of that day, a version is published, trained on and judged, and the work of
``maintain__streams``, ``maintain__datasets`` and ``maintain__history`` is done by the clock of that day. Sizes are
taken at the end of each quarter. At the end nothing may wait, no size may grow without end, and all is verified.
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
from include.errors import UserError
from include.warehouse.connection import connected

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

DATABASE = "bench_year"
QUARTERS = 4
GROWTH, SLACK = 1.25, 20
# What is kept for good: a few rows for each version, for each change of champion, and for each record kept aside.
FOR_GOOD = {
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
# PostgreSQL's clock in a database of its own: what asks for the time gets that of the year, column defaults included.
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
    """For how many days things are kept in a year of 365 days; versions are one a day."""

    versions: int = 30
    rows: int = 30
    in_kafka: int = 45
    ledger: int = 30
    models: int = 60
    run_logs: int = 60
    airflow: int = 30

    @classmethod
    def in_a_year_of(cls, days: int) -> Kept:
        """The same share of a shorter year, so that what is old goes from its second quarter on."""
        return cls(**{name: max(4, round(kept * days / 365)) for name, kept in asdict(cls()).items()})


@dataclass
class Year:
    """The days so far.

    Args:
        a_drain_lasts: Days until the next drain takes over.

    Attributes:
        sizes: What was kept at the end of each quarter: how many, or bytes, by what it is.
        seconds: How long the parts of the days took.
    """

    landing: Landing
    retraining: Retraining
    kept: Kept
    days: int
    a_drain_lasts: int = 1
    sizes: dict[int, dict[str, int]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def live(self, connection: Connection, metadata: Connection | None, logs: Path) -> Iterator[int]:
        """Lives the days; yields the number of each at its end.

        Args:
            metadata: Airflow's database, unless it is left out.
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
        """What is stuck, what grows, and what is not verified; empty when the year has ended well."""
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
            # It is a program of its own, which takes seconds to begin.
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
    """What grew without end: the second quarter, when what is old begins to go, against the last.

    What is kept for good may grow by as much in the last quarter as in the second.
    """
    first, second, *_, third, last = sizes
    found = []
    for name, size in last.items():
        if name in FOR_GOOD:
            grown, before = size - third[name], second[name] - first[name]
            if grown > GROWTH * before + SLACK:
                found.append(f"{name} grew by {grown:,} in the last quarter, by {before:,} in the second")
        elif size > GROWTH * second[name] + SLACK:
            found.append(f"{name} grew from {second[name]:,} to {size:,} since the second quarter")
    return found


@contextmanager
def fast_warehouse(days: int) -> Iterator[Connection]:
    """A migrated warehouse of its own, whose clock is the given number of days behind."""
    with own_warehouse(DATABASE, _CLOCK.format(behind=-days, database=DATABASE)), connected("bench") as connection:
        yield connection


def main(json_path: str | None = None, days: int = 365) -> None:
    """Lives a year, prints what was kept at the end of each quarter, and verifies it.

    Raises:
        UserError: Something is stuck, grows without end, or is not verified.
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
        raise UserError("The year did not end well: " + "; ".join(wrong) + ".")


def _report(year: Year, wrong: Sequence[str], took: float, json_path: str | None) -> None:
    quarters = list(year.sizes.values())
    names = sorted(quarters[-1], key=lambda name: (name in FOR_GOOD, name))
    # What stays empty or small is not worth a line.
    shown = [name for name in names if name in FOR_GOOD or quarters[-1][name] > SLACK]
    notes = [f"Took {took:.0f} s: " + ", ".join(f"{what} {spent:.0f} s" for what, spent in year.seconds.items()) + "."]
    if not wrong:
        notes.append(
            f"Sizes flat but for what is kept for good, nothing stuck; verify stream and verify run of the last "
            f"{len(year.retraining.runs[-year.kept.versions :])} versions pass."
        )
    figures.show(
        f"A year of {year.days} daily windows in fast motion: what is kept at the end of each quarter",
        ["", *(f"day {day}" for day in year.sizes), ""],
        [
            [name, *(f"{size[name]:,}" for size in quarters), "kept for good" if name in FOR_GOOD else ""]
            for name in shown
        ],
        notes,
    )
    results = {"sizes": year.sizes, "wrong": list(wrong), "seconds": year.seconds}
    figures.write(json_path, results, {}, days=year.days, kept=vars(year.kept), cpus=os.cpu_count())


def _next_day(connection: Connection) -> datetime:
    """Moves the clock of the year on by a day, and returns what it shows."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE fast.clock SET ahead = ahead + interval '1 day'")
        connection.commit()
        cursor.execute("SELECT clock_timestamp()")
        (today,) = cursor.fetchone() or (None,)
    connection.rollback()
    assert isinstance(today, datetime)
    return today
