"""Changes of Airflow's own behaviour, for one minor version of it.

| module | what and why | upstream |
|---|---|---|
| ``executor`` | the scheduler sleeps until a task ends; an old result fails no resumed task | #71580, #72716 |
| ``task_end`` | the supervisor of a task notices at once that the task's process has ended | none yet |
| ``preload`` | workers are forked from a scheduler that has imported what tasks need | ``mp_forkserver_preload`` |

They reach into modules that Airflow does not document. On another minor version they do nothing and log one line, and
everything works as with Airflow's own LocalExecutor: an idle scheduler computes more, and a task begins later.
"""

from __future__ import annotations

import logging
from functools import cache
from importlib.metadata import version

SUPPORTED = "3.3"

log = logging.getLogger(__name__)


@cache
def apply_here() -> bool:
    """Whether this Airflow is of the version that the patches are for; logs one line when it is not."""
    found = version("apache-airflow")
    if found.split(".")[:2] == SUPPORTED.split("."):
        return True
    log.warning(
        "Airflow %s is not %s: Millrace's patches are not applied, and Airflow's own executor works.", found, SUPPORTED
    )
    return False


def executor_settings() -> dict[str, str]:
    """Airflow's settings that belong to the executor: both or neither."""
    if not apply_here():
        return {"CORE__EXECUTOR": "LocalExecutor"}
    return {
        "CORE__EXECUTOR": "include.airflow.patches.executor.PromptExecutor",
        # The executor waits instead, until a task has ended.
        "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0",
    }
