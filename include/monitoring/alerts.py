"""Alerts: one message when an expectation fails, one when that is over, and a reminder after each day.

The messages that are due follow from the rows of ``millrace.failed_expectation`` alone: an open failure has one due
message at any time, which changes once a day. A check claims a message for each recipient in
``millrace.expectation_message`` before it sends it. So two checks at the same time send it once, and a check that is
killed while it sends leaves the claim: the message is not sent again, because it may have arrived.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from include.monitoring.expectations import KAFKA, POSTGRES, Finding, State
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

CALM = timedelta(hours=1)
"""An expectation that fails again within this time of its last failure must hold for as long until that is over."""
REMINDER = timedelta(days=1)
PATIENCE = {KAFKA: timedelta(minutes=5), POSTGRES: timedelta(minutes=5)}
"""How long the expectations of a subject may fail before the first message."""
SEND_TIMEOUT_S = 20.0
RETRY_AFTER = timedelta(minutes=1)
"""A message that a recipient did not accept in time is tried again after this time, doubled with each attempt."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Alert:
    """A message that is due.

    Attributes:
        number: The failure's row in ``millrace.failed_expectation``.
        subject: ``stream:<name>``, ``dataset:<name>`` or ``kafka``.
        expectation: The name of the field, such as ``fresh``, or ``stopped``.
        state: ``failed``, ``over``, or ``reminder`` and the number of days.
        detail: What was found last.
        since: When it failed.
        until: When it held again; None while it fails.
    """

    number: int
    subject: str
    expectation: str
    state: str
    detail: str
    since: datetime
    until: datetime | None

    @property
    def title(self) -> str:
        """One short line."""
        happened = "is over" if self.until else "still fails" if self.state.startswith("reminder") else "failed"
        return f"{self.name}: {self.expectation} {happened}"

    @property
    def message(self) -> str:
        """The whole message, as one paragraph."""
        if self.until is None:
            return f"{self.title}: {self.detail} Since {self.since:%Y-%m-%d %H:%M} UTC."
        return (
            f"{self.title}. It failed from {self.since:%Y-%m-%d %H:%M} to {self.until:%Y-%m-%d %H:%M} UTC; last: "
            f"{self.detail}"
        )

    @property
    def name(self) -> str:
        """The subject for people, such as ``Stream payments``."""
        spoken = self.subject.replace(":", " ", 1)
        return spoken[:1].upper() + spoken[1:]


class Recipient(Protocol):
    """Sends alerts somewhere.

    Attributes:
        key: Identifies the recipient in every process.
    """

    key: str

    def send(self, alert: Alert) -> None:
        """Sends an alert; raises any exception if it was not sent."""


Message = tuple[Alert, Recipient]


def record(
    connection: Connection, findings: Iterable[Finding], now: datetime, is_complete: Callable[[str], bool]
) -> None:
    """Records which expectations fail and which hold again; commits. An unknown expectation stays as it is.

    Args:
        is_complete: Whether the findings include all expectations of a subject's kind. If they do, the failure of an
            expectation that is not among them ends without a message: its definition no longer has it.
    """
    sql = queries.load("expectations")
    known = set()
    for finding in findings:
        known.add((finding.subject, finding.expectation))
        if finding.state is State.FAILED:
            sql.begin_failure(
                connection,
                subject=finding.subject,
                expectation=finding.expectation,
                detail=finding.detail,
                at=now,
                within_s=CALM.total_seconds(),
            )
        elif finding.state is State.HOLDS:
            sql.hold(connection, subject=finding.subject, expectation=finding.expectation, at=now)
    for failure in list(sql.open_failures(connection)):
        if (failure.subject, failure.expectation) not in known and is_complete(failure.subject):
            sql.withdraw(connection, number=failure.number, at=now)
    connection.commit()


