"""Promotion in a real Airflow: the same champions whatever the order of runs, and approvals on the form."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from threadpoolctl import threadpool_limits
from vega_datasets import data

from embedded.airflow_api import AirflowApi, ApiError, Run
from embedded.home import Home
from include.datasets import definitions
from include.training.preparation import prepared
from include.versions.manifest import Interval
from include.versions.publication import publish
from tests.e2e.retraining import YEARS, ask
from tests.polling import until
from tests.unit import independent_gate

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

pytestmark = pytest.mark.timeout(600)

TRAIN, PROMOTE = "train__breast_cancer", "promote__breast_cancer"
HISTORY = """
    SELECT model, extract(year FROM interval_start)::int, cause FROM millrace.champion_history
    WHERE dataset = %s ORDER BY number
"""


def test_a_backfill_promotes_the_same_champions_as_one_year_after_the_other(
    seattle: list[Run], results: Connection
) -> None:
    starts, ends = ([getattr(run, name) for run in seattle] for name in ("started_at", "ended_at"))
    assert max(starts) < min(ends), "the runs ran at the same time"
    judged = independent_gate.judge([plain_year(year) for year in YEARS])
    expected = [
        (model, year, "evidence")
        for year, models in zip(YEARS, judged, strict=True)
        for model, found in models.items()
        if found.promoted
    ]
    assert ask(results, HISTORY, "seattle_weather") == expected
    assert len(expected) >= 2, "a single champion would not show the order"
    rows = ask(
        results,
        "SELECT extract(year FROM interval_start)::int, model, outcome, n01, n10, n FROM millrace.judgement"
        " WHERE dataset = 'seattle_weather' ORDER BY 1, 2",
    )
    assert rows == [
        (year, model, found.outcome, found.n01, found.n10, found.n)
        for year, models in zip(YEARS, judged, strict=True)
        for model, found in sorted(models.items())
    ]
    order = """
        SELECT array_agg(version ORDER BY judged_at) = array_agg(version ORDER BY rank)
        FROM millrace.gate JOIN millrace.version_order USING (dataset, version)
        WHERE dataset = 'seattle_weather'
    """
    assert ask(results, order) == [(True,)]


def plain_year(year: int) -> independent_gate.Version:
    """A year of Seattle's weather, trained on the years before without the platform."""
    frame, columns = data.seattle_weather(), ["precipitation", "temp_max", "temp_min", "wind"]
    train, test = frame[frame.date.dt.year < year], frame[frame.date.dt.year == year]
    with threadpool_limits(1):
        models = {
            name: prepared(model, 0).fit(train[columns], train.weather).predict
            for name, model in definitions.get("seattle_weather").estimators().items()
        }
    return independent_gate.Version(set(train.date), list(test.date), test.weather.to_numpy(), test[columns], models)


@pytest.fixture(scope="module")
def questions(airflow: AirflowApi) -> list[Run]:
    """Two approvals that wait for an answer: two versions compared with the baseline, without a champion."""
    for seed in (101, 102):
        publish(definitions.get("breast_cancer"), Interval(), max_rows=400, seed=seed, asked_by="test")
    asked = until("two questions", lambda: waiting(airflow), 180)
    # Airflow's own LocalExecutor loses an answer that comes before this (Airflow's issue 72716).
    log = Home.current().logs / "scheduler.log"
    until("the scheduler knows both", lambda: all(has_read_end(log, run) for run in asked), 30)
    return asked


