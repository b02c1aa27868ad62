"""Servers for the fault tests alone, which may be killed, and the stage of each test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from embedded.home import Home
from include.streams.definition import Stream
from tests.faults.toolbox.avro import keyed_avro
from tests.faults.toolbox.events import READINGS
from tests.faults.toolbox.relay import KafkaRelay
from tests.faults.toolbox.servers import Broker, Database, Registry
from tests.faults.toolbox.stage import TEMPLATE, Stage, World

# Repeats the scenarios with readings that are Avro, and with their current state.
IS_KEYED_AVRO = bool(os.environ.get("MILLRACE_FAULTS_KEYED_AVRO"))


@pytest.fixture(scope="session")
def world(home: Home) -> Iterator[World]:
    """A broker, a PostgreSQL server and a proxy, used by no other tests."""
    own = Home(home.path / "faults")
    own.prepare()
    kafka = KafkaRelay()
    broker, database, registry = Broker(own, kafka.port), Database(own), Registry(own)
    kafka.target = broker.behind_proxy
    os.environ.setdefault("AIRFLOW_HOME", str(own.airflow))
    try:
        broker.start(wait=False)
        database.initialise()
        make_template(database)
        broker.wait()
        yield World(broker, kafka, database, registry, own.logs)
    finally:
        kafka.close()
        registry.stop()
        broker.stop()
        database.stop()


@contextmanager
def stage_of(world: World, stream: Stream, **options: Any) -> Iterator[Stage]:
    """A stage, closed at the end; then the servers run again."""
    stage = Stage(world, keyed_avro(stream) if IS_KEYED_AVRO else stream, **options)
    try:
        yield stage
    finally:
        stage.close()


@pytest.fixture
def staged(world: World) -> Iterator[Callable[..., Stage]]:
    """Creates stages of given streams; ``staged(stream, cleanup_policy="compact")`` also configures the topic."""
    with ExitStack() as stages:
        yield lambda stream=READINGS, **options: stages.enter_context(stage_of(world, stream, **options))


@pytest.fixture
def stage(staged: Callable[..., Stage]) -> Stage:
    """The usual stage: readings, three partitions, nothing landed yet."""
    return staged()


def make_template(database: Database) -> None:
    """The database that every stage's warehouse is a copy of."""
    from embedded import environment
    from include.warehouse.migrations import migrate

    database.execute(f"CREATE DATABASE {TEMPLATE} OWNER warehouse")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_MILLRACE_POSTGRES", environment.warehouse_connection(database.home, TEMPLATE))
        migrate()
