"""What `status` knows of a stream while Kafka or PostgreSQL is ill."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
import pytest

import include.streams.definitions
from include.definitions import Found
from include.kafka import client, topics
from include.landing.drain import drain
from include.platform import report
from include.platform.commands.platform import in_words
from include.platform.platform import Platform
from include.streams import produce
from include.streams.definition import Instant, Stream
from tests.integration.registry import ask

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


class Reading(msgspec.Struct):
    ts: Instant


@pytest.fixture
def stream(warehouse: Connection, topic: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> Stream:
    """The only stream; one event has landed, one waits."""
    monkeypatch.setenv("MILLRACE_CONN_POSTGRES", os.environ["AIRFLOW_CONN_MILLRACE_POSTGRES"])
    name = topic("readings")
    stream = Stream(name="readings", topic=name, event=Reading, event_time="ts", quiet="1 second", kafka_partitions=1)
    monkeypatch.setattr(include.streams.definitions, "find", lambda: Found({"readings": stream}, {}))
    produce.make_topic(stream)
    producer = client.producer()
    for end in (1, 2):
        producer.produce(stream.topic, msgspec.json.encode(Reading(ask(warehouse, "SELECT now()")[0][0])))
        producer.flush()
        while end == 1 and not ask(warehouse, "SELECT 1 FROM millrace.position WHERE next_offset = 1"):
            drain(stream, "test")
    assert topics.extents(stream.topic, [0])[0].end == 2
    return stream


def words(platform: Platform, *healthy: str) -> list[str]:
    return [in_words(entry) for entry in report.lag(platform, healthy)]


def test_all_is_known_while_both_are_well(stream: Stream, services: Platform) -> None:
    (entry,) = report.lag(services, ("kafka", "postgres"))
    assert (entry["reader"], entry["lag"], entry["landed"], entry["blocked"]) == ("landing:readings", 1, 1, False)
    (line,) = words(services, "kafka", "postgres")
    assert line.startswith("landing:readings                 1 records wait, the oldest for ")
    assert "; 1 landed, newest event 20" in line


def test_what_landed_is_known_without_kafka(stream: Stream, services: Platform) -> None:
    (line,) = words(services, "postgres")
    assert line.startswith(
        "landing:readings                 what waits is unknown: Kafka is ill (1 landed, newest event 20"
    )


def test_streams_are_named_without_postgres(
    stream: Stream, services: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MILLRACE_CONN_POSTGRES")
    assert words(services, "kafka") == [
        "landing:readings                 unknown: PostgreSQL is ill, which alone knows what has landed"
    ]


def test_the_health_of_the_platforms_postgres_says_nothing_of_ones_own(stream: Stream, services: Platform) -> None:
    (entry,) = report.lag(services, ("kafka",))
    assert entry["lag"] == 1


@pytest.mark.parametrize(
    ("name", "extra", "says"),
    [
        ("MILLRACE_CONN_POSTGRES", {"nonsense": "1"}, 'invalid connection option "nonsense". Mend its extra'),
        ("MILLRACE_CONN_KAFKA", {"bootstrap.servers": "x:1", "no.such": "1"}, 'property: "no.such". Mend its extra'),
    ],
)
def test_streams_are_named_when_ones_own_connection_is_not_usable(
    stream: Stream,
    services: Platform,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    extra: dict[str, str],
    says: str,
) -> None:
    given = json.loads(os.environ["AIRFLOW_CONN_MILLRACE_POSTGRES"] if "POSTGRES" in name else "{}")
    # Asking sets the connections of this process.
    for connection in ("AIRFLOW_CONN_MILLRACE_POSTGRES", "AIRFLOW_CONN_MILLRACE_KAFKA"):
        monkeypatch.setenv(connection, os.environ[connection])
    monkeypatch.setenv(name, json.dumps(given | {"conn_type": "generic", "extra": extra}))
    (line,) = words(services, "kafka", "postgres")
    assert line.startswith("landing:readings                 unknown: The Airflow connection")
    assert says in line
