"""The DAGs of retraining: those of each dataset and the common ones, and their settings."""

from __future__ import annotations

import copy
import inspect
import json
import os
import re
import runpy
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG
from airflow.sdk.definitions.mappedoperator import MappedOperator
from airflow.sdk.exceptions import ParamValidationError
from airflow.serialization.serialized_objects import DagSerialization
from airflow.timetables.interval import CronDataIntervalTimetable

from include.airflow import dag_runs
from include.airflow.approval import ApprovalOperator
from include.airflow.manifest_sensor import ManifestSensor
from include.airflow.stream_sensor import StreamSensor
from include.airflow.webhook import Webhook
from include.datasets import definitions
from include.error_codes import Code
from include.errors import NonRetryableError
from include.versions.manifest import Interval
from tests.errors import raises

ROOT = Path(__file__).resolve().parents[2]
FILES = (
    "publish.py",
    "dispatch.py",
    "train.py",
    "promote.py",
    "verify.py",
    "maintain_datasets.py",
    "broken_datasets.py",
)
HEAVY = {"numpy", "pandas", "pyarrow", "sklearn", "skops", "confluent_kafka", "psycopg2", "vega_datasets"}


@pytest.fixture(scope="module")
def dags() -> dict[str, DAG]:
    bag = DagBag(ROOT / "dags", collect_dags=False)
    for file in FILES:
        bag.process_file(str(ROOT / "dags" / file))
    assert not bag.import_errors
    return bag.dags


