"""A and H in a real Airflow: its processes are killed while a stream waits or drains, and a pause survives them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING

import psutil
import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG

from embedded import postgres
from embedded.airflow_api import AirflowApi
from embedded.platform import Platform
from include.airflow.stream_sensor import StreamSensor
from include.project import ROOT
from include.streams import definitions
from include.streams.produce import produce
from tests.faults.toolbox.audit import audit, snapshot
from tests.polling import until

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

STREAM = definitions.get("payments")
DAG_ID = f"land__{STREAM.name}"
WINDOW = f"window__{STREAM.name}"
EVENTS = 3_000
_seeds = count(1)


class Site:
    """The stream in Airflow, and what has been sent to it."""

    def __init__(self, platform: Platform, api: AirflowApi, warehouse: Connection) -> None:
        self.platform, self.api, self.warehouse = platform, api, warehouse
        self.sent = 0

    def send(self, events: int = EVENTS) -> None:
        """Sends simulated events, and waits until the broker has stored them."""
        produce(STREAM, events, seed=next(_seeds))
        self.sent += events

    def landed(self) -> int:
        """Rows in the stream's table."""
        with self.warehouse.cursor() as cursor:
            cursor.execute("SELECT to_regclass(%s)", (f"landing.{STREAM.name}",))
            if cursor.fetchone() == (None,):
                return 0
            cursor.execute(f"SELECT count(*) FROM landing.{STREAM.name}")
            return int((cursor.fetchone() or (0,))[0])

    def until_landed(self, within_s: float = 90.0) -> None:
        """Waits until all sent events are in the table."""
        until(f"{self.sent} rows have landed", lambda: self.landed() >= self.sent, within_s, every_s=0.2)

    def until(self, task: str, state: str, within_s: float = 90.0) -> None:
        """Waits until the newest run's task is in a state."""

        def found() -> bool:
            runs = self.api.runs(DAG_ID)
            return bool(runs) and any(
                each.task_id == task and each.state == state for each in self.api.task_instances(DAG_ID, runs[0].run_id)
            )

        until(f"the task {task} is {state}", found, within_s, every_s=0.2)

    def kill(self, component: str) -> None:
        """Kills a component of the platform with SIGKILL; its supervisor starts it again."""
        [health] = [each for each in self.platform.status() if each.name == component]
        os.kill(health.pid, signal.SIGKILL)

    def until_healthy(self) -> None:
        """Waits until every component is healthy."""
        until("Airflow is healthy", lambda: all(each.healthy for each in self.platform.status()), 90, every_s=0.5)

    def until_settled(self, for_s: float = 3.0) -> None:
        """Waits until one run's sensor has been deferred for a while, and no drain has run in that time.

        A sensor may see records that the tail of a window then lands; it fires although none is left.
        """
        seen: list[str] = []

        def settled() -> bool:
            self.until_no_drain_runs()
            self.until("wait", "deferred")
            [run, *_] = self.api.runs(DAG_ID)
            seen.append(run.run_id)
            return len(seen) > for_s / 0.5 and len(set(seen[-int(for_s / 0.5) :])) == 1

        until("the sensor keeps waiting", settled, 120, every_s=0.5)

    def until_no_drain_runs(self) -> None:
        """Waits until no process has a drain's connection to the warehouse, including the tail after a task."""
        until("no drain runs", lambda: not self.drains(), 40, every_s=0.2)

    def drains(self) -> set[int]:
        """The ports of the drains' connections to the warehouse."""
        with self.warehouse.cursor() as cursor:
            cursor.execute(
                "SELECT client_port FROM pg_stat_activity WHERE application_name = %s",
                (f"millrace land {STREAM.name}",),
            )
            return {port for (port,) in cursor.fetchall()}

    def drain(self) -> psutil.Process:
        """The process of the running drain; during a handover, it waits until only one is left."""

        found: list[psutil.Process] = []

        def one_is_running() -> bool:
            ports = self.drains()
            connections = psutil.net_connections("tcp")
            owners = {each.pid for each in connections if each.laddr and each.laddr.port in ports and each.pid}
            found[:] = [process for process in map(psutil.Process, owners) if process.name() != "postgres"]
            return len(found) == 1

        until("one drain runs", one_is_running, 30, every_s=0.1)
        return found[0]

    def prove(self) -> None:
        """Asserts that every offset has one disposition, and that all events have landed."""
        brokers = f"127.0.0.1:{self.platform.home.state()['ports']['kafka']}"
        with closing(self.connection(self.platform)) as connection:
            connection.set_session("REPEATABLE READ", autocommit=False)
            findings = audit(connection, STREAM, [snapshot(brokers, STREAM.topic)])
        assert not findings.wrong, findings.wrong
        assert (findings.unread, findings.dispositions["landed"]) == (0, self.sent)

    @staticmethod
    def connection(platform: Platform) -> Connection:
        """The superuser's connection, in autocommit."""
        port = platform.home.state()["ports"]["postgres"]
        return postgres.connect(platform.home, port, "warehouse")


