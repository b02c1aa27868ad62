"""Retraining in a real Airflow: every version is trained once, as well as by a plain script, whatever is killed."""

from __future__ import annotations

import os
import signal
from contextlib import closing, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from threadpoolctl import threadpool_limits
from vega_datasets import data

from embedded.airflow_api import AirflowApi, ApiError, Run
from embedded.platform import Platform
from include.datasets import definitions
from include.training import run
from include.training.preparation import prepared
from include.training.verification import verify_run
from include.versions.manifest import Interval, decode
from include.versions.publication import publish
from include.warehouse.connection import connect
from tests.e2e.retraining import YEARS, ask, finished
from tests.polling import until

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

# Ten runs of six tasks each take half a minute alone on two cores, and longer while others run.
pytestmark = pytest.mark.timeout(900)

PUBLISH, TRAIN = "publish__breast_cancer", "train__breast_cancer"


def test_every_model_of_every_year_is_as_good_as_a_plain_scripts(
    airflow: AirflowApi, results: Connection, seattle: list[Run]
) -> None:
    assert [run.state for run in seattle] == ["success"] * 3
    published = airflow.runs("publish__seattle_weather")
    assert [run.state for run in published] == ["success"] * 3, "none for a year twice, none past the data's end"

    frame, dataset = data.seattle_weather(), definitions.get("seattle_weather")
    columns = ["precipitation", "temp_max", "temp_min", "wind"]
    for year in YEARS:
        train, test = frame[frame.date.dt.year < year], frame[frame.date.dt.year == year]
        with threadpool_limits(1):
            plain = {
                name: prepared(model, 0).fit(train[columns], train.weather).score(test[columns], test.weather)
                for name, model in dataset.estimators().items()
            }
        stored = ask(
            results,
            "SELECT model, accuracy FROM millrace.accuracy WHERE dataset = 'seattle_weather' AND interval_start = %s",
            datetime(year, 1, 1, tzinfo=UTC),
        )
        assert dict(stored) == pytest.approx(plain, abs=1e-12), year


@pytest.mark.usefixtures("seattle")
def test_a_backfill_past_the_end_of_the_data_is_skipped(airflow: AirflowApi, results: Connection) -> None:
    before = ask(results, "SELECT count(*) FROM millrace.dataset_version WHERE dataset = 'seattle_weather'")
    started = airflow.trigger(
        "publish__seattle_weather", {"interval_start": "2016-01-01", "interval_end": "2017-01-01"}
    )
    ended = airflow.wait(started.dag_id, started.run_id, timeout=180)
    (task,) = airflow.task_instances(ended.dag_id, ended.run_id)
    assert (ended.state, task.state) == ("success", "skipped")
    assert "has no rows from 2016-01-01 00:00 to 2017-01-01" in airflow.log(ended.dag_id, ended.run_id, task)
    airflow.backfill("publish__seattle_weather", datetime(2012, 1, 1, tzinfo=UTC), datetime(2017, 1, 1, tzinfo=UTC))
    runs = until("the backfill", lambda: finished(airflow, "publish__seattle_weather", 5), 120)
    assert {run.state for run in runs} == {"success"}
    assert ask(results, "SELECT count(*) FROM millrace.dataset_version WHERE dataset = 'seattle_weather'") == before


@pytest.mark.any_executor
def test_the_forms_parameters_reach_the_version_and_the_run(airflow: AirflowApi, results: Connection) -> None:
    # An interval after those of the other tests, so that none of their versions supersedes this one.
    form: dict[str, Any] = {"interval_start": "2100-01-01", "interval_end": "2101-01-01", "rows": 300, "seed": 7}
    started = airflow.trigger(PUBLISH, form)
    assert airflow.wait(PUBLISH, started.run_id, timeout=180).state == "success"
    path = f"dags/{PUBLISH}/dagRuns/{started.run_id}/taskInstances/publish/xcomEntries/return_value"
    version = airflow.call("GET", path)["value"]
    until("its training", lambda: has_run(airflow, run.sealed_run_id(version)), 60)
    ((manifest,),) = ask(results, "SELECT manifest FROM millrace.dataset_version WHERE version = %s", version)
    assert decode(bytes(manifest)).parameters == form, "as received"
    form = {
        "version": version[:10],
        "until": "2101-01-01",
        "models": ["logistic"],
        "grid": {"logistic": {"C": [0.1, 10]}, "forest": {"n_estimators": [5]}},
        "seed": 5,
    }
    started = airflow.trigger(TRAIN, form)
    assert airflow.wait(TRAIN, started.run_id, timeout=120).state == "success"
    ((found, seed, parameters, rows, asked, number),) = ask(
        results,
        "SELECT run.version, seed, parameters, train_rows + test_rows, run.asked_by, run"
        " FROM millrace.training_run AS run JOIN millrace.dataset_version USING (version) WHERE run_id = %s",
        started.run_id,
    )
    assert (found, seed, parameters, rows) == (version, 5, form, 300)
    assert "admin" in asked
    candidates = ["forest n_estimators=5", "logistic", "logistic C=0.1", "logistic C=10"]
    trained = ask(results, "SELECT model FROM millrace.accuracy WHERE run_id = %s", started.run_id)
    assert sorted(model for (model,) in trained) == sorted(["baseline", *candidates])
    labels = {task.label for task in airflow.task_instances(TRAIN, started.run_id)}
    assert {label for label in labels if label.startswith("fit")} == {f"fit [{m}]" for m in ["baseline", *candidates]}
    judged = ask(results, "SELECT model, challengers FROM millrace.verdict WHERE run = %s", number)
    assert sorted(model for model, _ in judged) == candidates
    assert min(m for _, m in judged) >= len(candidates), "each is a challenger"


