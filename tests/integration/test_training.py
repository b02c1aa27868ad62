"""Dispatch and training on a real broker and server, without Airflow."""

from __future__ import annotations

import hashlib
import json
import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
import skops.io
from click.testing import CliRunner
from psycopg2.extras import NamedTupleCursor

from cli import doctor, registry
from embedded.platform import Platform
from include.datasets import Dataset, definitions
from include.definitions import Found
from include.error_codes import Code
from include.errors import NonRetryableError
from include.kafka import client
from include.kafka.position_errors import Fenced
from include.training import dispatch, fitting, results, run, run_log
from include.training.preparation import prepared
from include.versions import catalog
from include.versions.manifest import CONTROL_TOPIC, Interval
from include.versions.publication import publish
from tests.errors import raises
from tests.integration.registry import given, one_model, signal

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

SHIPPED = ("breast_cancer", "digits", "diabetes")


def ask(connection: Connection, statement: str, *values: object) -> list[Any]:
    with connection.cursor(cursor_factory=NamedTupleCursor) as cursor:
        cursor.execute(statement, values)
        rows = cursor.fetchall()
    connection.rollback()
    return rows


def test_a_run_that_cannot_be_started_does_not_block_the_others(
    warehouse: Connection, topic: Callable[..., str]
) -> None:
    datasets = [given(topic, signal(300, seed=number), models=one_model) for number in range(3)]
    versions = [publish(dataset, Interval()).version for dataset in datasets]
    dispatch.land("test")
    names = [dataset.name for dataset in datasets]
    waiting = dispatch.to_start(names)
    assert [version for _, version in waiting] == versions
    planned = [{"trigger_dag_id": f"train__{name}", "conf": {"version": version}} for name, version in waiting]
    states = {"start_0": "success", "start_1": "failed", "start_2": "skipped"}
    with raises(Code.DISPATCH_INCOMPLETE, f": 1 of train__{names[1]}.", kind=NonRetryableError):
        dispatch.note(planned, states)
    assert dispatch.to_start(names) == [(names[1], versions[1])]
    dispatch.note(planned[1:2], {"start_0": "success"})
    assert dispatch.to_start(names) == []
    dispatch.note([], {})
    with raises(Code.DISPATCH_INCOMPLETE, "land", kind=NonRetryableError):
        dispatch.note(None, {})


def own(name: str, topic: Callable[..., str]) -> Dataset:
    """A shipped dataset under a name of its own."""
    return replace(definitions.get(name), name=topic(name).replace("-", "_"))


@pytest.fixture
def cancer(warehouse: Connection, topic: Callable[..., str]) -> Dataset:
    dataset = own("breast_cancer", topic)
    publish(dataset, Interval(), asked_by="test")
    dispatch.land("test")
    return dataset


