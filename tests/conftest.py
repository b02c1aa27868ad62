"""Real Kafka, PostgreSQL and Airflow for the tests, below a home of their own that starts empty."""

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock, Timeout

from include.platform import environment, postgres
from include.platform.home import Home
from include.platform.platform import SERVICES, Platform

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

    from include.platform.airflow_api import AirflowApi

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def home() -> Iterator[Home]:
    """An empty home, held for this session; a second session at the same time gets another."""
    path = Path(os.environ["MILLRACE_HOME"])
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{path}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        path = path.with_name(f"{path.name}-{os.getpid()}")
        os.environ["MILLRACE_HOME"] = str(path)
    Platform(path).down()
    shutil.rmtree(path, ignore_errors=True)
    yield Home(path)
    Platform(path).down()
    if not lock.is_locked:
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
    from include.platform.airflow_api import AirflowApi

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
def topic(services: Platform) -> Callable[..., str]:
    """Names of topics that do not exist yet: topic("orders") gives orders-1 or the like."""
    return lambda prefix="topic": f"{prefix}-{os.getpid()}-{next(_numbers)}"


def _create_database(platform: Platform, name: str, template: str = "template1") -> None:
    _execute(platform, f"CREATE DATABASE {name} OWNER warehouse TEMPLATE {template}")


def _execute(platform: Platform, statement: str) -> None:
    port = platform.home.state()["ports"]["postgres"]
    with closing(postgres.connect(platform.home, port)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
