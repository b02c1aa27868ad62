"""LocalExecutor that lets the scheduler sleep until a task has ended.

Airflow's scheduler looks for work in a loop, and one turn of it costs 40 ms of a core even when there is none: looking
ten times a second takes half a core from the tasks, looking once a second leaves a second between two tasks. Most new
work follows the end of a task, and the executor learns of that at once.
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

LOOK_EVERY_S = 0.005


class PromptExecutor(LocalExecutor):
    """Waits for the end of a task when the scheduler asks for results and there are none.

    It waits for ``executor_wait`` seconds at most, a setting in section ``millrace``. This is also the longest time
    until the scheduler notices an event that no task reports: a run that a person triggers, a trigger that fires. On a
    version of Airflow that the patches are not for it is LocalExecutor with a pause.
    """

    WAIT_S = 0.2

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._at_work: Counter[Any] = Counter()

    def start(self) -> None:
        """Called once, before the first turn."""
        self.WAIT_S = conf.getfloat("millrace", "executor_wait", fallback=self.WAIT_S)
        # Before the workers are forked, which supervise the tasks.
        import_module("include.airflow.patches.task_end")
        super().start()

    def sync(self) -> None:
        """Called in each turn of the scheduler's loop."""
        if patches.apply_here():
            deadline = time.monotonic() + self.WAIT_S
            while not self.event_buffer and self.result_queue.empty() and time.monotonic() < deadline:
                time.sleep(LOOK_EVERY_S)
        else:
            # The settings that name this executor let the scheduler not sleep by itself.
            time.sleep(self.WAIT_S)
        super().sync()

    def change_state(self, key: Any, state: Any, *arguments: Any, **options: Any) -> None:
        """Called with a worker's result.

        Ignores the result of a task that was deferred, or asked a person, and already runs again in the same try: the
        scheduler would take it for the end of the running attempt and fail it, and a person's answer would be lost
        (apache/airflow issues 71580, 72716).
        """
        if patches.apply_here() and state in (TaskInstanceState.SUCCESS, TaskInstanceState.FAILED):
            self._at_work[key] -= 1
            if self._at_work[key] > 0:
                return
            del self._at_work[key]
        super().change_state(key, state, *arguments, **options)

    def _process_workloads(self, workload_list: Sequence[ExecutorWorkload]) -> None:
        if patches.apply_here():
            self._at_work.update(workload.key for workload in workload_list)
        super()._process_workloads(workload_list)
