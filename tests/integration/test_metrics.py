"""Metrics and samples have the values that the servers have at that moment."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

import include.streams.definitions
from embedded.platform import Platform
from include.definitions import Found
from include.landing import maintenance
from include.landing.drain import drain
from include.monitoring import metrics
from include.monitoring.sample import sample
from include.promotion import evaluation_queue
from include.streams.definition import Stream
from include.warehouse.connection import connect
from tests.integration.landing import event, recreate, send, stream
from tests.integration.registry import ask, change, train_years, weather

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

__all__ = ["stream"]

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scraped() -> Samples:
    found = metrics.render().decode()
    assert found.endswith("# EOF\n")
    return {
        (each.name, tuple(sorted(each.labels.items()))): each.value
        for family in text_string_to_metric_families(found)  # type: ignore[no-untyped-call]
        for each in family.samples
    }


def of(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((f"millrace_{name}", tuple(sorted(labels.items()))))


@pytest.fixture
def defined(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> Stream:
    """The only stream that is defined."""
    monkeypatch.setattr(include.streams.definitions, "find", lambda: Found({"readings": stream}, {}))
    return stream


@pytest.fixture
def no_kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port where no broker listens."""
    settings = json.loads(os.environ["AIRFLOW_CONN_MILLRACE_KAFKA"])
    settings["extra"] |= {"bootstrap.servers": "127.0.0.1:1"}
    monkeypatch.setenv("AIRFLOW_CONN_MILLRACE_KAFKA", json.dumps(settings))


def test_an_empty_warehouse_has_no_samples_but_up(warehouse: Connection) -> None:
    assert scraped() == {
        ("millrace_up", (("part", "kafka"),)): 1,
        ("millrace_up", (("part", "postgresql"),)): 1,
    }


def test_a_stream(defined: Stream, warehouse: Connection) -> None:
    assert sample(warehouse) == 1
    empty = scraped()
    assert of(empty, "stream_lag_records", stream="readings") == 0
    assert of(empty, "stream_landed_records_total", stream="readings") == 0

    maintenance.maintain(warehouse, defined)
    send(defined, [event(str(number)) for number in range(20)])
    send(defined, [b"bad", event(ts=datetime.now(UTC) - timedelta(days=8))], partition=1)
    drain(defined, "test")
    sent = time.time()
    send(defined, [event(), event()], partition=2)
    time.sleep(1)
    send(defined, [event()])
    found = scraped()
    assert of(found, "up", part="kafka") == of(found, "up", part="postgresql") == 1
    assert of(found, "stream_lag_records", stream="readings") == 3
    # The oldest of the three decides.
    assert 1 <= (of(found, "stream_lag_seconds", stream="readings") or 0) <= time.time() - sent
    assert of(found, "stream_landed_records_total", stream="readings") == 20
    assert of(found, "stream_dead_letters", stream="readings", disposition="dead letter") == 1
    assert of(found, "stream_dead_letters", stream="readings", disposition="quarantined") == 1
    newest, oldest = ask(
        warehouse,
        "SELECT (SELECT max(ts) FROM landing.readings) AS ts, (SELECT min(kept_at) FROM millrace.dead_letter) AS kept",
    )[0]
    assert of(found, "stream_newest_event_timestamp_seconds", stream="readings") == newest.timestamp()
    assert of(found, "stream_oldest_dead_letter_timestamp_seconds", stream="readings") == oldest.timestamp()
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    assert (
        of(found, "stream_partitioned_until_timestamp_seconds", stream="readings")
        == (midnight + timedelta(days=4)).timestamp()
    )
    assert of(found, "stream_stopped", stream="readings", task="", code="") == 0

    sample(warehouse)
    (row,) = ask(warehouse, "SELECT * FROM millrace.stream_sample ORDER BY sampled_at DESC LIMIT 1")
    assert (row.lag, row.landed, row.dead_letters, row.newest_event, row.stopped) == (3, 20, 2, newest, None)
    assert 1 <= row.behind_s <= time.time() - sent
    overview = ask(warehouse, "SELECT * FROM millrace.stream_overview")[0]
    assert (overview.lag, overview.behind_s) == (row.lag, row.behind_s)
    # Twenty rows have landed since the first sample.
    elapsed = ask(warehouse, "SELECT extract(epoch FROM now() - min(sampled_at)) AS s FROM millrace.stream_sample")[0].s
    assert overview.rate_hour == pytest.approx(20 / float(elapsed), rel=0.2)


def test_a_stream_that_must_stop_has_its_error(defined: Stream, warehouse: Connection) -> None:
    send(defined, [event()])
    drain(defined, "test")
    recreate(defined)
    sample(warehouse)
    found = scraped()
    assert of(found, "stream_lag_records", stream="readings") is None
    assert of(found, "stream_stopped", stream="readings", task="", code="topic-recreated") == 1
    (row,) = ask(warehouse, "SELECT * FROM millrace.stream_sample")
    assert row.lag is None and "./millrace accept readings recreated" in row.stopped


