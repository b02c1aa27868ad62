"""check: validates every definition, compares streams with their tables, and lists orphans."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from include.error_codes import Code
from include.errors import NonRetryableError, UserError
from include.kafka.sample import DEFAULT_RECORDS, MAX_RECORDS

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

    from embedded.airflow_api import AirflowApi
    from include.datasets import Dataset
    from include.definitions import Found
    from include.orphans import Orphan
    from include.streams.definition import Stream

# Stop counting due intervals here: there may be a hundred thousand.
MAX_DUE = 1_000
# The formats whose records name their schemas.
_WITH_SCHEMAS = ("avro", "protobuf", "json-schema")
# `check` does not wait longer for servers that are down.
TIMEOUT_S = 3


@click.command()
@click.argument("stream", required=False)
@click.option("--against-topic", is_flag=True, help="Decode a sample of the topic of STREAM, and show what would land.")
@click.option(
    "--sample",
    "records",
    type=click.IntRange(min=1, max=MAX_RECORDS),
    help=f"With --against-topic: how many records to read at most. Default: {DEFAULT_RECORDS:,}.",
)
def check(stream: str | None, against_topic: bool, records: int | None) -> None:
    """Validate every dataset and stream definition. Exits with 1 if one is wrong. Starts, changes and deletes nothing.

    With the name of a STREAM whose format is not json, compare every schema that is registered for its topic with the
    definition instead, and show which of them would stop the stream, and why.

    For a dataset, check opens the source: it reads a file of up to 4 MiB completely, of a larger file the header and
    the first rows. PostgreSQL describes a query without running it. check also shows the schedule, and whether Airflow
    has paused it.

    For a stream, check shows what its next run will change in its table, and whether PostgreSQL has too little room for
    the locks of all of its partitions.

    While PostgreSQL is up, check also lists orphans: tables, topics, versions and results that no definition names.

    With STREAM and --against-topic, check instead reads a sample of the stream's topic: records from the beginning of
    each partition, from its end and from between. It decodes them with the present definition, and shows how many would
    land, why others would not, and which of their fields the definition does not have. Exits with 1 if one would become
    a dead letter or be quarantined.
    """
    if (against_topic and stream is None) or (records is not None and not against_topic):
        raise click.UsageError("--against-topic needs a STREAM, and --sample needs --against-topic.")
    if stream is None:
        _check_all()
    elif against_topic:
        sys.exit(0 if _fits(stream, records or DEFAULT_RECORDS) else 1)
    else:
        _check_schemas(stream)


def _fits(name: str, records: int) -> bool:
    """Prints what would become of a sample of a stream's topic. Returns whether all records would land."""
    from cli import topic_sample
    from include.streams import definitions

    definition = definitions.get(name)
    found = [
        topic_sample.show(definition, topic_sample.read(topic, records)) for topic in topic_sample.topics_of(definition)
    ]
    return all(found)


def _check_all() -> None:
    """Validates every definition, and lists orphans."""
    import include.datasets.definitions
    import include.streams.definitions

    datasets, streams = include.datasets.definitions.find(), include.streams.definitions.find()
    wrong: list[UserError] = [*datasets.broken.values(), *streams.broken.values()]
    remarks: list[str] = []
    connection, unavailable = None, None
    try:
        connection = _warehouse()
    except UserError as error:
        unavailable = error
    wrong += _wrong_notifiers([*datasets.valid.values(), *streams.valid.values()])
    unusable = _unusable(datasets.valid, remarks, unavailable)
    wrong += unusable.values()
    airflow = _airflow()
    for name, dataset in sorted(datasets.valid.items()):
        if name not in unusable:
            click.echo(f"dataset  {name}: valid")
            for line in _schedule(dataset, airflow):
                click.echo(f"         {line}")
    if unavailable is not None:
        for name in sorted(streams.valid):
            click.echo(f"stream   {name}: valid")
        remarks.append(f"Tables were not compared, and orphans were not searched for: {unavailable.what}")
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


