"""LocalExecutor that lets the scheduler sleep until a task has ended.

Airflow's scheduler looks for work in a loop, and one turn of it costs 40 ms of a core even when there is none: looking
ten times a second it takes half a core from the tasks, looking once a second it leaves a second between two tasks.
Most of what makes work is a task that has ended, and that the executor is told at once.
"""

from __future__ import annotations

import time

from airflow.configuration import conf
from airflow.executors.local_executor import LocalExecutor

LOOK_EVERY_S = 0.005


class PromptExecutor(LocalExecutor):
    """Waits for the end of a task whenever the scheduler asks for news and there are none, for so many seconds at most
    as ``executor_wait`` in section ``millrace`` of Airflow's settings says.

    The wait is also the longest that what no task tells of is not seen: a run that a person has triggered, a trigger
    that has fired.
    """

    WAIT_S = 0.2

    def start(self) -> None:
        """Called once, before the first turn."""
        self.WAIT_S = conf.getfloat("millrace", "executor_wait", fallback=self.WAIT_S)
        super().start()

    def sync(self) -> None:
        """Called in each turn of the scheduler's loop."""
        deadline = time.monotonic() + self.WAIT_S
        while not self.event_buffer and self.result_queue.empty() and time.monotonic() < deadline:
            time.sleep(LOOK_EVERY_S)
        super().sync()
