"""The patches of Airflow's LocalExecutor and of a task's supervisor, on the classes of the installed Airflow."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.executors.base_executor import BaseExecutor
from airflow.executors.local_executor import LocalExecutor
from airflow.executors.workloads import ExecuteTask
from airflow.executors.workloads.base import BundleInfo
from airflow.executors.workloads.task import TaskInstanceDTO
from airflow.utils.state import TaskInstanceState

from embedded import settings
from include.airflow import patches
from include.airflow.patches.executor import PromptExecutor
from include.project import ROOT
from tests.polling import until

# Longer than any of these tests takes: an executor that waits for all of it misses the event it should wait for.
LONG_S = 60.0


class Worker:
    """An executor with one worker process, whose tasks end when the test says so."""

    def __init__(self, executor: LocalExecutor, ends: multiprocessing.SimpleQueue[bool]) -> None:
        self.executor = executor
        self._ends = ends
        self.task = workload()

    def run(self) -> None:
        """Hand the task to the worker."""
        self.executor.queue_workload(self.task, None)  # type: ignore[arg-type]
        self.executor.trigger_tasks(1)

    def end(self, success: bool = True) -> None:
        """End the task, and wait until the worker has sent its result."""
        self.end_soon(success)
        until("the result has arrived", lambda: not self.executor.result_queue.empty())

    def end_soon(self, success: bool = True) -> None:
        """End the task without waiting."""
        self._ends.put(success)

    def events(self) -> dict[Any, Any]:
        """What the scheduler learns from one iteration of its loop."""
        self.executor.sync()
        return {key: state for key, (state, _) in self.executor.get_event_buffer().items()}


def workload() -> ExecuteTask:
    task = TaskInstanceDTO(
        id=uuid.uuid4(),
        dag_id="dag",
        task_id="task",
        run_id="run",
        try_number=1,
        dag_version_id=uuid.uuid4(),
        pool_slots=1,
        priority_weight=1,
    )
    bundle = BundleInfo(name="dags-folder")
    return ExecuteTask(ti=task, dag_rel_path="dag.py", token="", bundle_info=bundle, log_path=None)  # type: ignore[arg-type]


@pytest.fixture
def worker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    """A started executor of the class that the test names, ours by default."""
    ends: multiprocessing.SimpleQueue[bool] = multiprocessing.SimpleQueue()

    def run_workload(*arguments: object, **options: object) -> int:
        if not ends.get():
            raise RuntimeError("the task fails")
        return 0

    monkeypatch.setattr(BaseExecutor, "run_workload", staticmethod(run_workload))
    executor = getattr(request, "param", PromptExecutor)(parallelism=1)
    executor.start()
    yield Worker(executor, ends)
    for process in executor.workers.values():
        process.kill()


def test_the_scheduler_waits_for_the_end_of_a_task(worker: Worker) -> None:
    worker.executor.max_wait_s = LONG_S  # type: ignore[attr-defined]
    worker.run()
    started = time.monotonic()
    threading.Timer(0.3, worker.end_soon).start()
    assert worker.events() == {worker.task.key: TaskInstanceState.SUCCESS}
    assert time.monotonic() - started < LONG_S


def test_a_result_that_has_arrived_is_read_without_waiting(worker: Worker) -> None:
    worker.executor.max_wait_s = LONG_S  # type: ignore[attr-defined]
    worker.run()
    worker.end()
    started = time.monotonic()
    assert worker.events() == {worker.task.key: TaskInstanceState.SUCCESS}
    assert time.monotonic() - started < LONG_S


def test_without_a_result_the_wait_ends(worker: Worker) -> None:
    started = time.monotonic()
    assert worker.events() == {}
    assert time.monotonic() - started >= PromptExecutor.max_wait_s


def test_the_longest_wait_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalExecutor, "start", lambda self: None)
    for setting, expected in (("", PromptExecutor.max_wait_s), ("1.5", 1.5)):
        if setting:
            monkeypatch.setenv("AIRFLOW__MILLRACE__EXECUTOR_WAIT", setting)
        executor = PromptExecutor(parallelism=1)
        executor.start()
        assert executor.max_wait_s == expected


def run_deferred_and_resumed(worker: Worker) -> None:
    """The task defers itself, and is resumed in the same try before its first result is read."""
    worker.run()
    worker.end()
    worker.run()


def test_the_result_of_a_deferred_task_does_not_end_the_resumed_one(worker: Worker) -> None:
    run_deferred_and_resumed(worker)
    assert worker.events() == {}
    worker.end(success=False)
    assert worker.events() == {worker.task.key: TaskInstanceState.FAILED}


@pytest.mark.parametrize("worker", [LocalExecutor], indirect=True)
def test_airflow_needs_the_patch_against_stale_results(worker: Worker) -> None:
    run_deferred_and_resumed(worker)
    assert worker.events() == {worker.task.key: TaskInstanceState.SUCCESS}, "fixed upstream: remove the patch"


SUPERVISED = """
import selectors, subprocess, sys, time, uuid
import psutil, structlog
from airflow.sdk.execution_time.supervisor import ActivitySubprocess, PsutilTracker
from include.airflow import patches
if sys.argv[1] == "unpatched":
    patches.version = lambda name: "3.4.0"
