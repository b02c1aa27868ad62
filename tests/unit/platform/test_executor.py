"""The executor that waits for the end of a task."""

from __future__ import annotations

import ctypes
import multiprocessing
import selectors
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import structlog
from airflow.executors.local_executor import LocalExecutor
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.sdk.execution_time.supervisor import ActivitySubprocess, PsutilTracker
from airflow.utils.state import TaskInstanceState

from embedded import settings
from include.airflow import patches
from include.airflow.patches.executor import PromptExecutor

KEY = TaskInstanceKey("dag", "task", "run", 1)


def executor() -> PromptExecutor:
    """One that was started, but has no workers."""
    made = PromptExecutor(parallelism=1)
    made.activity_queue, made.result_queue = multiprocessing.SimpleQueue(), multiprocessing.SimpleQueue()
    made.workers, made._unread_messages = {}, multiprocessing.Value(ctypes.c_uint)
    made.running.add(KEY)
    return made


def seconds(of: PromptExecutor) -> float:
    """How long one look for news takes."""
    started = time.monotonic()
    of.sync()
    return time.monotonic() - started


def test_the_end_of_a_task_is_told_at_once() -> None:
    waiting = executor()
    waiting.WAIT_S = 30.0
    threading.Timer(0.5, lambda: waiting.result_queue.put((KEY, TaskInstanceState.SUCCESS, None))).start()
    assert 0.1 < seconds(waiting) < 5
    assert waiting.get_event_buffer() == {KEY: (TaskInstanceState.SUCCESS, None)}


def test_news_that_are_there_are_not_waited_for() -> None:
    waiting = executor()
    waiting.WAIT_S = 30.0
    waiting.result_queue.put((KEY, TaskInstanceState.SUCCESS, None))
    assert seconds(waiting) < 5


def test_without_news_it_waits_as_long_as_it_may_and_no_longer() -> None:
    waiting = executor()
    assert waiting.WAIT_S <= seconds(waiting) < waiting.WAIT_S + 5
    assert not waiting.event_buffer


def test_how_long_it_may_wait_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalExecutor, "start", lambda self: None)
    for setting, seconds_at_most in (("", PromptExecutor.WAIT_S), ("1.5", 1.5)):
        if setting:
            monkeypatch.setenv("AIRFLOW__MILLRACE__EXECUTOR_WAIT", setting)
        made = PromptExecutor(parallelism=1)
        made.start()
        waits = made.WAIT_S
        assert waits == seconds_at_most


def test_a_worker_that_is_done_with_a_task_which_another_has_again_is_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    made = executor()
    monkeypatch.setattr(made, "_check_workers", lambda: None)
    made.running.clear()
    for _ in ("the task defers itself", "it is resumed"):
        workload = SimpleNamespace(key=KEY)
        made.queued_tasks[KEY] = workload  # type: ignore[assignment]
        made._process_workloads([workload])  # type: ignore[list-item]
        made.running.add(KEY)
    made.result_queue.put((KEY, TaskInstanceState.SUCCESS, None))
    made.sync()
    assert KEY in made.running
    assert made.get_event_buffer() == {}
    made.result_queue.put((KEY, TaskInstanceState.FAILED, None))
    made.sync()
    assert KEY not in made.running
    assert made.get_event_buffer() == {KEY: (TaskInstanceState.FAILED, None)}


def test_a_process_that_ends_just_after_its_files_is_noticed_at_once() -> None:
    """The supervisor of a task looks at its process when that has closed its last file, and has not ended."""
    import_module("include.airflow.patches.task_end")
    with selectors.DefaultSelector() as selector, subprocess.Popen(["sleep", "0.3"]) as process:
        supervisor = ActivitySubprocess(
            id=uuid.uuid4(),
            pid=process.pid,
            stdin=None,  # type: ignore[arg-type]
            process=PsutilTracker(psutil.Process(process.pid)),
            process_log=structlog.get_logger(),
            selector=selector,
            client=None,  # type: ignore[arg-type]
        )
        started = time.monotonic()
        while supervisor._service_subprocess(max_wait_time=5) is None:
            pass
        assert time.monotonic() - started < 2


def test_the_scheduler_does_not_sleep_besides_and_only_with_this_executor() -> None:
    module, _, name = settings.AIRFLOW["CORE__EXECUTOR"].rpartition(".")
    assert (module, name) == (PromptExecutor.__module__, PromptExecutor.__name__)
    assert issubclass(PromptExecutor, LocalExecutor)
    assert float(settings.AIRFLOW["SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME"]) == 0


@pytest.fixture
def next_minor(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The process believes that Airflow's next minor version is installed."""
    monkeypatch.setattr(patches, "version", lambda name: "3.4.0")
    patches.apply_here.cache_clear()
    yield
    patches.apply_here.cache_clear()


@pytest.mark.usefixtures("next_minor")
def test_on_another_minor_version_the_patches_step_aside(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """That version hands a worker's result over with one argument more, as Airflow's main branch does."""
    results: list[tuple[Any, ...]] = []

    def change_state(self: LocalExecutor, key: Any, state: Any, *, workload_run_id: str) -> None:
        results.append((key, state, workload_run_id))

    monkeypatch.setattr(LocalExecutor, "change_state", change_state)
    made = executor()
    made._at_work[KEY] = 2
    made.change_state(KEY, TaskInstanceState.SUCCESS, workload_run_id="run")
    assert results == [(KEY, TaskInstanceState.SUCCESS, "run")]
    assert patches.executor_settings() == {"CORE__EXECUTOR": "LocalExecutor"}
    assert [record.getMessage() for record in caplog.records] == [
        "Airflow 3.4.0 is not 3.3: Millrace's patches are not applied, and Airflow's own executor works."
    ]


def test_on_another_minor_version_the_supervisor_of_a_task_is_airflows_own() -> None:
    script = (
        "from airflow.sdk.execution_time.supervisor import ActivitySubprocess as task\n"
        "before = task._service_subprocess\n"
        "from include.airflow import patches\n"
        "patches.version = lambda name: '3.4.0'\n"
        "import include.airflow.patches.task_end\n"
        "assert task._service_subprocess is before\n"
    )
    subprocess.run([sys.executable, "-P", "-c", script], check=True)
