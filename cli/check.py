"""check: every definition is read, compared with what its stream's table is, and with what is there of others."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from include.errors import NonRetryableError, UserError

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

    from embedded.airflow_api import AirflowApi
    from include.datasets import Dataset
    from include.definitions import Found
    from include.orphans import Orphan
    from include.streams.definition import Stream

# More intervals than this are not counted: there may be a hundred thousand.
MAX_DUE = 1_000
# `check` does not wait for servers that are down.
PATIENCE_S = 3


@click.command()
def check() -> None:
    """Validate every dataset and stream definition without starting anything. Exits with 1 when one is wrong.

    The source of a dataset is opened: a file of up to 4 MiB is looked at as publishing looks at it, of a larger one the
    header and the first rows. A query is described by PostgreSQL and not run, while that is up.
    It says what a dataset's schedule will do, and while Airflow is up whether that is paused.
    While PostgreSQL is up it also shows what the next run of a stream will change in its table, and what is orphaned:
    tables, topics, versions and results that no definition names any more. Nothing is changed or deleted.
    """
    import include.datasets.definitions
    import include.streams.definitions

    datasets, streams = include.datasets.definitions.find(), include.streams.definitions.find()
    wrong: list[UserError] = [*datasets.broken.values(), *streams.broken.values()]
    remarks: list[str] = []
    connection, away = None, None
    try:
        connection = _warehouse()
    except UserError as error:
        away = error
    unsound = _unsound(datasets.valid, remarks, away)
    wrong += unsound.values()
    airflow = _airflow()
    for name, dataset in sorted(datasets.valid.items()):
        if name not in unsound:
            click.echo(f"dataset  {name}: good")
            for line in _schedule(dataset, airflow):
                click.echo(f"         {line}")
    if away is not None:
        for name in sorted(streams.valid):
            click.echo(f"stream   {name}: good")
        remarks.append(f"tables were not compared, nor orphans looked for: {away.what}")
    if connection is not None:
        wrong += _compare(connection, streams.valid.values())
        remarks += _orphans(connection, datasets, streams)
        connection.close()
    for remark in remarks:
        click.echo(remark)
    for found in wrong:
        click.echo(f"wrong    {found}", err=True)
    if wrong:
        sys.exit(1)


def _airflow() -> AirflowApi | None:
    """None when Airflow is not up."""
    from embedded.airflow_api import AirflowApi
    from embedded.platform import Platform

    try:
        airflow = AirflowApi.of(Platform())
        airflow.dag_ids()
    except UserError:
        return None
    return airflow


def _schedule(dataset: Dataset, airflow: AirflowApi | None) -> Iterator[str]:
    """What the dataset's schedule will do, and whether anything keeps it from that."""
    from include.airflow import dag_runs

    dag_id = f"publish__{dataset.name}"
    known: dict[str, Any] | None = None
    if airflow is not None:
        # One that it does not know yet is refused.
        with suppress(UserError):
            known = airflow.call("GET", f"dags/{dag_id}")
    if known and known["is_paused"]:
        yield f"{dag_id} is paused: its schedule does not run, and backfills of it wait"
        yield f"to let it run: ./millrace airflow dags unpause {dag_id}"
    if dataset.schedule is None:
        return
    # A DAG that had no schedule so far begins like one that Airflow does not know yet.
    begun = known is not None and known["timetable_summary"] is not None
    since = known["next_dagrun_run_after"] if known and begun else None
    now = datetime.now(UTC)
    due = 0 if begun and not since else dag_runs.due(dataset, since and datetime.fromisoformat(since), now, MAX_DUE + 1)
    number = f"more than {MAX_DUE:,}" if due > MAX_DUE else f"{due:,}"
    span = f"from {dataset.start}" + (f" to {dataset.end}" if dataset.end else " on")
    yield f"schedule {dataset.schedule!r} {span}: a version for each interval, the oldest first"
    if begun:
        yield f"versions due now: {number}; next run: {since or 'none, its end is reached'}"
    else:
        yield f"versions due now: {number}; they are published and trained as soon as Airflow has read the definition"


