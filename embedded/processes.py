"""The processes of one platform, known by two variables of their environment and not by pid files.

A pid file outlives a reboot and names somebody else's process; the environment of a process cannot.
"""

import os
import signal
from collections.abc import Iterable

import psutil

from embedded.home import Home

HOME_VARIABLE = "MILLRACE_HOME"
COMPONENT_VARIABLE = "MILLRACE_COMPONENT"
# The component that a process of `up` itself belongs to.
OF_UP = "up"


def of(home: Home) -> list[psutil.Process]:
    """The live processes of a home, this process and its parents left out."""
    mine = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [process for process in psutil.process_iter() if process.pid not in mine and _is_of(process, home)]


def orphans(home: Home) -> list[psutil.Process]:
    """The live processes of a home that do not descend from this process's parent, the home's supervisor, nor from the
    `up` that has started it: what another `up` left behind, that one has ended before.
    """
    supervisor = psutil.Process().parent()
    # The descendants are asked later: one that is born in between is not on the first list.
    found = of(home)
    family = {child.pid for child in supervisor.children(recursive=True)} if supervisor else set()
    return [process for process in found if process.pid not in family and not _is_of_up(process)]


def end(processes: Iterable[psutil.Process], grace: float) -> None:
    """Ask the processes to end, and kill those that have not after `grace` seconds."""
    alive = list(processes)
    _signal(alive, signal.SIGTERM)
    # A stopped process gets the signal only when it continues.
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
        # PostgreSQL's backends write their titles over their environment, but never leave the data directory.
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
