"""Alerts with a real warehouse and real receivers: each message once, whatever crashes, flaps or does not answer."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx  # noqa: F401  The notifiers import it when they send; no test waits for that.
import pytest
from airflow.providers.smtp.notifications.smtp import SmtpNotifier

from include.airflow import deadlines, notifiers
from include.airflow.notifiers import NotifierRecipient
from include.airflow.webhook import Webhook
from include.datasets import Dataset, manual
from include.datasets import definitions as datasets
from include.error_codes import Code
from include.errors import NonRetryableError, UserError
from include.landing import failures
from include.monitoring import alerts, expectations
from include.monitoring.alerts import Alert
from include.monitoring.expectations import KAFKA, Finding, State
from include.project import ROOT
from include.promotion import approval, evaluation_queue
from include.registry import champion_history
from include.streams import definitions
from include.streams.definition import Stream
from include.warehouse.connection import connected
from tests.integration.registry import given, seal, train
from tests.integration.registry import signal as records
from tests.polling import until
from tests.receivers import HttpReceiver, MailReceiver, serving

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
SUBJECT = "stream:payments"
BAD = Finding(SUBJECT, "fresh", State.FAILED, "a record is 7 minutes old.")
GOOD = Finding(SUBJECT, "fresh", State.HOLDS)
UNKNOWN = Finding(SUBJECT, "fresh", State.UNKNOWN)


@pytest.fixture
def http() -> Iterator[HttpReceiver]:
    receiver = HttpReceiver()
    with serving(receiver):
        yield receiver


def minutes(number: float) -> datetime:
    return START + timedelta(minutes=number)


def check(connection: Connection, finding: Finding, now: datetime, *webhooks: HttpReceiver) -> list[str]:
    """One check with this finding, whose alerts go to the receivers."""
    recipients = [NotifierRecipient(Webhook(receiver.url), {}) for receiver in webhooks]
    alerts.record(connection, [finding], now, lambda subject: True)
    return alerts.deliver(connection, alerts.due(connection, [finding], now), lambda alert: recipients, now)


def received(receiver: HttpReceiver) -> list[str]:
    return [body["state"] for body in receiver.bodies]


def ask(connection: Connection, statement: str, *values: object) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        found = cursor.fetchall() if cursor.description else []
    connection.commit()
    return found


def test_a_failure_of_two_days_has_four_messages(warehouse: Connection, http: HttpReceiver) -> None:
    for minute in range(0, 2 * 1440 + 10, 5):
        assert check(warehouse, UNKNOWN if minute % 100 == 50 else BAD, minutes(minute), http) == []
    for minute in range(2 * 1440 + 10, 2 * 1440 + 200, 5):
        assert check(warehouse, GOOD, minutes(minute), http) == []
    assert received(http) == ["failed", "reminder 1", "reminder 2", "over"]
    assert http.bodies[0]["text"] == (
        "Stream payments: fresh failed: a record is 7 minutes old. Since 2026-03-01 12:00 UTC."
    )
    assert (http.bodies[3]["since"], http.bodies[3]["until"]) == (minutes(0).isoformat(), minutes(2890).isoformat())


def test_an_expectation_that_fails_every_other_minute_does_not_multiply_messages(
    warehouse: Connection, http: HttpReceiver
) -> None:
    for minute in range(180):
        check(warehouse, GOOD if minute % 2 else BAD, minutes(minute), http)
    assert received(http) == ["failed", "over", "failed"]
    for minute in range(180, 239):
        check(warehouse, GOOD, minutes(minute), http)
    assert received(http) == ["failed", "over", "failed"], "it has not held for an hour"
    check(warehouse, GOOD, minutes(239), http)
    assert received(http) == ["failed", "over", "failed", "over"]


def test_what_is_unknown_has_neither_failed_nor_ended(warehouse: Connection, http: HttpReceiver) -> None:
    check(warehouse, UNKNOWN, minutes(0), http)
    assert received(http) == []
    check(warehouse, BAD, minutes(1), http)
    check(warehouse, UNKNOWN, minutes(2), http)
    assert received(http) == ["failed"]


def test_a_failure_that_no_definition_expects_any_more_ends_without_a_message(
    warehouse: Connection, http: HttpReceiver
) -> None:
    check(warehouse, BAD, minutes(0), http)
    other = replace(GOOD, expectation="stopped")
    alerts.record(warehouse, [other], minutes(1), lambda subject: False)
    assert ask(warehouse, "SELECT count(*) FROM millrace.failed_expectation WHERE ended_at IS NULL") == [(1,)]
    check(warehouse, other, minutes(2), http)
    assert ask(warehouse, "SELECT ended_at FROM millrace.failed_expectation") == [(minutes(2),)]
    assert received(http) == ["failed"]


def test_two_checks_at_the_same_moment_send_one_message(warehouse: Connection, http: HttpReceiver) -> None:
    for round_ in range(10):
        start = threading.Barrier(4)

        def once(finding: Finding, now: datetime, start: threading.Barrier = start) -> None:
            with connected("test") as connection:
                start.wait()
                check(connection, finding, now, http)

        found = replace(BAD, subject=f"stream:s{round_}")
        threads = [threading.Thread(target=once, args=(found, minutes(number))) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert sorted(body["subject"] for body in http.bodies) == sorted(f"stream:s{number}" for number in range(10))


CHECK = """
from tests.integration.test_alerts import BAD, Webhook, NotifierRecipient, alerts, minutes
from include.warehouse.connection import connected
with connected("test") as connection:
    alerts.record(connection, [BAD], minutes(0), lambda subject: True)
    due = alerts.due(connection, [BAD], minutes(0))
    alerts.deliver(connection, due, lambda alert: [NotifierRecipient(Webhook({url!r}), {{}})], minutes(0))