def test_without_kafka_the_lag_is_unknown(defined: Stream, warehouse: Connection, no_kafka: None) -> None:
    sample(warehouse)
    (row,) = ask(warehouse, "SELECT * FROM millrace.stream_sample")
    assert (row.lag, row.behind_s, row.landed, row.stopped) == (None, None, 0, None)
    found = scraped()
    assert (of(found, "up", part="kafka"), of(found, "up", part="postgresql")) == (0, 1)
    assert of(found, "stream_lag_records", stream="readings") is None
    assert of(found, "stream_landed_records_total", stream="readings") == 0


def test_old_samples_and_streams_that_are_not_defined_any_more_are_deleted(
    defined: Stream, warehouse: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        sample(warehouse)
    change(
        warehouse,
        "UPDATE millrace.stream_sample SET sampled_at = sampled_at - interval '8 days'"
        " WHERE sampled_at = (SELECT min(sampled_at) FROM millrace.stream_sample)",
    )
    sample(warehouse)
    assert ask(warehouse, "SELECT count(*) FROM millrace.stream_sample") == [(2,)]
    monkeypatch.setattr(include.streams.definitions, "find", lambda: Found({}, {}))
    assert sample(warehouse) == 0
    assert ask(warehouse, "SELECT count(*) FROM millrace.stream_overview") == [(0,)]


def test_a_locked_partition_hides_only_what_needs_it(defined: Stream, warehouse: Connection) -> None:
    maintenance.maintain(warehouse, defined)
    sample(warehouse)
    table = ask(warehouse, "SELECT partition FROM millrace.stream_partition LIMIT 1")[0][0]
    with closing(connect("test")) as other, other.cursor() as cursor:
        cursor.execute(f"LOCK TABLE landing.{table} IN ACCESS EXCLUSIVE MODE")
        found = scraped()
    assert of(found, "up", part="postgresql") == 1
    assert of(found, "stream_landed_records_total", stream="readings") == 0
    assert of(found, "stream_partitioned_until_timestamp_seconds", stream="readings") is None


def test_a_replay_never_lowers_the_counter(defined: Stream, warehouse: Connection) -> None:
    send(defined, [event(str(number)) for number in range(5)])
    drain(defined, "test")
    change(
        warehouse,
        "UPDATE millrace.landing_ledger SET landed = landed - 2, dead_letters = dead_letters + 2 WHERE landed > 0;"
        "INSERT INTO millrace.landing_replay (stream, kafka_incarnation, kafka_partition, first_offset, next_offset,"
        " landed, dead_letters, quarantined, more_landed, more_dead_letters, more_quarantined, replayed_by)"
        " VALUES ('readings', 1, 0, 0, 5, 3, 2, 0, -2, 2, 0, 'ann')",
    )
    assert of(scraped(), "stream_landed_records_total", stream="readings") == 5


def test_a_dataset(warehouse: Connection, topic: Callable[..., str]) -> None:
    dataset = weather(topic)
    train_years(dataset, (2013, 2014))
    evaluation_queue.evaluate_pending_runs(dataset)
    change(
        warehouse,
        "INSERT INTO millrace.failed_expectation (subject, expectation, detail, failed_at)"
        " VALUES (%s, 'min_accuracy', 'low', now())",
        f"dataset:{dataset.name}",
    )
    found = scraped()
    (champion,) = ask(warehouse, "SELECT * FROM millrace.champion WHERE dataset = %s", dataset.name)
    overview = ask(warehouse, "SELECT * FROM millrace.dataset_overview WHERE dataset = %s", dataset.name)[0]
    judged = ask(
        warehouse,
        "SELECT * FROM millrace.verdict WHERE run = (SELECT max(run) FROM millrace.gate)"
        " ORDER BY outcome = 'promote' DESC, log_e DESC, model LIMIT 1",
    )[0]
    name = dataset.name
    assert (
        of(found, "champion_since_timestamp_seconds", dataset=name, model=champion.model) == champion.since.timestamp()
    )
    assert of(found, "champion_score", dataset=name, metric="accuracy") == overview.live_value
    assert of(found, "challenger_e_value", dataset=name, model=judged.model) == judged.e_value
    assert of(found, "challenger_e_value_threshold", dataset=name, model=judged.model) == judged.threshold
    sealed, trained = ask(
        warehouse,
        "SELECT (SELECT max(sealed_at) FROM millrace.dataset_version WHERE dataset = %s) AS sealed,"
        " (SELECT max(finished_at) FROM millrace.training_run) AS trained",
        name,
    )[0]
    assert of(found, "dataset_newest_version_timestamp_seconds", dataset=name) == sealed.timestamp()
    assert of(found, "dataset_last_training_timestamp_seconds", dataset=name) == trained.timestamp()
    assert of(found, "expectation_failed", subject=f"dataset:{name}", expectation="min_accuracy") == 1


def test_a_metadata_database_that_is_down_hides_the_schedules(warehouse: Connection, services: Platform) -> None:
    found = metrics.render("postgresql+psycopg2://airflow:no@127.0.0.1:1/airflow").decode()
    assert 'millrace_up{part="airflow"} 0.0' in found
    assert "millrace_schedule_last_success" not in found
