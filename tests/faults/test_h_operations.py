"""H: operations on a running stream."""

from __future__ import annotations

import asyncio
import gc
import gzip
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from include.airflow.backlog import BacklogTrigger
from include.error_codes import Code
from include.kafka import client
from include.kafka.backlog import Backlog, BacklogReader
from include.landing import status
from tests.errors import raises
from tests.faults.toolbox.events import ANYTHING, READINGS
from tests.faults.toolbox.stage import Stage
from tests.polling import until

FORMER = Path(__file__).parents[1] / "integration/data/former_warehouse.sql.gz"


def test_h79_the_definition_changes_during_a_drain(stage: Stage) -> None:
    """Other partitions, limits and numbers of drains apply to the next window. Rows stay where they are."""
    yesterday = datetime.now(UTC) - timedelta(days=1)
    stage.topic.events(300)
    stage.topic.events(300, ts=yesterday)
    old = stage.drain(replace(stage.stream, quiet="15 seconds"))
    stage.until_landed(600)
    stage.stream = replace(stage.stream, partition="6 hours", late="30 hours", drains=2)
    shards = [stage.drain(shard=shard) for shard in (0, 1)]
    stage.until_claimed(2)
    for hours in (1, 23, 25, 29):
        stage.topic.events(300, ts=datetime.now(UTC) - timedelta(hours=hours))
    stage.topic.send([stage.topic.value(yesterday - timedelta(days=1)) for _ in range(90)], expect="quarantined")
    assert {drain.wait().kind for drain in shards} == {"drained"}
    assert old.wait().kind == "fenced"
    assert stage.prove().dispositions == {"landed": 1_800, "quarantined": 90}


def test_h80_the_warehouse_is_migrated(stage: Stage) -> None:
    """From the former history, with a position, to the newest revision: the stream continues at its position."""
    from include.warehouse import migrations

    stage.topic.events(300, partition=0)
    stage.query("DROP SCHEMA IF EXISTS landing CASCADE; DROP SCHEMA millrace CASCADE")
    with stage.connected() as connection, connection.cursor() as cursor:
        cursor.execute(gzip.decompress(FORMER.read_bytes()).decode())
        cursor.execute("INSERT INTO millrace.schema_revision SELECT unnest(%s)", (sorted(migrations.FORMER_HEADS),))
        connection.commit()
    stage.query(
        "INSERT INTO millrace.position (reader, topic, partition, topic_id, next_offset, owner, backend_pid,"
        " backend_start) VALUES (%s, %s, 0, %s, 100, 'an earlier version', 0, now())",
        stage.stream.reader,
        stage.stream.topic,
        stage.snapshot().topic_id,
    )
    with stage.connected():
        migrations.migrate()
        migrations.migrate()
    stage.land()
    assert stage.landed() == 200
    assert stage.positions()[0] == 300


def test_h81_a_thousand_deferrals(stage: Stage) -> None:
    """A day of waiting, in seconds: none leaks a descriptor, thread, connection or memory."""
    stage.topic.events(30)
    stage.land()

    async def defer(times: int) -> None:
        for _ in range(times):
            trigger = BacklogTrigger(stage.stream.reader, stage.stream.topic, poll_s=0.0, at_most_s=0.0)
            waiting: Any = trigger.run()
            next_event = asyncio.ensure_future(anext(waiting))
            await asyncio.sleep(0.02)
            next_event.cancel()
            await asyncio.gather(next_event, return_exceptions=True)
            await waiting.aclose()

    def held() -> tuple[int, int, int]:
        gc.collect()
        process = psutil.Process()
        return process.num_fds(), process.num_threads(), stage.backends()

    with stage.connected():
        asyncio.run(defer(20))
        time.sleep(1)
        before, memory = held(), psutil.Process().memory_info().rss
        asyncio.run(defer(300))
        until(
            f"no more than {before} is held",
            lambda: all(now <= then for now, then in zip(held(), before, strict=True)),
            20,
        )
        assert psutil.Process().memory_info().rss - memory < 60e6


