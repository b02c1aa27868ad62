"""Landing in a real Airflow: killing any process loses and repeats no record, and an idle stream takes no slot."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import psutil
import pytest
from click.testing import CliRunner

from cli import doctor
from cli.landing import accept
from embedded.airflow_api import AirflowApi, Run, TaskInstance
from embedded.platform import Platform
from include.kafka import backlog, client
from include.landing.recovery import MIN_REJECTED
from include.streams import definitions
from include.streams.definition import Stream
from include.streams.produce import make_topic, produce
from include.warehouse.connection import connected
from tests.faults.toolbox.drains import has_ended
from tests.polling import until

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

DAG = "land__vehicle_positions"


@pytest.fixture(scope="module")
def stream() -> Stream:
    return definitions.get("vehicle_positions")


@pytest.fixture(scope="module")
def landing(airflow_api: AirflowApi) -> Iterator[AirflowApi]:
    """The API, with the stream's DAG running."""
    airflow_api.wait_for_dags([DAG])
    airflow_api.unpause(DAG)
    yield airflow_api
    airflow_api.pause(DAG)


@pytest.fixture
def warehouse_of_platform(airflow_platform: Platform) -> Iterator[Connection]:
    with connected("test") as connection:
        connection.autocommit = True
        yield connection


def count(connection: Connection) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('landing.vehicle_positions')")
        if cursor.fetchone() == (None,):
            return 0
        cursor.execute("SELECT count(*) FROM landing.vehicle_positions")
        (rows,) = cursor.fetchone() or (0,)
        return int(rows)


def distinct(connection: Connection) -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(DISTINCT (kafka_incarnation, kafka_partition, kafka_offset)) FROM landing.vehicle_positions"
        )
        (rows,) = cursor.fetchone() or (0,)
        return int(rows)


def latest(api: AirflowApi) -> tuple[Run, dict[str, TaskInstance]] | None:
    runs = api.runs(DAG)
    return (runs[0], {task.task_id: task for task in api.task_instances(DAG, runs[0].run_id)}) if runs else None


def waits(api: AirflowApi) -> bool | None:
    """Whether the newest run waits in the triggerer; None if it does not."""
    found = latest(api)
    return True if found and found[1]["wait"].state == "deferred" else None


def drains(api: AirflowApi) -> bool | None:
    found = latest(api)
    return True if found and found[1]["drain"].state == "running" else None