def parse(program: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program in a new process, in the project's root."""
    # With the address of a metadata database, Airflow itself imports the driver.
    environment = {name: value for name, value in os.environ.items() if name != "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"}
    environment["PYTHONPATH"] = str(ROOT)
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_every_dataset_has_dags(dags: dict[str, DAG]) -> None:
    found = definitions.find().valid
    manual = {name for name, dataset in found.items() if dataset.promotion.name == "manual"}
    assert manual, "a shipped dataset shows the policy manual()"
    expected = {f"{kind}__{name}" for kind in ("publish", "train") for name in found}
    assert set(dags) == expected | {f"promote__{name}" for name in manual} | {
        "dispatch",
        "verify",
        "maintain__datasets",
    }


def test_every_dag_has_documentation_and_a_timeout(dags: dict[str, DAG]) -> None:
    for dag in dags.values():
        assert dag.doc_md and dag.description
        assert "retraining" in dag.tags
        assert dag.dagrun_timeout
        for task in dag.tasks:
            assert task.owner == "millrace"
            assert task.retries
            longest = task.response_timeout if isinstance(task, ApprovalOperator) else task.execution_timeout
            assert longest and longest < dag.dagrun_timeout


def test_a_schedule_publishes_each_interval_in_order(dags: dict[str, DAG]) -> None:
    dag = dags["publish__seattle_weather"]
    assert isinstance(dag.timetable, CronDataIntervalTimetable)
    assert dag.catchup and dag.max_active_runs == 1
    assert dag.start_date and dag.start_date.year == 2013
    assert dag.end_date and dag.end_date.year == 2015, "no interval after the end of the data is due"


def test_a_schedule_starts_without_being_unpaused(dags: dict[str, DAG]) -> None:
    for name in definitions.find().valid:
        assert dags[f"publish__{name}"].is_paused_upon_creation is False


@pytest.mark.parametrize(
    ("changes", "now", "since", "due"),
    [
        ({}, "2026-01-01", None, 3),
        ({}, "2014-06-01", None, 1),
        ({}, "2026-01-01", "2015-01-01", 2),
        ({}, "2013-06-01", None, 0),
        ({"end": None}, "2026-01-01", None, 13),
        ({"schedule": None}, "2026-01-01", None, 0),
        ({"schedule": "@hourly", "end": None}, "2026-01-01", None, 100),
        ({"schedule": "30 6 * * MON", "start": date(2026, 1, 1), "end": None}, "2026-01-21", None, 2),
    ],
)
def test_due_versions_of_a_schedule_are_counted(changes: dict[str, Any], now: str, since: str | None, due: int) -> None:
    dataset = replace(definitions.get("seattle_weather"), **changes)
    first = None if since is None else datetime.fromisoformat(since).replace(tzinfo=UTC)
    assert dag_runs.due(dataset, first, datetime.fromisoformat(now).replace(tzinfo=UTC), 100) == due


@pytest.mark.parametrize("conf", [{"modles": ["tree"]}, {"seed": 1, "x": 2, "Seed": 3}])
def test_every_dag_rejects_an_unknown_parameter(dags: dict[str, DAG], conf: dict[str, Any]) -> None:
    for dag in dags.values():
        context: Any = {"dag": dag, "dag_run": SimpleNamespace(conf=conf)}
        unknown = sorted(repr(name) for name in set(conf) - set(dag.params))
        with raises(Code.UNKNOWN_PARAMETER, dag.dag_id, *unknown, *dag.params, kind=NonRetryableError):
            dag_runs.require_known(context)
        context["dag_run"].conf = dict.fromkeys(dag.params)
        dag_runs.require_known(context)


def test_every_dag_checks_its_parameters_first() -> None:
    # The first tasks of these are operators, which check the parameters themselves.
    own = {"dispatch.py", "landing.py", "promote.py"}
    for file in (ROOT / "dags").glob("*.py"):
        text = file.read_text()
        if "description=" in text and file.name not in own:
            tasks = len(re.findall(r"@task\b", text)) if file.name.startswith("maintain") else 1
            assert text.count("dag_runs.require_known(") >= tasks, file.name
    for operator in (StreamSensor, ManifestSensor, ApprovalOperator):
        assert "require_known(context)" in inspect.getsource(operator.execute)


def test_runs_of_a_dataset_that_tells_somebody_have_a_deadline(dags: dict[str, DAG]) -> None:
    notified = replace(definitions.get("digits"), notify=[Webhook("http://127.0.0.1/")])
    for kind in ("publish", "train"):
        build = runpy.run_path(str(ROOT / f"dags/{kind}.py"))["build"]
        assert not dags[f"{kind}__digits"].deadline
        (deadline,) = build(notified).deadline
        assert deadline.interval == build(notified).dagrun_timeout
        assert deadline.callback.path == "include.airflow.deadlines.missed"
        assert deadline.callback.kwargs["subject"] == "dataset:digits"
        assert DagSerialization.to_dict(build(notified)) == DagSerialization.to_dict(build(notified))


def test_backfills_do_not_publish_in_parallel(dags: dict[str, DAG]) -> None:
    for name in definitions.find().valid:
        assert dags[f"publish__{name}"].get_task("publish").max_active_tis_per_dag == 1


def test_every_parameter_of_the_forms_has_a_default(dags: dict[str, DAG]) -> None:
    for name, dag in dags.items():
        if name.startswith("promote__"):
            # A question is always about a run.
            continue
        assert dag.params.validate() == dag.params.dump(), "a scheduled run has only defaults"


def test_every_field_of_the_forms_can_stay_empty(dags: dict[str, DAG]) -> None:
    for name, dag in dags.items():
        if not name.startswith("promote__"):
            params = copy.deepcopy(dag.params)
            for field in params:
                # The UI sends null for a field that was cleared.
                params[field] = None
            params.validate()


def test_models_are_picked_from_a_list(dags: dict[str, DAG]) -> None:
    for name, dataset in definitions.find().valid.items():
        listed = dags[f"train__{name}"].params.get_param("models").schema["examples"]
        assert [*listed, "baseline"] == list(dataset.estimators())


def test_a_manual_dataset_asks_once_about_each_compared_run(dags: dict[str, DAG]) -> None:
    for name, dataset in definitions.find().valid.items():
        train = dags[f"train__{name}"]
        if dataset.promotion.name != "manual":
            assert "propose" not in train.task_ids
            continue
        propose = train.get_task("propose")
        assert isinstance(propose, MappedOperator)
        assert propose.partial_kwargs["trigger_dag_id"] == f"promote__{name}"
        assert propose.partial_kwargs["skip_when_already_exists"] is True
        assert propose.upstream_task_ids == {"gate"}
        promote = dags[f"promote__{name}"]
        assert promote.schedule is None and promote.max_active_runs >= 100
        assert promote.get_task("apply").upstream_task_ids == {"ask"}


def test_an_unanswered_question_declines(dags: dict[str, DAG]) -> None:
    ask = dags["promote__breast_cancer"].get_task("ask")
    assert isinstance(ask, ApprovalOperator)
    assert ask.options == ["Approve", "Reject"] and ask.defaults == ["Reject"]
    assert list(ask.params) == ["model"], "the form has no other field"
    assert ask.params.get_param("model").resolve(None) is None, "no button is disabled while it is empty"


def test_runs_of_many_versions_do_not_collide(dags: dict[str, DAG]) -> None:
    start = dags["dispatch"].get_task("start")
    assert isinstance(start, MappedOperator)
    assert start.partial_kwargs["skip_when_already_exists"] is True
    assert start.partial_kwargs["logical_date"] is None


def test_started_runs_are_recorded_when_another_cannot_be_started(dags: dict[str, DAG]) -> None:
    assert dags["dispatch"].get_task("note").trigger_rule == "all_done"
    # During the retries of one start, the dispatch does nothing else.
    start = dags["dispatch"].get_task("start")
    assert isinstance(start, MappedOperator) and start.partial_kwargs["retries"] == 5


def test_dags_survive_serialization(dags: dict[str, DAG]) -> None:
    for dag in dags.values():
        read = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))
        assert read.task_ids == dag.task_ids
        assert read.doc_md == dag.doc_md
        for task in dag.tasks:
            assert read.get_task(task.task_id).upstream_task_ids == task.upstream_task_ids


