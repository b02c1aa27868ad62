"""One window of a drain: its result, other drains of the same stream, a killed process and a lost connection."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from include.error_codes import Code
from include.kafka import client, position, topics
from include.kafka.position_errors import Fenced
from include.landing import status, table
from include.landing.drain import Drain, Drained, drain
from include.project import ROOT
from include.streams.definition import Stream
from include.warehouse.connection import connect
from tests.errors import raises
from tests.integration.landing import (
    NOW,
    count_landed,
    event,
    landed,
    one_disposition_each,
    rows,
    send,
    stream,
)
from tests.polling import until

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

__all__ = ["stream"]


def test_counts_and_reason_of_a_window(stream: Stream) -> None:
    send(stream, [event(), b"bad"])
    assert drain(stream, "test") == Drained(1, 1, 0, 1, "no records arrived for 1 second")
    assert drain(replace(stream, window="2 seconds", quiet="1 hour"), "test").reason == "the window is over"


def aged(found: status.Status) -> status.Status | None:
    return found if found.behind_s >= 1 else None


def test_status_shows_lag_and_age(stream: Stream, warehouse: Connection) -> None:
    assert (status.of(stream, warehouse).lag, status.of(stream, warehouse).behind_s) == (0, 0.0)
    send(stream, [event()] * 5, partition=1)
    waiting = until("they are a second old", lambda: aged(status.of(stream, warehouse)))
    assert waiting.lag == 5
    assert waiting.behind_s < 60
    drain(stream, "test")
    done = status.of(stream, warehouse)
    assert (done.lag, done.behind_s, done.landed, done.newest_event) == (0, 0.0, 5, NOW)


def test_a_drain_that_was_taken_over_writes_nothing(stream: Stream, warehouse: Connection) -> None:
    send(stream, [event(str(number)) for number in range(10)])
    topic = topics.describe(stream.topic)
    with closing(connect("old drain")) as other:
        table.bring_up_to_date(other, stream)
        old = position.claim(other, stream.reader, topic, topic.partitions, "old drain")
        old_drain = Drain(stream, {topic: old}, other, client.admin(), client.consumer())
        assert drain(stream, "successor").landed == 10
        with raises(Code.POSITIONS_TAKEN_OVER, kind=Fenced):
            old_drain.run(time.monotonic() + 10)
    assert len(landed(warehouse)) == 10
    one_disposition_each(warehouse, stream)


def test_drains_divide_the_partitions(stream: Stream, warehouse: Connection) -> None:
    stream = replace(stream, drains=2)
    for partition in range(3):
        send(stream, [event()] * (partition + 1), partition=partition)
    assert [drain(stream, "test", shard).landed for shard in (0, 1)] == [1 + 3, 2]
    one_disposition_each(warehouse, stream)


def test_new_partitions_of_the_topic_begin_at_0(stream: Stream, warehouse: Connection) -> None:
    from confluent_kafka.admin import NewPartitions

    send(stream, [event("old")])
    drain(stream, "test")
    brokers = client.admin()
    brokers.create_partitions([NewPartitions(stream.topic, 4)])[stream.topic].result()
    send(stream, [event("new")], partition=3)
    assert drain(stream, "test").landed == 1
    one_disposition_each(warehouse, stream)


CHILD = """
import json, sys
sys.path.insert(0, {root!r})
from dataclasses import replace
from tests.integration.landing import Reading, Stream
from include.landing.drain import drain
drain(Stream(**json.loads(sys.argv[1]), event=Reading, event_time="ts"), "child")
"""


def test_a_killed_drain_loses_and_repeats_nothing(stream: Stream, warehouse: Connection) -> None:
    total = 100_000
    for partition in range(3):
        send(
            stream,
            (event(f"{partition}-{number}") for number in range(total // 3 + (partition < total % 3))),
            partition,
        )
    settings = json.dumps({"name": stream.name, "topic": stream.topic, "quiet": "5 seconds"})
    kills = 0
    while kills < 3:
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD.format(root=str(ROOT)), settings], env=os.environ, stderr=subprocess.DEVNULL
        )
        goal = (kills + 1) * 20_000
        until(
            f"{goal:,} records have landed, or the drain has ended",
            lambda child=child, goal=goal: child.poll() is not None or count_landed(warehouse) >= goal,  # type: ignore[misc]
            every_s=0.005,
        )
        child.send_signal(signal.SIGKILL)
        child.wait()
        kills += 1
    killed_at = count_landed(warehouse)
    assert killed_at > 0
    assert killed_at + drain(stream, "test").landed == total
    texts = rows(warehouse, "SELECT count(*), count(DISTINCT text) FROM landing.readings")
    assert texts == [(total, total)]
    one_disposition_each(warehouse, stream)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_after_a_lost_connection_the_position_decides(
    stream: Stream, warehouse: Connection, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The backend is terminated before or after a COMMIT, whose answer the drain never receives."""
    send(stream, [event(str(number)) for number in range(10)])
    land = Drain._land
    broken: list[Drain] = []

    def break_once(self: Drain, batch: Any, find_refused: bool) -> None:
        if not broken:
            broken.append(self)
            if moment == "after":
                (source,) = self._sources.values()
                claim, drained = dict(source.claim), replace(self._drained)
                land(self, batch, find_refused)
                source.claim, self._drained = claim, drained
            rows(warehouse, "SELECT pg_terminate_backend(%s)", self._connection.info.backend_pid)
            self._connection.cursor().execute("SELECT 1")
        land(self, batch, find_refused)

    monkeypatch.setattr(Drain, "_land", break_once)
    assert drain(stream, "test").landed == 10
    assert broken
    one_disposition_each(warehouse, stream)