@pytest.mark.any_executor
def test_an_approval_waits_without_a_slot_and_shows_the_evidence(
    airflow: AirflowApi, results: Connection, questions: list[Run]
) -> None:
    for question in questions:
        (ask_task,) = (task for task in tasks(airflow, question) if task["task_id"] == "ask")
        assert ask_task["state"] == "awaiting_input"
        assert ask_task["trigger"] is None and ask_task["triggerer_job"] is None, "no triggerer holds it"
        assert not is_running(ask_task["pid"]), "no worker holds it"
        form = airflow.call("GET", f"dags/{PROMOTE}/dagRuns/{question.run_id}/taskInstances/ask/-1/hitlDetails")
        verdicts = ask(results, "SELECT model, sentence FROM millrace.verdict WHERE run = %s", question.conf["run"])
        assert {model for model, _ in verdicts} == {"logistic", "boosting", "forest"}
        for model, sentence in verdicts:
            assert f"* {sentence}" in form["body"] and sentence.startswith(f"Promote {model}: ")
        assert "none; the baseline takes its place" in form["body"]
        assert (form["subject"], form["options"]) == (
            f"Promote a model of breast_cancer, version {version_of(results, question)}?",
            ["Approve", "Reject"],
        )
    pool = airflow.call("GET", "pools/default_pool")
    assert pool["occupied_slots"] + pool["open_slots"] == pool["slots"]


@pytest.mark.any_executor
def test_an_approval_promotes_and_the_next_is_refused(
    airflow: AirflowApi, results: Connection, questions: list[Run]
) -> None:
    first, second = questions
    answer(airflow, first, model="logistic")
    assert airflow.wait(PROMOTE, first.run_id, timeout=180).state == "success"
    (champion,) = ask(
        results,
        "SELECT model, version, cause, decider, run FROM millrace.champion WHERE dataset = 'breast_cancer'",
    )
    assert champion == ("logistic", version_of(results, first), "approval", "admin", first.conf["run"])
    with pytest.raises(ApiError):
        answer(airflow, first, model="forest")
    answer(airflow, second)
    assert airflow.wait(PROMOTE, second.run_id, timeout=180).state == "failed"
    (applied,) = (t for t in airflow.task_instances(PROMOTE, second.run_id) if t.task_id == "apply")
    assert (applied.state, applied.try_number) == ("failed", 1)
    log = airflow.log(PROMOTE, second.run_id, applied)
    assert "[champion-changed]" in log and f"logistic of version {version_of(results, first)}" in log
    assert ask(
        results, "SELECT model, version, cause, decider, run FROM millrace.champion WHERE dataset = 'breast_cancer'"
    ) == [champion]
    answers = ask(
        results,
        "SELECT answer, decider FROM millrace.approval WHERE run IN (%s, %s) ORDER BY run",
        *sorted(question.conf["run"] for question in questions),
    )
    assert sorted(answers) == [("approved", "admin"), ("refused", "admin")]


def waiting(airflow: AirflowApi) -> list[Run] | None:
    """The two approvals, once both wait."""
    runs = airflow.runs(PROMOTE)
    asked = [run for run in runs if any(task["state"] == "awaiting_input" for task in tasks(airflow, run))]
    return sorted(asked, key=lambda run: run.conf["run"]) if len(asked) == 2 else None


def has_read_end(log: Path, run: Run) -> bool:
    """Whether the scheduler has read from its executor that the process which asked has ended."""
    key = f"TaskInstanceKey(dag_id='{PROMOTE}', task_id='ask', run_id='{run.run_id}'"
    return any("Received executor event" in line and key in line for line in log.read_text().splitlines())


def tasks(airflow: AirflowApi, run: Run) -> list[dict[str, Any]]:
    found = airflow.call("GET", f"dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances")
    return list(found["task_instances"])


def answer(airflow: AirflowApi, question: Run, model: str = "") -> None:
    path = f"dags/{PROMOTE}/dagRuns/{question.run_id}/taskInstances/ask/-1/hitlDetails"
    airflow.call("PATCH", path, json={"chosen_options": ["Approve"], "params_input": {"model": model}})


def is_running(pid: int) -> bool:
    """Whether a process runs; a worker of LocalExecutor reaps its processes only with its next task."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def version_of(results: Connection, question: Run) -> str:
    ((version,),) = ask(
        results, "SELECT left(version, 12) FROM millrace.training_run WHERE run = %s", question.conf["run"]
    )
    return str(version)
