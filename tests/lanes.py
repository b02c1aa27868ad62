"""How many processes run the tests, and which tests share a process: a lane.

Each process has its own servers, so that tests of different processes share only the machine.
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

# More than there are cores, because many tests wait: for Airflow, or until a killed process is noticed.
PROCESSES = 6
# The tests of each lane, by the beginning of their ids. All other tests are in tests/faults and need only its servers;
# each of them goes to the next free process.
LANES = {
    "airflow": ("tests/e2e/",),
    # In this order: the last ones kill Airflow's processes.
    "airflow in a browser, and that fails": (
        "tests/browser/",
        "tests/faults/test_airflow.py",
        "tests/integration/test_platform.py::TestWhole",
    ),
    "promotion": ("tests/integration/test_promotion.py", "tests/integration/test_registry.py"),
    "random mix": ("tests/faults/test_random_mix.py",),
    # One process, because each starts a schema registry.
    "keyed avro": ("tests/faults/test_keyed_avro.py",),
    "audit": ("tests/faults/test_audit.py",),
    "landing events": ("tests/integration/test_landing_events", "tests/integration/test_landing_generated"),
    "landing tables": ("tests/integration/test_landing_tables",),
    "landing": ("tests/integration/test_landing",),
    "platform": (
        "tests/integration/test_platform",
        "tests/integration/test_installation",
        "tests/integration/test_schema_registry",
    ),
    "streams": (
        "tests/integration/test_change_events",
        "tests/integration/test_current_state",
        "tests/integration/test_defects",
        "tests/integration/test_filtered",
        "tests/integration/test_from_topic",
        "tests/integration/test_indexes",
        "tests/integration/test_several_topics",
        "tests/integration/test_twenty_topics",
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
# Half of the suite's CPU time: a second way to a result that other tests show, too, or a large input. They run with
# ``--all``, or when they are named.
LONG = (
    "tests/browser/",
    "tests/e2e/test_alerts_in_airflow.py",
    "tests/e2e/test_history_in_airflow.py",
    "tests/e2e/test_masks_in_airflow.py",
    "tests/faults/test_airflow.py::test_an_hour_without_events",
    "tests/faults/test_debezium.py",
    "tests/faults/test_keyed_avro.py",
    "tests/integration/test_backup.py",
    "tests/integration/test_installation.py",
    "tests/integration/test_landing_generated.py",
    "tests/integration/test_landing_peers.py",
    "tests/integration/test_platform.py::TestWhole",
    "tests/integration/test_promotion.py::test_verdicts_on_real_data",
    "tests/integration/test_queries_generated.py",
    "tests/integration/test_schema_registry.py::test_a_backup",
    "tests/integration/test_schema_registry.py::test_a_thousand_schemas",
)
# How many of the tests without a lane start before a lane starts; lanes that are not listed start first. So tests that
# wait and tests that compute run at the same time, from the beginning to the end.
START_AFTER = {
    "retraining": 30,
    "landing tables": 35,
    "streams": 40,
    "promotion": 45,
    "contract": 50,
    "platform": 55,
    "landing": 60,
    "landing events": 65,
    "no servers": 110,
}
# The lanes with a whole Airflow, which is stopped after them.
AIRFLOW_LANES = ("airflow", "airflow in a browser, and that fails")
# The lanes that can use fixtures which are created once per process and are expensive.
SERVER_LANES = (
    "contract",
    "landing",
    "landing events",
    "landing tables",
    "platform",
    "promotion",
    "retraining",
    "streams",
)
FIXTURE_LANES = {"airflow_platform": AIRFLOW_LANES, "services": (*AIRFLOW_LANES, *SERVER_LANES)}
ALL, LEAVES_OUT_LONG = "--all", "leaves_out_long"
# Seconds to wait for the tests of other processes to end. The longest takes a few minutes.
MAX_WAIT_S = 240.0
# The home of the run. The homes of its processes are next to it.
_TURNS = os.environ.get("MILLRACE_HOME", "")


class Scheduling(LoadScopeScheduling):
    """Assigns tests to processes."""

    def _split_scope(self, nodeid: str) -> str:
        return lane_of(nodeid) or nodeid


def lane_of(nodeid: str) -> str | None:
    """The lane of a test, if it has one."""
    return next((name for name, prefixes in LANES.items() if nodeid.startswith(prefixes)), None)


def processes(config: pytest.Config) -> int:
    """How many processes run the chosen tests. 0 means this process only, for less than all of tests/faults."""
    faults = config.rootpath / "tests/faults"
    paths = [config.invocation_params.dir / argument for argument in config.args]
    chosen = config.option.keyword or config.option.markexpr
    return 0 if chosen or not any(faults.is_relative_to(path) for path in paths) else PROCESSES


def is_long(nodeid: str) -> bool:
    """Whether a test is one of ``LONG``."""
    return nodeid.startswith(LONG)


def leaves_out_long(config: pytest.Config) -> bool:
    """Whether this run leaves out the tests of ``LONG``: it was started without a choice of tests."""
    if (given := getattr(config, "workerinput", None)) is not None:
        # A process of pytest-xdist gets all paths as arguments.
        return bool(given[LEAVES_OUT_LONG])
    chosen = config.args_source is not pytest.Config.ArgsSource.TESTPATHS or config.option.keyword
    return not (chosen or config.option.markexpr or config.getoption(ALL))


def sort_tests(items: list[pytest.Item]) -> None:
    """Sort the tests by their start. Raises UsageError when a test uses a fixture that its lane does not have."""
    order = {name: number for number, name in enumerate(LANES)}
    others: dict[str, int] = {}
    for item in items:
        used, name = getattr(item, "fixturenames", ()), lane_of(item.nodeid)
        for fixture, of in FIXTURE_LANES.items():
            if fixture in used and name not in of:
                raise pytest.UsageError(f"{item.nodeid} uses {fixture}; see tests/lanes.py")
        if name is None:
            others[item.nodeid] = len(others)

    def start(item: pytest.Item) -> tuple[float, int]:
        name = lane_of(item.nodeid)
        if name is None:
            return others[item.nodeid], 0
        return START_AFTER.get(name, 0) - 0.5, order[name]

    items.sort(key=start)


@contextmanager
def first_process_alone() -> Iterator[None]:
    """A ``with`` block that the first process runs alone, and the others after it.

    It is for imports: the first process compiles the modules, and the others load them.
    """
    with open(f"{_TURNS}.first", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _lock(file, fcntl.LOCK_SH)
        yield


class Turn:
    """The turn of one test, while other processes run theirs."""

    def __init__(self, running: IO[str]) -> None:
        self._running = running

    @contextmanager
    def alone(self) -> Iterator[None]:
        """A ``with`` block during which no other process runs a test.

        It waits for running tests to end, and keeps new ones from starting.
        """
        fcntl.flock(self._running, fcntl.LOCK_UN)
        _enter(self._running, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._running, fcntl.LOCK_SH)


@contextmanager
def turn() -> Iterator[Turn]:
    """A ``with`` block in which a test runs while other processes run theirs."""
    with open(f"{_TURNS}.tests", "w") as running:
        _enter(running, fcntl.LOCK_SH)
        try:
            yield Turn(running)
        finally:
            fcntl.flock(running, fcntl.LOCK_UN)


def _enter(running: IO[str], operation: int) -> None:
    """Wait for a lock in the order of arrival, so that a later process cannot overtake.

    The gate is unlocked, not only closed, because a child of this process that outlives the test has it open, too.
    """
    with open(f"{_TURNS}.turn", "w") as gate:
        _lock(gate, fcntl.LOCK_EX)
        _lock(running, operation)
        fcntl.flock(gate, fcntl.LOCK_UN)


def _lock(file: IO[str], operation: int) -> None:
    """Wait for a lock, but not for ever: then the test runs while another one does, which is better than not at all."""
    end = time.monotonic() + MAX_WAIT_S
    while time.monotonic() < end:
        try:
            fcntl.flock(file, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)
        else:
            return
