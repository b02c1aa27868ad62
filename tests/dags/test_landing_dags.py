"""The DAGs of landing: one for each stream, and their settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization

from include.airflow.stream_sensor import StreamSensor
from include.streams import definitions

ROOT = Path(__file__).resolve().parents[2]
FILES = ("landing.py", "replay.py", "retry.py")


@pytest.fixture(scope="module")
def dags() -> dict[str, DAG]:
    bag = DagBag(ROOT / "dags", collect_dags=False)
    for file in (*FILES, "maintain_streams.py", "broken_streams.py"):
        bag.process_file(str(ROOT / "dags" / file))
    assert not bag.import_errors
    return bag.dags


def test_every_stream_has_dags(dags: dict[str, DAG]) -> None:
    expected = {f"{kind}__{name}" for kind in ("land", "replay", "retry") for name in definitions.find().valid}
    assert set(dags) == expected | {"maintain__streams"}


def test_repairs_run_one_at_a_time_and_without_being_unpaused(dags: dict[str, DAG]) -> None:
    for name in definitions.find().valid:
        for kind in ("replay", "retry"):
            dag = dags[f"{kind}__{name}"]
            assert dag.schedule is None and dag.max_active_runs == 1 and dag.is_paused_upon_creation is False


def test_the_form_of_a_replay_can_stay_empty(dags: dict[str, DAG]) -> None:
    for name in definitions.find().valid:
        params = dags[f"replay__{name}"].params
        assert set(params) == {"partition", "first", "last", "since", "until"}
        assert set(params.validate().values()) == {None}


def test_a_stream_is_landed_by_one_run_after_another(dags: dict[str, DAG]) -> None:
    for name, stream in definitions.find().valid.items():
        dag = dags[f"land__{name}"]
        assert type(dag.timetable).__name__ == "ContinuousTimetable"
        assert dag.max_active_runs == 1
        assert dag.max_consecutive_failed_dag_runs > 0, "a stream that cannot continue must not fill the history"
        wait, drain = dag.get_task("wait"), dag.get_task("drain")
        assert drain.upstream_task_ids == {"wait"}
        assert isinstance(wait, StreamSensor)
        assert (wait.reader, wait.kafka_topic) == (stream.reader, stream.topic)
        assert drain.retry_delay <= timedelta(seconds=5), "a killed drain must be retried within ten seconds"
        assert drain.execution_timeout is not None
        assert drain.execution_timeout > timedelta(seconds=stream.window_s)


def test_retention_works_without_being_unpaused(dags: dict[str, DAG]) -> None:
    assert dags["maintain__streams"].is_paused_upon_creation is False


def test_every_dag_has_documentation_and_a_timeout(dags: dict[str, DAG]) -> None:
    for dag in dags.values():
        assert dag.doc_md
        assert dag.tags
        assert dag.dagrun_timeout
        for task in dag.tasks:
            assert task.owner == "millrace"
            assert task.retries
            assert task.execution_timeout


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
                "each parse would be a new version"
            )


@pytest.mark.parametrize("file", FILES)
def test_parsing_imports_nothing_heavy(file: str) -> None:
    program = f"import runpy, sys; runpy.run_path('dags/{file}'); print(*sys.modules)"
    # With the address of a metadata database, Airflow itself imports the driver.
    own = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW__")}
    environment = {**own, "PYTHONPATH": str(ROOT)}
    parsed = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, check=True)
    loaded = set(parsed.stdout.decode().split())
    assert "include.streams.definitions" in loaded
    assert not loaded & {"numpy", "pandas", "pyarrow", "confluent_kafka", "psycopg2", "vega_datasets", "sklearn"}