def _check_schemas(name: str) -> None:
    """Prints how each registered schema of a stream's topic fits the definition. Exits with 1 if one does not."""
    from cli import topic_sample
    from embedded.platform import Platform
    from include.landing.decoding import comparison
    from include.streams import definitions

    stream = definitions.get(name)
    parts = [of_key for of_key, form in ((False, stream.format), (True, stream.key_format)) if form in _WITH_SCHEMAS]
    if not parts:
        raise UserError(
            f"The stream {stream.name!r} has format='json', so its records name no schema.",
            "Run ./millrace check without a name, or with --against-topic.",
            code=Code.INVALID_USAGE,
        )
    os.environ.update(Platform().environment())
    stops = False
    for topic in topic_sample.topics_of(stream):
        own = stream.of_topic(topic)
        for of_key in parts:
            subject = own.key_subject if of_key else own.subject
            compared = comparison.compare(own, of_key=of_key)
            if not compared:
                click.echo(f"The registry {own.registry!r} has no schema for the subject {subject!r}.")
            for found in compared:
                click.echo(f"{subject} version {found.version}, schema id {found.schema_id}: {found.verdict}")
                for line in found.reasons:
                    click.echo(f"         {line}")
            stops |= any(found.stops for found in compared)
    if stops:
        sys.exit(1)


def _airflow() -> AirflowApi | None:
    """Airflow's API; None if Airflow is not up."""
    from embedded.airflow_api import AirflowApi
    from embedded.platform import Platform

    try:
        airflow = AirflowApi.of(Platform())
        airflow.dag_ids()
    except UserError:
        return None
    return airflow


def _schedule(dataset: Dataset, airflow: AirflowApi | None) -> Iterator[str]:
    """Lines about the dataset's schedule, and whether it is paused."""
    from include.airflow import dag_runs

    dag_id = f"publish__{dataset.name}"
    known: dict[str, Any] | None = None
    if airflow is not None:
        # Airflow refuses a DAG that it has not parsed yet.
        with suppress(UserError):
            known = airflow.call("GET", f"dags/{dag_id}")
    if known and known["is_paused"]:
        yield f"{dag_id} is paused: its schedule and its backfills do not run"
        yield f"to resume it: ./millrace airflow dags unpause {dag_id}"
    if dataset.schedule is None:
        return
    # A DAG that had no schedule before starts like one that Airflow has not parsed yet.
    begun = known is not None and known["timetable_summary"] is not None
    since = known["next_dagrun_run_after"] if known and begun else None
    now = datetime.now(UTC)
    due = 0 if begun and not since else dag_runs.due(dataset, since and datetime.fromisoformat(since), now, MAX_DUE + 1)
    number = f"more than {MAX_DUE:,}" if due > MAX_DUE else f"{due:,}"
    span = f"from {dataset.start}" + (f" to {dataset.end}" if dataset.end else " on")
    yield f"schedule {dataset.schedule!r} {span}: a version for each interval, the oldest first"
    if begun:
        yield f"versions due now: {number}; next run: {since or 'none, the schedule has ended'}"
    else:
        yield f"versions due now: {number}; they are published and trained once Airflow has parsed the definition"


def _unusable(
    datasets: Mapping[str, Dataset], remarks: list[str], unavailable: UserError | None
) -> dict[str, UserError]:
    """The errors of the models and sources of datasets, by the dataset's name.

    Args:
        remarks: The function adds what it could not check.
        unavailable: The error of the connection to PostgreSQL, if there is one.
    """
    from include.datasets import Query
    from include.training.preparation import require_storable

    found: dict[str, UserError] = {}
    for name, dataset in sorted(datasets.items()):
        try:
            require_storable(dataset)
            if unavailable is not None and isinstance(dataset.source, Query):
                remarks.append(f"The query of dataset {name!r} was not checked: {unavailable.what}")
            else:
                _require_usable(dataset)
        except UserError as error:
            found[name] = error
        except Exception as error:
            # A custom source, or the function of a package, may raise anything.
            found[name] = UserError(
                f"Dataset {name!r}, field source: {dataset.source} raised {type(error).__name__}: {error}.",
                "Correct the source.",
                code=Code.SOURCE_FAILED,
            )
    return found


