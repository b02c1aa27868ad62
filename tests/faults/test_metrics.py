"""Metrics that are scraped every second while a drain, Kafka or PostgreSQL is killed: right or unknown, never stale."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from include.monitoring import metrics
from tests.faults.toolbox.stage import Stage
from tests.polling import until

EVERY_S = 1.0
LAG = "millrace_stream_lag_records"
LANDED = "millrace_stream_landed_records_total"


@dataclass
class Scrape:
    """The values of one scrape, without the labels of streams; ``up`` by server."""

    started: float
    values: dict[str, float]
    up: dict[str, float]
    ended: float = field(default_factory=time.monotonic)


def scrape() -> Scrape:
    started = time.monotonic()
    values, up = {}, {}
    for family in text_string_to_metric_families(metrics.render().decode()):  # type: ignore[no-untyped-call]
        for sample in family.samples:
            if sample.name == "millrace_up":
                up[sample.labels["part"]] = sample.value
            else:
                values[sample.name] = sample.value
    return Scrape(started, values, up)


class Scraper:
    """Scrapes every second, from a thread of this process."""

    def __init__(self) -> None:
        self.scrapes: list[Scrape] = []
        self.errors: list[BaseException] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Scraper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        assert self.errors == []

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due = max(due + EVERY_S, time.monotonic())
            try:
                self.scrapes.append(scrape())
            except BaseException as error:
                self.errors.append(error)
                raise

    def during(self, start: float, end: float) -> list[Scrape]:
        """The scrapes that began and ended within this time."""
        return [each for each in self.scrapes if start <= each.started and each.ended <= end]

    def next(self) -> Scrape:
        """The first scrape that begins after now."""
        now = time.monotonic()
        return until("another scrape", lambda: next((each for each in self.scrapes if each.started > now), None), 60)

    def complete(self) -> Scrape:
        """The first scrape after now for which both servers answered in time."""
        now = time.monotonic()

        def found() -> Scrape | None:
            later = (each for each in self.scrapes if each.started > now)
            return next((each for each in later if set(each.up.values()) == {1}), None)

        return until("a scrape of both servers", found, 30)


@pytest.fixture
def waiting(stage: Stage) -> Iterator[Stage]:
    """A stage to which this process is connected: 1,000 records have landed, 500 wait."""
    stage.topic.events(1_000)
    stage.land()
    stage.topic.events(500)
    with stage.connected():
        assert known(scrape()) == (500, 1_000)
        yield stage


def known(found: Scrape) -> tuple[Any, Any]:
    return found.values.get(LAG), found.values.get(LANDED)


@contextmanager
def outage(scraper: Scraper, server: Any) -> Iterator[list[Scrape]]:
    """Kills a server, and starts it again at the end. Fills the list with the scrapes in between."""
    found: list[Scrape] = []
    server.kill()
    killed = time.monotonic()
    yield found
    until("three scrapes without the server", lambda: len(scraper.during(killed, time.monotonic())) >= 3, 60)
    found += scraper.during(killed, time.monotonic())
    server.start()


def test_the_lag_is_unknown_while_kafka_is_down(waiting: Stage) -> None:
    with Scraper() as scraper:
        scraper.next()
        with outage(scraper, waiting.world.broker) as found:
            pass
        again = scraper.complete()
    assert {each.up["kafka"] for each in found} == {0}
    assert {each.up["postgresql"] for each in found} == {1}
    # What PostgreSQL knows stays known.
    assert {known(each) for each in found} == {(None, 1_000)}
    assert {each.values.get("millrace_stream_lag_seconds") for each in found} == {None}
    assert (again.up, known(again)) == ({"kafka": 1, "postgresql": 1}, (500, 1_000))
    assert {known(each)[0] for each in scraper.scrapes} == {500, None}


def test_nothing_is_known_while_postgresql_is_down(waiting: Stage) -> None:
    with Scraper() as scraper:
        scraper.next()
        with outage(scraper, waiting.world.database) as found:
            waiting.topic.events(200)
        again = scraper.complete()
    assert {each.up["kafka"] for each in found} == {1}
    assert {each.up["postgresql"] for each in found} == {0}
    assert [each.values for each in found] == [{}] * len(found)
    assert (again.up, known(again)) == ({"kafka": 1, "postgresql": 1}, (700, 1_000))


def test_a_killed_drain_leaves_the_numbers_of_its_last_transaction(waiting: Stage) -> None:
    with Scraper() as scraper:
        drain = waiting.drain()
        waiting.until_landed(1_500)
        trap = waiting.postgres.trap("client query COMMIT")
        waiting.topic.events(2_000)
        trap.wait()
        # PostgreSQL has the batch, and its transaction is open: nothing of it has landed.
        before = scraper.next()
        drain.kill()
        trap.cut()
        after = scraper.next()
        landed, lag = waiting.landed(), waiting.lag()
        waiting.land()
        finished = scraper.next()
    assert landed + lag == 3_500
    assert known(before) == known(after) == (lag, landed)
    assert after.values["millrace_stream_lag_seconds"] > 0
    assert known(finished) == (0, 3_500)
    assert finished.values["millrace_stream_lag_seconds"] == 0
