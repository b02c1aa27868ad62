"""What `status` reports of a stream while Kafka or PostgreSQL is down."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest
from click.testing import CliRunner

import include.streams.definitions
from cli import doctor, landing
from cli.doctor import Finding
from cli.platform import describe_lag
from embedded import report
from embedded.platform import Platform
from include.airflow.backlog import BacklogTrigger
from include.definitions import Found
from include.error_codes import Code
from include.errors import NonRetryableError
from include.kafka import client, position, topics
from include.landing.drain import drain
from include.monitoring import lag
from include.streams import produce
from include.streams.definition import Instant, Stream
from tests.errors import raises
from tests.integration.registry import ask

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


class Reading(msgspec.Struct):
    ts: Instant


@pytest.fixture
def stream(warehouse: Connection, topic: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> Stream:
    """The only stream: one event has landed, and one waits."""
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
    return [describe_lag(entry) for entry in report.lag(platform, healthy)]


def test_status_while_both_servers_are_up(stream: Stream, services: Platform) -> None:
    (entry,) = report.lag(services, ("kafka", "postgres"))
    assert (entry["reader"], entry["lag"], entry["landed"], entry["blocked"]) == ("landing:readings", 1, 1, False)
    (line,) = words(services, "kafka", "postgres")
    assert line.startswith("landing:readings                 1 record waits, the oldest for ")
    assert "; 1 landed, newest event 20" in line


def test_landed_records_are_shown_without_kafka(stream: Stream, services: Platform) -> None:
    (line,) = words(services, "postgres")
    assert line.startswith(
        "landing:readings                 the lag is unknown while Kafka is down (1 landed, newest event 20"
    )


def test_streams_are_listed_without_postgres(
    stream: Stream, services: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MILLRACE_CONN_POSTGRES")
    assert words(services, "kafka") == [
        "landing:readings                 the lag is unknown while PostgreSQL, which stores the positions, is down"
    ]


def test_a_users_own_postgres_is_read_although_the_platforms_is_down(stream: Stream, services: Platform) -> None:
    (entry,) = report.lag(services, ("kafka",))
    assert entry["lag"] == 1


@pytest.mark.parametrize(
    ("name", "extra", "option"),
    [
        ("MILLRACE_CONN_POSTGRES", {"nonsense": "1"}, "nonsense"),
        ("MILLRACE_CONN_KAFKA", {"bootstrap.servers": "x:1", "no.such": "1"}, "no.such"),
    ],
)
def test_streams_are_listed_if_a_users_connection_is_invalid(
    stream: Stream,
    services: Platform,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    extra: dict[str, str],
    option: str,
) -> None:
    given = json.loads(os.environ["AIRFLOW_CONN_MILLRACE_POSTGRES"] if "POSTGRES" in name else "{}")
    # The report sets the connections of this process.
    for connection in ("AIRFLOW_CONN_MILLRACE_POSTGRES", "AIRFLOW_CONN_MILLRACE_KAFKA"):
        monkeypatch.setenv(connection, os.environ[connection])
    monkeypatch.setenv(name, json.dumps(given | {"conn_type": "generic", "extra": extra}))
    (line,) = words(services, "kafka", "postgres")
    assert line.startswith("landing:readings                 the lag is unknown: ")
    assert option in line


def test_a_failing_drain_is_shown_with_its_error(stream: Stream, services: Platform, warehouse: Connection) -> None:
    with warehouse.cursor() as cursor:
        cursor.execute("REVOKE INSERT ON landing.readings FROM CURRENT_USER")
    warehouse.commit()
    with raises(Code.STATEMENT_REFUSED, kind=NonRetryableError):
        drain(stream, "test")
    (line,) = words(services, "kafka", "postgres")
    assert "1 record waits" in line
    assert "land__readings, task drain 0" in line and "[statement-refused]" in line
    assert "permission denied for table readings" in line
    (finding,) = doctor._streams(services, {"kafka", "postgres"}, [])
    assert finding.what in line
    paused = [Finding("", "", paused_dag="land__readings")]
    assert not list(doctor._streams(services, {"kafka", "postgres"}, paused))


def test_a_paused_stream_is_reported_while_records_wait(stream: Stream, services: Platform) -> None:
    (finding,) = doctor._streams(services, {"kafka", "postgres"}, [], {"land__readings", "land__payments"})
    assert finding.what == "The DAG land__readings is paused, and 1 record waits."
    assert finding.remedy == "Resume it: ./millrace airflow dags unpause land__readings"


def test_dead_letters_are_counted_by_reason_and_shown_in_full(stream: Stream, warehouse: Connection) -> None:
    producer = client.producer()
    for number in range(30):
        producer.produce(stream.topic, b'{"ts": %d}' % number, key=b"k", headers=[("trace", b"\xff")])
    producer.produce(stream.topic, b"\x1b[31m\xff", key=None)
    producer.flush()
    drain(stream, "test")

    def output(*arguments: str) -> str:
        done = CliRunner().invoke(landing.dead_letters, ["readings", *arguments])
        assert done.exit_code == 0, done.output
        return done.output

    listed = output("--most", "5")
    assert len([line for line in listed.splitlines() if line.startswith("1/0/")]) == 5
    assert "31 dead letters and quarantined records" in listed
    assert "       30  dead letter" in listed
    assert "26 more are not listed" in listed and "--most 31" in listed
    assert "1 dead letters and quarantined records" in output("--reason", "malformed")
    assert output("--reason", "no such reason") == (
        "Stream 'readings' has no dead letters or quarantined records that match 'no such reason'.\n"
    )
    shown = output("--show", "0:2")
    assert "coordinates  1/0/2" in shown
    assert "header trace 1 bytes\n  00000000  ff" in shown
    assert '{"ts": 0}' in shown
    assert "1b 5b 33 31 6d ff" in output("--show", "1/0/32")
    for arguments, code in (
        (["--show", "0:999"], Code.UNKNOWN_DEAD_LETTER),
        (["retry", "--reason", "x"], Code.INVALID_USAGE),
    ):
        with raises(code):
            CliRunner().invoke(landing.dead_letters, ["readings", *arguments], catch_exceptions=False)
    assert CliRunner().invoke(landing.dead_letters, ["readings", "--show", "x"]).exit_code == 2


def test_thirty_idle_streams_share_one_connection(
    stream: Stream, warehouse: Connection, topic: Callable[..., str]
) -> None:
    """A missing topic and a recreated one do not prevent the others from being measured."""
    others = [replace(stream, name=f"idle_{number}", topic=topic("idle")) for number in range(29)]
    for other in others:
        produce.make_topic(other)
    earlier = topics.Topic(others[0].topic, "an earlier topic's id", (0,))
    position.claim(warehouse, others[0].reader, earlier, [0], "test")
    missing = ("landing:none", topic("none"))
    fired: list[str] = []
    counts: list[tuple[int, int]] = []

    async def wait(reader: str, name: str, at_most_s: float) -> None:
        async for _ in BacklogTrigger(reader, name, 0.1, at_most_s).run():
            fired.append(name)

    async def idle() -> None:
        waiting = [asyncio.create_task(wait(s.reader, s.topic, 6)) for s in others[1:]]
        waiting += [asyncio.create_task(wait(*missing, 6)), asyncio.create_task(wait(stream.reader, stream.topic, 60))]
        recreated = asyncio.create_task(wait(others[0].reader, others[0].topic, 60))
        while not all(task.done() for task in waiting):
            counted = ask(
                warehouse, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'millrace backlog'"
            )[0][0]
            warehouse.rollback()
            counts.append((counted, threading.active_count()))
            await asyncio.sleep(0.2)
        await recreated

    before = threading.active_count()
    asyncio.run(asyncio.wait_for(idle(), 90))
    assert fired[0] in (stream.topic, others[0].topic, missing[1])
    assert len(fired) == 31
    assert max(count for count, _ in counts) == 1
    assert max(threads for _, threads in counts) <= before + 3
    assert not ask(warehouse, "SELECT 1 FROM pg_stat_activity WHERE application_name = 'millrace backlog'")


def test_two_streams_of_a_topic_each_have_the_age_of_their_own_position(
    warehouse: Connection, topic: Callable[..., str]
) -> None:
    name = topic("shared")
    # Its records have the timestamps of their producer.
    topics.create(name, partitions=1, config={})
    now = datetime.now(UTC)

    def send(ts: datetime) -> None:
        producer = client.producer()
        producer.produce(name, msgspec.json.encode({"ts": ts}), timestamp=int(ts.timestamp() * 1000))
        assert producer.flush(20) == 0

    send(now - timedelta(hours=2))
    ahead = Stream(name="ahead", topic=name, event=Reading, event_time="ts", quiet="1 second", kafka_partitions=1)
    assert drain(ahead, "test").landed == 1
    send(now)
    measured = lag.measure(warehouse, {"behind": name, "ahead": name}, timeout_s=20)
    behind, later = measured["behind"], measured["ahead"]
    assert isinstance(behind, lag.Lag) and isinstance(later, lag.Lag)
    assert (behind.records, later.records) == (2, 1)
    assert behind.seconds is not None and behind.seconds > 7_000
    assert later.seconds is not None and later.seconds < 600