def test_h81_an_hour_of_measurements(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trigger measures the backlog twice a second. An idle hour is made of such measurements, and none leaks."""
    stage.topic.events(30)
    stage.land()
    with stage.connected():
        backlogs, key = BacklogReader(), (stage.stream.reader, stage.stream.topic)
        process = psutil.Process()

        def measure(times: int) -> tuple[int, int, int, float]:
            for _ in range(times):
                found = backlogs.measure_all([key])[key]
                assert isinstance(found, Backlog)
                assert found.lag == 0
            gc.collect()
            return process.num_fds(), process.num_threads(), stage.backends(), process.memory_info().rss

        def leaks(before: tuple[int, int, int, float]) -> bool:
            *counts, memory = measure(250)
            # A leak of 8 kB for each measurement would be 60 MB in an hour.
            return any(now > then for now, then in zip(counts, before, strict=False)) or memory - before[3] >= 250 * 8e3

        # A leak shows each time. Other work of this process, such as the clean-up of another test, happens once.
        assert not all(leaks(measure(50)) for _ in range(3))
        monkeypatch.setattr(client, "admin", lambda: pytest.fail("a measurement creates another client"))
        measure(3)
        backlogs.close()


def test_h82_idle(stage: Stage) -> None:
    """No record waits, and the age of the newest event is known."""
    stage.topic.events(300)
    stage.land()
    with stage.connected() as connection:
        for _ in range(2):
            idle = status.of(stage.stream, connection)
            assert (idle.lag, idle.behind_s, idle.blocked_since, idle.landed) == (0, 0.0, None, 300)
            assert idle.newest_event is not None
            assert timedelta(0) < datetime.now(UTC) - idle.newest_event < timedelta(minutes=2)
            time.sleep(0.5)


def test_h82_busy(stage: Stage) -> None:
    """While events arrive and land, lag and landed records add up, and the lag stays small."""
    stage.topic.events(30)
    drain = stage.drain(replace(stage.stream, quiet="10 seconds"))
    stage.until_landed(30)
    with stage.connected() as connection:
        for number in range(20):
            stage.topic.events(150)
            sent = 30 + 150 * (number + 1)
            busy = status.of(stage.stream, connection)
            assert busy.lag <= 150 * (number + 1) and busy.landed <= sent <= busy.landed + busy.lag
            assert busy.behind_s < 10 and busy.blocked_since is None
            assert busy.newest_event is not None and datetime.now(UTC) - busy.newest_event < timedelta(seconds=10)
        stage.until_landed(sent)
        assert status.of(stage.stream, connection).lag == 0
    drain.end()
    stage.prove()


def waiting_for(seconds: float, found: status.Status) -> status.Status | None:
    return found if found.behind_s >= seconds else None


def test_h82_nothing_drains(stage: Stage) -> None:
    """All new records wait, for as long as the oldest. The newest event is still the one that landed."""
    stage.topic.events(300)
    stage.land()
    with stage.connected() as connection:
        newest = status.of(stage.stream, connection).newest_event
        stage.topic.events(90)
        behind = until("they are a second old", lambda: waiting_for(1.0, status.of(stage.stream, connection)))
        assert (behind.lag, behind.landed, behind.newest_event) == (90, 300, newest)
        assert behind.behind_s < 60
        stage.land()
        assert status.of(stage.stream, connection).behind_s == 0.0
    stage.prove()


def test_h82_stuck_behind_an_open_transaction(stage: Stage) -> None:
    """It differs from idle, with the time since when. Later records are not lag, because they cannot be read."""
    stage.topic.events(300)
    stage.land()
    with stage.connected() as connection:
        opened = datetime.now(UTC)
        producer = stage.topic.transaction(30, "open")
        stage.topic.events(30)
        stage.land()
        stuck = status.of(stage.stream, connection)
        assert (stuck.lag, stuck.landed) == (0, 300)
        assert stuck.blocked_since is not None and abs(stuck.blocked_since - opened) < timedelta(seconds=20)
        producer.abort_transaction(30)
        # The records, the aborted ones and a marker in each of the three partitions. Markers arrive a moment later.
        freed = 30 + 30 + 3
        until("the transaction's end is everywhere", lambda: status.of(stage.stream, connection).lag == freed, 20)
        assert status.of(stage.stream, connection).blocked_since is None
        stage.land()
        again = status.of(stage.stream, connection)
        assert (again.lag, again.behind_s, again.blocked_since, again.landed) == (0, 0.0, None, 330)
    stage.prove()


def test_h82_the_broker_is_down(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the lag is unknown and not 0. The newest event is still shown."""
    monkeypatch.setattr(client, "REQUEST_TIMEOUT_S", 3.0)
    stage.topic.events(300)
    stage.land()
    with stage.connected() as connection:
        stage.world.broker.stop()
        with raises(Code.KAFKA_REQUEST_FAILED):
            status.of(stage.stream, connection)
        totals = status.totals(stage.stream, connection)
        assert totals.landed == 300 and totals.newest_event is not None
        stage.world.broker.start()
        assert status.of(stage.stream, connection).lag == 0


def test_h83_several_streams_in_one_warehouse(staged: Callable[..., Stage]) -> None:
    """Each topic lands in its own table, at the same time, even if the other's drain is killed."""
    one = staged(READINGS)
    two = staged(ANYTHING, shares=one)
    one.topic.events(2_000)
    two.topic.events(2_000, text="two")
    drains = [one.drain(), two.drain()]
    one.until_landed(2_000)
    drains[0].kill()
    two.topic.events(1_000, text="two")
    assert drains[1].wait().kind == "drained"
    two.prove()
    one.topic.events(500)
    one.finish()
    assert (one.landed(), two.landed()) == (2_500, 3_000)
