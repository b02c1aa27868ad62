"""A forked process that does a piece of work and ends with this one, whatever ends this one."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from include.errors import UserError

_PR_SET_PDEATHSIG = 1


class Killed(UserError):
    """Something ended the process: the kernel for want of memory, or a person."""


class Child:
    """A process at work, begun before this one has a thread.

    Args:
        work: What it does; it writes what it has to say to the descriptor it is given, and closes it.

    Attributes:
        pid: Its id.
        said: The descriptor from which to read what it says.
    """

    def __init__(self, work: Callable[[int], None]) -> None:
        self.said, writing = os.pipe()
        parent = os.getpid()
        # What this process has left as garbage may be a client of Kafka, whose end waits for threads that the child has
        # not got: the child must never collect it.
        gc.disable()
        try:
            self.pid = os.fork()
            if not self.pid:
                gc.freeze()
        finally:
            gc.enable()
        if not self.pid:
            os.close(self.said)
            _do(work, parent, writing)
        os.close(writing)

    def read(self) -> bytes:
        """Waits until it has said everything; empty when something ended it before."""
        with open(self.said, "rb", closefd=False) as said:
            return said.read()

    def close(self) -> None:
        """Hears no more of it."""
        os.close(self.said)

    def kill(self) -> None:
        """Ends it and its own children, and waits for its end."""
        import psutil

        with suppress(psutil.Error):
            for process in psutil.Process(self.pid).children(recursive=True):
                with suppress(psutil.Error):
                    process.kill()
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def ending(self) -> str:
        """Waits for its end, and tells by what it was ended."""
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        return signal.Signals(-code).name if code < 0 else f"itself, with the exit code {code}"


def end_with_parent(wanted: bool) -> None:
    """Whether the kernel shall end this process with the one that forked it; where it cannot, nothing happens."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL if wanted else 0)


def flush() -> None:
    """Writes out what the standard streams hold."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()


def _do(work: Callable[[int], None], parent: int, writing: int) -> NoReturn:
    # Without this a task whose process is killed would go on beside its successor.
    end_with_parent(True)
    if os.getppid() != parent:
        os._exit(1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    # Nothing of the parent's is torn down here, whatever happens: its connections are still its own.
    code = 1
    try:
        work(writing)
        code = 0
    finally:
        flush()
        os._exit(code)
