"""The command group ``verify``: checks streams, runs and versions, and prints the result."""

import getpass
import os
import sys
from collections.abc import Mapping
from itertools import groupby
from typing import TYPE_CHECKING

import click

from embedded.platform import Platform

if TYPE_CHECKING:
    from include.training.verification import Verified


@click.group()
def verify() -> None:
    """Prove a training run, a stream or a dataset version. On failure it prints what is wrong and exits with 1."""


@verify.command()
@click.argument("stream")
def stream(stream: str) -> None:
    """Check that every offset of a stream's topic has one disposition, and compare rows with the records in Kafka."""
    from rich.console import Console
    from rich.table import Table

    from include.landing import proof
    from include.streams import definitions
    from include.warehouse.connection import connected

    definition = definitions.get(stream)
    os.environ.update(Platform().environment())
    with connected("millrace verify") as connection:
        found = proof.prove_and_store(connection, definition, getpass.getuser())
    if not found.entries and not found.wrong:
        click.echo(f"Stream {stream!r} has not landed any records yet.")
        return
    several = len({entry.incarnation for entry in found.entries}) > 1
    names = found.topics if definition.topics is not None else {}
    shown = Table("partition", "offsets", "landed", "dead letters", "quarantined", "filtered", "skipped", "no record")
    for (incarnation, partition), group in groupby(found.entries, key=lambda entry: entry.log):
        entries = list(group)
        shown.add_row(
            _place(incarnation, partition, names) if several else str(partition),
            f"{entries[0].first:,} to {entries[-1].next - 1:,}",
            *(
                f"{sum(getattr(entry, column) for entry in entries):,}"
                for column in ("landed", "dead_letters", "quarantined", "filtered", "skipped", "no_records")
            ),
        )
    Console(width=max(100, Console().width)).print(shown)
    click.echo(f"{found.compared:,} records of {definition.topic} were compared with the tables, value by value.")
    if found.dropped:
        click.echo(f"{found.dropped:,} rows are no longer in the table, because their retention is over.")
    if found.unfilled:
        click.echo(
            f"{found.unfilled:,} rows lack the values of new columns. Run ./millrace replay {stream} to fill them."
        )
    for wrong in found.wrong:
        click.echo(f"wrong: {wrong}", err=True)
    if found.wrong:
        sys.exit(1)
    click.echo("Every offset below the position has exactly one disposition.")


def _place(incarnation: int, partition: int, topics: Mapping[int, str]) -> str:
    """A partition of one of several topics: those of one name, or those of several, of which one may occur twice."""
    if incarnation not in topics:
        return f"{partition} of topic {incarnation}"
    name = topics[incarnation]
    is_unique = list(topics.values()).count(name) == 1
    return f"{partition} of {name}" if is_unique else f"{partition} of {name}, topic {incarnation}"


@verify.command()
@click.argument("dataset")
@click.argument("version", required=False)
def version(dataset: str, version: str | None) -> None:
    """Read every message of a dataset's version again, and check it against the manifest.

    VERSION is its id or the beginning of its id. The default is the newest version.
    """
    from include.training import verification

    os.environ.update(Platform().environment())
    found = verification.verify_version(dataset, version, getpass.getuser())
    manifest = found.manifest
    rows = " and ".join(f"{count:,} {split}" for split, count in manifest.rows.items())
    click.echo(f"Version {manifest.short} of {dataset}: {rows} rows in {len(manifest.messages)} messages")
    _print_result(found)


@verify.command()
@click.argument("run")
def run(run: str) -> None:
    """Fit every model of a training run again from the stored version, and compare the predictions.

    RUN is its number, or its id in Airflow.

    \b
    identical                            the same predictions and metrics, with the same libraries
    same data, other library versions    the same predictions and metrics, with other versions of libraries
    different                            the differences are listed, and the exit code is 1
    """
    from include.training import verification

    os.environ.update(Platform().environment())
    found = verification.verify_run(run, getpass.getuser())
    manifest = found.manifest
    click.echo(f"Version {manifest.short} of {manifest.dataset}: {', '.join(found.models)} fitted again")
    _print_result(found)


def _print_result(found: "Verified") -> None:
    click.echo(str(found))
    if found.findings:
        sys.exit(1)
