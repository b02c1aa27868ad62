"""The DAG that checks expectations, and its settings."""

from __future__ import annotations

from pathlib import Path

from airflow.dag_processing.dagbag import DagBag

ROOT = Path(__file__).resolve().parents[2]


def test_expectations_are_checked_every_minute_without_being_unpaused() -> None:
    bag = DagBag(ROOT / "dags", collect_dags=False)
    bag.process_file(str(ROOT / "dags/maintain_expectations.py"))
    assert not bag.import_errors
    dag = bag.dags["maintain__expectations"]
    assert str(dag.schedule) == "* * * * *"
    assert (dag.catchup, dag.max_active_runs, dag.is_paused_upon_creation) == (False, 1, False)
    (task,) = dag.tasks
    assert task.retries
    assert dag.dagrun_timeout and task.execution_timeout and task.execution_timeout < dag.dagrun_timeout
