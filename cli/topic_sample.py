"""What `new stream --from-topic` and `check --against-topic` share: reading a sample, and showing what would land."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from include.error_codes import Code
from include.errors import UserError
from include.landing.disposition import Disposition

if TYPE_CHECKING:
    from include.kafka.sample import Sample
    from include.landing.trial import Trial
    from include.streams.definition import Stream

MAX_REASONS = 20
_LISTED = 20
_VERBS = {Disposition.DEAD_LETTER: "would become dead letters", Disposition.QUARANTINED: "would be quarantined"}


def read(topic: str, records: int) -> Sample:
    """Reads a sample of a topic from the platform's Kafka, and prints how much was read.

    Raises:
        UserError: The topic does not exist or has no records, or Kafka does not answer.
    """
    from embedded.platform import Platform
    from include.kafka import sample

    os.environ.update(Platform().environment())
    found = sample.read(topic, records, progress=lambda read: click.echo(f"  {read:,} records read …", err=True))
    if not found.messages and found.cut:
        raise UserError(
            f"No record of the topic {topic!r} arrived in time.",
            "Try again. If it fails again, check the brokers (./millrace status) and the connection millrace_kafka.",
            code=Code.KAFKA_REQUEST_FAILED,
        )
    if not found.messages:
        raise UserError(
            f"The topic {topic!r} has no records.",
            "Start its producer, then run the command again.",
            code=Code.TOPIC_EMPTY,
        )
    partitions = "1 partition" if found.partitions == 1 else f"{found.partitions:,} partitions"
    cut = f"; {found.cut}" if found.cut else ""
    click.echo(f"{topic}: read {len(found.messages):,} records of {found.offsets:,} offsets in {partitions}{cut}")
    return found


def topics_of(stream: Stream) -> list[str]:
    """The topics of a stream; of several, those that exist.

    Raises:
        UserError: None exists, or Kafka does not answer.
    """
    from embedded.platform import Platform
    from include.kafka import topics

    if stream.topics is None:
        return [stream.topic]
    os.environ.update(Platform().environment())
    found = stream.topic_choice.of(topics.names())
    if not found:
        raise UserError(
            f"No topic of the stream {stream.name!r} exists. It reads {stream.topic_choice}.",
            "Start its producer, then run the command again.",
            code=Code.TOPIC_MISSING,
        )
    return found


def show(stream: Stream, sample: Sample) -> bool:
    """Prints what would become of the sample's records. Returns whether all would land or be skipped."""
    from include.landing.trial import trial

    found = trial(stream, sample.messages)
    click.echo(f"  {found.landed:,} of {found.records:,} records would land")
    _show_reasons(found)
    if found.filtered:
        click.echo(f"  {found.filtered:,} would be filtered by where")
    if found.tombstones:
        click.echo(f"  {found.tombstones:,} are tombstones and would be skipped")
    if found.unknown:
        listed = [f"{_printable(name)} (in {count:,})" for name, count in found.unknown.items()]
        click.echo(f"  not in the definition: {_first(listed)}")
    if found.unused:
        click.echo(f"  in the definition, but in no record of the sample: {_first(list(found.unused))}")
    return not found.reasons


def _show_reasons(found: Trial) -> None:
    for disposition, verb in _VERBS.items():
        if not (count := found.count(disposition)):
            continue
        click.echo(f"  {count:,} {verb}:")
        reasons = [reason for reason in found.reasons if reason.disposition is disposition]
        for reason in reasons[:MAX_REASONS]:
            click.echo(f"    {reason.records:,} such as {reason.example}: {_printable(reason.text)}")
        if len(reasons) > MAX_REASONS:
            click.echo(f"    and {len(reasons) - MAX_REASONS:,} more reasons")


def _first(names: list[str]) -> str:
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else "")


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
