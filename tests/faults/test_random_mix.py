"""Random faults, in sequence and overlapping, while events arrive, with an audit every few steps and at the end.

The faults are drawn from a seed, which the test prints. The same seed draws the same faults.

    MILLRACE_FAULTS_SEED=7 MILLRACE_FAULTS_SECONDS=3600 ./millrace test tests/faults/test_random_mix.py
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from random import Random

import pytest

from tests.faults.toolbox.drains import Drain
from tests.faults.toolbox.relay import PostgresRelay, Trap
from tests.faults.toolbox.stage import Stage

SECONDS = float(os.environ.get("MILLRACE_FAULTS_SECONDS", "120"))
SEED = int(os.environ.get("MILLRACE_FAULTS_SEED") or Random().randrange(1_000_000))
AUDIT_EVERY = 12

MOMENTS = (
    "client query BEGIN",
    "server done WITH asked",
    "client copy rest of COPY .?landing",
    "client copy rest of COPY .?millrace.?..?dead_letter",
    "server done ALTER TABLE .* ATTACH",
    "server done INSERT INTO millrace.landing_ledger",
    "client query COMMIT",
    "server done COMMIT",
)
# The weight of each fault. The names are those of the methods of Mix.
FAULTS = {
    "kill_at": 6,
    "cut_at": 4,
    "terminate_at": 3,
    "overtake_at": 4,
    "kill": 3,
    "rival": 2,
    "cut_kafka": 2,
    "silence_kafka": 1,
    "slow_network": 1,
    "crash_postgres": 2,
    "bounce_broker": 1,
    "kill_broker": 1,
    "lock_positions": 1,
}


@dataclass(frozen=True)
class Step:
    """The records and the fault of one step.

    Attributes:
        events: The number of good events.
        poison, tombstones, late, aborted: The numbers of other records.
        fault: The name of the fault.
        moment: The moment in a transaction, for faults that have one.
        length_s: The duration of faults that last.
    """

    events: int
    poison: int
    tombstones: int
    late: int
    aborted: int
    fault: str
    moment: str
    length_s: float


def steps(seed: int) -> Iterator[Step]:
    """Endless steps, the same for the same seed."""
    random = Random(seed)
    while True:
        yield Step(
            events=random.randrange(50, 800),
            poison=random.choice((0, 0, 1, 20)),
            tombstones=random.choice((0, 0, 5)),
            late=random.choice((0, 0, 10)),
            aborted=random.choice((0, 0, 40)),
            fault=random.choices(tuple(FAULTS), tuple(FAULTS.values()))[0],
            moment=random.choice(MOMENTS),
            length_s=round(random.uniform(0.2, 3.0), 2),
        )


class Mix:
    """Executes steps on a stage, and keeps a drain running, as Airflow would."""

    def __init__(self, stage: Stage) -> None:
        # Short windows, so that there are many.
        stage.stream = replace(stage.stream, window="15 seconds", quiet="3 seconds")
        self.stage = stage
        self.zombies: list[Drain] = []
        self.relay: PostgresRelay = stage.postgres
        self.drain: Drain | None = None
        self._days = 0

    def run(self, step: Step) -> None:
        """Sends the step's records, causes its fault, and starts a drain if none runs."""
        self._ensure_a_drain()
        self._send(step)
        getattr(self, step.fault)(step)
        self._ensure_a_drain()

    def end(self) -> None:
        """Continues the stopped drains; they must not write."""
        for zombie in self.zombies:
            if zombie.alive:
                zombie.thaw()
        for drain in (*self.zombies, self._running()):
            kind = drain.wait(90).kind
            assert kind in ("drained", "fenced", "failed", "killed"), (kind, drain.log())

    def kill_at(self, step: Step) -> None:
        with self._held(step.moment) as trap:
            self._running().kill()
            trap.cut()

    def cut_at(self, step: Step) -> None:
        with self._held(step.moment) as trap:
            trap.cut()

    def terminate_at(self, step: Step) -> None:
        with self._held(step.moment):
            self.stage.query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = %s AND application_name LIKE 'millrace land%%'",
                self.stage.name,
            )

    def overtake_at(self, step: Step) -> None:
        with self._held(step.moment):
            self._running().freeze()
            self._retire()

    def kill(self, step: Step) -> None:
        time.sleep(step.length_s / 10)
        self._running().kill()

    def rival(self, step: Step) -> None:
        self._retire()

    def cut_kafka(self, step: Step) -> None:
        with self.stage.kafka.away():
            time.sleep(step.length_s)

    def silence_kafka(self, step: Step) -> None:
        self.stage.kafka.freeze()
        time.sleep(step.length_s)
        self.stage.kafka.thaw()

    def slow_network(self, step: Step) -> None:
        self.stage.kafka.latency_s = self.relay.latency_s = 0.02
        time.sleep(step.length_s)
        self.stage.kafka.latency_s = self.relay.latency_s = 0.0

    def crash_postgres(self, step: Step) -> None:
        with self._held(step.moment):
            self.stage.world.database.abandon()
        time.sleep(step.length_s / 4)
        self.stage.world.database.start()

    def bounce_broker(self, step: Step) -> None:
        self.stage.world.broker.stop()
        self.stage.world.broker.start()

    def kill_broker(self, step: Step) -> None:
        self.stage.world.broker.kill()
        self.stage.world.broker.start()

    def lock_positions(self, step: Step) -> None:
        reader = self.stage.stream.reader
        self.stage.query(
            "SELECT pg_sleep(%s) FROM (SELECT FROM millrace.position WHERE reader = %s FOR UPDATE) AS locked LIMIT 1",
            step.length_s,
            reader,
        )

    @contextmanager
    def _held(self, moment: str) -> Iterator[Trap]:
        """Holds a drain at a moment for the length of a ``with`` block, if it reaches it within four seconds."""
        relay, trap = self.relay, self.relay.trap(moment)
        end = time.monotonic() + 4
        while not trap.sprung and time.monotonic() < end:
            self._ensure_a_drain()
            if relay is not self.relay:
                trap.release()
                relay, trap = self.relay, self.relay.trap(moment)
            self.stage.topic.events(30)
            self.stage.topic.send([b"{broken"], expect="dead letter")
            time.sleep(0.05)
        try:
            yield trap
        finally:
            trap.release()

    def _retire(self) -> None:
        """Lets another drain take over from the running one. Of the stopped drains, the oldest continue."""
        self.zombies.append(self._running())
        self.drain = None
        for earlier in self.zombies[:-2]:
            if earlier.alive:
                earlier.thaw()

    def _send(self, step: Step) -> None:
        topic = self.stage.topic
        topic.events(step.events)
        if step.poison:
            topic.send([b"{broken"] * step.poison, expect="dead letter")
        if step.tombstones:
            topic.send([None] * step.tombstones)
        if step.late:
            self._days = self._days % 6 + 1
            topic.events(step.late, ts=datetime.now(UTC) - timedelta(days=self._days))
        if step.aborted:
            topic.transaction(step.aborted, "abort")

    def _ensure_a_drain(self) -> None:
        if self.drain is not None and self.drain.alive:
            return
        if self.drain is not None:
            outcome = self.drain.wait()
            assert outcome.kind != "stop", outcome
        self.relay = self.stage.relay()
        self.drain = self.stage.drain(postgres=self.relay, patient=False)

    def _running(self) -> Drain:
        assert self.drain is not None
        return self.drain


def test_a_seed_draws_the_same_faults() -> None:
    assert list(islice(steps(SEED), 500)) == list(islice(steps(SEED), 500))
    assert list(islice(steps(SEED), 500)) != list(islice(steps(SEED + 1), 500))


@pytest.mark.timeout(2 * SECONDS + 600)
def test_random_mix(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    show(capsys, f"{SECONDS:g} s of faults with MILLRACE_FAULTS_SEED={SEED}")
    mix = Mix(stage)
    end = time.monotonic() + SECONDS
    for number, step in enumerate(steps(SEED), start=1):
        print(number, step, flush=True)
        mix.run(step)
        if number % AUDIT_EVERY == 0:
            wrong = stage.audit().wrong
            assert not wrong, "\n".join(wrong)
        if time.monotonic() > end:
            break
    mix.end()
    findings = stage.finish()
    show(capsys, f"{number} faults; dispositions: {dict(findings.dispositions)}")


def show(capsys: pytest.CaptureFixture[str], what: str) -> None:
    """Prints immediately, and again if the test fails."""
    print(what)
    with capsys.disabled():
        # pytest-xdist does not show the standard output of its processes.
        print(f"\n{what}", file=sys.stderr, flush=True)
