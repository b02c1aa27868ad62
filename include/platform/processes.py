"""The processes of one platform, known by two variables of their environment and not by pid files.

A pid file outlives a reboot and names somebody else's process; the environment of a process cannot.
"""

import os
import signal
from collections.abc import Iterable

import psutil

from include.platform.home import Home

HOME_VARIABLE = "MILLRACE_HOME"
COMPONENT_VARIABLE = "MILLRACE_COMPONENT"


def of(home: Home, component: str | None = None) -> list[psutil.Process]:
    """The live processes of a home, or of one of its components, this process and its parents left out."""
    mine = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [
        process for process in psutil.process_iter() if process.pid not in mine and _is_of(process, home, component)
    ]


def end(processes: Iterable[psutil.Process], grace: float) -> None:
    """Ask the processes to end, and kill those that have not after `grace` seconds."""
    alive = list(processes)
    _signal(alive, signal.SIGTERM)
    _, alive = psutil.wait_procs(alive, timeout=grace)
    _signal(alive, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=5)


def _is_of(process: psutil.Process, home: Home, component: str | None) -> bool:
    try:
        owner = _owner(process, home)
        return owner is not None and component in (None, owner) and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OSError):
        return False


def _owner(process: psutil.Process, home: Home) -> str | None:
    environment = process.environ()
    if environment.get(HOME_VARIABLE) == str(home.path) and (owner := environment.get(COMPONENT_VARIABLE)):
        return owner
    # PostgreSQL's backends write their titles over their environment, but never leave the data directory.
    return "postgres" if process.name() == "postgres" and process.cwd() == str(home.postgres) else None


def _signal(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.Error:
            continue