import include.airflow.patches.task_end
with selectors.DefaultSelector() as selector, subprocess.Popen(["sleep", "0.2"]) as process:
    supervisor = ActivitySubprocess(
        id=uuid.uuid4(), pid=process.pid, stdin=None, process=PsutilTracker(psutil.Process(process.pid)),
        process_log=structlog.get_logger(), selector=selector, client=None,
    )
    started = time.monotonic()
    while supervisor._service_subprocess(max_wait_time=float(sys.argv[2])) is None:
        pass
    print(time.monotonic() - started)
"""


def supervise(patch: str, max_wait_s: float) -> float:
    """Seconds in which a supervisor notices the end of a process that has closed its files 0.2 s before."""
    done = subprocess.run(
        [sys.executable, "-c", SUPERVISED, patch, str(max_wait_s)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


def test_a_supervisor_notices_the_end_of_a_process_immediately() -> None:
    assert supervise("patched", max_wait_s=LONG_S) < LONG_S


def test_airflow_needs_the_patch_of_the_supervisor() -> None:
    assert supervise("unpatched", max_wait_s=1.0) >= 1.0, "fixed upstream: remove the patch"


def test_the_executor_and_the_idle_sleep_are_set_together() -> None:
    module, _, name = settings.AIRFLOW["CORE__EXECUTOR"].rpartition(".")
    assert (module, name) == (PromptExecutor.__module__, PromptExecutor.__name__)
    assert issubclass(PromptExecutor, LocalExecutor)
    assert float(settings.AIRFLOW["SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME"]) == 0


@pytest.fixture
def next_minor(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Makes the patches see Airflow's next minor version."""
    monkeypatch.setattr(patches, "version", lambda name: "3.4.0")
    patches.are_supported.cache_clear()
    yield
    patches.are_supported.cache_clear()


@pytest.mark.usefixtures("next_minor")
def test_on_another_minor_version_the_patches_do_nothing(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Airflow's main branch passes one more argument with a worker's result."""
    results: list[tuple[Any, ...]] = []

    def change_state(self: LocalExecutor, key: Any, state: Any, *, workload_run_id: str) -> None:
        results.append((key, state, workload_run_id))

    monkeypatch.setattr(LocalExecutor, "change_state", change_state)
    patches.are_supported.cache_clear()
    run_deferred_and_resumed(worker)
    key: Any = worker.task.key
    worker.executor.change_state(key, TaskInstanceState.SUCCESS, workload_run_id="run")  # type: ignore[call-arg]
    assert results == [(key, TaskInstanceState.SUCCESS, "run")]
    assert patches.executor_settings() == {"CORE__EXECUTOR": "LocalExecutor"}
    assert [record.getMessage() for record in caplog.records if record.name == patches.__name__] == [
        "Airflow 3.4.0 is not 3.3: Millrace does not apply its patches, and uses LocalExecutor."
    ]
