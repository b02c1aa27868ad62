"""What the pages collect from a real warehouse and a real Kafka, also when these do not answer."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import psycopg2
import pytest

from include.error_codes import Code
from include.landing.drain import drain
from include.pages import datasets, pool, streams
from include.pages.live_lag import LiveLag
from include.pages.pool import Pool
from include.pages.streams import UNKNOWN, Waiting
from include.promotion import evaluation_queue
from include.streams.definition import Stream
from tests import errors
from tests.integration.landing import event, recreate, send, stream
from tests.integration.registry import ask, change, train_years, weather

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

__all__ = ["stream"]


@pytest.fixture
def no_kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port where no broker listens."""
    address = {"bootstrap.servers": "127.0.0.1:1"}
    monkeypatch.setenv("AIRFLOW_CONN_MILLRACE_KAFKA", json.dumps({"conn_type": "kafka", "extra": address}))


class TestDatasets:
    def test_an_empty_warehouse_has_none(self, warehouse: Connection) -> None:
        assert datasets.overview(warehouse) == []
        assert datasets.dataset(warehouse, "digits", run_id=None, model=None) is None
        assert datasets.run(warehouse, "digits", "train__x", None) is None
        assert datasets.run_to_approve(warehouse, 1) is None

    def test_a_dataset_with_three_versions(self, warehouse: Connection, topic: Callable[..., str]) -> None:
        dataset = weather(topic)
        runs = train_years(dataset)
        evaluation_queue.evaluate_pending_runs(dataset)
        # Versions of other tests may have landed here: all use the same control topic.
        (line,) = (each for each in datasets.overview(warehouse) if each.dataset == dataset.name)
        assert line.versions == 3

        facts = datasets.dataset(warehouse, dataset.name, run_id=None, model=None)
        assert facts is not None and facts.run is not None and facts.run.model is not None
        assert [row.run for row in facts.runs] == runs[::-1]
        assert facts.run.outcome.run == runs[-1]
        assert facts.run.model.name == facts.run.outcome.best_model
        accuracy = facts.charts[0]
        assert accuracy.y_title == "accuracy" and len(accuracy.places) == 3
        assert {series.name for series in accuracy.series} == set(facts.run.models)
        # Every version but those without a change of the champion has a mark.
        made = {row.version for row in facts.champions}
        assert len(accuracy.marks) == len(made)
        assert facts.value_chart is not None and len(facts.value_chart.places) == len(facts.values)
        assert facts.evidence_chart is not None
        assert facts.evidence_chart.series[-1].name == "threshold"

    def test_the_newest_versions_are_shown(self, warehouse: Connection, topic: Callable[..., str]) -> None:
        dataset = weather(topic)
        runs = train_years(dataset)
        facts = datasets.dataset(warehouse, dataset.name, run_id=None, model=None, versions=2)
        assert facts is not None
        assert sorted({row.run for row in facts.metrics}) == runs[1:]

    def test_a_run_and_a_model_can_be_chosen(self, warehouse: Connection, topic: Callable[..., str]) -> None:
        dataset = weather(topic)
        runs = train_years(dataset)
        (first,) = ask(warehouse, "SELECT run_id FROM millrace.training_run WHERE run = %s", runs[0])
        facts = datasets.dataset(warehouse, dataset.name, run_id=first.run_id, model="baseline")
        assert facts is not None and facts.run is not None and facts.run.model is not None
        assert (facts.run.outcome.run, facts.run.model.name) == (runs[0], "baseline")
        assert (facts.run.given.run_id, facts.run.given.dataset) == (first.run_id, dataset.name)
        unknown = datasets.run(warehouse, dataset.name, first.run_id, "no such model")
        assert unknown is not None and unknown.model is not None
        assert unknown.model.name == unknown.outcome.best_model
        assert datasets.run_to_approve(warehouse, runs[0]) == (dataset.name, first.run_id)


class TestStreams:
    def test_an_empty_warehouse_has_none(self, warehouse: Connection) -> None:
        assert streams.overview(warehouse, {}) == []
        assert streams.topics(warehouse) == {}
        assert streams.stream(warehouse, "payments", UNKNOWN) is None

    def test_a_stream_that_landed(self, warehouse: Connection, stream: Stream) -> None:
        send(stream, [*(event(str(number)) for number in range(5)), b"broken"])
        drain(stream, "test")
        assert streams.topics(warehouse) == {stream.name: stream.topic}
        facts = streams.stream(warehouse, stream.name, Waiting(0, 0.0))
        assert facts is not None
        assert (facts.line.row.landed, facts.line.row.dead_letters) == (5, 1)
        assert not facts.line.is_stopped and not facts.line.is_failing
        assert [(row.records, row.bytes) for row in facts.reasons] == [(1, len(b"broken"))]
        assert [bytes(row.value or b"") for row in facts.letters] == [b"broken"]
        assert facts.partition_count >= len(facts.partitions) > 0
        assert facts.is_reconciled and facts.reconciliation

    def test_an_offset_without_a_disposition_is_reported(self, warehouse: Connection, stream: Stream) -> None:
        send(stream, [event()])
        drain(stream, "test")
        change(warehouse, "UPDATE millrace.position SET next_offset = next_offset + 1")
        facts = streams.stream(warehouse, stream.name, UNKNOWN)
        assert facts is not None and not facts.is_reconciled