def test_versions_are_started_in_groups_that_all_datasets_share(
    warehouse: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert dispatch.MAX_STARTS < 1024, "the most instances that Airflow maps a task to"
    statement = """
        INSERT INTO millrace.dataset_version (version, dataset, topic, kind, train_rows, test_rows, split, content,
            asked_by, code, manifest, manifest_offset, sealed_at)
        SELECT encode(sha256(n::text::bytea), 'hex'), CASE WHEN n > 1500 THEN 'late' ELSE 'early' END, 't',
            'regression', 1, 1, '{}', '', '', '', '', n, now() FROM generate_series(1, 1600) AS n ORDER BY n"""
    with warehouse.cursor() as cursor:
        cursor.execute(statement)
    warehouse.commit()
    started: list[tuple[str, str]] = []
    while waiting := dispatch.to_start(["early", "late"]):
        assert len(waiting) <= dispatch.MAX_STARTS
        if not started:
            assert {dataset for dataset, _ in waiting} == {"early", "late"}
        started += waiting
        dispatch.mark_started([version for _, version in waiting])
    numbers = dict(ask(warehouse, "SELECT version, number FROM millrace.dataset_version"))
    assert len(started) == len(set(started)) == 1600
    for name in ("early", "late"):
        order = [numbers[version] for dataset, version in started if dataset == name]
        assert order == sorted(order), "the versions of a dataset start in their order"


def test_a_version_waits_until_its_run_is_marked_as_started(cancer: Dataset, warehouse: Connection) -> None:
    ((dataset, version),) = dispatch.to_start([cancer.name])
    assert (dataset, version) == (cancer.name, catalog.find(cancer.name).version)
    assert dispatch.to_start(["another"]) == []
    dispatch.mark_started([version])
    assert dispatch.to_start([cancer.name]) == []
    assert dispatch.land("test") == 0, "the position is past it"
    (row,) = ask(warehouse, "SELECT * FROM millrace.dataset_version WHERE dataset = %s", cancer.name)
    assert (row.train_rows, row.test_rows, row.asked_by) == (420, 149, "test")


def test_a_record_that_is_not_a_manifest_is_stored_with_the_reason(warehouse: Connection, cancer: Dataset) -> None:
    producer = client.producer()
    producer.produce(CONTROL_TOPIC, b"not a manifest")
    producer.produce(CONTROL_TOPIC, None, key=b"tombstone")
    producer.flush(30)
    assert dispatch.land("test") == 2
    refused = ask(
        warehouse, "SELECT reason, value FROM millrace.refused_manifest ORDER BY manifest_offset DESC LIMIT 2"
    )
    assert "tombstone" in refused[0].reason and refused[0].value is None
    assert refused[1].reason != refused[0].reason and bytes(refused[1].value) == b"not a manifest"


def test_an_overtaken_dispatch_writes_nothing(cancer: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    from include.kafka import position

    publish(cancer, Interval(), max_rows=100)
    advance = position.advance

    def overtaken(*arguments: Any) -> Any:
        monkeypatch.setattr(position, "advance", advance)
        dispatch.land("successor")
        return advance(*arguments)

    monkeypatch.setattr(position, "advance", overtaken)
    with pytest.raises(Fenced):
        dispatch.land("overtaken")
    assert len(dispatch.to_start([cancer.name])) == 2, "landed once, by the successor"


@pytest.mark.parametrize("name", SHIPPED)
def test_models_are_as_good_as_a_plain_scripts(name: str, warehouse: Connection, topic: Callable[..., str]) -> None:
    dataset = own(name, topic)
    publish(dataset, Interval())
    dispatch.land("test")
    planned = run.begin(dataset, "run", {"seed": 3}, "test")
    for task in planned:
        fitting.fit(dataset, task["run"], task["model"])
    run.end(planned)

    frame = dataset.source.rows(None, None).to_pandas()
    tests = dataset.split.tests(pa.Table.from_pandas(frame), dataset, None)
    features = dataset.feature_names(list(frame.columns))
    metric = "r2" if dataset.kind == "regression" else "accuracy"
    stored = ask(
        warehouse, "SELECT model, value FROM millrace.result WHERE dataset = %s AND metric = %s", dataset.name, metric
    )
    plain = {}
    for model, estimator in dataset.estimators().items():
        fitted = prepared(estimator, 3).fit(frame[features][~tests], frame["target"][~tests])
        plain[model] = fitted.score(frame[features][tests], frame["target"][tests])
    assert dict(stored) == pytest.approx(plain, abs=1e-12)


def test_a_result_has_everything_that_is_needed_later(cancer: Dataset, warehouse: Connection) -> None:
    (task, *_) = planned = run.begin(cancer, "run", {"models": ["logistic"], "seed": 0}, "manual: ada")
    assert [entry["model"] for entry in planned] == ["logistic", "baseline"]
    fitting.fit(cancer, task["run"], "logistic")
    (result,) = ask(warehouse, "SELECT * FROM millrace.model_result WHERE run = %s", task["run"])
    fitted = bytes(result.fitted)
    assert hashlib.sha256(fitted).hexdigest() == result.fitted_sha256
    outcomes = pa.ipc.open_stream(bytes(result.outcomes)).read_all()
    assert outcomes.column_names == ["id", "row", "correct"]
    assert len(set(outcomes["id"].to_pylist())) == result.test_rows == 149
    (accuracy,) = ask(warehouse, "SELECT * FROM millrace.accuracy WHERE run = %s", task["run"])
    assert accuracy.accuracy == pytest.approx(np.mean(outcomes["correct"].to_pylist()))
    assert accuracy.low < accuracy.accuracy < accuracy.high
    assert (
        ask(warehouse, "SELECT sum(support) AS n FROM millrace.class_metric WHERE result = %s", result.result)[0].n
        == 149
    )
    assert ask(warehouse, "SELECT sum(count) AS n FROM millrace.confusion WHERE result = %s", result.result)[0].n == 149
    assert result.parameters["logisticregression__max_iter"] == 1000
    (row,) = ask(warehouse, "SELECT * FROM millrace.training_run WHERE run = %s", task["run"])
    assert (row.cause, row.seed, row.parameters["models"]) == ("manual: ada", 0, ["logistic"])
    assert row.libraries["scikit-learn"] and row.definition == cancer.digest
    unfitted = skops.io.loads(bytes(result.unfitted))
    assert str(unfitted) == str(prepared(cancer.estimators()["logistic"], 0))


def test_outcomes_that_are_sent_in_pieces_are_complete(
    cancer: Dataset, warehouse: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "PIECE_BYTES", 100)
    (planned, *_) = run.begin(cancer, "run", {"models": ["logistic"]}, "test")
    fitting.fit(cancer, planned["run"], planned["model"])
    (stored,) = ask(warehouse, "SELECT outcomes, test_rows FROM millrace.model_result")
    assert pa.ipc.open_stream(bytes(stored.outcomes)).read_all().num_rows == stored.test_rows == 149


def test_slices_may_use_columns_that_are_not_features(warehouse: Connection, topic: Callable[..., str]) -> None:
    slices = {"large": "`mean radius` > 14", "texture": "`worst texture` // 20"}
    dataset = replace(own("breast_cancer", topic), features=["mean area", "mean radius"], slices=slices)
    publish(dataset, Interval())
    dispatch.land("test")
    assert catalog.find(dataset.name).features == ["mean area", "mean radius"]
    (task, *_) = run.begin(dataset, "run", {"models": ["logistic"]}, "test")
    fitting.fit(dataset, task["run"], "logistic")
    fitting.fit(dataset, task["run"], "baseline")
    rows = ask(
        warehouse,
        "SELECT * FROM millrace.sliced WHERE dataset = %s AND model = 'logistic' AND metric = 'accuracy'"
        " ORDER BY slice, part",
        dataset.name,
    )
    (whole,) = ask(warehouse, "SELECT * FROM millrace.accuracy WHERE dataset = %s AND model = 'logistic'", dataset.name)
    assert [(row.slice, row.part) for row in rows] == [
        *(("large", "False"), ("large", "True")),
        *(("texture", "0"), ("texture", "1"), ("texture", "2")),
    ]
    for slice in slices:
        parts = [row for row in rows if row.slice == slice]
        assert sum(row.rows for row in parts) == whole.test_rows
        assert sum(row.value * row.rows for row in parts) / whole.test_rows == pytest.approx(whole.accuracy)
        assert all(row.low < row.value <= row.high and row.whole == whole.accuracy for row in parts)


def test_a_retried_task_leaves_one_result(cancer: Dataset, warehouse: Connection) -> None:
    (task, *_) = run.begin(cancer, "run", {}, "test")
    assert run.begin(cancer, "run", {}, "test")[0] == task, "the same run, not a second one"
    for _ in range(2):
        fitting.fit(cancer, task["run"], task["model"])
    assert ask(warehouse, "SELECT count(*) AS n FROM millrace.model_result WHERE run = %s", task["run"])[0].n == 1
    assert ask(warehouse, "SELECT count(*) AS n FROM millrace.accuracy WHERE run = %s", task["run"])[0].n == 1


def test_a_run_without_all_results_has_failed(cancer: Dataset, warehouse: Connection) -> None:
    planned = run.begin(cancer, "run", {}, "test")
    fitting.fit(cancer, planned[0]["run"], "logistic")
    with raises(Code.RUN_FAILED, planned[0]["run"], "baseline, boosting, forest"):
        run.end(planned)
    assert ask(warehouse, "SELECT state FROM millrace.training_run")[0].state == "failed"
    with raises(Code.RUN_FAILED, "plan"):
        run.end(None)


def test_the_candidates_of_a_grid_are_tasks_of_the_run(cancer: Dataset, warehouse: Connection) -> None:
    form = {"models": ["logistic"], "grid": {"forest": {"n_estimators": [3, 5]}}, "seed": 4}
    planned = run.begin(cancer, "run", form, "test")
    names = ["logistic", "baseline", "forest n_estimators=3", "forest n_estimators=5"]
    assert [task["model"] for task in planned] == names
    for task in planned:
        fitting.fit(cancer, task["run"], task["model"])
    run.end(planned)
    stored = {
        row.model: row.parameters
        for row in ask(
            warehouse, "SELECT model, parameters FROM millrace.model_result WHERE run = %s", planned[0]["run"]
        )
    }
    assert sorted(stored) == sorted(names)
    assert [stored[f"forest n_estimators={n}"]["n_estimators"] for n in (3, 5)] == [3, 5]
    assert stored["forest n_estimators=3"]["random_state"] == 4
    assert ask(warehouse, "SELECT parameters FROM millrace.training_run")[0].parameters == form, "as received"


def test_a_version_is_found_by_the_end_of_its_interval(warehouse: Connection, topic: Callable[..., str]) -> None:
    dataset = own("seattle_weather", topic)
    versions = {}
    for year in (2013, 2014):
        interval = Interval(datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC))
        versions[f"{year + 1}-01-01"] = publish(dataset, interval).version
    dispatch.land("test")
    for until, version in versions.items():
        (task, *_) = run.begin(dataset, f"run {until}", {"until": until, "models": ["logistic"]}, "test")
        (row,) = ask(warehouse, "SELECT version FROM millrace.training_run WHERE run = %s", task["run"])
        assert row.version == version
    with raises(Code.UNKNOWN_VERSION, "2020-01-01"):
        run.begin(dataset, "run", {"until": "2020-01-01"}, "test")


@pytest.mark.parametrize(
    ("parameters", "code", "values"),
    [
        ({"until": "soon"}, Code.INVALID_PARAMETER, ["until", "'soon'"]),
        ({"grid": {"forest": {"depth": [1]}}}, Code.INVALID_GRID, ["'forest'", "'depth'"]),
        ({"version": "beef" * 16}, Code.UNKNOWN_VERSION, ["beefbeef"]),
        ({"models": ["forest", "oracle"]}, Code.UNKNOWN_MODEL, ["oracle", "logistic, boosting, forest, baseline"]),
    ],
)
def test_a_run_with_invalid_parameters_does_not_begin(
    cancer: Dataset, warehouse: Connection, parameters: dict[str, Any], code: Code, values: list[str]
) -> None:
    with raises(code, *values):
        run.begin(cancer, "run", parameters, "test")
    assert ask(warehouse, "SELECT * FROM millrace.training_run") == []


def test_the_run_log_is_written_while_the_task_runs(cancer: Dataset, warehouse: Connection) -> None:
    (task, *_) = run.begin(cancer, "run", {}, "test")
    log = logging.getLogger("user.code")
    log.setLevel(logging.INFO)
    with pytest.raises(ValueError, match="the end"), run_log.logging_to_run(task["run"], "logistic"):
        log.info("it begins")
        warnings.warn("mind this", stacklevel=1)
        deadline = time.monotonic() + 5
        while not (lines := ask(warehouse, "SELECT * FROM millrace.run_log WHERE run = %s", task["run"])):
            assert time.monotonic() < deadline
        assert lines[0].message == "it begins"
        assert (lines[0].model, lines[0].level, lines[0].logger) == ("logistic", "INFO", "user.code")
        raise ValueError("the end")
    messages = [line.message for line in ask(warehouse, "SELECT message FROM millrace.run_log ORDER BY line")]
    assert "mind this" in messages[1]
    assert messages[-1] == "ValueError: the end"


def test_a_run_log_that_cannot_be_written_fails_no_task(cancer: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    (task, *_) = run.begin(cancer, "run", {}, "test")
    monkeypatch.setenv("AIRFLOW_CONN_MILLRACE_POSTGRES", '{"conn_type": "postgres", "host": "127.0.0.1", "port": 1}')
    with run_log.logging_to_run(task["run"]):
        logging.getLogger("user.code").warning("lost")


@pytest.mark.altered
def test_the_state_of_a_versions_training_names_the_next_command(
    warehouse: Connection, topic: Callable[..., str]
) -> None:
    dataset = given(topic, signal(300), models=models_that_fail)
    name = dataset.name

    def summary(version: str | None = None) -> str:
        warehouse.rollback()
        return catalog.training(warehouse, name, version)[1]

    assert summary() == f"No version was published yet. Begin with ./millrace publish {name}."
    version = publish(dataset, Interval()).version
    assert summary(version) == "Its training starts automatically within seconds."
    dispatch.land("test")
    assert summary().startswith(f"No run has trained on version {version[:12]}. No run was started yet")
    dispatch.mark_started([version])
    assert "A run was started and has not planned its models yet" in summary()
    planned = run.begin(dataset, run.sealed_run_id(version), {}, "test")
    number = planned[0]["run"]
    assert summary().startswith(f"Run {number} is training on version {version[:12]}. If it was killed, train")
    with pytest.raises(Exception, match="constant"):
        fitting.fit(dataset, number, "unlucky")
    run.settle(planned)
    command = f"Train on it again: ./millrace train {name} --version {version[:12]}."
    failed = summary()
    assert failed.startswith(f"Run {number} on version {version[:12]} failed, unlucky: ")
    assert "constant" in failed and failed.endswith(command) and summary(version) == failed
    sound = replace(dataset, models=one_model)
    planned = run.begin(sound, "manual", {"version": version[:12]}, "test")
    for task in planned:
        fitting.fit(sound, task["run"], task["model"])
    run.settle(planned)
    assert summary() == f"Run {planned[0]['run']} has trained on version {version[:12]}."


def two_models() -> dict[str, Any]:
    from sklearn.tree import DecisionTreeClassifier

    return {"tree": DecisionTreeClassifier(), "other": DecisionTreeClassifier()}


def broken_models() -> dict[str, Any]:
    raise KeyError("depth")


@pytest.mark.parametrize(
    ("form", "changes", "reason"),
    [
        ({"models": ["forest"]}, {}, "[unknown-model]"),
        ({"grid": {"tree": {"depth": [1]}}}, {}, "[invalid-grid]"),
        ({}, {"models": broken_models}, "KeyError: 'depth'"),
    ],
    ids=["model", "grid", "definition"],
)
def test_a_failed_plan_is_shown_with_its_reason_and_the_next_command(
    warehouse: Connection,
    topic: Callable[..., str],
    services: Platform,
    monkeypatch: pytest.MonkeyPatch,
    form: dict[str, Any],
    changes: dict[str, Any],
    reason: str,
) -> None:
    sound = given(topic, signal(300), models=two_models)
    dataset = replace(sound, **changes)
    monkeypatch.setattr(definitions, "find", lambda: Found({dataset.name: dataset}, {}))
    # The test has its own warehouse.
    monkeypatch.setattr(Platform, "environment", lambda _: {})
    version = publish(sound, Interval()).version
    dispatch.land("test")
    run_id, form = run.sealed_run_id(version), {"version": version} | form

    def plan(dataset: Dataset, form: dict[str, Any]) -> list[dict[str, Any]]:
        with run.recorded(dataset, run_id, form, "test"):
            return run.begin(dataset, run_id, form, "test")

    # A retry helps none of them.
    with pytest.raises(NonRetryableError, match=r"forest|depth"):
        plan(dataset, form)
    run.record_missing_plan(dataset, run_id, form, "test")
    (found,) = ask(warehouse, "SELECT run, version, state, parameters FROM millrace.training_run")
    assert (found.version, found.state, found.parameters) == (version, "failed", form)
    again = f"Train on it again: ./millrace train {dataset.name} --version {version[:12]}."
    for command in (registry.value, registry.champion):
        shown = CliRunner().invoke(command, [dataset.name], catch_exceptions=False).output
        assert f"Run {found.run} on version {version[:12]} failed: " in shown and reason in shown and again in shown
        failure = json.loads(CliRunner().invoke(command, [dataset.name, "--json"]).stdout)["failure"]
        assert reason in failure and failure.endswith(again)
    (finding,) = doctor._datasets(services)
    assert reason in finding.remedy and again in finding.remedy
    # The same run, planned again in Airflow, continues and keeps its results.
    planned = plan(sound, {"version": version})
    assert {task["run"] for task in planned} == {found.run}
    for task in planned:
        fitting.fit(sound, task["run"], task["model"])
    run.settle(planned)
    with pytest.raises(Exception, match=r"forest|depth"):
        plan(dataset, form)
    assert ask(warehouse, "SELECT state FROM millrace.training_run")[0].state == "success"
    for command in (registry.value, registry.champion):
        assert "failed" not in CliRunner().invoke(command, [dataset.name], catch_exceptions=False).output


def test_a_killed_plan_leaves_a_failed_run(cancer: Dataset, warehouse: Connection) -> None:
    run.record_missing_plan(cancer, "killed", {}, "test")
    state, says = catalog.training(warehouse, cancer.name)
    assert state == "failed" and "run killed." in says and "./millrace train" in says


def test_a_failure_without_a_version_has_no_run(cancer: Dataset, warehouse: Connection) -> None:
    form = {"version": "beef" * 16}
    with raises(Code.UNKNOWN_VERSION, "beefbeef"), run.recorded(cancer, "run", form, "test"):
        run.begin(cancer, "run", form, "test")
    run.record_missing_plan(cancer, "run", form, "test")
    assert ask(warehouse, "SELECT * FROM millrace.training_run") == []


def test_publishing_again_names_the_last_failure(
    warehouse: Connection, topic: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    dataset = given(topic, signal(300))
    version = publish(dataset, Interval()).version
    dispatch.land("test")
    run.settle(run.begin(dataset, "a run", {}, "test"))
    caplog.clear()
    with caplog.at_level("INFO"):
        publish(dataset, Interval())
    [published, *others] = [r.message for r in caplog.records if r.name == "include.versions.publication"]
    assert published == f"The same rows with the same split were published before, as version {version}."
    assert [f"./millrace train {dataset.name} --version {version[:12]}" in line for line in others] == [True]


def models_that_fail() -> dict[str, Any]:
    from sklearn.dummy import DummyClassifier

    return {"unlucky": DummyClassifier(strategy="constant", constant="maybe")}