"""


def test_a_check_that_is_killed_while_it_sends_does_not_send_again(warehouse: Connection, http: HttpReceiver) -> None:
    http.gate.clear()
    program = CHECK.format(url=http.url)
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}) as it:
        until("the message has arrived", lambda: http.bodies, 60)
        it.send_signal(signal.SIGKILL)
    http.gate.set()
    for minute in range(1, 60):
        assert check(warehouse, BAD, minutes(minute), http) == []
    assert received(http) == ["failed"]
    check(warehouse, GOOD, minutes(60), http)
    assert received(http) == ["failed", "over"]


def test_a_notifier_that_fails_is_tried_again_and_keeps_no_other_from_sending(
    warehouse: Connection, http: HttpReceiver
) -> None:
    broken = HttpReceiver()
    with serving(broken):
        broken.status = 500
        for minute in range(3):
            (problem,) = check(warehouse, BAD, minutes(minute), broken, http)
            assert "Webhook" in problem and "500" in problem and "Stream payments: fresh failed" in problem
        broken.status = 200
        assert check(warehouse, BAD, minutes(3), broken, http) == []
        assert check(warehouse, BAD, minutes(4), broken, http) == []
    assert received(broken) == ["failed"] * 4
    assert received(http) == ["failed"]


def test_a_notifier_that_does_not_answer_delays_no_other_and_is_tried_ever_more_rarely(
    warehouse: Connection, http: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "SEND_TIMEOUT_S", 2.0)
    silent = HttpReceiver()
    with serving(silent):
        silent.gate.clear()
        tried = [minute for minute in range(12) if check(warehouse, BAD, minutes(minute), silent, http)]
        silent.gate.set()
    assert tried == [0, 1, 3, 7]
    assert received(http) == ["failed"]


def test_kafka_is_reported_once_when_it_has_been_silent_for_five_minutes(
    warehouse: Connection, http: HttpReceiver
) -> None:
    silent = Finding(KAFKA, "answers", State.FAILED, "The brokers do not answer.")
    for minute in (0, 1, 4):
        check(warehouse, silent, minutes(minute), http)
    assert received(http) == []
    for minute in (5, 6, 7):
        check(warehouse, silent, minutes(minute), http)
    check(warehouse, replace(silent, state=State.HOLDS), minutes(8), http)
    assert received(http) == ["failed", "over"]


def test_a_missed_deadline_is_told_once_until_a_run_succeeds(warehouse: Connection, http: HttpReceiver) -> None:
    dataset = replace(datasets.get("digits"), notify=[Webhook(http.url)])
    (deadline,) = deadlines.deadlines(dataset, "train", timedelta(hours=6))

    def notified() -> list[str]:
        now = datetime.now(UTC)
        found = [*expectations.of_dataset(dataset, None, None, now)]
        alerts.record(warehouse, found, now, lambda subject: True)
        recipients = [NotifierRecipient(notifier, {}) for notifier in notifiers.of(dataset)]
        assert alerts.deliver(warehouse, alerts.due(warehouse, found, now), lambda alert: recipients, now) == []
        return received(http)

    for number in range(3):
        context = {"dag_run": {"dag_id": "train__digits", "dag_run_id": f"run {number}"}}
        asyncio.run(deadlines.missed(**deadline.callback.kwargs, context=context))
    assert notified() == notified() == ["failed"]
    assert "run 2 of train__digits has not succeeded within 6 hours" in http.bodies[0]["text"]
    deadlines.met(dataset, "train")
    assert notified() == notified() == ["failed", "over"]


def test_a_mail_has_the_alert_in_its_subject_and_text(monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = MailReceiver()
    with serving(receiver):
        monkeypatch.setenv("AIRFLOW_CONN_MAIL", f"smtp://127.0.0.1:{receiver.port}/?disable_ssl=true&disable_tls=true")
        notifier = SmtpNotifier(
            smtp_conn_id="mail",
            from_email="millrace@example.org",
            to="ann@example.org",
            subject="{{ alert.title }}",
            html_content="{{ alert.message }}",
        )
        for state in ("failed", "reminder 1"):
            NotifierRecipient(notifier, {}).send(Alert(1, SUBJECT, "fresh", state, "it is late.", START, None))
    assert [mail["Subject"] for mail in receiver.mails] == [
        "Stream payments: fresh failed",
        "Stream payments: fresh still fails",
    ]
    body = receiver.mails[0].get_body()
    assert body is not None and "it is late. Since 2026-03-01 12:00 UTC." in body.get_content()


@pytest.fixture
def payments() -> Stream:
    return replace(definitions.get("payments"), fresh="5 minutes", max_dead_letters=2)


def evaluated(
    connection: Connection, streams: Sequence[Stream] = (), datasets: Sequence[Dataset] = ()
) -> dict[str, str]:
    found = expectations.evaluate(connection, streams, datasets, datetime.now(UTC))
    return {finding.expectation: str(finding.state) for finding in found}


def test_a_stream_is_evaluated_from_its_newest_sample_and_its_dead_letters(
    warehouse: Connection, payments: Stream
) -> None:
    add = """
        INSERT INTO millrace.stream_sample (stream, sampled_at, lag, behind_s, landed, dead_letters, stopped)
        VALUES ('payments', clock_timestamp() - %s * interval '1 second', %s, %s, 0, 0, %s)
    """
    assert evaluated(warehouse, [payments])["fresh"] == "unknown"
    ask(warehouse, add, 600, 5, 400.0, None)
    assert evaluated(warehouse, [payments])["fresh"] == "unknown", "the sample is too old"
    ask(warehouse, add, 100, 5, 400.0, None)
    assert evaluated(warehouse, [payments]) == {
        "stopped": "holds",
        "fresh": "failed",
        "max_dead_letters": "holds",
        "answers": "holds",
    }
    failures.note("payments", failures.WAIT, UserError("No answer.", code=Code.KAFKA_REQUEST_FAILED))
    assert evaluated(warehouse, [payments])["stopped"] == "holds", "a retry may fix it"
    failures.note("payments", failures.WAIT, NonRetryableError("No column.", code=Code.STATEMENT_REFUSED))
    assert evaluated(warehouse, [payments])["stopped"] == "failed"
    failures.forget(warehouse, "payments", failures.WAIT)
    ask(warehouse, add, 50, 0, 0.0, None)
    assert evaluated(warehouse, [payments])["fresh"] == "holds"
    ask(warehouse, add, 10, None, None, "The topic is gone.")
    assert evaluated(warehouse, [payments]) == {
        "stopped": "failed",
        "fresh": "unknown",
        "max_dead_letters": "holds",
        "answers": "holds",
    }
    dead = """
        INSERT INTO millrace.dead_letter (
            stream, kafka_incarnation, kafka_partition, kafka_offset, disposition, reason, appended_at, kept_at
        ) SELECT 'payments', 1, 0, n, 'dead letter', 'not JSON', now(), now() - %s * interval '1 hour'
        FROM generate_series(%s, %s) AS n
    """
    ask(warehouse, dead, 25, 1, 10)
    ask(warehouse, dead, 23, 11, 12)
    assert evaluated(warehouse, [payments])["max_dead_letters"] == "holds", "ten are older than a day"
    ask(warehouse, dead, 1, 13, 13)
    assert evaluated(warehouse, [payments])["max_dead_letters"] == "failed"


def test_a_dataset_is_evaluated_by_its_last_training_and_its_champion_on_the_newest_version(
    topic: Callable[..., str], warehouse: Connection
) -> None:
    dataset = replace(given(topic, records(600), promotion=manual()), retrain_within="8 days", min_accuracy=0.75)
    assert evaluated(warehouse, datasets=[dataset]) == {
        "retrain_within": "unknown",
        "min_accuracy": "unknown",
        "answers": "unknown",
    }

    def trained(table: Any) -> int:
        dataset.source.table = table  # type: ignore[attr-defined]
        run = train(dataset, seal(dataset))
        assert evaluation_queue.evaluate_pending_runs(dataset) == [run]
        return run

    first = trained(records(600, seed=1, first=10_000))
    assert evaluated(warehouse, datasets=[dataset])["min_accuracy"] == "unknown", "there is no champion yet"
    approval.answer(first, True, "tree", "ann")
    assert evaluated(warehouse, datasets=[dataset]) == {
        "retrain_within": "holds",
        "min_accuracy": "holds",
        "answers": "unknown",
    }
    worse = records(600, seed=2, first=20_000)
    target = worse.schema.get_field_index(dataset.target)
    flipped = ["no" if value == "yes" else "yes" for value in worse.column(target).to_pylist()]
    second = trained(worse.set_column(target, worse.schema.field(target), [flipped]))
    assert evaluated(warehouse, datasets=[dataset])["min_accuracy"] == "failed", "the champion is wrong on it"
    approval.answer(second, True, "tree", "ann")
    assert evaluated(warehouse, datasets=[dataset])["min_accuracy"] == "holds", "its successor learned from it"
    champion_history.roll_back(dataset.name, "ann")
    assert evaluated(warehouse, datasets=[dataset])["min_accuracy"] == "failed"
    ask(warehouse, "UPDATE millrace.training_run SET finished_at = finished_at - interval '9 days'")
    assert evaluated(warehouse, datasets=[dataset])["retrain_within"] == "failed"
