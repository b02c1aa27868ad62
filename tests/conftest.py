"""Real Kafka, PostgreSQL and Airflow for the tests, below a home of their own that starts empty."""

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

    from embedded.airflow_api import AirflowApi

_WORKER = os.environ.get("PYTEST_XDIST_WORKER")
_numbers = itertools.count(1)
# That of the test that runs, when there are several processes.
_turn: lanes.Turn | None = None


def pytest_sessionstart() -> None:
    """Ends what sessions that were killed have left in their homes; lets every query check its rows."""
    rows.check_all()
    if not _WORKER:
        home = Path(os.environ["MILLRACE_HOME"])
        # Not there yet when the environment lies elsewhere.
        home.parent.mkdir(parents=True, exist_ok=True)
        for file in home.parent.glob(f"{home.name}*.lock"):
            with suppress(Timeout), FileLock(file, timeout=0):
                _clear(file.with_suffix(""))


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Asked because of ``-n auto``, which is among pyproject.toml's options of pytest."""
    return lanes.processes(config)


def pytest_xdist_make_scheduler(config: pytest.Config, log: "Producer") -> lanes.Scheduling:
    """Which tests go to which process."""
    return lanes.Scheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Around the imports of all tests, among which looking for garbage is a waste, then and later."""
    if not _WORKER:
        return (yield)
    gc.disable()
    with lanes.first_alone():
        # Behind Airflow it takes ten times as long; see include/airflow/patches/preload.py.
        import_module("skops.io")
        done = yield
    gc.freeze()
    gc.enable()
    return done


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order of the tests, when several processes run them."""
    if _WORKER:
        lanes.arrange(items)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    """Around a test and its fixtures, and around its time limit: waiting for a turn does not count."""
    if not _WORKER:
        return (yield)
    global _turn
    with lanes.turn() as _turn:
        done = yield
    name = lanes.together(item.nodeid)
    if nextitem is not None and name in lanes.AIRFLOW and name != lanes.together(nextitem.nodeid):
        _stop_airflow()
    return done


@pytest.fixture(scope="session")
def home() -> Iterator[Home]:
    """An empty home, held for this process; a second session at the same time gets another."""
    path = Path(os.environ["MILLRACE_HOME"])
    if _WORKER:
        path = path.with_name(f"{path.name}-{_WORKER}")
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{path}.lock", timeout=0)
    stays = True
    try:
        lock.acquire()
    except Timeout:
        stays = False
        path = path.with_name(f"{path.name}-{os.getpid()}")
        lock = FileLock(f"{path}.lock", timeout=0)
        lock.acquire()
    os.environ["MILLRACE_HOME"] = str(path)
    _clear(path)
    yield Home(path)
    Platform(path).down()
    if not stays:
        shutil.rmtree(path)
    lock.release()


@pytest.fixture(scope="session")
def services(home: Home) -> Platform:
    """Kafka and PostgreSQL, and the environment variables that connect this process to them."""
    platform = Platform(home)
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
    """A database with every migration done, to be copied."""
    from include.warehouse.migrations import migrate

    _create_database(services, "warehouse_template")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "AIRFLOW_CONN_MILLRACE_POSTGRES",
            environment.warehouse_connection(services.home, "warehouse_template"),
        )
        migrate()
    return "warehouse_template"


@pytest.fixture
def warehouse(services: Platform, warehouse_template: str, monkeypatch: pytest.MonkeyPatch) -> Iterator["Connection"]:
    """A connection to a fresh, migrated warehouse, to which everything in this process is connected for one test."""
    from include.warehouse.connection import connect

    name = f"warehouse_{next(_numbers)}"
    _create_database(services, name, template=warehouse_template)
    monkeypatch.setenv("AIRFLOW_CONN_MILLRACE_POSTGRES", environment.warehouse_connection(services.home, name))
    with closing(connect("test")) as connection:
        yield connection
    _execute(services, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def alone() -> Callable[[], AbstractContextManager[None]]:
    """``with alone():`` no other process runs a test: for times that other tests would spoil."""
    return _turn.alone if _turn else nullcontext


@pytest.fixture
def topic(services: Platform) -> Callable[..., str]:
    """Names of topics that do not exist yet: topic("orders") gives orders-1 or the like."""
    return lambda prefix="topic": f"{prefix}-{os.getpid()}-{next(_numbers)}"


def _create_database(platform: Platform, name: str, template: str = "template1") -> None:
    _execute(platform, f"CREATE DATABASE {name} OWNER warehouse TEMPLATE {template}")


def _execute(platform: Platform, statement: str) -> None:
    port = platform.home.state()["ports"]["postgres"]
    with closing(postgres.connect(platform.home, port)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)


def _stop_airflow() -> None:
    """Ends what would take some of a core from the tests of others, though it only waits."""
    supervisor = Supervisor(Home.current())
    if supervisor.is_alive():
        for name in component.AIRFLOW:
            supervisor.stop_component(name)


def _clear(path: Path) -> None:
    """Ends every process of a home and of those below it, and removes it."""
    Platform(path).down()
    for secrets in path.rglob("secrets.json"):
        processes.end(processes.of(Home(secrets.parent)), grace=5)
    for mount in psutil.disk_partitions(all=True):
        if Path(mount.mountpoint).is_relative_to(path):
            subprocess.run(["umount", "-l", mount.mountpoint], check=True)
    shutil.rmtree(path, ignore_errors=True)
