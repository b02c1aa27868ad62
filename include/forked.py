"""A forked process that does one piece of work and ends when its parent ends, for whatever reason."""

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
    """Something ended the process from outside: the kernel because memory ran out, or a person."""


class Child:
    """A child process at work. Fork it before this process starts a thread.

    Args:
        work: Called in the child with a file descriptor; it writes its answer there and closes it.

    Attributes:
        pid: The child's process id.
        answer: The descriptor from which to read the answer.
    """

    def __init__(self, work: Callable[[int], None]) -> None:
        self.answer, writing = os.pipe()
        parent = os.getpid()
        # Garbage of this process may include a Kafka client, whose destructor waits for threads that the child does not
        # have: the child must never collect it.
        gc.disable()
        try:
            self.pid = os.fork()
            if not self.pid:
                gc.freeze()
        finally:
            gc.enable()
        if not self.pid:
            os.close(self.answer)
            _run(work, parent, writing)
        os.close(writing)

    def read(self) -> bytes:
        """The whole answer, once the child has written it; empty when the child ended before that."""
        with open(self.answer, "rb", closefd=False) as answer:
            return answer.read()

    def close(self) -> None:
        """Closes the descriptor of the answer."""
        os.close(self.answer)

    def kill(self) -> None:
        """Kills the child and its own children, and waits for its end."""
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
        """Waits for the child's end; what ended it, such as SIGKILL."""
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        return signal.Signals(-code).name if code < 0 else f"an exit with code {code}"


def end_with_parent(wanted: bool) -> None:
    """Sets whether the kernel kills this process when its parent ends; does nothing outside Linux."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL if wanted else 0)


def flush() -> None:
    """Flushes the standard streams."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()


def _run(work: Callable[[int], None], parent: int, writing: int) -> NoReturn:
    # Otherwise the work of a killed task would continue next to its retry.
    end_with_parent(True)
    if os.getppid() != parent:
        os._exit(1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    # os._exit runs none of the parent's cleanup: its connections still belong to the parent.
    code = 1
    try:
        work(writing)
        code = 0
    finally:
        flush()
        os._exit(code)
