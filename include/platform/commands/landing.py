"""produce: events for a stream."""

import os
import time

import click

from include.platform.platform import Platform


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
