"""B: drains that are stopped, slow or started twice while another takes over. The former one writes nothing."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import psutil
import pytest

from tests.faults.toolbox import tampering
from tests.faults.toolbox.drains import Drain
from tests.faults.toolbox.stage import Stage
from tests.polling import until

Tampering = Callable[[], None] | None
MOMENTS = {
    "before_begin": "client query BEGIN",
    "after_compare_and_set": "server done WITH asked",
    "mid_copy": "client copy rest of COPY .?landing",
    "before_commit": "client query COMMIT",
    "after_commit": "server done COMMIT",
}


def overtaken(stage: Stage, moment: str, tamper: Tampering = None) -> Drain:
    """Stops a drain at a moment of its second batch, lets another one land everything, and continues the first."""
    stage.topic.events(1_000)
    zombie = stage.drain(tamper=tamper)
    stage.until_landed(1_000)
    trap = stage.postgres.trap(moment)
    stage.topic.events(2_000)
    trap.wait()
    zombie.freeze()
    trap.release()
    successor = stage.drain(postgres=stage.relay(), tamper=tamper)
    stage.until_landed(3_000)
    stage.topic.events(500)
    assert successor.wait().kind == "drained"
    zombie.thaw()
    return zombie


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS.keys())
def test_b14_a_stopped_drain_is_overtaken(stage: Stage, moment: str) -> None:
    """Its transaction may finish while it is stopped, or its backend may be terminated. It never writes afterwards."""
    zombie = overtaken(stage, moment)
    stage.topic.events(200)
    outcome = zombie.wait()
    assert outcome.kind in ("fenced", "failed"), outcome
    assert not stage.audit().wrong
    stage.finish()


def test_b14_a_drain_stopped_before_its_transaction_is_fenced(stage: Stage) -> None:
    outcome = overtaken(stage, MOMENTS["before_begin"]).wait()
    assert outcome.kind == "fenced", outcome
    assert "[positions-taken-over]" in outcome.message
    stage.finish()


@pytest.mark.parametrize("tamper", [tampering.positions_move_without_comparison, tampering.coordinates_may_repeat])
def test_b14_a_missing_compare_and_set_is_noticed(stage: Stage, tamper: Tampering) -> None:
    """Without the key, the former drain repeats rows; with it, it still changes another's position and ledger."""
    zombie = overtaken(stage, MOMENTS["before_begin"], tamper)
    outcome = zombie.wait()
    assert outcome.kind != "fenced"
    with pytest.raises(AssertionError):
        assert outcome.kind == "drained", "only the table's key refused its rows"
        stage.finish()


def test_a13_a_retry_overlaps_a_living_drain(stage: Stage) -> None:
    """The first drain keeps running. Its next transaction is fenced."""
    stream = replace(stage.stream, quiet="20 seconds")
    stage.topic.events(1_000)
    first = stage.drain(stream)
    stage.until_landed(1_000)
    second = stage.drain(stream, postgres=stage.relay())
    stage.until_claimed(2)
    stage.topic.events(1_000)
    assert first.wait().kind == "fenced"
    stage.until_landed(2_000)
    second.end()
    stage.finish()


def test_b15_two_runs_at_once(stage: Stage) -> None:
    """Two drains of all partitions start together while events arrive: only one of them lands."""
    stage.topic.events(500)
    drains = [stage.drain(), stage.drain(postgres=stage.relay())]
    while all(drain.alive for drain in drains):
        stage.topic.events(200)
    for _ in range(5):
        stage.topic.events(200)
    kinds = sorted(drain.wait().kind for drain in drains)
    assert kinds in (["drained", "fenced"], ["drained", "failed"]), kinds
    stage.finish()


@contextmanager
def flowing(stage: Stage) -> Iterator[None]:
    """Sends events for the length of a ``with`` block."""
    over = threading.Event()

    def flow() -> None:
        while not over.wait(0.02):
            stage.topic.events(50)

    sending = threading.Thread(target=flow)
    sending.start()
    try:
        yield
    finally:
        over.set()
        sending.join()


def window(stage: Stage, window: str, tamper: Tampering = None) -> Drain:
    """A drain as in a task, whose window ends by its time."""
    return stage.drain(replace(stage.stream, window=window, quiet="1 minute"), tamper=tamper, handing_over=True)


def tail(stage: Stage, seconds: str = "3 seconds", tamper: Tampering = None) -> psutil.Process:
    """The process of a window that ended while events arrive: it lands them after its task."""
    drain = window(stage, seconds, tamper)
    child = drain.child
    until("the window lands rows", lambda: stage.landed() > 0, 30, every_s=0.05)
    outcome = drain.wait()
    assert outcome.kind == "drained", f"{outcome}\n{drain.log()}"
    landed = stage.landed()
    until("the tail lands events after its task", lambda: stage.landed() > landed, 10, every_s=0.05)
    assert child.is_running()
    return child


