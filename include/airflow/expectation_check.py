"""The check of all expectations, as an Airflow task, which also samples the streams."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Any

from include.airflow import run_notes
from include.datasets import definitions as dataset_definitions
from include.errors import UserError
from include.monitoring import alerts, expectations, sample
from include.monitoring.alerts import Alert, Recipient
from include.streams import definitions as stream_definitions
from include.warehouse.connection import connect

if TYPE_CHECKING:
    from airflow.sdk import Context
    from psycopg2.extensions import connection as Connection

SILENT = "millrace_warehouse_silent"
"""The variable of Airflow that says since when PostgreSQL does not answer, and whether that was reported."""

log = logging.getLogger(__name__)


def check_in_task(context: Context) -> None:
    """Samples the streams, evaluates all expectations, records which fail, and sends the messages that are due.

    Raises:
        UserError: PostgreSQL does not answer.
    """
    streams, datasets = stream_definitions.find(), dataset_definitions.find()
    broken = {"stream": bool(streams.broken), "dataset": bool(datasets.broken)}
    with _warehouse([*streams.valid.values(), *datasets.valid.values()], context) as connection:
        sample.sample(connection)
        now = datetime.now(UTC)
        findings = expectations.evaluate(connection, streams.valid.values(), datasets.valid.values(), now)
        # A file that is broken for a moment must not end the failures of its expectations.
        alerts.record(connection, findings, now, lambda subject: not broken.get(subject.partition(":")[0], False))
        due = alerts.due(connection, findings, now)
        recipients = _recipients([*streams.valid.values(), *datasets.valid.values()] if due else [], context)
        problems = alerts.deliver(connection, due, recipients, now)
    failed = [finding for finding in findings if finding.state is expectations.State.FAILED]
    for finding in failed:
        log.warning("%s, %s: %s", finding.subject, finding.expectation, finding.detail)
    names = ", ".join(f"{finding.subject} {finding.expectation}" for finding in failed)
    run_notes.leave(f"failed: {names}" if failed else "nothing failed")
    for problem in problems:
        log.error("%s", problem)


@contextmanager
def _warehouse(definitions: Collection[Any], context: Context) -> Iterator[Connection]:
    """A connection to the warehouse. A PostgreSQL that does not answer for long is reported to all notifiers, once.

    The warehouse itself cannot keep since when, so a variable of Airflow does.
    """
    from airflow.sdk import Variable

    now, known = datetime.now(UTC), Variable.get(SILENT, default=None)
    since, _, notified = (known or now.isoformat()).partition(" ")
    alert = Alert(0, expectations.POSTGRES, "answers", "failed", "", datetime.fromisoformat(since), None)
    try:
        connection = connect("millrace expectations")
    except UserError as error:
        due = alerts.due_state(alert.subject, alert.since, None, None, now)
        # Noted before they are sent: a check that is killed in between must not tell twice.
        Variable.set(SILENT, f"{since} notified" if notified or due else since)
        if due and not notified:
            _tell(replace(alert, detail=error.what), definitions, context)
        raise
    with closing(connection):
        if known:
            Variable.delete(SILENT)
        if notified:
            _tell(replace(alert, state="over", detail="it answers.", until=now), definitions, context)
        yield connection


def _tell(alert: Alert, definitions: Collection[Any], context: Context) -> None:
    """Sends an alert to the notifiers of all definitions, each once."""
    recipients = {recipient.key: recipient for recipient in _recipients(definitions, context)(alert)}
    for (_, recipient), error in alerts.send([(alert, recipient) for recipient in recipients.values()]):
        if error is not None:
            log.error("%s", alerts.problem(alert, recipient, error))


def _recipients(definitions: Collection[Any], context: Context) -> Callable[[Alert], list[Recipient]]:
    """Who receives an alert: the notifiers of its definition. About Kafka: of all streams; about PostgreSQL: of all."""
    from include.airflow.notifiers import NotifierRecipient, of

    by_subject: dict[str, list[Recipient]] = {}
    for definition in definitions:
        subject = expectations.subject_of(definition)
        try:
            by_subject[subject] = [NotifierRecipient(notifier, context) for notifier in of(definition)]
        except UserError as error:
            log.error("No messages about %s are sent: %s", subject, error)

    def of_alert(alert: Alert) -> list[Recipient]:
        if alert.subject not in (expectations.KAFKA, expectations.POSTGRES):
            return by_subject.get(alert.subject, [])
        kinds = ("stream:",) if alert.subject == expectations.KAFKA else ("stream:", "dataset:")
        return list(chain.from_iterable(found for name, found in by_subject.items() if name.startswith(kinds)))

    return of_alert
