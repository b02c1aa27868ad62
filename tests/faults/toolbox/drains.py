"""A real drain in a process of its own, which tests kill, stop and continue.

The processes are forked from a server that has imported everything before, like Airflow's workers.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any, Literal

import psutil

from include.streams.definition import Stream
from tests.polling import until

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.faults.toolbox.preload"])


@dataclass(frozen=True)
class Outcome:
    """How a drain ended.

    Attributes:
        kind: ``drained``; ``stop`` for a PositionError; ``fenced``; ``failed`` for any other error; ``killed``.
        error: The error's class.
        message: The error's message.
        drained: The fields of ``include.landing.drain.Drained``; empty for a drain that hands over.
    """

    kind: Literal["drained", "stop", "fenced", "failed", "killed"]
    error: str = ""
    message: str = ""
    drained: Mapping[str, Any] = field(default_factory=dict)


class Drain:
    """One running drain.

    Args:
        stream: The stream; its window and quiet time limit the process's life.
        connections: The environment variables of the connections.
        log: The file for its output.
        shard: The number of this drain among the stream's drains.
        tamper: Called in the process before it drains, to break a mechanism on purpose.
        handing_over: As in a task: a child of the process drains, and continues after the window.
        patient: Only end for a quiet topic once the test waits for the drain's end. Before, the topic may be quiet just
            because a busy machine delays the test.
    """

    def __init__(
        self,
        stream: Stream,
        connections: Mapping[str, str],
        log: Path,
        shard: int = 0,
        tamper: Callable[[], None] | None = None,
        handing_over: bool = False,
        patient: bool = True,
    ) -> None:
        self._child: psutil.Process | None = None
        self._outcome, theirs = _processes.Pipe()
        self._log = log
        if not patient:
            self._outcome.send("awaited")
        self._process = _processes.Process(
            target=_main, args=(theirs, stream, dict(connections), log, shard, tamper, handing_over), daemon=True
        )
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it has not ended; it may be stopped."""
        return self._process.is_alive()

    @property
    def child(self) -> psutil.Process:
        """The child process that drains and hands over. Read it for the first time before the window ends."""
        if self._child is None:
            parent = psutil.Process(self.pid)
            until("the drain's process has the child that drains", lambda: bool(parent.children()), 30)
            [self._child] = parent.children()
        return self._child

    def kill(self) -> None:
        """Sends SIGKILL, and waits for the end."""
        self._process.kill()
        self._process.join(10)
        assert not self.alive

    def terminate(self) -> None:
        """Sends SIGTERM."""
        self._process.terminate()

    def freeze(self) -> None:
        """Sends SIGSTOP."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Sends SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def wait(self, within_s: float = 60.0) -> Outcome:
        """Waits for its end, and returns the outcome."""
        with suppress(OSError):
            self._outcome.send("awaited")
        self._process.join(within_s)
        assert not self.alive, f"the drain did not end within {within_s:g} s; it wrote:\n{self.log()}"
        try:
            outcome: Outcome = self._outcome.recv()
        except (EOFError, ConnectionResetError):
            return Outcome("killed")
        return outcome

    def log(self) -> str:
        """The last part of its output; empty before it has written any."""
        return self._log.read_text(errors="replace")[-4000:] if self._log.exists() else ""

    def end(self) -> None:
        """Kills it and its child."""
        if self.alive:
            self.kill()
        if self._child is not None and self._child.is_running():
            self._child.kill()


def has_ended(process: psutil.Process) -> bool:
    """Whether it has ended; an orphan remains a zombie until init reaps it."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _main(
    outcome: Pipe,
    stream: Stream,
    connections: Mapping[str, str],
    log: Path,
    shard: int,
    tamper: Callable[[], None] | None,
    handing_over: bool,
) -> None:
    with open(log, "ab") as file:
        for standard in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), standard.fileno())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(message)s", force=True)
    os.environ.update(connections)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _stay_until_awaited(outcome)
    outcome.send(_drain(stream, shard, tamper, handing_over))
    outcome.close()


def _stay_until_awaited(test: Pipe) -> None:
    quiet_s = Stream.quiet_s.fget  # type: ignore[attr-defined]
    Stream.quiet_s = property(lambda self: quiet_s(self) if test.poll() else self.window_s)  # type: ignore


def _drain(stream: Stream, shard: int, tamper: Callable[[], None] | None, handing_over: bool) -> Outcome:
    from include.kafka.position_errors import Fenced, PositionError
    from include.landing import handover
    from include.landing.drain import Drained, drain

    started = time.monotonic()
    if tamper is not None:
        tamper()
    owner = f"faults {os.getpid()}"
    drained = Drained()
    try:
        if handing_over:
            handover.run("The drain", lambda leave: drain(stream, owner, shard, lambda _: leave()))
        else:
            drained = drain(stream, owner, shard)
    except PositionError as stop:
        return Outcome("stop", type(stop).__name__, str(stop))
    except Fenced as fenced:
        return Outcome("fenced", "Fenced", str(fenced))
    except Exception as error:
        traceback.print_exc()
        return Outcome("failed", type(error).__name__, str(error))
    logging.info("drained %s in %.1f s", drained, time.monotonic() - started)
    return Outcome("drained", drained=asdict(drained))