def test_serialization_is_the_same_each_time(dags: dict[str, DAG]) -> None:
    for file in FILES:
        for dag_id, dag in DagBag(ROOT / "dags" / file).dags.items():
            assert DagSerialization.to_dict(dag) == DagSerialization.to_dict(dags[dag_id]), (
                "each parse would be a version"
            )


@pytest.fixture(scope="module")
def parsed() -> subprocess.CompletedProcess[str]:
    """For each DAG file, a line with its name and the modules of a process that has parsed it.

    The processes are forked from one that has imported the modules of Airflow that all files need.
    """
    program = f"""
import os, runpy, sys
import airflow.sdk, airflow.timetables.interval, airflow.providers.standard.operators.trigger_dagrun
for file in {FILES!r}:
    child = os.fork()
    if not child:
        runpy.run_path(f"dags/{{file}}")
        print(file, *sys.modules)
        break
    os.waitpid(child, 0)
"""
    return parse(program)


@pytest.mark.parametrize("file", FILES)
def test_parsing_imports_nothing_heavy(parsed: subprocess.CompletedProcess[str], file: str) -> None:
    [loaded] = [set(modules) for name, *modules in map(str.split, parsed.stdout.splitlines()) if name == file]
    assert "include.errors" in loaded, parsed.stderr
    assert not loaded & HEAVY


def test_parsing_all_of_dags_takes_less_than_a_second_beyond_airflow() -> None:
    program = """
import runpy, time, pathlib
import airflow.sdk, airflow.timetables.interval, airflow.providers.standard.operators.trigger_dagrun
import airflow.triggers.base
started = time.process_time()
for file in sorted(pathlib.Path("dags").glob("*.py")):
    runpy.run_path(str(file))
print(time.process_time() - started)
"""
    parsed = parse(program)
    assert float(parsed.stdout.split()[-1]) < 1.0, parsed.stderr


