"""verify: proofs, printed."""

import os
import sys

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
    shown = Table("incarnation", "partition", "offsets", "landed", "dead letters", "quarantined", "skipped", "none")
    for window in found.windows:
        counts = (window.landed, window.dead_letters, window.quarantined, window.skipped, window.no_records)
        shown.add_row(
            str(window.incarnation),
            str(window.partition),
            f"{window.first:,} to {window.next - 1:,}",
            *(f"{count:,}" for count in counts),
        )
    Console().print(shown)
    click.echo(f"{found.compared:,} records of {definition.topic} compared with the tables, value by value")
    if found.dropped:
        click.echo(f"{found.dropped:,} rows are gone from the table, as retention allows")
    for wrong in found.wrong:
        click.echo(f"wrong: {wrong}", err=True)
    if found.wrong:
        sys.exit(1)
    click.echo("every offset below the position has exactly one fate")
