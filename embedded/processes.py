"""The processes of one platform, recognized by two variables of their environment and not by pid files.

After a reboot, a pid file may name the process of another program. The environment of a process is always its own.
"""

import os
import signal
from collections.abc import Iterable

import psutil

from embedded.home import Home

HOME_VARIABLE = "MILLRACE_HOME"
COMPONENT_VARIABLE = "MILLRACE_COMPONENT"
# The value of COMPONENT_VARIABLE for processes that `up` itself starts.
OF_UP = "up"


def of(home: Home) -> list[psutil.Process]:
    """The running processes of a home, without this process and its parents."""
    mine = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [process for process in psutil.process_iter() if process.pid not in mine and _is_of(process, home)]


def orphans(home: Home) -> list[psutil.Process]:
    """The processes that dead components left behind: those of a home that do not descend from its supervisor, which
    is this process's parent. Processes of the `up` that is starting the platform are not among them.
    """
    supervisor = psutil.Process().parent()
    # In this order: a descendant that starts in between is not in the first list.
    found = of(home)
    family = {child.pid for child in supervisor.children(recursive=True)} if supervisor else set()
    return [process for process in found if process.pid not in family and not _is_of_up(process)]


def end(processes: Iterable[psutil.Process], grace: float) -> None:
    """Terminate the processes, and kill those that are still running after `grace` seconds."""
    alive = list(processes)
    _signal(alive, signal.SIGTERM)
    # A suspended process receives the signal only when it continues.
    _signal(alive, signal.SIGCONT)
    _, alive = psutil.wait_procs(alive, timeout=grace)
    _signal(alive, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=5)


def _is_of(process: psutil.Process, home: Home) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        environment = process.environ()
        if environment.get(HOME_VARIABLE) == str(home.path) and COMPONENT_VARIABLE in environment:
            return True
        # PostgreSQL's backends overwrite their environment with their titles, but stay in the data directory.
        return process.name() == "postgres" and process.cwd() == str(home.postgres)
    except (psutil.Error, OSError):
        return False


def _is_of_up(process: psutil.Process) -> bool:
    try:
        return process.environ().get(COMPONENT_VARIABLE) == OF_UP
    except (psutil.Error, OSError):
        return False


def _signal(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.Error:
            continue
