"""H: replays and retries of dead letters, interrupted and concurrent."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import psycopg2
import pytest

from include.error_codes import Code
from include.errors import UserError
from include.landing import replay, retry
from include.landing.disposition import Disposition
from include.landing.replay import Replayed
from include.landing.replay_selection import Wanted
from tests.errors import raises
from tests.faults.toolbox.relay import PostgresRelay
from tests.faults.toolbox.stage import Stage
from tests.polling import until

# Each with the number of ranges that are replayed by then. Two COMMITs of preparations come before the first range's.
MOMENTS = {
    "before_begin": ("client query BEGIN", 0, 0),
    # Of a stream with a current state, the statement also notes what it deletes.
    "after_delete": (r"server done (WITH \w+ AS \()?DELETE FROM .?landing", 0, 0),
    "mid_copy": ("client copy rest of COPY .?landing", 0, 0),
    "before_commit": ("server done INSERT INTO millrace.landing_replay", 0, 0),
    "after_commit": ("server done COMMIT", 3, 1),
}
# The same for retries, with the number of dead letters that have landed by then.
RETRIED = {
    "after_the_letters_are_locked": ("server done SELECT kafka_incarnation", 0, 0),
    "mid_copy": ("client copy rest of COPY .?landing", 0, 0),
    "before_commit": ("server done WITH asked", 0, 0),
    "after_commit": ("server done COMMIT", 2, 300),
}
EVERYTHING = Wanted()


def replayed(stage: Stage, wanted: Wanted = EVERYTHING, postgres: PostgresRelay | None = None) -> list[Replayed]:
    with stage.connected(postgres) as connection:
        return replay.replay(connection, stage.stream, wanted, "a test")


def dispositions(done: list[Replayed]) -> Mapping[str, int]:
    """The dispositions of the records in all partitions."""
    return {disposition: sum(each.after[disposition] for each in done) for disposition in done[0].after}


def mixed(stage: Stage) -> None:
    """Records of two days with every disposition."""
    for _ in range(2):
        stage.topic.events(300)
        stage.topic.send([b"{broken"] * 9, expect="dead letter")
        stage.topic.send([None] * 9)
        stage.topic.events(30, ts=datetime.now(UTC) - timedelta(days=2))
        stage.topic.send([stage.topic.value(datetime.now(UTC) - timedelta(days=30))] * 6, expect="quarantined")
        stage.topic.transaction(30, "commit")
        stage.topic.transaction(30, "abort")
        stage.land()


def test_h76_a_replay_of_the_same_definition_changes_nothing(stage: Stage) -> None:
    """Two replays of all records: the same rows, dead letters and ledger."""
    mixed(stage)
    before = everything(stage)
    for _ in range(2):
        done = replayed(stage)
        assert dispositions(done) == {"landed": 720, "dead letter": 18, "quarantined": 12, "filtered": 0}
        assert all(each.before == each.after for each in done)
        for now, then in zip(everything(stage), before, strict=True):
            assert [row for row in now if row not in then] == [row for row in then if row not in now] == []
        stage.prove()
    assert stage.query("SELECT count(DISTINCT kafka_partition), sum(landed) FROM millrace.landing_replay") == [
        (3, 2 * 720)
    ]


def everything(stage: Stage) -> list[Any]:
    """The warehouse's data of the stream, without the times at which it was written."""
    return [
        stage.query(f"SELECT * FROM landing.{stage.stream.name} ORDER BY kafka_partition, kafka_offset"),
        stage.query("SELECT to_jsonb(l) - 'kept_at' FROM millrace.dead_letter AS l ORDER BY 1::text"),
        stage.query("SELECT to_jsonb(l) - 'updated_at' FROM millrace.landing_ledger AS l ORDER BY 1::text"),
    ]