def test_a_broken_definition_is_reported_and_other_dags_work(tmp_path: Path) -> None:
    folder = tmp_path / "definitions"
    folder.mkdir()
    for name in ("digits", "diabetes"):
        (folder / f"{name}.py").write_text((ROOT / f"include/datasets/{name}.py").read_text())
    broken = (folder / "diabetes.py").read_text().replace('record_id="patient"', "record_id=None")
    (folder / "diabetes.py").write_text(broken)
    program = f"""
import runpy
from pathlib import Path
from include.airflow import dag_runs
from include.datasets import definitions
from include.errors import NonRetryableError
found = definitions.find(Path({str(folder)!r}))
definitions.find = lambda: found
print(sorted(name for name in runpy.run_path("dags/train.py") if name.startswith("train__")))
runpy.run_path("dags/broken_datasets.py")
"""
    parsed = parse(program)
    assert "['train__digits']" in parsed.stdout
    assert parsed.returncode == 1
    assert "diabetes.py: record_id: None" in parsed.stderr.splitlines()[-1]
    assert "[invalid-definition]" in parsed.stderr.splitlines()[-1]


def test_a_past_run_is_verified_each_week_without_catching_up(dags: dict[str, DAG]) -> None:
    verify = dags["verify"]
    assert str(verify.schedule) == "@weekly"
    assert not verify.catchup and verify.max_active_runs == 1


def test_the_latest_interval_is_complete_and_can_be_encoded() -> None:
    dataset = definitions.get("seattle_weather")
    for now, year in ((datetime(2014, 6, 1, tzinfo=UTC), 2013), (datetime(2030, 1, 1, tzinfo=UTC), 2015)):
        found = dag_runs.latest(dataset, now)
        assert found == Interval(datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC))
        assert msgspec.json.decode(msgspec.json.encode(found), type=Interval) == found
    assert dag_runs.latest(definitions.get("digits"), datetime(2030, 1, 1, tzinfo=UTC)) == Interval()


def test_an_interval_without_an_end_ends_with_the_latest_complete_one() -> None:
    def interval(name: str, **form: str) -> Interval:
        context: Any = {"params": form, "dag_run": None}
        return dag_runs.interval(definitions.get(name), context)

    first, last = datetime(2014, 1, 1, tzinfo=UTC), datetime(2016, 1, 1, tzinfo=UTC)
    assert interval("seattle_weather", interval_start="2014-01-01") == Interval(first, last)
    assert interval("seattle_weather", interval_end="2016-01-01") == Interval(None, last)
    assert interval("seattle_weather", interval_start="2019-01-01").end is None, "no interval is complete since then"
    assert interval("digits", interval_start="2014-01-01") == Interval(first, None)


@pytest.mark.parametrize(
    ("dag_id", "form"),
    [
        ("publish__digits", {"seed": 10**25}),
        ("publish__digits", {"rows": 10**25}),
        ("publish__digits", {"interval_start": "junk"}),
        ("publish__digits", {"interval_end": "01.02.2015"}),
        ("verify", {"run": 10**20}),
        ("promote__breast_cancer", {}),
        ("promote__breast_cancer", {"run": 0}),
    ],
)
def test_a_form_rejects_values_that_no_task_can_use(dags: dict[str, DAG], dag_id: str, form: dict[str, Any]) -> None:
    params = copy.deepcopy(dags[dag_id].params)
    with pytest.raises(ParamValidationError):
        for name, value in form.items():
            params[name] = value
        params.validate()


@pytest.mark.parametrize("day", ["2015-01-01", "2015-01-01T00:00:00.000Z", "2015-01-01T00:00:00+00:00"])
def test_a_form_accepts_dates_and_times(dags: dict[str, DAG], day: str) -> None:
    assert dags["publish__digits"].params.get_param("interval_start").resolve(day) == day


@pytest.mark.parametrize(
    ("form", "code", "values"),
    [
        ({"interval_start": "soon"}, Code.INVALID_PARAMETER, ["interval_start", "'soon'"]),
        ({"interval_start": "2015-01-01", "interval_end": "2014-01-01"}, Code.INVALID_INTERVAL, ["2015-01-01", "2014"]),
    ],
)
def test_a_wrong_interval_is_rejected(form: dict[str, str], code: Code, values: list[str]) -> None:
    context: Any = {"params": form, "dag_run": None}
    with raises(code, *values, kind=NonRetryableError):
        dag_runs.interval(definitions.get("digits"), context)