class TestLiveLag:
    def test_it_is_that_of_this_moment(
        self, warehouse: Connection, stream: Stream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("include.pages.live_lag.WAIT_S", 30.0)
        monkeypatch.setattr("include.pages.live_lag.KEEP_S", 0.0)
        lag, topics = LiveLag(), {stream.name: stream.topic}
        send(stream, [event(), event()])
        waiting = lag.of(topics)[stream.name]
        assert waiting.lag == 2 and waiting.behind_s is not None
        drain(stream, "test")
        assert lag.of(topics) == {stream.name: Waiting(0, 0.0)}

    def test_pages_that_are_open_at_once_share_a_measurement(
        self, warehouse: Connection, stream: Stream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("include.pages.live_lag.WAIT_S", 30.0)
        monkeypatch.setattr("include.pages.live_lag.KEEP_S", 3600.0)
        lag, topics = LiveLag(), {stream.name: stream.topic}
        before = lag.of(topics)
        send(stream, [event()])
        assert lag.of(topics) == before

    def test_a_recreated_topic_stops_its_stream(
        self, warehouse: Connection, stream: Stream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("include.pages.live_lag.WAIT_S", 30.0)
        send(stream, [event()])
        drain(stream, "test")
        recreate(stream)
        waiting = LiveLag().of({stream.name: stream.topic})[stream.name]
        assert waiting.is_stopped and waiting.lag is None and stream.topic in waiting.reason

    @pytest.mark.usefixtures("no_kafka")
    def test_without_kafka_it_is_unknown_within_seconds(self, warehouse: Connection) -> None:
        lag = LiveLag()
        started = time.monotonic()
        assert lag.of({"s": "topic"}) == {"s": UNKNOWN}
        assert lag.of({"s": "topic"}) == {"s": UNKNOWN}
        assert time.monotonic() - started < 5


class TestPool:
    def test_a_connection_is_used_again(self, warehouse: Connection) -> None:
        connections = Pool()
        with connections.connection() as first:
            pass
        with connections.connection() as second:
            assert second is first

    def test_a_connection_that_broke_while_idle_is_replaced(self, warehouse: Connection) -> None:
        connections = Pool()
        with connections.connection() as first:
            pid = first.info.backend_pid
        ask(warehouse, "SELECT pg_terminate_backend(%s)", pid)
        with connections.connection() as second:
            assert ask(second, "SELECT 1 AS one")[0].one == 1

    def test_a_page_sees_one_state(self, warehouse: Connection) -> None:
        with Pool().connection() as connection, connection.cursor() as cursor:
            counts = []
            for name in ("a", "b"):
                cursor.execute("SELECT count(*) FROM millrace.landing_failure")
                counts += cursor.fetchall()
                change(
                    warehouse, "INSERT INTO millrace.landing_failure (stream, task, error) VALUES (%s, 't', 'e')", name
                )
            assert counts == [(0,), (0,)]
        with Pool().connection() as connection:
            assert ask(connection, "SELECT count(*) AS rows FROM millrace.landing_failure")[0].rows == 2

    def test_nothing_can_be_written(self, warehouse: Connection) -> None:
        with errors.raises(Code.POSTGRES_UNREACHABLE, "read-only"), Pool().connection() as connection:
            ask(connection, "DELETE FROM millrace.landing_failure RETURNING stream")

    def test_a_slow_query_is_an_error(self, warehouse: Connection) -> None:
        with errors.raises(Code.POSTGRES_UNREACHABLE, "timeout"), Pool().connection() as connection:
            with connection.cursor() as cursor:
                cursor.execute("SET LOCAL statement_timeout = 50")
            ask(connection, "SELECT pg_sleep(10)")

    def test_a_connection_that_failed_is_not_used_again(self, warehouse: Connection) -> None:
        connections = Pool(1)
        for _ in range(3):
            with errors.raises(Code.POSTGRES_UNREACHABLE), connections.connection() as connection:
                raise psycopg2.OperationalError("gone")
            assert connection.closed

    def test_pages_wait_for_a_free_connection(self, warehouse: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pool, "WAIT_S", 0.1)
        connections = Pool(1)
        with (
            connections.connection(),
            errors.raises(Code.CONNECTIONS_EXHAUSTED),
            connections.connection(),
        ):
            pass
