"""verify: proofs, printed."""

import os
import sys
from itertools import groupby

import click

from include.platform.platform import Platform


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
    for wrong in found.wrong:
        click.echo(f"wrong: {wrong}", err=True)
    if found.wrong:
        sys.exit(1)
    click.echo("every offset below the position has exactly one fate")
