"""The commands `new dataset` and `new stream`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from include.kafka.sample import DEFAULT_RECORDS, MAX_RECORDS
from include.streams.definition import REGISTRY

if TYPE_CHECKING:
    from cli.scaffold.dataset import Data, Written


@click.group()
def new() -> None:
    """Write a dataset or stream definition for you to edit."""


@new.command()
@click.argument("name")
@click.option("--from-topic", "topic", metavar="TOPIC", help="Write the definition from a sample of this topic.")
@click.option(
    "--sample",
    "records",
    type=click.IntRange(min=1, max=MAX_RECORDS),
    help=f"With --from-topic: how many records to read at most. Default: {DEFAULT_RECORDS:,}.",
)
@click.option(
    "--registry",
    metavar="CONNECTION",
    help=f"With --from-topic: the Airflow connection to the topic's schema registry. Default: {REGISTRY}.",
)
def stream(name: str, topic: str | None, records: int | None, registry: str | None) -> None:
    """Write include/streams/NAME.py, a stream that runs without changes.

    With --from-topic, the command reads records from the beginning of each partition, from its end and from between. It
    writes the fields that they have, with their types, and comments that say how often the sample shows each. It
    neither joins a consumer group nor commits offsets.
    """
    from cli.scaffold.stream import free, write

    if topic is not None:
        free(name)
        _new_stream_from(topic, name, records or DEFAULT_RECORDS, registry or REGISTRY)
        return
    for option, value in (("--sample", records), ("--registry", registry)):
        if value is not None:
            raise click.UsageError(f"{option} needs --from-topic.")
    file = write(name)
    click.echo(f"Wrote {file}. Edit it, then run ./millrace check and ./millrace produce {name}.")
    click.echo(f"Its DAG is land__{name}, its table landing.{name}.")


def _new_stream_from(topic: str, name: str, records: int, registry: str) -> None:
    from cli import topic_sample
    from cli.scaffold import topic_stream

    sample = topic_sample.read(topic, records)
    written = topic_stream.write(name, sample, registry=registry)
    profile = written.profile
    for line in topic_stream.summary(profile):
        click.echo(f"  {line}")
    click.echo(f"  event time: {profile.time.field or 'the timestamp of the record in Kafka'}")
    for note in profile.time.notes:
        click.echo(f"    {note}")
    for line in topic_stream.unknown(profile.fields):
        click.echo(f"  not known: {line}")
    topic_sample.show(written.stream, sample)
    click.echo(f"Wrote {written.file}. Read its comments, edit it, and run ./millrace check {name} --against-topic.")
    click.echo(f"Its DAG is land__{name}, its table landing.{name}. The DAG is paused until you unpause it.")


def _types(_context: click.Context, _option: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    from include.datasets.sources.text import TYPES

    found = {}
    for value in values:
        column, _, kind = value.rpartition("=")
        if not column or kind not in TYPES:
            raise click.BadParameter(f"{value!r} is not COLUMN=TYPE with one of the types {', '.join(TYPES)}.")
        found[column] = kind
    return found


def _delimiter(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    return "\t" if value in ("\\t", "tab") else value


@new.command()
@click.argument("name")
@click.option("--from", "source", required=True, metavar="FILE", help="A CSV, other delimited text, or a Parquet file.")
@click.option("--target", help="The column to predict; the command asks for it by default.")
@click.option(
    "--kind", type=click.Choice(["classification", "regression"]), help="Whether the target is a class or a number."
)
@click.option("--id", "record_id", metavar="COLUMN", help="The column that identifies a record.")
@click.option(
    "--feature",
    "features",
    multiple=True,
    metavar="COLUMN",
    help="Learn from a column that would otherwise be left out. Repeatable.",
)
@click.option(
    "--types",
    multiple=True,
    metavar="COLUMN=TYPE",
    callback=_types,
    help="text, integer, number, boolean, date or timestamp, such as zip=text. Repeatable.",
)
@click.option("--header/--no-header", default=None, help="Whether the first line names the columns.")
@click.option("--delimiter", callback=_delimiter, help="The character between fields; 'tab' for a tab.")
@click.option("--quote", help="The character around fields with delimiters or line breaks.")
@click.option("--decimal", help="The decimal point.")
@click.option("--thousands", help="The separator of thousands.")
@click.option("--encoding", help="The encoding, such as utf-8, cp1252 or utf-16.")
@click.option("--null", "nulls", multiple=True, metavar="TEXT", help="A text that means a missing value. Repeatable.")
@click.option("--skip", type=click.IntRange(min=0), help="The number of lines before the header.")
@click.option("--comment", help="The beginning of lines that are not rows.")
def dataset(
    name: str,
    source: str,
    target: str | None,
    kind: Any,
    record_id: str | None,
    features: tuple[str, ...],
    types: dict[str, str],
    header: bool | None,
    **dialect: Any,
) -> None:
    """Write include/datasets/NAME.py, a dataset that publishes and trains without changes.

    The command detects the dialect and the encoding of the file, prints them, and writes them into the definition. An
    option replaces a detected value. The command also prints the role of each column, or why it leaves the column out.
    """
    from pathlib import Path

    from cli.scaffold import dataset as datasets
    from include.datasets.profiling import Answers, likely_target

    datasets.free(name)
    data = datasets.read(Path(source), header, types, **dialect)
    _show_data(data)
    if target is None:
        click.echo(f"{source} has the columns {', '.join(data.rows.column_names)}.")
        target = click.prompt("Which column should the models predict?", default=likely_target(data.rows))
    written = datasets.write(name, data, Answers(target, kind, record_id, features, types))
    _show_columns(written)
    click.echo(f"Wrote {written.file}. Edit it, then run ./millrace check and ./millrace publish {name}.")


def _show_data(data: Data) -> None:
    columns = len(data.rows.column_names)
    shown = [f"{data.path}: {data.rows.num_rows:,} rows, {columns} columns"]
    options = {name: value for name, value in data.options.items() if name not in ("names", "nulls")}
    if any(name.startswith("Unnamed: ") for name in data.options.get("names", ())):
        shown.append(f"the header names {columns - 1} of them")
        options.pop("skip")
    if nulls := data.options.get("nulls"):
        shown.append(f"missing values {', '.join(map(repr, nulls))}")
    if options:
        shown.append(", ".join(f"{name} {value!r}" for name, value in options.items()))
    click.echo("; ".join(shown))


def _show_columns(written: Written) -> None:
    from cli.scaffold.dataset import source_of
    from include.datasets.profiling import Role

    profile = written.profile
    if written.numbered:
        click.echo(f"record_id  {written.numbered}: the number of the row; no column identifies the records (--id)")
    for role in Role:
        for column in profile.columns:
            if column.role is role:
                click.echo(f"{role:<10} {column.column}: {column.why}")
    click.echo(f"kind       {profile.kind} (--kind); split {source_of(written.split)}")
