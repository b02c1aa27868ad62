"""Faults of a stream that is Avro and has a current state, with a real schema registry.

These are the scenarios in which the format or the key matters. A variable repeats all scenarios of readings:

    MILLRACE_FAULTS_KEYED_AVRO=1 ./millrace test tests/faults
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest

from include.landing import proof, replay, replay_selection, retry
from include.landing.replay_selection import Wanted
from tests.faults.test_a_crashes import killed_in_a_batch
from tests.faults.test_random_mix import SEED, Mix, show, steps
from tests.faults.toolbox.avro import keyed_avro
from tests.faults.toolbox.events import READINGS
from tests.faults.toolbox.stage import Stage, World
from tests.polling import until

SECONDS = float(os.environ.get("MILLRACE_FAULTS_SECONDS", "120")) / 4
OUTAGE_S = 60.0


@pytest.fixture
def stage(world: World) -> Iterator[Stage]:
    stage = Stage(world, keyed_avro(READINGS))
    try:
        yield stage
    finally:
        stage.close()


@pytest.mark.parametrize("moment", ["client copy rest of COPY pg_temp", "server done COMMIT"])
def test_killed_in_a_batch(stage: Stage, moment: str) -> None:
    killed_in_a_batch(stage, moment)


def test_a_wrong_value_in_avro_is_noticed(stage: Stage) -> None:
    stage.topic.events(100)
    stage.finish()
    stage.query(f"UPDATE landing.{stage.stream.name} SET amount = amount + 1 WHERE id = 7")
    wrong = "\n".join(stage.audit().wrong)
    assert "rows that differ from their records" in wrong and "('meter 7',)" in wrong


def test_replays_and_retries_keep_the_newest_state(stage: Stage) -> None:
    """Poison, a schema with another field, old events and tombstones; each key has several events."""
    topic = stage.topic
    topic.events(300)
    topic.events(100, unit="kWh")
    topic.send([b"{broken", topic.value(id="seven")], expect="dead letter")
    topic.send([None] * 3)
    stage.finish()
    with stage.connected() as connection:
        before = stage.query(f"SELECT * FROM landing.{stage.stream.name}_state ORDER BY name")
        assert sum(done.records for done in replay.replay(connection, stage.stream, Wanted(), "a test")) == 402
        assert retry.retry(connection, stage.stream) == (0, 2, 0)
        assert stage.query(f"SELECT * FROM landing.{stage.stream.name}_state ORDER BY name") == before
        assert len(before) == 97
        assert proof.prove(connection, stage.stream).wrong == []
    stage.prove()


@pytest.mark.timeout(OUTAGE_S + 600)
@pytest.mark.parametrize("how", ["silent", "killed"])
def test_the_registry_is_away_for_a_minute_while_a_stream_drains(stage: Stage, how: str) -> None:
    """Records with a known schema land meanwhile. Those with a new one wait; nothing is lost."""
    stage.stream = replace(stage.stream, window="10 minutes")
    registry = stage.world.registry
    stage.topic.events(1_000)
    drain = stage.drain()
    stage.until_landed(1_000)
    # The producer has registered the schema, and the drain has not read it.
    new = [stage.topic.value(unit="kWh") for _ in range(100)]
    began = time.monotonic()
    registry.freeze() if how == "silent" else registry.kill()
    stage.topic.events(500)
    stage.until_landed(1_500)
    stage.topic.send(new)
    stage.topic.events(500)
    until("it waits for the registry", lambda: "schema registry" in drain.log(), 60)
    time.sleep(max(0.0, began + OUTAGE_S - time.monotonic()))
    assert drain.alive and stage.landed() < 2_100 and not stage.audit().wrong
    registry.thaw() if how == "silent" else registry.start()
    stage.until_landed(2_100, within_s=120)
    outcome = drain.wait()
    assert outcome.kind == "drained", outcome
    assert stage.finish().dispositions == {"landed": 2_100}


@pytest.mark.timeout(8 * SECONDS + 600)
def test_random_mix(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """The random faults of all streams, and replays and retries meanwhile."""
    show(capsys, f"{SECONDS:g} s of faults of keyed Avro with MILLRACE_FAULTS_SEED={SEED}")
    mix, end = Mix(stage), time.monotonic() + SECONDS
    for number, step in enumerate(steps(SEED), start=1):
        print(number, step, flush=True)
        mix.run(step)
        if number % 3 == 0:
            with stage.connected() as connection:
                # Nothing may have landed yet.
                with suppress(replay_selection.NothingToReplay):
                    replay.replay(connection, stage.stream, Wanted(), "a test")
                retry.retry(connection, stage.stream)
            wrong = stage.audit().wrong
            assert not wrong, "\n".join(wrong)
        if time.monotonic() > end:
            break
    mix.end()
    findings = stage.finish()
    show(capsys, f"{number} faults; dispositions: {json.dumps(findings.dispositions)}")