@pytest.mark.any_executor
@pytest.mark.parametrize(
    ("dag_id", "form", "expected"),
    [
        (TRAIN, {"version": "beef" * 8}, "[unknown-version]"),
        (TRAIN, {"models": ["oracle"]}, "[unknown-model]"),
        (TRAIN, {"grid": {"logistic": {"C": [-1]}}}, "[invalid-grid]"),
        (PUBLISH, {"interval_start": "2015-02-30"}, "[invalid-parameter]"),
        (
            "publish__seattle_weather",
            {"interval_start": "2015-01-01", "interval_end": "2014-01-01"},
            "[invalid-interval]",
        ),
    ],
)
def test_a_wrong_form_fails_without_a_retry(
    airflow: AirflowApi, results: Connection, dag_id: str, form: dict[str, Any], expected: str
) -> None:
    started = airflow.trigger(dag_id, form)
    assert airflow.wait(dag_id, started.run_id, timeout=180).state == "failed"
    task = next(t for t in airflow.task_instances(dag_id, started.run_id) if t.task_id in ("plan", "publish"))
    assert (task.state, task.try_number) == ("failed", 1)
    assert expected in airflow.log(dag_id, started.run_id, task)
    if dag_id == TRAIN and "version" not in form:
        statement = (
            "SELECT state, message FROM millrace.training_run JOIN millrace.run_log USING (run) WHERE run_id = %s"
        )
        ((state, message),) = ask(results, statement, started.run_id)
        assert state == "failed" and expected in message


@pytest.mark.parametrize(
    ("dag_id", "task_id", "form"),
    [
        (TRAIN, "plan", {"modles": ["logistic"]}),
        (PUBLISH, "publish", {"row": 30}),
        ("verify", "verify", {"Run": 1}),
        ("promote__breast_cancer", "ask", {"run": 1, "model": "logistic"}),
        ("maintain__datasets", "maintain", {"dataset": "digits"}),
        ("maintain__streams", "maintain", {"stream": "payments"}),
    ],
)
def test_an_unknown_parameter_is_refused(airflow: AirflowApi, dag_id: str, task_id: str, form: dict[str, Any]) -> None:
    started = airflow.trigger(dag_id, form)
    assert airflow.wait(dag_id, started.run_id, timeout=180).state == "failed"
    task = next(t for t in airflow.task_instances(dag_id, started.run_id) if t.task_id == task_id)
    assert (task.state, task.try_number) == ("failed", 1)
    assert f"The DAG {dag_id} has no parameter '" in airflow.log(dag_id, started.run_id, task)


@pytest.mark.parametrize(
    ("dag_id", "form", "expected"),
    [
        (TRAIN, {"seed": "seven"}, "'seven' is not of type 'null', 'integer'"),
        (TRAIN, {"seed": -1}, "-1 is less than the minimum of 0"),
        (TRAIN, {"models": "logistic"}, "'logistic' is not of type 'null', 'array'"),
        (TRAIN, {"until": "soon"}, "'soon' is not a 'date'"),
        (PUBLISH, {"interval_start": "soon"}, "'soon' does not match"),
        (TRAIN, {"grid": {"logistic": {"C": 1}}}, "1 is not of type 'array'"),
        (PUBLISH, {"rows": 1}, "1 is less than the minimum of 2"),
    ],
)
def test_a_value_that_the_form_rejects_starts_no_run(
    airflow: AirflowApi, dag_id: str, form: dict[str, Any], expected: str
) -> None:
    before = len(airflow.runs(dag_id))
    with pytest.raises(ApiError) as refused:
        airflow.trigger(dag_id, form)
    assert refused.value.status == 400
    assert next(iter(form)) in str(refused.value) and expected in str(refused.value)
    assert len(airflow.runs(dag_id)) == before


