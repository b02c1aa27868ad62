"""A real Kafka, PostgreSQL and Airflow for the tests, in a home of their own that starts empty."""

import gc
import itertools
import os
import shutil
import subprocess
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from filelock import FileLock, Timeout

from embedded import component, environment, postgres, processes
from embedded.home import Home
from embedded.platform import SERVICES, Platform
from embedded.supervisor import Supervisor
from tests import lanes, rows

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection
    from xdist.remote import Producer
    from xdist.workermanage import WorkerController

    from embedded.airflow_api import AirflowApi

# A user for each role; SimpleAuthManager makes their passwords.
USERS = "admin:admin,opal:op,uma:user,vera:viewer"
_WORKER = os.environ.get("PYTEST_XDIST_WORKER")
_numbers = itertools.count(1)
_MANY_FILES = 200
# Why processes of the tests have crashed.
_crashes: list[object] = []
# The turn of the current test, when there are several processes.
_turn: lanes.Turn | None = None


def pytest_sessionstart() -> None:
    """End the processes that killed sessions have left in their homes, and let every query check its rows."""
    rows.check_all()
    if not _WORKER:
        home = Path(os.environ["MILLRACE_HOME"])
        # The directory does not exist yet when the environment is in another one.
        home.parent.mkdir(parents=True, exist_ok=True)
        for file in home.parent.glob(f"{home.name}*.lock"):
            with suppress(Timeout), FileLock(file, timeout=0):
                _clear(file.with_suffix(""))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object, error: object) -> None:
    """Notice that a process of the tests has crashed."""
    if error is not None:
        _crashes.append(error)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Exit with 2, interrupted, after a crash: tests are missing, and not only failed."""
    if _crashes:
        session.exitstatus = pytest.ExitCode.INTERRUPTED


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the option that runs the long tests, too."""
    parser.addoption(lanes.ALL, action="store_true", help="run the tests of tests.lanes.LONG, too")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: "WorkerController") -> None:
    """Tell a process of the tests what this run leaves out."""
    node.workerinput[lanes.LEAVES_OUT_LONG] = lanes.leaves_out_long(node.config)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Says which command runs what was left out."""
    if lanes.leaves_out_long(config):
        terminalreporter.write_line(f"The long tests were left out. ./millrace test {lanes.ALL} runs them.")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Called because pyproject.toml sets ``-n auto``."""
    return lanes.processes(config)


def pytest_xdist_make_scheduler(config: pytest.Config, log: "Producer") -> lanes.Scheduling:
    """Assign tests to processes."""
    return lanes.Scheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Turn off garbage collection during the imports of all tests, which leave no garbage."""
    if not _WORKER:
        return (yield)
    gc.disable()
    with lanes.first_process_alone():
        # After Airflow this import takes ten times as long; see include/airflow/patches/preload.py.
        import_module("skops.io")
        done = yield
    gc.freeze()
    gc.enable()
    return done


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the long tests, and order the others, when several processes run them."""
    if lanes.leaves_out_long(config):
        config.hook.pytest_deselected(items=[item for item in items if lanes.is_long(item.nodeid)])
        items[:] = [item for item in items if not lanes.is_long(item.nodeid)]
    if _WORKER:
        lanes.sort_tests(items)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    """Wait for the turn of a test, outside its fixtures and its time limit."""
    if not _WORKER:
        return (yield)
    global _turn
    with lanes.turn() as _turn:
        done = yield
    if len(os.listdir("/proc/self/fd")) > _MANY_FILES:
        # Clients of Kafka keep files open until a collection finds them, which a drain makes rare.
        gc.collect()
    name = lanes.lane_of(item.nodeid)
    if nextitem is not None and name in lanes.AIRFLOW_LANES and name != lanes.lane_of(nextitem.nodeid):
        _stop_airflow()
    return done


