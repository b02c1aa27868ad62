"""Alerts in a real Airflow, to real receivers, and a DAG of somebody else that runs on a new champion."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from cli.landing import accept
from embedded.airflow_api import AirflowApi, Run
from include.errors import UserError
from include.kafka import client
from include.landing.recovery import MIN_REJECTED
from include.project import ROOT
from include.streams import definitions
from include.streams.produce import make_topic
from tests.e2e.retraining import ask, finished
from tests.polling import until
from tests.receivers import HttpReceiver, MailReceiver, serving

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

pytestmark = pytest.mark.timeout(900)

NAME = "watched"
LAND, PUBLISH, TRAIN, PROMOTE, AFTER = (f"{kind}__{NAME}" for kind in ("land", "publish", "train", "promote", "after"))
CHECK = "maintain__expectations"
FRESH_S = 10.0

# Other platforms that parse the same files at the same time see none of these definitions.
GUARD = """
import os
from include.definitions import Gone
if os.environ.get("MILLRACE_HOME") != {home!r}:
    raise Gone
"""
NOTIFY = """
def notify():
    from airflow.providers.smtp.notifications.smtp import SmtpNotifier
    from include.airflow.webhook import Webhook
    return [
        Webhook({url!r}),
        SmtpNotifier(
            smtp_conn_id="watched_mail",
            from_email="millrace@example.org",
            to="ann@example.org",
            subject="{{{{ alert.title }}}}",
            html_content="{{{{ alert.message | e }}}}",
        ),
    ]
"""
STREAM = """
import msgspec
from include.streams.definition import Instant, Stream

class Reading(msgspec.Struct):
    ts: Instant
    value: int

stream = Stream(
    name="watched", event=Reading, event_time="ts", kafka_partitions=1, quiet="1 second",
    fresh="10 seconds", notify=notify,
)
"""
DATASET = """
from include.datasets import Dataset, File, HashSplit, manual

def models():
    from sklearn.tree import DecisionTreeClassifier
    return {{"tree": DecisionTreeClassifier(max_depth=2)}}

dataset = Dataset(
    name="watched", source=File({file!r}), record_id="id", target="target", split=HashSplit(test=0.5), models=models,
    promotion=manual(), retrain_within="8 days", min_accuracy=0.8, notify=notify,
)
"""
FOREIGN = """
import os
from airflow.sdk import dag, task
from include.airflow.assets import champion

@dag(dag_id="after__watched", schedule=[champion("watched")], is_paused_upon_creation=False)
def after():
    @task
    def tell(triggering_asset_events=None):
        (event,) = triggering_asset_events[champion("watched")]
        return event.extra

    tell()

if os.environ.get("MILLRACE_HOME") == {home!r}:
    after()