def test_h76_a_replay_applies_the_present_definition(stage: Stage) -> None:
    """A new field is filled, a wider limit lands late events, and records that are bad now become dead letters."""
    old = datetime.now(UTC) - timedelta(days=30)
    stage.topic.events(90, unit="kWh")
    stage.topic.send([stage.topic.value(old, unit="kWh") for _ in range(9)], expect="quarantined")
    stage.topic.events(30, unit="kWh", amount=900)
    stage.land()
    stage.query(f"ALTER TABLE landing.{stage.stream.name} ADD CHECK (amount < 100) NOT VALID")
    described = msgspec.defstruct("Described", [("unit", str | None, None)], bases=(stage.stream.event,))
    stage.stream = replace(stage.stream, event=described, late="60 days")
    done = replayed(stage)
    assert dispositions(done) == {"landed": 99, "dead letter": 30, "quarantined": 0, "filtered": 0}
    assert sum(each.after[Disposition.LANDED] - each.before[Disposition.LANDED] for each in done) == 9 - 30
    assert stage.query(f"SELECT unit, count(*) FROM landing.{stage.stream.name} GROUP BY 1") == [("kWh", 99)]
    assert stage.query("SELECT DISTINCT sqlstate FROM millrace.dead_letter") == [("23514",)]
    wrong = stage.audit().wrong
    # The records' headers expect the dispositions of the old definition; the audit finds no other error.
    assert wrong and all("without the expected disposition" in each for each in wrong), wrong


def test_h76_ranges(stage: Stage) -> None:
    """By offsets, by timestamps and by partition. A range without landed records is refused."""
    stage.topic.events(300)
    stage.land()
    time.sleep(0.01)
    since = datetime.now(UTC)
    time.sleep(0.01)
    stage.topic.events(60)
    stage.land()
    assert dispositions(replayed(stage, Wanted(partitions=[1], first=10, next=30)))["landed"] == 20
    assert dispositions(replayed(stage, Wanted(since=since)))["landed"] == 60
    assert dispositions(replayed(stage, Wanted(until=since)))["landed"] == 300
    assert dispositions(replayed(stage, Wanted(partitions=[0, 2], first=90, next=110, until=since)))["landed"] == 20
    stage.topic.events(30)
    assert dispositions(replayed(stage))["landed"] == 360, "records that have not landed yet are left to the drain"
    for wanted in (
        Wanted(partitions=[0], first=120),
        Wanted(since=datetime.now(UTC) + timedelta(days=1)),
        Wanted(partitions=[7]),
    ):
        with raises(Code.NOTHING_TO_REPLAY):
            replayed(stage, wanted)
    stage.finish()


def test_h76_rows_without_records_are_kept(stage: Stage) -> None:
    stage.topic.events(300)
    stage.land()
    stage.topic.trim(0, 40)
    done = replayed(stage)
    assert (done[0].span.gone, done[0].records, dispositions(done)["landed"]) == (40, 60, 260)
    assert stage.landed() == 300
    with raises(Code.NOTHING_TO_REPLAY, "partition 0, offsets 40 to 99"):
        replayed(stage, Wanted(partitions=[0], next=40))


def test_h76_a_definition_that_lands_no_record_changes_nothing(stage: Stage) -> None:
    """A range of which no record could be landed any more stays unchanged."""
    stage.topic.events(900)
    stage.land()
    stage.query(f"ALTER TABLE landing.{stage.stream.name} ADD CHECK (amount > 100) NOT VALID")
    with raises(Code.ALL_RECORDS_REJECTED):
        replayed(stage)
    assert stage.prove().dispositions == {"landed": 900}


@pytest.mark.parametrize(("moment", "skip", "replayed_then"), MOMENTS.values(), ids=MOMENTS.keys())
def test_h76_a_replay_is_interrupted(stage: Stage, moment: str, skip: int, replayed_then: int) -> None:
    """Its connection is cut: the range is unchanged, or replayed. The next replay finishes."""
    mixed(stage)
    relay = stage.relay()
    trap = relay.trap(moment, skip, act=lambda link: link.cut())
    with pytest.raises((UserError, psycopg2.Error)):
        replayed(stage, postgres=relay)
    assert trap.sprung
    assert stage.query("SELECT count(*) FROM millrace.landing_replay") == [(replayed_then,)]
    stage.prove()
    replayed(stage)
    stage.prove()