def due(connection: Connection, findings: Iterable[Finding], now: datetime) -> list[Alert]:
    """The messages about the findings' expectations that each recipient should have by now; ends the transaction."""
    known = {(finding.subject, finding.expectation) for finding in findings}
    rows = list(queries.load("expectations").current_failures(connection, at=now, within_s=REMINDER.total_seconds()))
    connection.rollback()
    found = []
    for row in rows:
        state = due_state(row.subject, row.failed_at, row.held_since, row.ended_at, now)
        if state is not None and (row.subject, row.expectation) in known:
            found.append(
                Alert(row.number, row.subject, row.expectation, state, row.detail, row.failed_at, row.ended_at)
            )
    return found


def due_state(
    subject: str, failed_at: datetime, held_since: datetime | None, ended_at: datetime | None, now: datetime
) -> str | None:
    """The message that a failure calls for: ``failed``, ``reminder 1`` and so on, ``over``; None for none."""
    patience = PATIENCE.get(subject, timedelta())
    if ended_at is not None:
        return "over" if ended_at - failed_at >= patience else None
    if held_since is not None or now - failed_at < patience:
        return None
    days = (now - failed_at) // REMINDER
    return f"reminder {days}" if days else "failed"


def deliver(
    connection: Connection, alerts: Iterable[Alert], recipients: Callable[[Alert], Collection[Recipient]], now: datetime
) -> list[str]:
    """Sends each alert to its recipients, unless they have it already. All of them are sent at the same time.

    Returns:
        A line for each message that could not be sent. A later check tries it again.
    """
    sql = queries.load("expectations")
    claimed = [
        (alert, recipient)
        for alert in alerts
        for recipient in recipients(alert)
        if sql.claim_message(connection, failure=alert.number, message=alert.state, notifier=recipient.key, at=now)
    ]
    connection.commit()
    problems = []
    for (alert, recipient), error in send(claimed):
        if error is None:
            sql.note_sent(connection, failure=alert.number, message=alert.state, notifier=recipient.key)
        else:
            sql.note_unsent(
                connection,
                failure=alert.number,
                message=alert.state,
                notifier=recipient.key,
                error=_described(error),
                at=now,
                base_s=RETRY_AFTER.total_seconds() / 2 if isinstance(error, TimeoutError) else 0.0,
            )
            problems.append(problem(alert, recipient, error))
        connection.commit()
    return problems


def send(messages: Sequence[Message]) -> Iterator[tuple[Message, BaseException | None]]:
    """Sends messages, all at the same time, and yields each with the error for which it was not sent."""
    sendings = [_Sending(alert, recipient) for alert, recipient in messages]
    for sending in sendings:
        sending.thread.start()
    until = time.monotonic() + SEND_TIMEOUT_S
    for message, sending in zip(messages, sendings, strict=True):
        sending.thread.join(max(0.0, until - time.monotonic()))
        error = sending.error
        if error is None:
            log.info("Sent to %s: %s", sending.recipient.key, sending.alert.message)
        yield message, error


def problem(alert: Alert, recipient: Recipient, error: BaseException) -> str:
    """A line about a message that was not sent."""
    return f"Not sent to {recipient.key}: {alert.title}. {_described(error)}"


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:2_000]


class _Sending:
    """One message to one recipient, sent by a thread, so that a recipient that does not answer delays no other."""

    def __init__(self, alert: Alert, recipient: Recipient) -> None:
        self.alert, self.recipient = alert, recipient
        self._error: BaseException | None = None
        self.thread = threading.Thread(target=self._send, name=recipient.key, daemon=True)

    @property
    def error(self) -> BaseException | None:
        """Why it was not sent; TimeoutError while the thread still tries."""
        if self.thread.is_alive():
            return TimeoutError(f"no answer within {SEND_TIMEOUT_S:.0f} s")
        return self._error

    def _send(self) -> None:
        try:
            self.recipient.send(self.alert)
        except BaseException as error:
            self._error = error
