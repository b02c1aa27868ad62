"""Expectations: what definitions say must hold of streams and datasets, compared with the tables.

What cannot be known, such as the age of a record while Kafka does not answer, has not failed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from include.datasets import Dataset
from include.errors import UserError
from include.streams.definition import Stream
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

    from include.warehouse.queries.signatures.expectations import ChampionAccuracyRow, NewestSamplesRow

KAFKA, POSTGRES = "kafka", "postgreSQL"
"""The subjects that are no definitions: whether the servers answer."""
DEADLINES = ("publish", "train")
"""The expectations of datasets that Airflow's deadline alerts watch; see include/airflow/deadlines.py."""
STOPPED = "stopped"
"""The expectation of every stream: that no error stops it."""
MAX_SAMPLE_AGE = timedelta(minutes=3)
DEAD_LETTERS_WITHIN = timedelta(days=1)
KAFKA_TIMEOUT_S = 5.0


class State(StrEnum):
    """Whether an expectation holds."""

    HOLDS = "holds"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Finding:
    """What one check found about one expectation.

    Attributes:
        subject: ``stream:<name>``, ``dataset:<name>`` or ``KAFKA``.
        expectation: The name of the field, such as ``fresh``, or ``STOPPED``.
        detail: A sentence about what was found; empty if it holds or is unknown.
    """

    subject: str
    expectation: str
    state: State
    detail: str = ""


def evaluate(
    connection: Connection, streams: Iterable[Stream], datasets: Iterable[Dataset], now: datetime
) -> list[Finding]:
    """Compares every expectation with the newest samples and the tables. Reads only; ends its transaction.

    Asks Kafka only if a sample says that it did not answer.
    """
    sql = queries.load("expectations")
    samples = {row.stream: row for row in sql.newest_samples(connection, within_s=MAX_SAMPLE_AGE.total_seconds())}
    final = {row.stream: row.error for row in sql.final_failures(connection)}
    behind = {row.subject for row in sql.open_failures(connection) if row.expectation == STOPPED}
    findings: list[Finding] = []
    for stream in streams:
        recent = None
        if stream.max_dead_letters is not None:
            recent = sql.recent_dead_letters(
                connection,
                stream=stream.name,
                within_s=DEAD_LETTERS_WITHIN.total_seconds(),
                most=max(2 * stream.max_dead_letters, 100_000),
            )
        sample, failure = samples.get(stream.name), final.get(stream.name)
        findings += of_stream(stream, sample, failure, recent, subject_of(stream) in behind)
    for dataset in datasets:
        trained, accuracy = None, None
        if dataset.retraining_limit is not None:
            row = sql.last_training(connection, dataset=dataset.name)
            trained = row.trained_at or row.sealed_at
        if dataset.min_accuracy is not None:
            accuracy = sql.champion_accuracy(connection, dataset=dataset.name)
        findings += of_dataset(dataset, trained, accuracy, now)
    connection.rollback()
    return [*findings, _of_kafka(samples)]


def subject_of(definition: Stream | Dataset) -> str:
    """The name of a definition in findings."""
    return f"{'stream' if isinstance(definition, Stream) else 'dataset'}:{definition.name}"


