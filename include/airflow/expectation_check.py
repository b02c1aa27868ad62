"""The check of all expectations, as an Airflow task, which also samples the streams."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Any

from include.airflow import run_notes
from include.datasets import definitions as dataset_definitions
from include.errors import UserError
from include.monitoring import alerts, expectations, sample
from include.streams import definitions as stream_definitions
from include.warehouse.connection import connected

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.monitoring.alerts import Alert, Recipient

log = logging.getLogger(__name__)


def check_in_task(context: Context) -> None:
    """Samples the streams, evaluates all expectations, records which fail, and sends the messages that are due.

    Raises:
        UserError: PostgreSQL does not answer.
    """
    streams, datasets = stream_definitions.find(), dataset_definitions.find()
    broken = {"stream": bool(streams.broken), "dataset": bool(datasets.broken)}
    with connected("millrace expectations") as connection:
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


def _recipients(definitions: Collection[Any], context: Context) -> Callable[[Alert], list[Recipient]]:
    """Who receives an alert: the notifiers of its definition, or those of all streams if it is about Kafka."""
    from include.airflow.notifiers import NotifierRecipient, of

    by_subject: dict[str, list[Recipient]] = {}
    for definition in definitions:
        subject = expectations.subject_of(definition)
        try:
            by_subject[subject] = [NotifierRecipient(notifier, context) for notifier in of(definition)]
        except UserError as error:
            log.error("No messages about %s are sent: %s", subject, error)

    def of_alert(alert: Alert) -> list[Recipient]:
        if alert.subject != expectations.KAFKA:
            return by_subject.get(alert.subject, [])
        return list(chain.from_iterable(found for name, found in by_subject.items() if name.startswith("stream:")))

    return of_alert