def test_ten_versions_are_ten_runs_whatever_is_killed(
    airflow: AirflowApi, airflow_platform: Platform, results: Connection
) -> None:
    until("the dispatch waits", lambda: waits(airflow), 60)
    kill(airflow_platform, "triggerer")
    versions = [publish_sample(seed) for seed in range(20, 25)]
    with closing(connect("test lock")) as lock:
        # The dispatch waits for the lock in its transaction, and is killed there.
        lock.cursor().execute("LOCK TABLE millrace.dataset_version IN EXCLUSIVE MODE")
        until("the dispatch is stopped", lambda: stopped_dispatch(results), 90).send_signal(signal.SIGKILL)
    versions += [publish_sample(seed) for seed in range(25, 30)]
    until("runs begin", lambda: known_runs(results, versions), 90)
    kill(airflow_platform, "scheduler")
    each_has_one_run(airflow, results, versions, within_s=300)


def test_the_dag_verifies_a_past_run(airflow: AirflowApi, results: Connection) -> None:
    started = airflow.trigger("verify", {})
    assert airflow.wait("verify", started.run_id, timeout=120).state == "success"
    ((outcome,),) = ask(results, "SELECT outcome FROM millrace.verification WHERE asked_by = 'manual: admin'")
    assert outcome == "identical"


def test_every_run_of_these_tests_is_reproduced(seattle: list[Run], results: Connection) -> None:
    ended = ask(results, "SELECT run FROM millrace.training_run WHERE state = 'success' ORDER BY run")
    assert len(ended) >= len(seattle)
    found = {number: verify_run(number, "test").outcome for (number,) in ended}
    assert set(found.values()) == {"identical"}, found


def publish_sample(seed: int) -> str:
    published = publish(definitions.get("breast_cancer"), Interval(), max_rows=200, seed=seed, asked_by="test")
    assert published.new
    return published.version


def has_run(airflow: AirflowApi, run_id: str) -> bool:
    return any(run.run_id == run_id for run in airflow.runs(TRAIN))


def waits(airflow: AirflowApi) -> bool:
    tasks = airflow.task_instances("dispatch", airflow.runs("dispatch")[0].run_id)
    return any(task.task_id == "wait" and task.state == "deferred" for task in tasks)


def known_runs(results: Connection, versions: list[str]) -> list[Any]:
    return ask(results, "SELECT run_id FROM millrace.training_run WHERE version = ANY (%s)", versions)


def each_has_one_run(airflow: AirflowApi, results: Connection, versions: list[str], within_s: float) -> None:
    """Waits until the versions are trained, and asserts that each has exactly one run with all models."""
    wanted = sorted(run.sealed_run_id(version) for version in versions)

    def trained() -> bool:
        states = ask(results, "SELECT state FROM millrace.training_run WHERE version = ANY (%s)", versions)
        return len(states) == len(versions) and {state for (state,) in states} == {"success"}

    until("all versions trained", trained, within_s)
    until("the dispatch waits again", lambda: waits(airflow), 60)
    assert sorted(found for (found,) in known_runs(results, versions)) == wanted
    in_airflow = {found.run_id: found.conf.get("version") for found in airflow.runs(TRAIN)}
    assert sorted(run_id for run_id, version in in_airflow.items() if version in versions) == wanted
    models = ask(
        results,
        "SELECT run_id, count(*) FROM millrace.accuracy WHERE run_id = ANY (%s) GROUP BY run_id",
        wanted,
    )
    assert sorted(models) == [(run_id, 4) for run_id in wanted]


def kill(platform: Platform, component: str) -> None:
    """Kills a component and all of its children."""
    (pid,) = (health.pid for health in platform.status() if health.name == component)
    victim = psutil.Process(pid)
    for process in [victim, *victim.children(recursive=True)]:
        # The process of a task may have ended meanwhile.
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)


def stopped_dispatch(results: Connection) -> psutil.Process | None:
    """The process of the dispatch that waits for the lock, found by its connection."""
    waiting = ask(
        results,
        "SELECT client_port FROM pg_stat_activity"
        " WHERE application_name = 'millrace dispatch' AND wait_event_type = 'Lock'",
    )
    ports = {port for (port,) in waiting}
    for found in psutil.net_connections("tcp"):
        if found.laddr and found.laddr.port in ports and found.pid not in (None, os.getpid()):
            process = psutil.Process(found.pid)
            if process.name() != "postgres":
                return process
    return None