def gone(process: psutil.Process) -> bool:
    """Whether a process has ended, reaped or not."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_b15_a_window_continues_until_its_successor_takes_over(stage: Stage) -> None:
    with flowing(stage):
        former = tail(stage)
        successor = window(stage, "2 seconds")
        latter = successor.child
        stage.until_claimed(2)
        until("the tail was fenced and has ended", lambda: gone(former), 5)
        assert successor.wait().kind == "drained"
    until("a tail without events ends by itself", lambda: gone(latter), 10)
    stage.finish()


def test_b15_windows_change_often_under_load(stage: Stage) -> None:
    """Each tail meets the next claim. The audit would find an offset that two drains wrote, or none."""
    tails = []
    with flowing(stage):
        for number in range(1, 9):
            drain = window(stage, "1 second")
            tails.append(drain.child)
            stage.until_claimed(number)
            assert drain.wait().kind == "drained", drain.log()
        assert not gone(tails[-1])
        until("only the last tail is left", lambda: all(map(gone, tails[:-1])), 10)
    stage.finish()


def test_b15_a_tail_without_a_successor_ends_in_time(stage: Stage) -> None:
    with flowing(stage):
        left = tail(stage, tamper=tampering.tails_are_short)
        until("the tail has ended although events arrive", lambda: gone(left), 20)
        landed, sent = stage.landed(), len(stage.topic.acknowledged)
        until("more events were sent", lambda: len(stage.topic.acknowledged) > sent + 500, 30)
        assert stage.landed() == landed
    stage.finish()


def stop_a_tail(stage: Stage, moment: str, tamper: Tampering = None) -> None:
    """Stops a tail at a moment of a batch, lets a successor land everything, and continues the tail to its end."""
    with flowing(stage):
        zombie = tail(stage, tamper=tamper)
        trap = stage.postgres.trap(moment)
        trap.wait()
        zombie.suspend()
        trap.release()
    successor = stage.drain(postgres=stage.relay(), tamper=tamper)
    stage.until_claimed(2)
    stage.topic.events(500)
    assert successor.wait().kind == "drained"
    zombie.resume()
    until("the tail has ended", lambda: gone(zombie), 25)


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS.keys())
def test_b14_a_stopped_tail_is_overtaken(stage: Stage, moment: str) -> None:
    stop_a_tail(stage, moment)
    stage.finish()


def test_b14_a_missing_compare_and_set_of_a_tail_is_noticed(stage: Stage) -> None:
    stop_a_tail(stage, MOMENTS["before_begin"], tampering.coordinates_may_repeat)
    with pytest.raises(AssertionError):
        stage.finish()


def test_b16_a_batch_longer_than_the_poll_interval(stage: Stage) -> None:
    """A batch takes longer than the consumer may pause between polls. Without a group, no partition is revoked."""
    stage.kafka_settings = {"max.poll.interval.ms": 6_000, "session.timeout.ms": 6_000}
    stage.topic.events(500)
    drain = stage.drain()
    stage.until_landed(500)
    trap = stage.postgres.trap("client query COMMIT")
    for _ in range(6):
        stage.topic.events(100)
        time.sleep(0.2)
    trap.wait()
    # Longer than the poll interval, whose minimum is that of the session timeout: six seconds.
    time.sleep(8)
    trap.release()
    stage.until_landed(1_100)
    assert drain.wait().kind == "drained"
    stage.finish()


def test_b17_starved_of_the_processor(stage: Stage) -> None:
    """It runs for 20 ms of every 150 ms while events arrive: it is slow, but correct."""
    drain = stage.drain()
    over = threading.Event()

    def starve() -> None:
        while not over.wait(0.02) and drain.alive:
            drain.freeze()
            over.wait(0.13)
            drain.thaw()

    starving = threading.Thread(target=starve)
    starving.start()
    for _ in range(10):
        stage.topic.events(300)
        time.sleep(0.2)
    over.set()
    starving.join()
    stage.until_landed(3_000)
    assert drain.wait().kind == "drained"
    stage.prove()


def test_b18_a_paused_backend_holds_the_position(stage: Stage) -> None:
    """The drain's PostgreSQL backend is stopped and cannot end. The successor writes nothing until it does."""
    stage.topic.events(500)
    drain = stage.drain()
    stage.until_landed(500)
    trap = stage.postgres.trap("server done WITH asked")
    stage.topic.events(500)
    trap.wait()
    [(backend,)] = stage.query(
        "SELECT DISTINCT backend_pid FROM millrace.position WHERE reader = %s", stage.stream.reader
    )
    os.kill(backend, signal.SIGSTOP)
    try:
        drain.kill()
        trap.cut()
        successor = stage.drain(postgres=stage.relay(), tamper=tampering.takeovers_are_quick)
        waiting = "SELECT pid FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"
        until("the successor waits for the position", lambda: stage.query(waiting, stage.name), 30)
        # By then it has asked the backend to end.
        time.sleep(1)
        assert stage.landed() == 500
        assert not stage.audit().wrong
    finally:
        os.kill(backend, signal.SIGCONT)
    assert successor.wait(90).kind in ("drained", "failed")
    stage.finish()


def test_b18_a_vanished_client_holds_the_position(stage: Stage) -> None:
    """The drain's machine vanishes with a transaction open. The successor terminates its backend after five seconds."""
    stage.topic.events(500)
    drain = stage.drain()
    stage.until_landed(500)
    trap = stage.postgres.trap("server done WITH asked")
    stage.topic.events(500)
    trap.wait()
    stage.postgres.hide_ends()
    drain.kill()
    began = time.monotonic()
    successor = stage.drain(postgres=stage.relay())
    stage.until_landed(1_000)
    assert time.monotonic() - began > 4
    assert successor.wait().kind == "drained"
    stage.finish()
