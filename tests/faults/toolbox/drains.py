"""The real drain in a process of its own, to be killed, stopped and continued.

The processes are forked from a server that has imported everything already, as Airflow's workers are.
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
        kind: ``drained``; ``stop``, a named one; ``fenced``; ``failed``, with any other error; ``killed``, by a signal.
        what: The error's class.
        says: The error's message.
        drained: What the window brought, by the names of ``include.landing.drain.Drained``; nothing of a child's.
    """

    kind: Literal["drained", "stop", "fenced", "failed", "killed"]
    what: str = ""
    says: str = ""
    drained: Mapping[str, Any] = field(default_factory=dict)


class Drain:
    """One drain at work.

    Args:
        stream: What to drain; its window and quiet time bound the process.
        connections: The environment variables of the connections.
        log: The file for what it writes.
        share: Which of the stream's drains.
        tamper: Called in the process before it drains, to break what a test wants to see broken.
        handing_over: As in a task: a child of the process drains, and goes on behind the window's end.
        patient: It ends because its topic is quiet only once the test waits for its end; before, a pause of the test,
            which is long on a busy machine, is none of the topic's.
    """

    def __init__(
        self,
        stream: Stream,
        connections: Mapping[str, str],
        log: Path,
        share: int = 0,
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
            target=_main, args=(theirs, stream, dict(connections), log, share, tamper, handing_over), daemon=True
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
        """Whether it runs, or is stopped."""
        return self._process.is_alive()

    @property
    def child(self) -> psutil.Process:
        """The process that drains and hands over, waited for; to be asked for first before the window's end."""
        if self._child is None:
            parent = psutil.Process(self.pid)
            until("the drain's process has the child that drains", lambda: bool(parent.children()), 30)
            [self._child] = parent.children()
        return self._child

    def kill(self) -> None:
        """kill -9, and waits for the end."""
        self._process.kill()
        self._process.join(10)
        assert not self.alive

    def terminate(self) -> None:
        """SIGTERM."""
        self._process.terminate()

    def freeze(self) -> None:
        """SIGSTOP."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def wait(self, within_s: float = 60.0) -> Outcome:
        """Waits for its end and tells how it was."""
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
        """The end of what it wrote."""
        return self._log.read_text(errors="replace")[-4000:]

    def end(self) -> None:
        """Ends it, whatever it does."""
        if self.alive:
            self.kill()
        if self._child is not None and self._child.is_running():
            self._child.kill()


def has_ended(process: psutil.Process) -> bool:
    """Whether it does nothing any more; an orphan stays in the table until init looks after it."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _main(
    outcome: Pipe,
    stream: Stream,
    connections: Mapping[str, str],
    log: Path,
    share: int,
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
    outcome.send(_drain(stream, share, tamper, handing_over))
    outcome.close()


def _stay_until_awaited(test: Pipe) -> None:
    quiet_s = Stream.quiet_s.fget  # type: ignore[attr-defined]
    Stream.quiet_s = property(lambda self: quiet_s(self) if test.poll() else self.window_s)  # type: ignore


def _drain(stream: Stream, share: int, tamper: Callable[[], None] | None, handing_over: bool) -> Outcome:
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
            handover.run("The drain", lambda leave: drain(stream, owner, share, lambda _: leave()))
        else:
            drained = drain(stream, owner, share)
    except PositionError as stop:
        return Outcome("stop", type(stop).__name__, str(stop))
    except Fenced as fenced:
        return Outcome("fenced", "Fenced", str(fenced))
    except Exception as error:
        traceback.print_exc()
        return Outcome("failed", type(error).__name__, str(error))
    logging.info("drained %s in %.1f s", drained, time.monotonic() - started)
    return Outcome("drained", drained=asdict(drained))
