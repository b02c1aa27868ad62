"""Tests side by side: how many processes run them, and which tests stay together in one.

Each process has servers of its own, so that tests of different processes meet nowhere but on the processor.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import pytest
from xdist.scheduler import LoadScopeScheduling

# The suite waits as much as it computes: for what was killed to be noticed, and for Airflow.
PROCESSES = 6
# Tests that stay together in one process, by how their ids begin. All others are of tests/faults, need its servers
# alone, and go one by one to the next free process.
TOGETHER = {
    "airflow": ("tests/e2e/",),
    "airflow that is ill": ("tests/faults/test_airflow.py", "tests/integration/test_platform.py::TestWhole"),
    "promotion": ("tests/integration/test_promotion.py", "tests/integration/test_registry.py"),
    "random mix": ("tests/faults/test_random_mix.py",),
    "audit": ("tests/faults/test_audit.py",),
    "landing events": ("tests/integration/test_landing_events", "tests/integration/test_landing_generated"),
    "landing tables": ("tests/integration/test_landing_tables",),
    "landing": (
        "tests/integration/test_landing",
        "tests/integration/test_platform",
        "tests/integration/test_installation",
    ),
    "contract": (
        "tests/integration/test_contract",
        "tests/integration/test_identity",
        "tests/integration/test_lies",
        "tests/integration/test_queries",
    ),
    "retraining": ("tests/integration/",),
    "no servers": ("tests/unit/", "tests/dags/"),
}
# How many of the others are begun before those that are not begun at once: what waits much and what computes much
# shall run side by side, from the beginning to the end.
AFTER = {
    "retraining": 30,
    "landing tables": 35,
    "promotion": 45,
    "contract": 50,
    "landing": 60,
    "landing events": 65,
    "no servers": 110,
}
# Those that have a whole Airflow, which is stopped behind them.
AIRFLOW = ("airflow", "airflow that is ill")
# Who may use what is made once for each process, and costs much.
WITH_SERVERS = ("contract", "landing", "landing events", "landing tables", "promotion", "retraining")
OWN = {"airflow_platform": AIRFLOW, "services": (*AIRFLOW, *WITH_SERVERS)}
# Seconds to wait for the tests of other processes to end; the longest takes some minutes.
PATIENCE_S = 240.0
# The home of the whole run, beside which its processes have theirs.
_TURNS = os.environ.get("MILLRACE_HOME", "")


class Scheduling(LoadScopeScheduling):
    """Hands tests to processes."""

    def _split_scope(self, nodeid: str) -> str:
        return together(nodeid) or nodeid


def together(nodeid: str) -> str | None:
    """The name of those that a test stays together with, if there are any."""
    return next((name for name, begins in TOGETHER.items() if nodeid.startswith(begins)), None)


def processes(config: pytest.Config) -> int:
    """How many processes run what was asked for; 0 when it is less than all of tests/faults, for this one alone."""
    faults = config.rootpath / "tests/faults"
    places = [config.invocation_params.dir / argument for argument in config.args]
    chosen = config.option.keyword or config.option.markexpr
    return 0 if chosen or not any(faults.is_relative_to(place) for place in places) else PROCESSES


def arrange(items: list[pytest.Item]) -> None:
    """Puts the tests into the order in which they are begun. Raises UsageError when one uses what it should not."""
    turns = {name: number for number, name in enumerate(TOGETHER)}
    others: dict[str, int] = {}
    for item in items:
        used, name = getattr(item, "fixturenames", ()), together(item.nodeid)
        for fixture, of in OWN.items():
            if fixture in used and name not in of:
                raise pytest.UsageError(f"{item.nodeid} uses {fixture}; see tests/lanes.py")
        if name is None:
            others[item.nodeid] = len(others)

    def place(item: pytest.Item) -> tuple[float, int]:
        name = together(item.nodeid)
        if name is None:
            return others[item.nodeid], 0
        return AFTER.get(name, 0) - 0.5, turns[name]

    items.sort(key=place)


@contextmanager
def first_alone() -> Iterator[None]:
    """The length of a ``with`` block alone for the process that comes first, and for the others once it has ended.

    For imports: what the first one has compiled, the others load.
    """
    with open(f"{_TURNS}.first", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _lock(file, fcntl.LOCK_SH)
        yield


class Turn:
    """One test among others, of this process and of others, until the end of `turn`."""

    def __init__(self, running: IO[str]) -> None:
        self._running = running

    @contextmanager
    def alone(self) -> Iterator[None]:
        """The length of a ``with`` block while no test of another process runs.

        Keeps new tests from beginning, and waits for those that run.
        """
        fcntl.flock(self._running, fcntl.LOCK_UN)
        _enter(self._running, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._running, fcntl.LOCK_SH)


@contextmanager
def turn() -> Iterator[Turn]:
    """The length of a ``with`` block as one test among others."""
    with open(f"{_TURNS}.tests", "w") as running:
        _enter(running, fcntl.LOCK_SH)
        try:
            yield Turn(running)
        finally:
            fcntl.flock(running, fcntl.LOCK_UN)


def _enter(running: IO[str], operation: int) -> None:
    """Waits for a lock behind all who wait for one already, so that those who come later hold nobody up.

    A child of this process that outlives a test has these files too: closing them would not unlock them.
    """
    with open(f"{_TURNS}.turn", "w") as gate:
        _lock(gate, fcntl.LOCK_EX)
        _lock(running, operation)
        fcntl.flock(gate, fcntl.LOCK_UN)


def _lock(file: IO[str], operation: int) -> None:
    """Waits for a lock, but not for ever: a test beside another is better than none."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        try:
            fcntl.flock(file, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)
        else:
            return