@pytest.fixture(scope="session")
def home() -> Iterator[Home]:
    """An empty home, locked for this process. A second session at the same time gets another one."""
    path = Path(os.environ["MILLRACE_HOME"])
    if _WORKER:
        path = path.with_name(f"{path.name}-{_WORKER}")
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{path}.lock", timeout=0)
    is_default = True
    try:
        lock.acquire()
    except Timeout:
        is_default = False
        path = path.with_name(f"{path.name}-{os.getpid()}")
        lock = FileLock(f"{path}.lock", timeout=0)
        lock.acquire()
    os.environ["MILLRACE_HOME"] = str(path)
    _clear(path)
    yield Home(path)
    Platform(path).down()
    if not is_default:
        shutil.rmtree(path)
    lock.release()


@pytest.fixture(scope="session")
def services(home: Home) -> Platform:
    """A running Kafka and PostgreSQL, to which the environment variables of this process lead."""
    platform = Platform(home)
    # Only the tests that need a schema registry start it.
    platform.use_schema_registry(False)
    os.environ["MILLRACE_AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"] = USERS
    platform.up(SERVICES)
    os.environ.update(platform.environment())
    return platform


@pytest.fixture(scope="session")
def airflow_platform(services: Platform) -> Platform:
    """The whole platform, with every DAG of dags/."""
    services.up()
    return services


@pytest.fixture(scope="session")
def airflow_api(airflow_platform: Platform) -> "AirflowApi":
    """A client of the whole platform's REST API, logged in as admin."""
    from embedded.airflow_api import AirflowApi

    return AirflowApi.of(airflow_platform)


@pytest.fixture(scope="session")
def warehouse_template(services: Platform) -> str:
    """The name of a migrated database, to be copied."""
    from include.warehouse.migrations import migrate

    _create_database(services, "warehouse_template")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "AIRFLOW_CONN_MILLRACE_POSTGRES",
            environment.warehouse_connection(services.home, "warehouse_template"),
        )
        migrate()
    return "warehouse_template"


@pytest.fixture(scope="session")
def create_database(services: Platform) -> Callable[[str], None]:
    """Creates an empty database of the warehouse's user, by its name."""
    return lambda name: _create_database(services, name)


@pytest.fixture
def warehouse(services: Platform, warehouse_template: str, monkeypatch: pytest.MonkeyPatch) -> Iterator["Connection"]:
    """A connection to a new, migrated warehouse, which this process uses during one test."""
    from include.warehouse.connection import connect

    name = f"warehouse_{next(_numbers)}"
    _create_database(services, name, template=warehouse_template)
    monkeypatch.setenv("AIRFLOW_CONN_MILLRACE_POSTGRES", environment.warehouse_connection(services.home, name))
    with closing(connect("test")) as connection:
        yield connection
    _execute(services, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def alone() -> Callable[[], AbstractContextManager[None]]:
    """During ``with alone():`` no other process runs a test. For measurements of time."""
    return _turn.alone if _turn else nullcontext


@pytest.fixture
def topic(services: Platform) -> Callable[..., str]:
    """Makes names of topics that do not exist yet: topic("orders") returns a name such as orders-7-1."""
    return lambda prefix="topic": f"{prefix}-{os.getpid()}-{next(_numbers)}"


def _create_database(platform: Platform, name: str, template: str = "template1") -> None:
    _execute(platform, f"CREATE DATABASE {name} OWNER warehouse TEMPLATE {template}")


def _execute(platform: Platform, statement: str) -> None:
    port = platform.home.state()["ports"]["postgres"]
    with closing(postgres.connect(platform.home, port)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)


def _stop_airflow() -> None:
    """Stop Airflow's components, which use CPU even when they are idle."""
    supervisor = Supervisor(Home.current())
    if supervisor.is_alive():
        for name in component.AIRFLOW:
            supervisor.stop_component(name)


def _clear(path: Path) -> None:
    """End every process of a home and of homes inside it, and delete the directory."""
    Platform(path).down()
    for secrets in path.rglob("secrets.json"):
        processes.end(processes.of(Home(secrets.parent)), grace=5)
    for mount in psutil.disk_partitions(all=True):
        if Path(mount.mountpoint).is_relative_to(path):
            subprocess.run(["umount", "-l", mount.mountpoint], check=True)
    shutil.rmtree(path, ignore_errors=True)