def test_h77_replays_during_live_events(stage: Stage) -> None:
    """Two replays run while events arrive and land. At any moment each record has exactly one row."""
    stage.topic.events(3_000)
    drain = stage.drain(replace(stage.stream, quiet="20 seconds"))
    stage.until_landed(3_000)
    over = threading.Event()
    seen: list[tuple[int, int]] = []
    faults: list[BaseException] = []

    def watch() -> None:
        while not over.is_set():
            table = f"landing.{stage.stream.name}"
            seen.extend(stage.query(f"SELECT count(*), count(DISTINCT (kafka_partition, kafka_offset)) FROM {table}"))

    def again() -> None:
        try:
            while not over.is_set():
                with stage.connected() as connection:
                    replay.replay(connection, stage.stream, EVERYTHING, "a test")
        except BaseException as error:
            faults.append(error)

    with stage.connected():
        threads = [threading.Thread(target=each) for each in (watch, again, again)]
        for thread in threads:
            thread.start()
        for _ in range(15):
            stage.topic.events(200)
            stage.topic.send([b"{broken"], expect="dead letter")
            time.sleep(0.1)
        stage.until_landed(6_000)
        over.set()
        for thread in threads:
            thread.join()
    assert not faults, faults
    assert drain.alive
    drain.end()
    assert len(seen) > 5
    assert all(rows == different and rows >= 3_000 for rows, different in seen)
    assert stage.query("SELECT count(*) > 3 FROM millrace.landing_replay") == [(True,)]
    assert stage.finish().dispositions == {"landed": 6_000, "dead letter": 15}


@pytest.fixture
def fixed(stage: Stage) -> Stage:
    """A stage with 300 dead letters whose cause is fixed, and six that stay bad."""
    stage.topic.events(30)
    stage.land()
    table = f"landing.{stage.stream.name}"
    stage.query(f"ALTER TABLE {table} ADD CONSTRAINT cheap CHECK (amount < 100)")
    stage.topic.send([stage.topic.value(amount=500 if number % 2 else 5) for number in range(600)])
    stage.topic.send([b"{broken"] * 6, expect="dead letter")
    stage.land()
    stage.query(f"ALTER TABLE {table} DROP CONSTRAINT cheap")
    assert stage.query("SELECT count(*) FROM millrace.dead_letter") == [(306,)]
    return stage


@pytest.mark.parametrize(("moment", "skip", "landed_then"), RETRIED.values(), ids=RETRIED.keys())
def test_h84_a_retry_is_interrupted(fixed: Stage, moment: str, skip: int, landed_then: int) -> None:
    """Each letter is deleted together with its row's landing. The next retry lands the rest, and none twice."""
    relay = fixed.relay()
    with pytest.raises(psycopg2.Error), fixed.connected(relay) as connection:
        trap = relay.trap(moment, skip, act=lambda link: link.cut())
        retry.retry(connection, fixed.stream)
    assert trap.sprung
    # Until the server notices its end, the interrupted retry holds locks on its letters.
    until("the interrupted retry's backend has ended", lambda: fixed.backends("faults") == 0, 10)
    assert fixed.landed() == 330 + landed_then
    with fixed.connected() as connection:
        assert retry.retry(connection, fixed.stream) == (300 - landed_then, 6, 0)
        assert retry.retry(connection, fixed.stream) == (0, 6, 0)
    assert fixed.prove().dispositions == {"landed": 630, "dead letter": 6}


def test_h84_concurrent_retries_share_the_letters(fixed: Stage) -> None:
    """One retry is held in the middle. Another takes none of its letters, and a replay of the same records waits."""
    relay = fixed.relay()
    with fixed.connected(relay) as held:
        trap = relay.trap(RETRIED["mid_copy"][0])
        holding = threading.Thread(target=retry.retry, args=(held, fixed.stream))
        holding.start()
        try:
            trap.wait()
            with fixed.connected() as free:
                assert retry.retry(free, fixed.stream) == (0, 6, 0)
                waiting = threading.Thread(target=replay.replay, args=(free, fixed.stream, EVERYTHING, "a test"))
                waiting.start()
                try:
                    locked = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"
                    until("the replay waits", lambda: fixed.query(locked, fixed.name) == [(1,)], 20)
                finally:
                    trap.release()
                    waiting.join()
        finally:
            trap.release()
            holding.join()
    assert fixed.query("SELECT sum(landed), sum(more_landed) FROM millrace.landing_replay") == [(630, 0)]
    assert fixed.prove().dispositions == {"landed": 630, "dead letter": 6}
