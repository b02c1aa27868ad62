"""B: drains that are stopped, slow or doubled while another takes over. The one that was overtaken writes nothing."""

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
    """A drain is stopped at a moment of its second batch; another lands everything; the first one goes on."""
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
    """Its transaction may finish while it is stopped, or its backend be ended; it never writes anything after."""
    zombie = overtaken(stage, moment)
    stage.topic.events(200)
    outcome = zombie.wait()
    assert outcome.kind in ("fenced", "failed"), outcome
    assert not stage.audit().wrong
    stage.finish()


def test_b14_stopped_before_its_transaction_it_is_told_that_it_was_fenced(stage: Stage) -> None:
    outcome = overtaken(stage, MOMENTS["before_begin"]).wait()
    assert outcome.kind == "fenced", outcome
    assert "taken over" in outcome.says
    stage.finish()


@pytest.mark.parametrize("tamper", [tampering.nobody_compares, tampering.coordinates_may_repeat])
def test_b14_without_the_compare_and_set_it_is_noticed(stage: Stage, tamper: Tampering) -> None:
    """Without the key the zombie doubles rows; with it, it still moves a position and a ledger that are not its own."""
    zombie = overtaken(stage, MOMENTS["before_begin"], tamper)
    outcome = zombie.wait()
    assert outcome.kind != "fenced"
    with pytest.raises(AssertionError):
        assert outcome.kind == "drained", "refused by the table's key alone"
        stage.finish()


def test_a13_a_retry_overlaps_the_process_that_is_still_alive(stage: Stage) -> None:
    """Nobody stops the first one; it learns from its next transaction that it is no longer wanted."""
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
    """Two drains of everything, started together, while events come: one of them lands."""
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
    """Events keep coming for the length of a ``with`` block."""
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
    """A drain as a task has it, of a window that ends by its time."""
    return stage.drain(replace(stage.stream, window=window, quiet="1 minute"), tamper=tamper, handing_over=True)


def tail(stage: Stage, seconds: str = "3 seconds", tamper: Tampering = None) -> psutil.Process:
    """The process of a window that has ended while events come: it lands them behind its task."""
    drain = window(stage, seconds, tamper)
    child = drain.child
    until("the window is at work", lambda: stage.landed() > 0, 30, every_s=0.05)
    outcome = drain.wait()
    assert outcome.kind == "drained", f"{outcome}\n{drain.log()}"
    landed = stage.landed()
    until("the tail lands what comes behind its task", lambda: stage.landed() > landed, 10, every_s=0.05)
    assert child.is_running()
    return child


def gone(process: psutil.Process) -> bool:
    """Whether a process has ended, be it reaped or not."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_b15_a_window_goes_on_until_its_successor_has_taken_over(stage: Stage) -> None:
    with flowing(stage):
        former = tail(stage)
        successor = window(stage, "2 seconds")
        latter = successor.child
        stage.until_claimed(2)
        until("the tail was fenced and has ended", lambda: gone(former), 5)
        assert successor.wait().kind == "drained"
    until("a tail to which nothing comes ends by itself", lambda: gone(latter), 10)
    stage.finish()


def test_b15_windows_change_often_under_load(stage: Stage) -> None:
    """Each one's tail meets the next one's claim; an offset that two wrote or nobody did would be found."""
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


def test_b15_a_tail_to_which_nobody_comes_ends_in_time(stage: Stage) -> None:
    with flowing(stage):
        left = tail(stage, tamper=tampering.tails_are_short)
        until("the tail has ended, though events come", lambda: gone(left), 4)
        landed = stage.landed()
        time.sleep(1)
        assert stage.landed() == landed
    stage.finish()


def stop_a_tail(stage: Stage, moment: str, tamper: Tampering = None) -> None:
    """A tail is stopped at a moment of a batch; a successor lands everything; the tail goes on, to its end."""
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


def test_b14_without_the_compare_and_set_a_tail_is_noticed(stage: Stage) -> None:
    stop_a_tail(stage, MOMENTS["before_begin"], tampering.coordinates_may_repeat)
    with pytest.raises(AssertionError):
        stage.finish()


def test_b16_a_batch_longer_than_the_poll_interval(stage: Stage) -> None:
    """Nobody polls for longer than the consumer's limits allow: without a group nothing is revoked."""
    stage.kafka_settings = {"max.poll.interval.ms": 6_000, "session.timeout.ms": 6_000}
    stage.topic.events(500)
    drain = stage.drain()
    stage.until_landed(500)
    trap = stage.postgres.trap("client query COMMIT")
    for _ in range(6):
        stage.topic.events(100)
        time.sleep(0.2)
    trap.wait()
    time.sleep(8)
    trap.release()
    stage.until_landed(1_100)
    assert drain.wait().kind == "drained"
    stage.finish()


def test_b17_starved_of_the_processor(stage: Stage) -> None:
    """It gets 20 ms of every 150 ms, while the events go on; slow is not wrong."""
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
    """Not the drain but its PostgreSQL process is stopped and cannot be ended: the successor writes nothing before."""
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
        successor = stage.drain(postgres=stage.relay())
        # It asks for the backend's end after five seconds.
        time.sleep(7)
        assert stage.landed() == 500
        assert not stage.audit().wrong
    finally:
        os.kill(backend, signal.SIGCONT)
    assert successor.wait(90).kind in ("drained", "failed")
    stage.finish()


def test_b18_a_vanished_client_holds_the_position(stage: Stage) -> None:
    """The drain's machine is gone without a word, its transaction open: the successor ends it after five seconds."""
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
