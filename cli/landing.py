"""The commands for streams: produce, accept, dead-letters and replay."""

import base64
import getpass
import os
import time
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import click

from cli.parameters import Moment, RecordCoordinates, RecordParam
from embedded.platform import Platform
from include.error_codes import Code
from include.errors import UserError
from include.landing.choice import Choice

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

    from include.landing.replay import Replayed
    from include.streams.definition import Stream

MAX_REASONS = 20


@click.command()
@click.argument("stream")
@click.option("--events", default=10_000, show_default=True, type=click.IntRange(min=1), help="How many to send.")
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), help="Events a second. Default: as fast as possible."
)
@click.option("--seed", type=int, help="The seed of the simulation.")
@click.option("--topic", help="Where to send them, if the stream reads several topics. Default: all, in turn.")
def produce(stream: str, events: int, rate: float | None, seed: int | None, topic: str | None) -> None:
    """Send simulated events to a stream's topic, which is created if needed, and unpause the stream's DAG."""
    from embedded.airflow_api import AirflowApi
    from include.streams import definitions
    from include.streams.produce import produce as send

    definition = definitions.get(stream)
    platform = Platform()
    os.environ.update(platform.environment())
    # Wait for the DAG before sending, so that no event waits for it.
    airflow, dag_id = AirflowApi.of(platform), f"land__{stream}"
    airflow.wait_for_dags([dag_id])
    reports: list[float] = []

    def report(sent: int) -> None:
        reports.append(time.monotonic())
        click.echo(f"  {sent:,} of {events:,} …", err=True)

    send(definition, events, rate, seed=seed, topic=topic, progress=report)
    seconds = reports[-1] - reports[0]
    click.echo(
        f"Sent {events:,} events to {topic or definition.topic} in {seconds:.1f} s, {events / seconds:,.0f} a second."
    )
    if airflow.is_paused(dag_id):
        airflow.unpause(dag_id)
        click.echo(f"Unpaused {dag_id}, which lands them.", err=True)


@click.command()
@click.argument("stream")
@click.argument("choice", type=click.Choice([choice.value for choice in Choice]))
def accept(stream: str, choice: str) -> None:
    """Choose how a stream that stopped continues. The choice is recorded, and the stream's DAG is unpaused.

    \b
    lost       continue after the records that retention removed before they were read
    recreated  continue with the new topic of the same name, from offset 0
    truncated  keep the rows whose records Kafka lost, and continue where its log was cut
    bad        allow every record that the topic holds now to become a dead letter
    """
    from embedded.airflow_api import AirflowApi
    from include.landing import recovery
    from include.streams import definitions
    from include.warehouse.connection import connected

    definition = definitions.get(stream)
    platform = Platform()
    os.environ.update(platform.environment())
    with connected("millrace accept") as connection:
        for line in recovery.accept(connection, definition, Choice(choice), getpass.getuser()):
            click.echo(line)
    AirflowApi.of(platform).unpause(f"land__{stream}")
    click.echo(f"Unpaused land__{stream}.")


@click.command("dead-letters")
@click.argument("stream")
@click.argument("action", required=False, type=click.Choice(["retry"]))
@click.option("--most", default=20, show_default=True, type=click.IntRange(min=1), help="How many to list.")
@click.option("--reason", default="", help="List only those whose reason, SQLSTATE or disposition contains this text.")
@click.option("--show", "place", type=RecordParam(), help="Show one in full, with its bytes.")
def dead_letters(stream: str, action: str | None, most: int, reason: str, place: RecordCoordinates | None) -> None:
    """List dead letters and quarantined records, with counts by reason. With retry, land those that can land now.

    Each is named by its coordinates: the number of the topic among those that the stream has read, the partition, the
    offset.
    """
    from include.landing import retry
    from include.streams import definitions
    from include.warehouse.connection import connected

    definition = definitions.get(stream)
    if action and (reason or place):
        raise UserError(
            "retry tries all dead letters, so it cannot be combined with --reason or --show.",
            "Leave them out.",
            code=Code.INVALID_USAGE,
        )
    os.environ.update(Platform().environment())
    with connected("millrace dead-letters") as connection:
        if action == "retry":
            click.echo(f"{retry.retry(connection, definition, _report_retried)}.")
        elif place:
            _show_dead_letter(connection, stream, place, _topics(connection, definition))
        else:
            _list_dead_letters(connection, stream, most, reason, _topics(connection, definition))


def _topics(connection: "Connection", definition: "Stream") -> dict[int, str]:
    """The topics by their numbers, if the stream reads several."""
    from include.landing import incarnation

    return {} if definition.topics is None else incarnation.topics_of(connection, definition.name)


def _report_retried(landed: int, kept: int, filtered: int) -> None:
    click.echo(f"  {landed + kept + filtered:,} tried, {landed:,} landed …", err=True)