"""


class Receivers:
    """Where the messages arrive."""

    def __init__(self) -> None:
        self.http, self.mail = HttpReceiver(), MailReceiver()

    def states(self, subject: str) -> list[tuple[str, str]]:
        """The expectation and the state of each message about a subject."""
        return [(body["expectation"], body["state"]) for body in self.http.bodies if body["subject"] == subject]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool, int], Path]:
    """Writes the file of the dataset with new records; returns its path. If they are turned, no learned rule holds."""
    path = tmp_path_factory.mktemp("watched") / "rows.csv"

    def write(turned: bool, first: int) -> Path:
        draw = random.Random(first)
        lines = ["id,x,target"]
        for number in range(first, first + 400):
            x = draw.uniform(-1, 1)
            lines.append(f"{number},{x:.6f},{'yes' if (x > 0) is not turned else 'no'}")
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


@pytest.fixture(scope="module")
def watched(airflow_api: AirflowApi, rows: Callable[[bool, int], Path]) -> Iterator[Receivers]:
    """The receivers of the alerts about a stream and a dataset that exist during these tests."""
    receivers, home = Receivers(), os.environ["MILLRACE_HOME"]
    guard, notify = GUARD.format(home=home), NOTIFY.format(url=receivers.http.url)
    written = {
        ROOT / "include/streams/watched.py": guard + notify + STREAM,
        ROOT / "include/datasets/watched.py": guard + notify + DATASET.format(file=str(rows(False, 0))),
        ROOT / "dags/after_watched.py": FOREIGN.format(home=home),
    }
    mail = {"conn_type": "smtp", "host": "127.0.0.1", "port": receivers.mail.port}
    extra = json.dumps({"disable_ssl": True, "disable_tls": True})
    with serving(receivers.http), serving(receivers.mail):
        airflow_api.call("POST", "connections", json={"connection_id": "watched_mail", **mail, "extra": extra})
        try:
            for path, text in written.items():
                path.write_text(text)
            wanted = {LAND, PUBLISH, TRAIN, PROMOTE, AFTER, CHECK}
            until("Airflow lists the DAGs", lambda: wanted <= listed(airflow_api), 240, every_s=2)
            yield receivers
        finally:
            for path in written:
                path.unlink(missing_ok=True)
            airflow_api.call("DELETE", "connections/watched_mail")


def listed(airflow: AirflowApi) -> set[str]:
    """The DAGs that Airflow lists; none if it is too busy to answer."""
    try:
        return set(airflow.dag_ids())
    except UserError:
        return set()


def check(airflow: AirflowApi) -> None:
    """Checks the expectations now, instead of within a minute."""
    run = airflow.trigger(CHECK)
    assert airflow.wait(CHECK, run.run_id, timeout=120).state == "success"


def send(*values: bytes) -> None:
    producer = client.producer()
    for value in values:
        producer.produce(NAME, value)
    assert producer.flush(20) == 0


def test_a_stream_that_lags_and_one_that_stops_have_a_message_and_one_when_that_is_over(
    watched: Receivers, airflow_api: AirflowApi
) -> None:
    make_topic(definitions.get(NAME))
    send(_event())
    sent = time.monotonic()
    until("the scheduled check has notified", lambda: watched.states(f"stream:{NAME}"), FRESH_S + 90)
    print(f"notified {time.monotonic() - sent - FRESH_S:.0f} s after it failed")
    airflow_api.unpause(LAND)
    until("it has landed", lambda: _landed(airflow_api), 90)
    check(airflow_api)
    fresh = [("fresh", "failed"), ("fresh", "over")]
    assert watched.states(f"stream:{NAME}") == fresh
    send(*[b"nothing"] * MIN_REJECTED)
    until("the stream has paused itself", lambda: airflow_api.is_paused(LAND) or None, 240)
    check(airflow_api)
    check(airflow_api)
    assert watched.states(f"stream:{NAME}") == [*fresh, ("stopped", "failed")]
    assert "[all-records-rejected]" in watched.http.bodies[-1]["text"]
    done = CliRunner().invoke(accept, [NAME, "bad"])
    assert done.exit_code == 0, done.output
    airflow_api.unpause(LAND)

    def is_over() -> bool:
        check(airflow_api)
        return ("stopped", "over") in watched.states(f"stream:{NAME}")

    until("the stop is over", is_over, 120, every_s=2)
    airflow_api.pause(LAND)
    assert watched.states(f"stream:{NAME}") == [*fresh, ("stopped", "failed"), ("stopped", "over")]
    mails = [mail["Subject"] for mail in watched.mail.mails if "Stream" in mail["Subject"]]
    assert mails == [
        "Stream watched: fresh failed",
        "Stream watched: fresh is over",
        "Stream watched: stopped failed",
        "Stream watched: stopped is over",
    ]


def test_the_notes_of_the_stream_read_as_a_history(watched: Receivers, airflow_api: AirflowApi) -> None:
    notes = [note_of(airflow_api, run) for run in airflow_api.runs(LAND) if run.finished]
    assert notes[-1] == "1 landed"
    assert any(note.startswith("failed: ") for note in notes)
    assert any(note == f"0 landed, {MIN_REJECTED} dead letters" for note in notes)


def test_an_accuracy_that_falls_and_a_missed_training_have_a_message_and_a_champion_starts_a_foreign_dag(
    watched: Receivers, airflow: AirflowApi, results: Connection, rows: Callable[[bool, int], Path]
) -> None:
    subject = f"dataset:{NAME}"
    trained(airflow, 1)
    approve(airflow, 1)
    check(airflow)
    assert watched.states(subject) == []
    (foreign,) = until("the foreign DAG has run", lambda: finished(airflow, AFTER, 1), 90)
    notified = airflow.call("GET", f"dags/{AFTER}/dagRuns/{foreign.run_id}/taskInstances/tell/xcomEntries/return_value")
    facts = notified["value"] if isinstance(notified["value"], dict) else json.loads(notified["value"])
    (row,) = ask(results, "SELECT model, run, sha256, cause FROM millrace.champion WHERE dataset = %s", NAME)
    assert (facts["model"], facts["run"], facts["sha256"], facts["cause"]) == row
    assert (facts["dataset"], facts["number"], facts["decider"]) == (NAME, 1, "admin")

    rows(True, 1_000)
    trained(airflow, 2)
    check(airflow)
    check(airflow)
    assert watched.states(subject) == [("min_accuracy", "failed")]
    approve(airflow, 2)
    check(airflow)
    fallen = [("min_accuracy", "failed"), ("min_accuracy", "over")]
    assert watched.states(subject) == fallen

    ask(
        results,
        "UPDATE millrace.training_run SET finished_at = finished_at - interval '9 days' WHERE dataset = %s RETURNING 1",
        NAME,
    )
    check(airflow)
    missed = [*fallen, ("retrain_within", "failed")]
    assert watched.states(subject) == missed
    rows(True, 2_000)
    trained(airflow, 3)
    check(airflow)
    assert watched.states(subject) == [*missed, ("retrain_within", "over")]
    version = ask(results, "SELECT left(version, 12) FROM millrace.training_run WHERE dataset = %s ORDER BY run", NAME)
    notes = [note_of(airflow, run) for run in reversed(airflow.runs(TRAIN))]
    assert [note.split(", ")[0] for note in notes] == [f"version {found}" for (found,) in version]
    assert "best tree (accuracy " in notes[0]
    answers = [note_of(airflow, run) for run in reversed(airflow.runs(PROMOTE)) if run.finished]
    assert len(answers) == 2 and all(
        answer.startswith("approved by admin: version ") and answer.endswith("tree became champion")
        for answer in answers
    )
    publications = airflow.call("GET", "assets/events", params={"limit": 100})["asset_events"]
    extras = [
        event["extra"] for event in publications if event["extra"].get("dataset") == NAME and "rows" in event["extra"]
    ]
    assert [(extra["rows"], extra["new"]) for extra in extras] == [(400, True)] * 3


def _event() -> bytes:
    return json.dumps({"ts": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "value": 1}).encode()


def _landed(airflow: AirflowApi) -> list[Run] | None:
    runs = [run for run in airflow.runs(LAND) if run.finished]
    return runs or None


def note_of(airflow: AirflowApi, run: Run) -> str:
    return airflow.call("GET", f"dags/{run.dag_id}/dagRuns/{run.run_id}")["note"] or ""


def trained(airflow: AirflowApi, number: int) -> None:
    """Publishes a version, and waits for its training."""
    run = airflow.trigger(PUBLISH)
    assert airflow.wait(PUBLISH, run.run_id, timeout=180).state == "success"
    until("it is trained", lambda: finished(airflow, TRAIN, number), 180)


def approve(airflow: AirflowApi, number: int) -> None:
    """Approves the newest question, and waits until that is done."""

    def asked() -> list[dict[str, Any]] | None:
        runs = [run for run in airflow.runs(PROMOTE) if not run.finished]
        found = [
            task
            for run in runs
            for task in airflow.call("GET", f"dags/{PROMOTE}/dagRuns/{run.run_id}/taskInstances")["task_instances"]
            if task["state"] == "awaiting_input"
        ]
        return found or None

    (question,) = until("a question waits", asked, 120)
    # Airflow's own LocalExecutor loses an answer that comes at once (Airflow's issue 72716).
    time.sleep(2)
    path = f"dags/{PROMOTE}/dagRuns/{question['dag_run_id']}/taskInstances/ask/-1/hitlDetails"
    airflow.call("PATCH", path, json={"chosen_options": ["Approve"], "params_input": {"model": "tree"}})
    until("it is promoted", lambda: finished(airflow, PROMOTE, number), 120)