def drain_process(connection: Connection) -> psutil.Process | None:
    """The process of the running drain, found by its connection to the warehouse; None if that is just ending."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT client_port FROM pg_stat_activity WHERE application_name = 'millrace land vehicle_positions'"
        )
        (port,) = cursor.fetchone() or (None,)
    owners = {c.pid for c in psutil.net_connections("tcp") if c.laddr and c.laddr.port == port} - {None, os.getpid()}
    return psutil.Process(owners.pop()) if owners else None


@pytest.mark.any_executor
def test_the_scheduler_loads_the_executor_of_the_environment(airflow_platform: Platform) -> None:
    executor = os.environ.get("MILLRACE_AIRFLOW__CORE__EXECUTOR", "PromptExecutor")
    log = (airflow_platform.home.logs / "scheduler.log").read_text()
    assert re.search(rf"Loaded executor: .*\b{executor}\b", log)


@pytest.mark.any_executor
def test_an_idle_stream_takes_no_worker_and_lands_its_first_event_soon(
    landing: AirflowApi, stream: Stream, warehouse_of_platform: Connection
) -> None:
    until("the stream waits", lambda: waits(landing), 60)
    time.sleep(1)
    found = latest(landing)
    assert found is not None
    assert [task.state for task in found[1].values() if task.state == "running"] == []
    assert len([run for run in landing.runs(DAG) if not run.finished]) == 1
    before = count(warehouse_of_platform)
    produce(stream, 1)
    until("the first event", lambda: count(warehouse_of_platform) > before or None, 15)


@pytest.mark.any_executor
@pytest.mark.parametrize("victim", ["drain", "task", "supervisor"])
def test_a_killed_drain_loses_and_repeats_nothing(
    landing: AirflowApi, stream: Stream, warehouse_of_platform: Connection, victim: str
) -> None:
    before, total = count(warehouse_of_platform), 100_000
    sending = threading.Thread(target=produce, args=(stream, total, 10_000))
    sending.start()
    until("rows arrive", lambda: count(warehouse_of_platform) > before + 10_000 or None, 60)
    process = until("a drain runs", lambda: drain_process(warehouse_of_platform), 30)
    # The drain is its task's child, and the task its supervisor's.
    target = [process, *process.parents()][["drain", "task", "supervisor"].index(victim)]
    target.send_signal(signal.SIGKILL)
    killed = count(warehouse_of_platform)
    assert killed < before + total, "the drain was too fast for this test"
    started = time.monotonic()
    until("landing continues", lambda: count(warehouse_of_platform) > killed + 20_000 or None, 60)
    print(f"{victim} killed: landing continued within {time.monotonic() - started:.1f} s")
    if victim == "task":
        assert has_ended(process), "the drain is the task's child and ends with it"
    sending.join()
    until("all have landed", lambda: caught_up(stream, warehouse_of_platform), 90)
    assert count(warehouse_of_platform) == before + total
    assert distinct(warehouse_of_platform) == before + total


@pytest.mark.any_executor
def test_rows_land_between_two_windows(landing: AirflowApi, stream: Stream, warehouse_of_platform: Connection) -> None:
    """Short windows with steady events: rows land even while no task drains."""
    variable = f"window__{stream.name}"
    landing.call("POST", "variables", json={"key": variable, "value": "5 seconds"})
    try:
        until("the stream waits", lambda: waits(landing), 60)
        before, total = count(warehouse_of_platform), 60_000
        first = landing.runs(DAG)[0].run_id
        sending = threading.Thread(target=produce, args=(stream, total, 2_000))
        sending.start()
        between = 0
        while sending.is_alive():
            if drains(landing):
                continue
            rows = count(warehouse_of_platform)
            time.sleep(0.1)
            more = count(warehouse_of_platform) - rows
            # A task that began in the meantime would still run.
            between += 0 if drains(landing) else more
        sending.join()
        until("all have landed", lambda: caught_up(stream, warehouse_of_platform), 90)
        assert (count(warehouse_of_platform), distinct(warehouse_of_platform)) == (before + total, before + total)
        assert landing.runs(DAG)[0].run_id != first
        assert between > 0, "no row landed while no task drained"
    finally:
        landing.call("DELETE", f"variables/{variable}")
    processes = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'millrace land vehicle_positions'"

    def none_is_left() -> bool | None:
        with warehouse_of_platform.cursor() as cursor:
            cursor.execute(processes)
            return cursor.fetchone() == (0,) or None

    until("every drain has ended", none_is_left, 40)


def test_doctor_reports_why_a_stream_paused_itself(
    airflow_api: AirflowApi, airflow_platform: Platform, warehouse_of_platform: Connection
) -> None:
    stream, dag = definitions.get("payments"), "land__payments"
    make_topic(stream)
    producer = client.producer()
    for _ in range(MIN_REJECTED):
        producer.produce(stream.topic, b"no payment")
    producer.flush()
    airflow_api.wait_for_dags([dag])
    airflow_api.unpause(dag)
    until("the stream has paused itself", lambda: airflow_api.is_paused(dag) or None, 90)
    (finding,) = doctor._paused(airflow_platform)
    assert (
        dag in finding.what and f"{MIN_REJECTED} records" in finding.what and "[all-records-rejected]" in finding.what
    )
    assert "./millrace accept payments bad" in finding.what
    done = CliRunner().invoke(accept, ["payments", "bad"])
    assert done.exit_code == 0, done.output
    until("they are dead letters", lambda: caught_up(stream, warehouse_of_platform), 60)
    assert list(doctor._paused(airflow_platform)) == []
    airflow_api.pause(dag)


def caught_up(stream: Stream, connection: Connection) -> bool | None:
    with connected("test lag") as own:
        lag = backlog.measure(client.admin(), own, stream.reader, stream.topic).lag
    return True if lag == 0 else None