def _wrong_notifiers(definitions: Iterable[Dataset | Stream]) -> Iterator[UserError]:
    """The errors of the field ``notify`` that only Airflow's classes show."""
    from include.datasets import Dataset

    for definition in definitions:
        if not definition.notify:
            continue
        from include.airflow import notifiers

        try:
            notifiers.of(definition)
        except UserError as error:
            kind = "Dataset" if isinstance(definition, Dataset) else "Stream"
            yield UserError(f"{kind} {definition.name!r}, field {error.what}", error.remedy, code=error.code)


def _require_usable(dataset: Dataset) -> None:
    """Raises the errors of publishing that the beginning of the source already shows."""
    from include.airflow import dag_runs
    from include.versions.selection import NothingToPublish, require_usable

    with dataset.source.beginning() as scan:
        if scan is None:
            return
        try:
            require_usable(dataset, scan, dag_runs.latest(dataset, datetime.now(UTC)))
        except NothingToPublish:
            # A schedule skips an interval without rows; the next one may have some.
            if dataset.schedule is None:
                raise


def _warehouse() -> Connection:
    """Connects to the warehouse. Raises UserError if PostgreSQL is not up."""
    from embedded.platform import Platform

    os.environ.update(Platform().environment())

    from include.warehouse.connection import connect

    return connect("millrace check", connect_timeout=TIMEOUT_S)


def _compare(connection: Connection, streams: Iterable[Stream]) -> list[UserError]:
    """Prints what the streams will change in their tables; returns the errors that would stop them."""
    from include.landing import lock_room, table
    from include.landing.locks import Locked

    stopped: list[UserError] = []
    for stream in sorted(streams, key=lambda stream: stream.name):
        try:
            changes = table.find_changes(connection, stream)
        except NonRetryableError as error:
            stopped.append(error)
            continue
        except Locked as locked:
            click.echo(f"stream   {stream.name}: valid, but not compared with its table. {locked.what}")
            continue
        click.echo(f"stream   {stream.name}: valid")
        for change in changes:
            click.echo(f"         its next run will {change.description}")
        for column in table.left_over(connection, stream):
            click.echo(f"         landing.{stream.name}.{column} is no longer a field; new rows have null there")
        if (shortage := lock_room.shortage(connection, stream)) is not None:
            click.echo(f"         {shortage}")
    return stopped


def _orphans(connection: Connection, datasets: Found[Dataset], streams: Found[Stream]) -> Iterator[str]:
    """Lines about orphans, and about what could not be checked."""
    import psycopg2

    try:
        found = list(_found(connection, datasets, streams))
    except psycopg2.errors.UndefinedTable:
        yield "Orphans were not searched for: the warehouse has no schema yet. Run ./millrace up."
        return
    except UserError as error:
        yield f"Orphans were not searched for: {error.what}"
        return
    for orphan in found:
        yield f"orphan   {orphan}"
    if found:
        yield "No definition names these orphans. Millrace does not delete them."
    for kind, broken in (("dataset", datasets.broken), ("stream", streams.broken)):
        if broken:
            yield f"Orphaned {kind}s were not searched for: a broken definition may name them."


def _found(connection: Connection, datasets: Found[Dataset], streams: Found[Stream]) -> Iterator[Orphan]:
    from include import orphans
    from include.kafka import topics

    if not streams.broken:
        yield from orphans.streams(connection, streams.valid)
    if not datasets.broken:
        yield from orphans.datasets(connection, datasets.valid, topics.names(TIMEOUT_S))
