"""verify: proofs, printed."""

import getpass
import os
import sys
from itertools import groupby
from typing import TYPE_CHECKING

import click

from embedded.platform import Platform

if TYPE_CHECKING:
    from include.training.verification import Verified


@click.group()
def verify() -> None:
    """Prove a training run, a stream or a dataset version. Exits with 1, and says what and where, when it fails."""


@verify.command()
@click.argument("stream")
def stream(stream: str) -> None:
    """Account for every offset of a stream's topic, and compare the rows with the records that Kafka still has."""
    from rich.console import Console
    from rich.table import Table

    from include.landing import proof
    from include.streams import definitions
    from include.warehouse.connection import connected

    definition = definitions.get(stream)
    os.environ.update(Platform().environment())
    with connected("millrace verify") as connection:
        found = proof.prove(connection, definition)
    if not found.windows and not found.wrong:
        click.echo(f"nothing of stream {stream!r} has landed yet")
        return
    several = len({window.incarnation for window in found.windows}) > 1
    shown = Table("partition", "offsets", "landed", "dead letters", "quarantined", "skipped", "no record")
    for (incarnation, partition), windows in groupby(found.windows, key=lambda window: window.place):
        entries = list(windows)
        shown.add_row(
            f"{partition} of topic {incarnation}" if several else str(partition),
            f"{entries[0].first:,} to {entries[-1].next - 1:,}",
            *(
                f"{sum(getattr(entry, fate) for entry in entries):,}"
                for fate in ("landed", "dead_letters", "quarantined", "skipped", "no_records")
            ),
        )
    Console(width=max(100, Console().width)).print(shown)
    click.echo(f"{found.compared:,} records of {definition.topic} compared with the tables, value by value")
    if found.dropped:
        click.echo(f"{found.dropped:,} rows are gone from the table, as retention allows")
    if found.unfilled:
        click.echo(f"{found.unfilled:,} rows wait for the values of new columns; ./millrace replay {stream} fills them")
    for wrong in found.wrong:
        click.echo(f"wrong: {wrong}", err=True)
    if found.wrong:
        sys.exit(1)
    click.echo("every offset below the position has exactly one fate")


@verify.command()
@click.argument("dataset")
@click.argument("version", required=False)
def version(dataset: str, version: str | None) -> None:
    """Read every message of a dataset's version again, and prove it.

    VERSION is its id or the beginning of it; the newest if left out.
    """
    from include.training import verification

    os.environ.update(Platform().environment())
    found = verification.verify_version(dataset, version, getpass.getuser())
    manifest = found.manifest
    rows = " and ".join(f"{count:,} {split}" for split, count in manifest.rows.items())
    click.echo(f"Version {manifest.short} of {dataset}: {rows} rows in {len(manifest.messages)} messages")
    _tell(found)


@verify.command()
@click.argument("run")
def run(run: str) -> None:
    """Fit every model of a training run again, from what is stored, and compare the predictions.

    RUN is its number, or its id in Airflow.

    \b
    identical                            the same predictions and metrics, with the same libraries
    same data, other library versions    the same predictions and metrics, although libraries are others
    different                            what differs is listed, and the exit code is 1
    """
    from include.training import verification

    os.environ.update(Platform().environment())
    found = verification.verify_run(run, getpass.getuser())
    manifest = found.manifest
    click.echo(f"Version {manifest.short} of {manifest.dataset}: {', '.join(found.models)} fitted again")
    _tell(found)


def _tell(found: "Verified") -> None:
    click.echo(str(found))
    if found.findings:
        sys.exit(1)
