"""Changes of Airflow's own behaviour, each for one minor version of it.

| module | effect | upstream |
|---|---|---|
| ``executor`` | The scheduler waits until a task ends. A stale result does not fail a resumed task. | #71580, #72716 |
| ``task_end`` | The supervisor of a task notices immediately that the task's process has ended. | none yet |
| ``preload`` | Workers are forked from a scheduler that has imported what tasks need. | ``mp_forkserver_preload`` |

The patches use modules that Airflow does not document. On another minor version they do nothing and log one line.
Everything then works as with Airflow's own LocalExecutor: an idle scheduler uses more CPU, and tasks start later.
"""

from __future__ import annotations

import logging
from functools import cache
from importlib.metadata import version

SUPPORTED = "3.3"

log = logging.getLogger(__name__)


@cache
def are_supported() -> bool:
    """Whether the installed Airflow is of the minor version that the patches are for. Logs one line when it is not."""
    found = version("apache-airflow")
    if found.split(".")[:2] == SUPPORTED.split("."):
        return True
    log.warning("Airflow %s is not %s: Millrace does not apply its patches, and uses LocalExecutor.", found, SUPPORTED)
    return False


def executor_settings() -> dict[str, str]:
    """Airflow's settings for the executor. Both belong together."""
    if not are_supported():
        return {"CORE__EXECUTOR": "LocalExecutor"}
    return {
        "CORE__EXECUTOR": "include.airflow.patches.executor.PromptExecutor",
        # The executor waits instead of the scheduler, until a task has ended.
        "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0",
    }
