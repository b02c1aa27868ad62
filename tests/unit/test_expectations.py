"""When an expectation fails, holds or is unknown, and which message a failure calls for."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.smtp.notifications.smtp import SmtpNotifier

from include.airflow import expectation_check, notifiers
from include.airflow.webhook import Webhook
from include.datasets import definitions as datasets
from include.definitions import InvalidDefinition
from include.error_codes import Code
from include.errors import UserError
from include.monitoring.alerts import Alert, due_state
from include.monitoring.expectations import Finding, of_dataset, of_stream, spoken
from include.streams import definitions as streams
from include.warehouse.queries.signatures.expectations import ChampionAccuracyRow, NewestSamplesRow
from tests.errors import raises

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
STREAM = replace(streams.get("payments"), fresh="5 minutes", max_dead_letters=10)
DATASET = replace(datasets.get("digits"), retrain_within="8 days", min_accuracy=0.9)


def sample(behind_s: float | None = 0.0, stopped: str | None = None) -> NewestSamplesRow:
    return NewestSamplesRow("payments", None if behind_s is None else 1, behind_s, stopped)


def states(found: list[Finding]) -> dict[str, str]:
    return {finding.expectation: str(finding.state) for finding in found}


@pytest.mark.parametrize(
    ("newest", "was_stopped", "stopped", "fresh"),
    [
        (sample(0), False, "holds", "holds"),
        (sample(300), False, "holds", "holds"),
        (sample(300.5), False, "holds", "failed"),
        (sample(None), False, "holds", "unknown"),
        (None, False, "unknown", "unknown"),
        (sample(0, "the topic is gone"), False, "failed", "unknown"),
        (sample(900, "the topic is gone"), False, "failed", "unknown"),
        (sample(900), True, "failed", "unknown"),
        (sample(None), True, "unknown", "unknown"),
        (sample(10), True, "holds", "holds"),
    ],
    ids=str,
)
def test_a_stream_fails_by_its_oldest_waiting_record_and_by_the_error_that_stops_it(
    newest: NewestSamplesRow | None, was_stopped: bool, stopped: str, fresh: str
) -> None:
    assert states(list(of_stream(STREAM, newest, None, 0, was_stopped))) == {
        "stopped": stopped,
        "fresh": fresh,
        "max_dead_letters": "holds",
    }


@pytest.mark.parametrize("newest", [sample(0), sample(900), sample(None), None], ids=str)
def test_a_stream_whose_task_cannot_succeed_has_stopped(newest: NewestSamplesRow | None) -> None:
    found = list(of_stream(STREAM, newest, "The column 'a' is gone. [column-gone]", 0, False))
    assert states(found)["stopped"] == "failed" and states(found)["fresh"] == "unknown"
    assert found[0].detail == "it cannot continue: The column 'a' is gone. [column-gone]"


def test_every_stream_is_expected_not_to_stop_and_nothing_else_by_default() -> None:
    assert states(list(of_stream(streams.get("payments"), sample(10**6), None, 10**6, False))) == {"stopped": "holds"}
    assert list(of_dataset(datasets.get("digits"), None, None, NOW)) == []


def test_deadlines_stay_as_they_are_until_a_run_succeeds() -> None:
    notified = replace(datasets.get("digits"), notify=[Webhook("http://127.0.0.1/")])
    assert states(list(of_dataset(notified, None, None, NOW))) == {"publish": "unknown", "train": "unknown"}


@pytest.mark.parametrize(("count", "state"), [(0, "holds"), (10, "holds"), (11, "failed"), (None, None)])
def test_more_dead_letters_than_allowed_fail(count: int | None, state: str | None) -> None:
    assert states(list(of_stream(STREAM, sample(), None, count, False))).get("max_dead_letters") == state


@pytest.mark.parametrize(
    ("age", "state"),
    [(None, "unknown"), (timedelta(days=8), "holds"), (timedelta(days=8, seconds=1), "failed")],
    ids=str,
)
def test_a_dataset_must_be_trained_in_time(age: timedelta | None, state: str) -> None:
    found = of_dataset(DATASET, None if age is None else NOW - age, None, NOW)
    assert states(list(found))["retrain_within"] == state


@pytest.mark.parametrize(("accuracy", "state"), [(None, "unknown"), (0.9, "holds"), (0.89, "failed")])
def test_the_champion_must_be_accurate(accuracy: float | None, state: str) -> None:
    found = list(of_dataset(DATASET, NOW, ChampionAccuracyRow("forest", "0a1b2c", accuracy), NOW))
    assert states(found)["min_accuracy"] == state
    assert states(list(of_dataset(DATASET, NOW, None, NOW)))["min_accuracy"] == "unknown"
    if state == "failed":
        assert found[1].detail == (
            "the champion forest has an accuracy of 0.8900 on version 0a1b2c; at least 0.9 is expected."
        )


@pytest.mark.parametrize(
    ("subject", "minutes", "held", "ended", "state"),
    [
        ("stream:payments", 0, False, None, "failed"),
        ("stream:payments", 1439, False, None, "failed"),
        ("stream:payments", 1440, False, None, "reminder 1"),
        ("stream:payments", 5000, False, None, "reminder 3"),
        ("stream:payments", 5000, True, None, None),
        ("stream:payments", 5000, True, 1, "over"),
        ("kafka", 4, False, None, None),
        ("kafka", 5, False, None, "failed"),
        ("kafka", 9, True, 4, None),
        ("kafka", 9, True, 5, "over"),
    ],
)
def test_a_failure_has_one_message_at_a_time(
    subject: str, minutes: int, held: bool, ended: int | None, state: str | None
) -> None:
    failed = NOW - timedelta(minutes=minutes)
    end = None if ended is None else failed + timedelta(minutes=ended)
    assert due_state(subject, failed, NOW if held else None, end, NOW) == state


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 seconds"), (1, "1 second"), (119, "119 seconds"), (120, "2 minutes"), (90_000, "25 hours")],
)
def test_durations_are_spoken(seconds: int, text: str) -> None:
    assert spoken(timedelta(seconds=seconds)) == text


def test_a_message_says_what_failed_and_since_when() -> None:
    alert = Alert(1, "stream:payments", "fresh", "failed", "a record is 7 minutes old.", NOW, None)
    assert alert.message == "Stream payments: fresh failed: a record is 7 minutes old. Since 2026-03-01 12:00 UTC."
    over = replace(alert, state="over", until=NOW + timedelta(minutes=8))
    assert over.title == "Stream payments: fresh is over"
    assert "from 2026-03-01 12:00 to 2026-03-01 12:08 UTC" in over.message
    assert replace(alert, state="reminder 2").title == "Stream payments: fresh still fails"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"fresh": "soon"}, "fresh"),
        ({"fresh": "366 days"}, "fresh"),
        ({"max_dead_letters": -1}, "max_dead_letters"),
        ({"max_dead_letters": 1.5}, "max_dead_letters"),
        ({"max_dead_letters": True}, "max_dead_letters"),
        ({"notify": "#ops"}, "notify"),
        ({"notify": ["#ops"]}, "notify"),
        ({"notify": [Webhook]}, "notify"),
        ({"notify": None}, "notify"),
    ],
    ids=str,
)
def test_a_stream_with_a_wrong_expectation_is_invalid(changes: dict[str, Any], field: str) -> None:
    with raises(Code.INVALID_DEFINITION, f"{field}: ", kind=InvalidDefinition):
        replace(streams.get("payments"), **changes)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"retrain_within": "8"}, "retrain_within"),
        ({"min_accuracy": 0}, "min_accuracy"),
        ({"min_accuracy": 90}, "min_accuracy"),
        ({"min_accuracy": "high"}, "min_accuracy"),
        ({"notify": 7}, "notify"),
    ],
    ids=str,
)
def test_a_dataset_with_a_wrong_expectation_is_invalid(changes: dict[str, Any], field: str) -> None:
    with raises(Code.INVALID_DEFINITION, f"{field}: ", kind=InvalidDefinition):
        replace(datasets.get("digits"), **changes)


def test_a_regression_has_no_accuracy_to_expect() -> None:
    with raises(Code.INVALID_DEFINITION, "regression", kind=InvalidDefinition):
        replace(datasets.get("diabetes"), min_accuracy=0.5)


def fails() -> list[Any]:
    raise RuntimeError("no such connection")


@pytest.mark.parametrize("notify", [fails, lambda: "#ops", lambda: [Notifies()]], ids=["fails", "text", "class"])
def test_a_function_that_returns_no_notifiers_is_an_error(notify: Callable[[], Any]) -> None:
    with raises(Code.INVALID_DEFINITION, "notify", kind=InvalidDefinition):
        notifiers.of(replace(STREAM, notify=notify))


class Notifies:
    """Has the methods of a notifier without being one."""

    def notify(self, context: Any) -> None: ...
    def render_template_fields(self, context: Any) -> None: ...
    def __call__(self, context: Any) -> None: ...


def test_notifiers_are_known_by_their_settings() -> None:
    def keys(*found: Any) -> list[str]:
        return [notifiers.NotifierRecipient(n, {}).key for n in notifiers.of(replace(STREAM, notify=lambda: found))]

    webhook = Webhook("http://127.0.0.1/a")
    first, second, third = keys(webhook, Webhook("http://127.0.0.1/b"), SmtpNotifier(to="ann@example.org"))
    assert len({first, second, third}) == 3
    assert keys(Webhook("http://127.0.0.1/a")) == [first]
    assert first.startswith("Webhook ") and third.startswith("SmtpNotifier ")


class Variables:
    """The variables of Airflow, without Airflow."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def get(self, key: str, default: None = None) -> str | None:
        return self.values.get(key, default)

    def set(self, key: str, value: str) -> None:
        self.values[key] = value

    def delete(self, key: str) -> None:
        del self.values[key]


def test_a_silent_postgresql_is_told_once_after_five_minutes_and_when_it_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    variables, notified = Variables(), []
    at = {"minute": 0}

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return NOW + timedelta(minutes=at["minute"])

    def connect(name: str) -> Any:
        if at["minute"] < 12:
            raise UserError("PostgreSQL does not answer.", code=Code.POSTGRES_UNREACHABLE)
        return io.BytesIO()

    monkeypatch.setattr("airflow.sdk.Variable", variables)
    monkeypatch.setattr(expectation_check, "datetime", Clock)
    monkeypatch.setattr(expectation_check, "connect", connect)
    monkeypatch.setattr(expectation_check, "_tell", lambda alert, *_: notified.append((at["minute"], alert.title)))
    for at["minute"] in range(12):
        with raises(Code.POSTGRES_UNREACHABLE), expectation_check._warehouse([], {}):
            pass
    for at["minute"] in (12, 13):
        with expectation_check._warehouse([], {}):
            pass
    assert notified == [(5, "PostgreSQL: answers failed"), (12, "PostgreSQL: answers is over")]
    assert variables.values == {}