def _list_dead_letters(
    connection: "Connection", stream: str, most: int, reason: str, topics: Mapping[int, str]
) -> None:
    """Prints the newest ones, then the counts by reason."""
    from include.warehouse import queries

    sql = queries.load("landing")
    counts = list(sql.count_dead_letters(connection, stream=stream, reason=reason))
    total, size = sum(count for *_, count, _ in counts), sum(length for *_, length in counts)
    if not total:
        click.echo(
            f"Stream {stream!r} has no dead letters or quarantined records"
            + (f" that match {reason!r}." if reason else ".")
        )
        return
    for *where, kind, sqlstate, why, appended in sql.list_dead_letters(
        connection, stream=stream, reason=reason, most=most
    ):
        topic = f"  {topics[where[0]]}" if where[0] in topics else ""
        click.echo(
            f"{'/'.join(map(str, where))}{topic}  {appended:%Y-%m-%d %H:%M:%S}  {kind}  {sqlstate}  {_printable(why)}"
        )
    click.echo(f"\n{total:,} dead letters and quarantined records, {size:,} bytes, by reason:")
    for kind, sqlstate, why, count, _ in counts[:MAX_REASONS]:
        click.echo(f"{count:9,}  {kind}  {sqlstate}  {_printable(why)}")
    if len(counts) > MAX_REASONS:
        others = sum(count for *_, count, _ in counts[MAX_REASONS:])
        click.echo(f"{others:9,}  for {len(counts) - MAX_REASONS:,} other reasons")
    if total > most:
        click.echo(f"{total - most:,} more are not listed. List all with --most {total}, or some with --reason TEXT.")
    click.echo(f"Show one in full: ./millrace dead-letters {stream} --show {'/'.join(map(str, where))}")


def _show_dead_letter(
    connection: "Connection", stream: str, place: RecordCoordinates, topics: Mapping[int, str]
) -> None:
    from include.warehouse import queries

    found = queries.load("landing").read_dead_letter(connection, stream=stream, **place._asdict())
    if found is None:
        raise UserError(
            f"Stream {stream!r} has no dead letter or quarantined record in partition {place.partition} at offset "
            f"{place.offset}.",
            f"List them with ./millrace dead-letters {stream}.",
            code=Code.UNKNOWN_DEAD_LETTER,
        )
    incarnation, kind, sqlstate, reason, appended, event_time, kept, key, value, headers, withheld = found
    click.echo(f"coordinates  {incarnation}/{place.partition}/{place.offset}  (topic's number, partition, offset)")
    if incarnation in topics:
        click.echo(f"topic        {topics[incarnation]}")
    click.echo(f"disposition  {kind}{f', SQLSTATE {sqlstate}' if sqlstate else ''}")
    click.echo(f"reason       {_printable(reason)}")
    click.echo(f"in Kafka     {appended:%Y-%m-%d %H:%M:%S.%f} UTC")
    if event_time:
        click.echo(f"event time   {event_time:%Y-%m-%d %H:%M:%S.%f} UTC")
    click.echo(f"kept since   {kept:%Y-%m-%d %H:%M:%S} UTC")
    if withheld:
        click.echo("bytes        are not stored; as long as Kafka has the record, retry reads it there")
        return
    _show_bytes("key", key)
    for name, content in headers or []:
        _show_bytes(f"header {_printable(name)}", None if content is None else base64.b64decode(content))
    _show_bytes("value", value)


def _show_bytes(name: str, content: "bytes | memoryview | None") -> None:
    """Prints bytes as text if they are UTF-8, otherwise in hexadecimal."""
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
    """A text with its control characters escaped, so that a terminal does not execute them."""
    return "".join(
        letter if letter.isprintable() or letter in keep else letter.encode("unicode_escape").decode()
        for letter in text
    )


@click.command()
@click.argument("stream")
@click.option("--topic", help="Only this topic, if the stream reads several.")
@click.option(
    "--partition", "partitions", type=click.IntRange(min=0), multiple=True, help="Only this partition. Can be repeated."
)
@click.option("--first", type=click.IntRange(min=0), help="The first offset. Needs one --partition.")
@click.option("--last", type=click.IntRange(min=0), help="The last offset, inclusive. Needs one --partition.")
@click.option("--since", type=Moment(), help="Only records with this timestamp in Kafka or a later one. UTC.")
@click.option("--until", type=Moment(), help="Only records with an earlier timestamp in Kafka. UTC.")
def replay(
    stream: str,
    topic: str | None,
    partitions: tuple[int, ...],
    first: int | None,
    last: int | None,
    since: datetime | None,
    until: datetime | None,
) -> None:
    """Land records again that landed before and that Kafka still has, with the stream's present definition.

    Use it after a change of the definition: it fills the column of a new field, and applies new limits for late events.
    Without options it replays everything. Each transaction replaces up to 20,000 records, and the DAG can keep running.
    The command can be repeated. Records that Kafka no longer has keep their rows.
    """
    from include.landing import replay as replays
    from include.landing import replay_selection
    from include.streams import definitions
    from include.warehouse.connection import connected

    definition = definitions.get(stream)
    wanted = replay_selection.choose(partitions, first, last, since, until, topic)
    os.environ.update(Platform().environment())
    with connected("millrace replay") as connection:
        _show_replayed(replays.replay(connection, definition, wanted, getpass.getuser(), _report_replayed))


def _report_replayed(so_far: "Replayed") -> None:
    span = so_far.span
    click.echo(f"  {span.topic}, partition {span.partition}: {so_far.records:,} records …", err=True)


def _show_replayed(spans: "list[Replayed]") -> None:
    from rich.console import Console
    from rich.table import Table

    shown = Table("partition", "offsets", "records", "landed", "dead letters", "quarantined", "filtered")
    several = len({done.span.topic for done in spans}) > 1
    for done in spans:
        counts = [f"{done.after[each]:,} ({done.after[each] - done.before[each]:+,})" for each in done.after]
        offsets = f"{done.span.first:,} to {done.span.next - 1:,}"
        place = f"{done.span.partition} of {done.span.topic}" if several else str(done.span.partition)
        shown.add_row(place, offsets, f"{done.records:,}", *counts)
    Console(width=max(100, Console().width)).print(shown)
    gone = sum(done.span.gone for done in spans)
    if gone:
        click.echo(f"Kafka no longer has {gone:,} offsets before these; their rows and dead letters are unchanged.")
    records = sum(done.records for done in spans)
    click.echo(f"Replayed {records:,} records. The numbers in brackets are the changes.")