@pytest.fixture(scope="module")
def dags() -> dict[str, DAG]:
    """The DAGs of the streams, as Airflow loads them."""
    bag = DagBag(ROOT / "dags", collect_dags=False)
    bag.process_file(str(ROOT / "dags/landing.py"))
    return bag.dags


@pytest.fixture(scope="module")
def site(airflow_platform: Platform, airflow_api: AirflowApi) -> Iterator[Site]:
    """The stream with its DAG running."""
    airflow_api.wait_for_dags([DAG_ID])
    with closing(Site.connection(airflow_platform)) as warehouse:
        site = Site(airflow_platform, airflow_api, warehouse)
        site.send()
        airflow_api.unpause(DAG_ID)
        site.until_landed()
        yield site
        airflow_api.pause(DAG_ID)


def test_a10_the_triggerer_is_killed_while_the_stream_waits(site: Site) -> None:
    site.until("wait", "deferred")
    site.kill("triggerer")
    site.send()
    site.until_landed()
    site.until_healthy()
    site.prove()


def test_a11_the_scheduler_is_killed_while_its_task_lives(site: Site) -> None:
    """The task may continue, and its successor may start at the same time. Only one of them writes."""
    site.send()
    site.until("drain", "running")
    site.kill("scheduler")
    for _ in range(5):
        site.send(500)
        time.sleep(1)
    site.until_healthy()
    site.send()
    site.until_landed(120)
    site.prove()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["a12_sigterm", "a13_sigkill_and_retry"])
def test_the_worker_is_ended(site: Site, number: signal.Signals) -> None:
    """The drain gets SIGTERM or SIGKILL in the middle of a window. The task's retry takes over."""
    site.send()
    site.until("drain", "running")
    until("the drain lands rows", lambda: site.landed() >= site.sent, 60)
    site.drain().send_signal(number)
    site.send()
    site.until_landed()
    site.prove()


def test_b15_two_runs_at_once(site: Site) -> None:
    """A second run, triggered by hand, waits for the first one."""
    site.until("wait", "deferred")
    site.api.trigger(DAG_ID)
    site.send()
    site.until_landed()
    active = [run for run in site.api.runs(DAG_ID) if run.state == "running"]
    assert len(active) == 1
    site.prove()


def test_an_hour_without_events(
    site: Site, dags: dict[str, DAG], alone: Callable[[], AbstractContextManager[None]]
) -> None:
    """A run can wait for longer than an hour without a worker slot, and the first event after it lands soon.

    The trigger measures the backlog twice a second; ``test_h81_an_hour_of_measurements`` shows that this leaks nothing.
    This test checks that all time limits are longer than an hour, and observes the run for some seconds. The limit of
    3.5 s is a promise to users, and the test runs alone.
    """
    wait = dags[DAG_ID].get_task("wait")
    hour = timedelta(hours=1)
    assert isinstance(wait, StreamSensor) and wait.at_most > hour
    for limit in (wait.execution_timeout, dags[DAG_ID].dagrun_timeout):
        assert limit is not None and limit > wait.at_most
    site.api.call("POST", "variables", json={"key": WINDOW, "value": "4 seconds"})
    try:
        site.until_settled()
        with alone():
            took = first_event_after_idling(site)
    finally:
        site.api.call("DELETE", f"variables/{WINDOW}")
    print(f"the first event after idling was visible after {took:.2f} s")
    assert took < 3.5
    site.prove()


def first_event_after_idling(site: Site, idle_s: float = 6.0) -> float:
    """Waits for a deferred sensor, observes it, then sends an event. Returns the seconds until its row is visible."""
    site.until_settled()
    [run, *_] = site.api.runs(DAG_ID)
    pool = site.api.call("GET", "pools/default_pool")
    assert not pool["include_deferred"]
    end = time.monotonic() + idle_s
    while time.monotonic() < end:
        assert site.api.runs(DAG_ID)[0] == run
        states = {task.state for task in site.api.task_instances(DAG_ID, run.run_id) if task.task_id == "wait"}
        assert states == {"deferred"}
        assert site.api.call("GET", "pools/default_pool")["occupied_slots"] == 0
        time.sleep(0.5)
    sent_at = time.monotonic()
    site.send(1)
    until("the event has landed", lambda: site.landed() >= site.sent, 30)
    return time.monotonic() - sent_at


def test_h78_a_pause_survives_the_scheduler(site: Site) -> None:
    """Paused, the DAG ends its window and starts no other, even after a restart. Resumed, it catches up."""
    site.api.pause(DAG_ID)
    try:
        until("the window has ended", lambda: is_idle(site), 120)
        site.kill("scheduler")
        site.until_healthy()
        # The tail of the window ends after its task.
        site.until_no_drain_runs()
        before = site.landed()
        site.send()
        # Nothing can be polled: the test shows that nothing happens.
        time.sleep(8)
        assert site.landed() == before
    finally:
        site.api.unpause(DAG_ID)
    site.until_landed()
    site.prove()


def is_idle(site: Site) -> bool:
    """Whether no task of the newest run is queued or running."""
    run = site.api.runs(DAG_ID)[0]
    return not any(task.state in ("queued", "running") for task in site.api.task_instances(DAG_ID, run.run_id))
