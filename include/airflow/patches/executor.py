"""A LocalExecutor that makes the scheduler wait until a task has ended.

Airflow's scheduler looks for work in a loop. One iteration costs 40 ms of a core even when there is no work: ten
iterations per second take half a core from the tasks, and one per second leaves a second between two tasks. Most new
work follows the end of a task, which the executor notices immediately.

It also ignores the late result of a deferred task (apache/airflow issues 71580, 72716): ``change_state``. The setting
that names this executor is in ``include/airflow/patches/__init__.py``.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow.configuration import conf
from airflow.executors.local_executor import LocalExecutor
from airflow.utils.state import TaskInstanceState

from include.airflow import patches

if TYPE_CHECKING:
    from airflow.executors.workloads import ExecutorWorkload

POLL_S = 0.005


class PromptExecutor(LocalExecutor):
    """Waits for the end of a task when the scheduler fetches results and there are none.

    The setting ``executor_wait`` in section ``millrace`` is the longest wait in seconds. It is also the longest time
    until the scheduler notices an event that no task reports, such as a run that a user triggers or a trigger that
    fires. On another minor version of Airflow, this is LocalExecutor with a fixed pause.
    """

    max_wait_s = 0.2

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)  # type: ignore[no-untyped-call, unused-ignore]
        # How many workers have each task at the moment.
        self._assigned: Counter[Any] = Counter()

    def start(self) -> None:
        """Called once, before the first iteration of the scheduler's loop."""
        self.max_wait_s = conf.getfloat("millrace", "executor_wait", fallback=self.max_wait_s)
        # Before the fork of the workers, which supervise the tasks.
        import_module("include.airflow.patches.task_end")
        super().start()

    def sync(self) -> None:
        """Called in each iteration of the scheduler's loop."""
        if patches.are_supported():
            deadline = time.monotonic() + self.max_wait_s
            while not self.event_buffer and self.result_queue.empty() and time.monotonic() < deadline:
                time.sleep(POLL_S)
        else:
            # With the settings that name this executor, the scheduler itself does not sleep.
            time.sleep(self.max_wait_s)
        super().sync()

    def change_state(self, key: Any, state: Any, *arguments: Any, **options: Any) -> None:
        """Called with the result of a worker.

        Ignores the result of a task that was deferred and is already running again in the same try. The scheduler would
        treat it as the end of the running attempt and fail the task, and a user's answer to its question would be lost
        (apache/airflow issues 71580, 72716).
        """
        if patches.are_supported() and state in (TaskInstanceState.SUCCESS, TaskInstanceState.FAILED):
            self._assigned[key] -= 1
            if self._assigned[key] > 0:
                return
            del self._assigned[key]
        super().change_state(key, state, *arguments, **options)

    def _process_workloads(self, workload_list: Sequence[ExecutorWorkload]) -> None:
        if patches.are_supported():
            self._assigned.update(workload.key for workload in workload_list)
        super()._process_workloads(workload_list)  # type: ignore[no-untyped-call, unused-ignore]
