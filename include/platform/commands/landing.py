"""produce, accept, dead-letters and replay: what a person does with a stream."""

import getpass
import os
import time

import click

from include.platform.platform import Platform

CHOICES = ("lost", "recreated", "truncated", "bad")


@click.command()
@click.argument("stream")
@click.option("--events", default=10_000, show_default=True, type=click.IntRange(min=1), help="How many.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Events a second; else as fast as possible.")
@click.option("--seed", type=int, help="Makes the simulation repeatable.")
def produce(stream: str, events: int, rate: float | None, seed: int | None) -> None:
    """Send simulated events to a stream's topic, which is made when there is none."""
    from include.streams import definitions
    from include.streams.produce import produce as send

    definition = definitions.get(stream)
    os.environ.update(Platform().environment())
    reports: list[float] = []

    def report(sent: int) -> None:
        reports.append(time.monotonic())
        click.echo(f"  {sent:,} of {events:,} …", err=True)

    send(definition, events, rate, seed=seed, progress=report)
    seconds = reports[-1] - reports[0]
    click.echo(f"{events:,} events sent to {definition.topic} in {seconds:.1f} s, {events / seconds:,.0f} a second")


@click.command()
@click.argument("stream")
@click.argument("choice", type=click.Choice(CHOICES))
def accept(stream: str, choice: str) -> None:
    """Choose how a stream that stopped goes on; the choice is recorded, and its DAG goes on.

    \b
    lost       go on after records that retention removed before they were read
    recreated  go on with the new topic of that name, from offset 0
    truncated  keep the rows that Kafka no longer has, and go on where its log was cut
    bad        let everything that the topic holds now become dead letters, if it must
    """
    from include.landing import choices
    from include.platform.airflow_api import AirflowApi
    from include.streams import definitions
    from include.warehouse.connection import connected

    definition = definitions.get(stream)
    platform = Platform()
    os.environ.update(platform.environment())
    with connected("millrace accept") as connection:
        for line in choices.accept(connection, definition, choice, getpass.getuser()):
            click.echo(line)
    AirflowApi.of(platform).unpause(f"land__{stream}")
    click.echo(f"land__{stream} goes on")


@click.command("dead-letters")
@click.argument("stream")
@click.argument("action", required=False, type=click.Choice(["retry"]))
@click.option("--most", default=20, show_default=True, type=click.IntRange(min=1), help="How many to list.")
def dead_letters(stream: str, action: str | None, most: int) -> None:
    """List records that were kept aside; with retry, decode the dead letters again and land what can be landed now."""
    from include.landing import retry
    from include.streams import definitions
    from include.warehouse import queries
    from include.warehouse.connection import connected

    definition = definitions.get(stream)
    os.environ.update(Platform().environment())
    with connected("millrace dead-letters") as connection:
        if action == "retry":
            landed, kept = retry.retry(connection, definition)
            click.echo(f"{landed:,} landed, {kept:,} are dead letters still")
            return
        for *place, kind, sqlstate, reason, appended in queries.load("landing").list_dead_letters(
            connection, stream=stream, most=most
        ):
            click.echo(f"{'/'.join(map(str, place))}  {appended:%Y-%m-%d %H:%M:%S}  {kind}  {sqlstate}  {reason}")
