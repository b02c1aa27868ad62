"""produce, accept, dead-letters and replay: what a person does with a stream."""

import base64
import getpass
import os
import time
from datetime import datetime
from typing import TYPE_CHECKING

import click

from cli.parameters import AtPlace, Moment, Place
from embedded.platform import Platform
from include.errors import UserError

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

    from include.landing.replay import Replayed

MAX_REASONS = 20
CHOICES = ("lost", "recreated", "truncated", "bad")


@click.command()
@click.argument("stream")
@click.option("--events", default=10_000, show_default=True, type=click.IntRange(min=1), help="How many.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Events a second; else as fast as possible.")
@click.option("--seed", type=int, help="Makes the simulation repeatable.")
def produce(stream: str, events: int, rate: float | None, seed: int | None) -> None:
    """Send simulated events to a stream's topic, which is made when there is none. Its DAG is unpaused."""
    from embedded.airflow_api import AirflowApi
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
    from embedded.airflow_api import AirflowApi
    from include.landing import recovery
    from include.streams import definitions
    from include.warehouse.connection import connected

    definition = definitions.get(stream)
    platform = Platform()
    os.environ.update(platform.environment())
    with connected("millrace accept") as connection:
        for line in recovery.accept(connection, definition, choice, getpass.getuser()):
            click.echo(line)
    AirflowApi.of(platform).unpause(f"land__{stream}")
    click.echo(f"land__{stream} goes on")


@click.command("dead-letters")
@click.argument("stream")
@click.argument("action", required=False, type=click.Choice(["retry"]))
@click.option("--most", default=20, show_default=True, type=click.IntRange(min=1), help="How many to list.")
@click.option("--reason", default="", help="Only those whose reason, SQLSTATE or kind contains this.")
@click.option("--show", "place", type=AtPlace(), help="One in full, its bytes included.")
def dead_letters(stream: str, action: str | None, most: int, reason: str, place: Place | None) -> None:
    """List records that were kept aside, with counts by reason; with retry, land again those that can be landed now.

    Each is named by its place: the number of the topic of that name, the partition, the offset.
    """
    from include.landing import retry
    from include.streams import definitions
    from include.warehouse.connection import connected

    definition = definitions.get(stream)
    if action and (reason or place):
        raise UserError("retry tries all dead letters.", "Leave out --reason and --show.")
    os.environ.update(Platform().environment())
    with connected("millrace dead-letters") as connection:
        if action == "retry":
            landed, kept = retry.retry(connection, definition, _report_retried)
            click.echo(f"{landed:,} landed, {kept:,} are dead letters still")
        elif place:
            _show_dead_letter(connection, stream, place)
        else:
            _list_dead_letters(connection, stream, most, reason)


def _report_retried(landed: int, kept: int) -> None:
    click.echo(f"  {landed + kept:,} tried, {landed:,} landed …", err=True)


def _list_dead_letters(connection: "Connection", stream: str, most: int, reason: str) -> None:
    """The newest ones, then how many there are for which reason."""
    from include.warehouse import queries

    sql = queries.load("landing")
    counts = list(sql.count_dead_letters(connection, stream=stream, reason=reason))
    total, size = sum(count for *_, count, _ in counts), sum(length for *_, length in counts)
    if not total:
        click.echo(f"nothing of stream {stream!r} is kept aside" + (f" for {reason!r}" if reason else ""))
        return
    for *where, kind, sqlstate, why, appended in sql.list_dead_letters(
        connection, stream=stream, reason=reason, most=most
    ):
        click.echo(f"{'/'.join(map(str, where))}  {appended:%Y-%m-%d %H:%M:%S}  {kind}  {sqlstate}  {_printable(why)}")
    click.echo(f"\n{total:,} kept aside, {size:,} bytes, by reason:")
    for kind, sqlstate, why, count, _ in counts[:MAX_REASONS]:
        click.echo(f"{count:9,}  {kind}  {sqlstate}  {_printable(why)}")
    if len(counts) > MAX_REASONS:
        others = sum(count for *_, count, _ in counts[MAX_REASONS:])
        click.echo(f"{others:9,}  for {len(counts) - MAX_REASONS:,} other reasons")
    if total > most:
        click.echo(f"{total - most:,} more are not listed: --most {total} lists all, --reason TEXT some of them")
    click.echo(f"One in full: ./millrace dead-letters {stream} --show {'/'.join(map(str, where))}")


def _show_dead_letter(connection: "Connection", stream: str, place: Place) -> None:
    from include.warehouse import queries

    found = queries.load("landing").read_dead_letter(connection, stream=stream, **place._asdict())
    if found is None:
        raise UserError(
            f"No record of stream {stream!r}, partition {place.partition}, offset {place.offset}, is kept aside.",
            f"./millrace dead-letters {stream} lists those that are.",
        )
    incarnation, kind, sqlstate, reason, appended, event_time, kept, key, value, headers = found
    click.echo(f"place        {incarnation}/{place.partition}/{place.offset}  (topic's number, partition, offset)")
    click.echo(f"kind         {kind}{f', SQLSTATE {sqlstate}' if sqlstate else ''}")
    click.echo(f"reason       {_printable(reason)}")
    click.echo(f"in Kafka     {appended:%Y-%m-%d %H:%M:%S.%f} UTC")
    if event_time:
        click.echo(f"event time   {event_time:%Y-%m-%d %H:%M:%S.%f} UTC")
    click.echo(f"kept since   {kept:%Y-%m-%d %H:%M:%S} UTC")
    _show_bytes("key", key)
    for name, content in headers or []:
        _show_bytes(f"header {_printable(name)}", None if content is None else base64.b64decode(content))
    _show_bytes("value", value)


def _show_bytes(name: str, content: "bytes | memoryview | None") -> None:
    """Bytes as the text that they are in UTF-8, else in hexadecimal."""
    if content is None:
        click.echo(f"{name:12} null")
        return
    held = bytes(content)
    click.echo(f"{name:12} {len(held):,} bytes")
    try:
        lines = _printable(held.decode(), keep="\n\t").split("\n")
    except UnicodeDecodeError:
        lines = [
            f"{start:08x}  {held[start : start + 16].hex(' '):47}  "
            + "".join(chr(byte) if 32 <= byte < 127 else "." for byte in held[start : start + 16])
            for start in range(0, len(held), 16)
        ]
    for line in lines if held else ():
        click.echo(f"  {line}")


def _printable(text: str, keep: str = "") -> str:
    """A text whose control characters, which a terminal would obey, are written as in Python."""
    return "".join(
        letter if letter.isprintable() or letter in keep else letter.encode("unicode_escape").decode()
        for letter in text
    )


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

    Use it after a definition changed: a new field fills its column, other limits decide again what is late. Without
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
