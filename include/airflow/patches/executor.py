"""LocalExecutor that lets the scheduler sleep until a task has ended.

Airflow's scheduler looks for work in a loop, and one turn of it costs 40 ms of a core even when there is none: looking
ten times a second it takes half a core from the tasks, looking once a second it leaves a second between two tasks.
Most of what makes work is a task that has ended, and the executor learns of it at once.
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

if TYPE_CHECKING:
    from airflow.executors.workloads import ExecutorWorkload

LOOK_EVERY_S = 0.005


class PromptExecutor(LocalExecutor):
    """Waits for the end of a task whenever the scheduler asks for news and there are none, for so many seconds at most
    as ``executor_wait`` in section ``millrace`` of Airflow's settings says.

    The wait is also the longest that what no task tells of is not seen: a run that a person has triggered, a trigger
    that has fired.
    """

    WAIT_S = 0.2

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._at_work: Counter[Any] = Counter()

    def start(self) -> None:
        """Called once, before the first turn."""
        self.WAIT_S = conf.getfloat("millrace", "executor_wait", fallback=self.WAIT_S)
        # Before the workers are forked, who supervise the tasks.
        import_module("include.airflow.patches.task_end")
        super().start()

    def sync(self) -> None:
        """Called in each turn of the scheduler's loop."""
        deadline = time.monotonic() + self.WAIT_S
        while not self.event_buffer and self.result_queue.empty() and time.monotonic() < deadline:
            time.sleep(LOOK_EVERY_S)
        super().sync()

    def change_state(self, key: Any, state: Any, info: Any = None, remove_running: bool = True) -> None:
        """Called with the news of a worker.

        That a worker is done with a task which has deferred itself, or asked a person, is no news once another worker
        has it again, in the same try: the scheduler would take it for the end of a task that says it runs, and let it
        fail. A person's answer would be lost (apache/airflow issues 71580, 72716).
        """
        if state in (TaskInstanceState.SUCCESS, TaskInstanceState.FAILED):
            self._at_work[key] -= 1
            if self._at_work[key] > 0:
                return
            del self._at_work[key]
        super().change_state(key, state, info, remove_running)

    def _process_workloads(self, workload_list: Sequence[ExecutorWorkload]) -> None:
        self._at_work.update(workload.key for workload in workload_list)
        super()._process_workloads(workload_list)