def _unsound(datasets: Mapping[str, Dataset], remarks: list[str], away: UserError | None) -> dict[str, UserError]:
    """What is wrong with the models and the sources of datasets, by the dataset's name.

    Args:
        remarks: Gets what could not be looked at.
        away: Why PostgreSQL cannot be asked; None when it can.
    """
    from include.datasets import Query
    from include.training.preparation import require_storable

    found: dict[str, UserError] = {}
    for name, dataset in sorted(datasets.items()):
        try:
            require_storable(dataset)
            if away is not None and isinstance(dataset.source, Query):
                remarks.append(f"the query of the dataset {name} was not looked at: {away.what}")
            else:
                _require_usable(dataset)
        except UserError as error:
            found[name] = error
        except Exception as error:
            # A source of one's own, or a function of a package, may raise anything.
            found[name] = UserError(
                f"Dataset {name!r}, field source: {dataset.source} raises {type(error).__name__}: {error}."
            )
    return found


def _require_usable(dataset: Dataset) -> None:
    """Refuses a source whose rows cannot be published, as far as can be seen at once."""
    from include.airflow import dag_runs
    from include.versions.selection import NothingToPublish, require_usable

    with dataset.source.beginning() as scan:
        if scan is None:
            return
        try:
            require_usable(dataset, scan, dag_runs.latest(dataset, datetime.now(UTC)))
        except NothingToPublish:
            # An interval without rows is skipped; the next one may have some.
            if dataset.schedule is None:
                raise


def _warehouse() -> Connection:
    """Raises UserError when PostgreSQL is not up."""
    from embedded.platform import Platform

    os.environ.update(Platform().environment())

    from include.warehouse.connection import connect

    return connect("millrace check", connect_timeout=PATIENCE_S)


def _compare(connection: Connection, streams: Iterable[Stream]) -> list[UserError]:
    """Shows what the streams will do to their tables; gives what would stop them."""
    from include.landing import table
    from include.landing.locks import Locked

    stopped: list[UserError] = []
    for stream in sorted(streams, key=lambda stream: stream.name):
        try:
            changes = table.find_changes(connection, stream)
        except NonRetryableError as error:
            stopped.append(error)
            continue
        except Locked as locked:
            click.echo(f"stream   {stream.name}: good, but not compared with its table. {locked.what}")
            continue
        click.echo(f"stream   {stream.name}: good")
        for change in changes:
            click.echo(f"         its next run will {change.description}")
        for column in table.left_over(connection, stream):
            click.echo(f"         landing.{stream.name}.{column} stays, named by no field; new rows hold null there")
    return stopped


def _orphans(connection: Connection, datasets: Found[Dataset], streams: Found[Stream]) -> Iterator[str]:
    """What is orphaned, and what could not be looked at."""
    import psycopg2

    try:
        found = list(_found(connection, datasets, streams))
    except psycopg2.errors.UndefinedTable:
        yield "orphans were not looked for: the warehouse has not been migrated yet (./millrace up does it)"
        return
    except UserError as error:
        yield f"orphans were not looked for: {error.what}"
        return
    for orphan in found:
        yield f"orphan   {orphan}"
    if found:
        yield "no definition names what is orphaned; nothing of it is deleted"
    for kind, broken in (("dataset", datasets.broken), ("stream", streams.broken)):
        if broken:
            yield f"orphaned {kind}s were not looked for, as a definition that cannot be read may name them"


def _found(connection: Connection, datasets: Found[Dataset], streams: Found[Stream]) -> Iterator[Orphan]:
    from include import orphans
    from include.kafka import topics

    if not streams.broken:
        yield from orphans.streams(connection, streams.valid)
    if not datasets.broken:
        yield from orphans.datasets(connection, datasets.valid, topics.names(PATIENCE_S))