def of_stream(
    stream: Stream,
    sample: NewestSamplesRow | None,
    failure: str | None,
    dead_letters: int | None,
    was_stopped: bool,
) -> Iterator[Finding]:
    """The findings about a stream.

    Args:
        sample: Its newest sample; None if there is no recent one.
        failure: The error of a task that a retry cannot fix; None if no task has one.
        dead_letters: Its dead letters and quarantined records of the last day.
        was_stopped: Whether a stop of the stream is not over yet. It is over once the stream has also caught up, so
            that the time to catch up is not a second failure.
    """
    subject, limit = subject_of(stream), stream.freshness
    behind = None if sample is None or sample.behind_s is None else timedelta(seconds=sample.behind_s)
    stale = None if limit is None or behind is None else behind > limit
    age = f"the oldest record that waits in topic {stream.topic} is {spoken(behind)} old" if behind else ""
    stopped = failure or (None if sample is None else sample.stopped)
    if stopped is not None:
        yield Finding(subject, STOPPED, State.FAILED, f"it cannot continue: {stopped}")
    elif sample is None:
        yield Finding(subject, STOPPED, State.UNKNOWN)
    elif was_stopped and stale:
        yield Finding(subject, STOPPED, State.FAILED, f"it lands again, but {age}.")
    elif was_stopped and limit is not None and stale is None:
        yield Finding(subject, STOPPED, State.UNKNOWN)
    else:
        yield Finding(subject, STOPPED, State.HOLDS)
    if limit is not None:
        if stale is None or stopped is not None or (was_stopped and stale):
            yield Finding(subject, "fresh", State.UNKNOWN)
        elif stale:
            what = f"{age}; at most {stream.fresh} is expected. See the DAG land__{stream.name}: is it paused?"
            yield Finding(subject, "fresh", State.FAILED, what)
        else:
            yield Finding(subject, "fresh", State.HOLDS)
    if stream.max_dead_letters is not None and dead_letters is not None:
        if dead_letters > stream.max_dead_letters:
            what = (
                f"{dead_letters:,} records of the last day are dead letters or quarantined; at most "
                f"{stream.max_dead_letters:,} are expected. See them: ./millrace dead-letters {stream.name}."
            )
            yield Finding(subject, "max_dead_letters", State.FAILED, what)
        else:
            yield Finding(subject, "max_dead_letters", State.HOLDS)


def of_dataset(
    dataset: Dataset, trained: datetime | None, accuracy: ChampionAccuracyRow | None, now: datetime
) -> Iterator[Finding]:
    """The findings about a dataset.

    Args:
        trained: When its last successful training ended, or else when its first version was sealed; None if it has no
            version yet.
        accuracy: The accuracy of its champion on the newest version; None if it has no champion.
    """
    subject, limit = subject_of(dataset), dataset.retraining_limit
    if dataset.notify:
        yield from (Finding(subject, name, State.UNKNOWN) for name in DEADLINES)
    if limit is not None:
        if trained is None:
            yield Finding(subject, "retrain_within", State.UNKNOWN)
        elif (age := now - trained) > limit:
            what = (
                f"no training has succeeded for {spoken(age)}; one within {dataset.retrain_within} is expected. See "
                f"the DAGs publish__{dataset.name} and train__{dataset.name}."
            )
            yield Finding(subject, "retrain_within", State.FAILED, what)
        else:
            yield Finding(subject, "retrain_within", State.HOLDS)
    if dataset.min_accuracy is not None:
        if accuracy is None or accuracy.accuracy is None:
            yield Finding(subject, "min_accuracy", State.UNKNOWN)
        elif accuracy.accuracy < dataset.min_accuracy:
            what = (
                f"the champion {accuracy.model} has an accuracy of {accuracy.accuracy:.4f} on version "
                f"{accuracy.version}; at least {dataset.min_accuracy:g} is expected."
            )
            yield Finding(subject, "min_accuracy", State.FAILED, what)
        else:
            yield Finding(subject, "min_accuracy", State.HOLDS)


def spoken(time: timedelta) -> str:
    """A duration in its largest whole unit, such as ``7 minutes``."""
    seconds = int(time.total_seconds())
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        # Two units at least: 25 hours, not 1 day.
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}s"
    return f"{seconds} second{'' if seconds == 1 else 's'}"


def _of_kafka(samples: Mapping[str, NewestSamplesRow]) -> Finding:
    """Whether Kafka answers; a lag is also unknown while a topic does not exist."""
    if all(sample.lag is not None for sample in samples.values()):
        return Finding(KAFKA, "answers", State.HOLDS if samples else State.UNKNOWN)
    from include.kafka import topics

    try:
        topics.names(KAFKA_TIMEOUT_S)
    except UserError as error:
        return Finding(KAFKA, "answers", State.FAILED, error.what)
    return Finding(KAFKA, "answers", State.HOLDS)
