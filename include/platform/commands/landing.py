"""produce, accept, dead-letters and replay: what a person does with a stream."""

import getpass
import os
import time
from datetime import datetime
from typing import TYPE_CHECKING

import click

from include.errors import UserError
from include.platform.commands.parameters import Moment
from include.platform.platform import Platform

if TYPE_CHECKING:
    from include.landing.replay import Replayed

CHOICES = ("lost", "recreated", "truncated", "bad")


@click.command()
@click.argument("stream")
@click.option("--events", default=10_000, show_default=True, type=click.IntRange(min=1), help="How many.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Events a second; else as fast as possible.")
@click.option("--seed", type=int, help="Makes the simulation repeatable.")
def produce(stream: str, events: int, rate: float | None, seed: int | None) -> None:
    """Send simulated events to a stream's topic, which is made when there is none. Its DAG is unpaused."""
    from include.platform.airflow_api import AirflowApi
    from include.streams import definitions
    from include.streams.produce import produce as send

    definition = definitions.get(stream)
    platform = Platform()
    os.environ.update(platform.environment())
    # Asked before anything is sent, so that events wait for nobody.
    airflow, dag_id = AirflowApi.of(platform), f"land__{stream}"
    airflow.wait_for_dags([dag_id])
    reports: list[float] = []

    def report(sent: int) -> None:
        reports.append(time.monotonic())
        click.echo(f"  {sent:,} of {events:,} …", err=True)

    send(definition, events, rate, seed=seed, progress=report)
    seconds = reports[-1] - reports[0]
    click.echo(f"{events:,} events sent to {definition.topic} in {seconds:.1f} s, {events / seconds:,.0f} a second")
    if airflow.is_paused(dag_id):
        airflow.unpause(dag_id)
        click.echo(f"{dag_id} was paused; it is not any more, and lands them.", err=True)


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
        letters = list(queries.load("landing").list_dead_letters(connection, stream=stream, most=most))
        if not letters:
            click.echo(f"nothing of stream {stream!r} is kept aside")
        for *place, kind, sqlstate, reason, appended in letters:
            click.echo(f"{'/'.join(map(str, place))}  {appended:%Y-%m-%d %H:%M:%S}  {kind}  {sqlstate}  {reason}")


@click.command()
@click.argument("stream")
@click.option("--partition", "partitions", type=click.IntRange(min=0), multiple=True, help="Only this; repeatable.")
@click.option("--first", type=click.IntRange(min=0), help="The first offset; with one --partition.")
@click.option("--last", type=click.IntRange(min=0), help="The last offset, included; with one --partition.")
@click.option("--since", type=Moment(), help="Only records that Kafka has had since then. UTC.")
@click.option("--until", type=Moment(), help="Only records that Kafka had before then. UTC.")
def replay(
    stream: str,
    partitions: tuple[int, ...],
    first: int | None,
    last: int | None,
    since: datetime | None,
    until: datetime | None,
) -> None:
    """Land again what has landed before, from the records that Kafka still has, as the stream is defined now.

    Use it after a definition changed: a new field fills its column, other limits decide anew what is late. Without
    options everything is replayed. Each range of some thousand records is replaced in one transaction, and the DAG goes
    on meanwhile. The command can be repeated. Records that Kafka no longer has keep their rows.
    """
    from include.landing import replay as replays
    from include.streams import definitions
    from include.warehouse.connection import connected

    definition = definitions.get(stream)
    if (first is not None or last is not None) and len(partitions) != 1:
        raise UserError("Offsets count within a partition.", "Name it: --partition 0 --first 100 --last 199.")
    if (first is not None and last is not None and first > last) or (since and until and since >= until):
        raise UserError("The range ends before it begins.", "Exchange its bounds.")
    next_offset = None if last is None else last + 1
    wanted = replays.Wanted(partitions or None, first, next_offset, since, until)
    os.environ.update(Platform().environment())
    with connected("millrace replay") as connection:
        _show_replayed(replays.replay(connection, definition, wanted, getpass.getuser(), _report_replayed))


def _report_replayed(so_far: "Replayed") -> None:
    span = so_far.span
    click.echo(f"  partition {span.partition}: {so_far.records:,} records …", err=True)


def _show_replayed(spans: "list[Replayed]") -> None:
    from rich.console import Console
    from rich.table import Table

    shown = Table("partition", "offsets", "records", "landed", "dead letters", "quarantined")
    for done in spans:
        counts = [f"{done.after[fate]:,} ({done.after[fate] - done.before[fate]:+,})" for fate in done.after]
        offsets = f"{done.span.first:,} to {done.span.next - 1:,}"
        shown.add_row(str(done.span.partition), offsets, f"{done.records:,}", *counts)
    Console(width=max(100, Console().width)).print(shown)
    gone = sum(done.span.gone for done in spans)
    if gone:
        click.echo(f"{gone:,} offsets before these are gone from Kafka; what became of them stays as it was")
    records = sum(done.records for done in spans)
    click.echo(f"{records:,} records landed again; in brackets, how many more of a fate there are than before")
