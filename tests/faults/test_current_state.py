"""The current state under faults: after kills, replays and retries at random, it is the last of the history.

MILLRACE_FAULTS_SEED=7 MILLRACE_FAULTS_SECONDS=3600 ./millrace test tests/faults/test_current_state.py
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from random import Random

import psycopg2
import pytest
from psycopg2 import sql

from include.errors import UserError
from include.landing import proof, replay, retry, state, table
from include.landing.replay_selection import Wanted
from tests.faults.test_random_mix import show
from tests.faults.toolbox import tampering
from tests.faults.toolbox.drains import Drain
from tests.faults.toolbox.events import READINGS, Expected, Reading
from tests.faults.toolbox.stage import Stage, World

SECONDS = float(os.environ.get("MILLRACE_FAULTS_SECONDS", "60"))
SEED = int(os.environ.get("MILLRACE_FAULTS_SEED") or Random().randrange(1_000_000))
KEYS = 40
MOMENTS = (
    "client query CREATE TEMP TABLE",
    "client copy rest of COPY pg_temp",
    "client query INSERT INTO .?landing",
    "server done INSERT INTO .?landing",
    "client query COMMIT",
    "server done COMMIT",
)


class Keyed(Reading):
    """A reading that may be refused, and may delete its key."""

    op: str = "u"


KEYED = replace(READINGS, event=Keyed, key="id", current=True)
RULES = {
    "tombstones": replace(KEYED, deletes="tombstone"),
    "a field": replace(KEYED, deletes=("op", "d")),
    "an order": replace(KEYED, order_by="ts", deletes=("op", "d")),
}


@pytest.fixture(params=RULES)
def keyed(world: World, request: pytest.FixtureRequest) -> Iterator[Stage]:
    stage = Stage(world, RULES[request.param])
    try:
        yield stage
    finally:
        stage.close()


class Sender:
    """Sends random records: events of few keys, deletions, and values that are not events."""

    def __init__(self, stage: Stage, random: Random) -> None:
        self._stage, self._random = stage, random

    def send(self, count: int) -> None:
        """Sends some records to the partitions of their keys, or to any if something orders them."""
        for _ in range(count):
            key = self._random.randrange(KEYS)
            partition = key % 3 if self._stage.stream.order_by is None else self._random.randrange(3)
            kind = self._random.random()
            if kind < 0.05:
                self._send(b"{broken", "dead letter", partition, key)
            elif kind < 0.2 and self._stage.stream.deletes == "tombstone":
                self._send(None, "skipped", partition, key)
            else:
                self._send(self._event(key, "d" if kind < 0.2 else "u"), "landed", partition, key)
        self._stage.topic.flush()

    def _event(self, key: int, op: str) -> bytes:
        ts = datetime.fromtimestamp(time.time() - self._random.random() * 100, UTC)
        return json.dumps({"id": key, "ts": ts.isoformat(), "name": f"{self._random.random()}", "op": op}).encode()

    def _send(self, value: bytes | None, expect: Expected, partition: int, key: int) -> None:
        topic = self._stage.topic
        topic._produce(topic._producer(""), [value], partition, expect, f"{key}".encode(), topic.acknowledged)


@pytest.fixture
def stage_of_tombstones(world: World) -> Iterator[Stage]:
    """A stage with 300 records, and with the tables, so that the next INSERT is that of a batch."""
    stage = Stage(world, RULES["tombstones"])
    try:
        Sender(stage, Random(1)).send(300)
        with stage.connected() as connection:
            table.bring_up_to_date(connection, stage.stream)
        yield stage
    finally:
        stage.close()


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_drain_that_is_killed_in_its_transaction(stage_of_tombstones: Stage, moment: str) -> None:
    trap = stage_of_tombstones.postgres.trap(moment)
    drain = stage_of_tombstones.drain()
    trap.wait()
    drain.kill()
    trap.cut()
    stage_of_tombstones.finish()


def test_a_state_in_a_transaction_of_its_own_is_noticed(stage_of_tombstones: Stage) -> None:
    stage = stage_of_tombstones
    trap = stage.postgres.trap("client query CREATE TEMP TABLE")
    drain = stage.drain(tamper=tampering.states_are_committed_alone)
    trap.wait()
    drain.kill()
    trap.cut()
    assert "missing in the state" in str(stage.audit().wrong)


def test_an_update_without_a_condition_is_noticed(stage_of_tombstones: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = stage_of_tombstones
    stage.finish()
    monkeypatch.setattr(state, "not_newer", lambda *_: sql.SQL("true"))
    _replay(stage, Wanted([0], 0, 20))
    assert "and its last record is" in str(stage.audit().wrong)


@pytest.mark.timeout(2 * SECONDS + 300)
def test_random_faults(keyed: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    show(capsys, f"{SECONDS / len(RULES):g} s of faults with MILLRACE_FAULTS_SEED={SEED}")
    random = Random(SEED)
    keyed.stream = replace(keyed.stream, window="15 seconds")
    sender, drain, steps, refusing = Sender(keyed, random), None, 0, False
    end = time.monotonic() + SECONDS / len(RULES)
    while time.monotonic() < end:
        steps += 1
        sender.send(random.randrange(20, 400))
        if drain is None or not drain.alive:
            drain = keyed.drain(patient=False)
        match random.randrange(6):
            case 0:
                time.sleep(random.random())
                drain.kill()
            case 1:
                rival = keyed.drain(patient=False)
                time.sleep(random.random())
                drain.kill()
                drain = rival
            case 2:
                first = random.randrange(300)
                _replay(keyed, Wanted([random.randrange(3)], first, first + random.randrange(1, 300)))
            case 3:
                _replay(keyed, Wanted())
            case 4:
                refusing = True
                _refuse(keyed)
            case _:
                refusing = False
                _accept_and_retry(keyed)
        if steps % 5 == 0 and not refusing:
            _accept_and_retry(keyed)
            wrong = keyed.audit().wrong
            assert not wrong, "\n".join(wrong)
    _end(drain)
    _accept_and_retry(keyed)
    findings = keyed.finish()
    with keyed.connected() as connection:
        assert proof.prove(connection, keyed.stream).wrong == []
    show(capsys, f"{steps} steps; dispositions: {dict(findings.dispositions)}")


def _replay(stage: Stage, wanted: Wanted) -> None:
    with stage.connected() as connection, suppress(UserError):
        replay.replay(connection, stage.stream, wanted, "a test")


def _refuse(stage: Stage) -> None:
    """Lets PostgreSQL refuse the rows of some keys, which become dead letters, also in a replay."""
    with suppress(psycopg2.errors.UndefinedTable, psycopg2.errors.DuplicateObject):
        stage.query(f"ALTER TABLE landing.{stage.stream.name} ADD CONSTRAINT refused CHECK (id % 7 <> 3) NOT VALID")


def _accept_and_retry(stage: Stage) -> None:
    """Ends the refusals, and lands the dead letters at their old places."""
    stage.query(f"ALTER TABLE IF EXISTS landing.{stage.stream.name} DROP CONSTRAINT IF EXISTS refused")
    with stage.connected() as connection:
        retry.retry(connection, stage.stream)


def _end(drain: Drain | None) -> None:
    if drain is not None and drain.alive:
        drain.kill()
