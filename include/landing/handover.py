"""The handover at a window's end: the process that drains goes on behind its task, until its successor has taken over.

From the end of one task to the start of the next Airflow needs a second, on a busy machine several. The process that
drained fills them: it is a child of the task's process, and when the window is over it takes leave of it, so that the
task can end. What makes this safe is the epoch of the positions alone: once the successor has claimed them, nothing of
the former drain's is written. It ends then, and in any case after ``LIMIT_S`` or with the worker that ran the task.

Errors after the task has ended are not reported. No data is lost: the next drain meets the same error and reports it.
"""

from __future__ import annotations

import os
import pickle
import select
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress

from include import forked
from include.forked import Child, Killed

LIMIT_S = 20.0

Leave = Callable[[], None]


class Failed(Exception):
    """The work raised an error that cannot be brought here; a note holds its traceback."""


def run(about: str, work: Callable[[Leave], object]) -> None:
    """Does the work in a child process, which this one waits for until it has ended or has taken leave.

    Args:
        about: Who works, as the beginning of a sentence.
        work: It may call what it is given once, to go on behind this process's end.

    Raises:
        Killed: Something ended the child.
        Failed: See there. Every other error comes back as it was raised.
    """
    worker = _handle(os.getppid())
    child = Child(lambda writing: _Work(writing, worker).do(work))
    try:
        answer = child.read()
        if not answer:
            raise Killed(f"{about} was ended by {child.ending()}.")
        left, error = pickle.loads(answer)
        if not left:
            os.waitpid(child.pid, 0)
    except BaseException:
        child.kill()
        raise
    finally:
        child.close()
        for handle in worker:
            os.close(handle)
    if error is not None:
        raise _assembled(*error)


class _Work:
    """The child's side.

    Args:
        writing: Where to say how it went.
        worker: Handles of the processes without which nothing goes on.
    """

    def __init__(self, writing: int, worker: Sequence[int]) -> None:
        self._writing, self._worker = writing, worker
        # The supervisor of a task waits for the end of everybody who holds one of these.
        self._inherited = [number for number in _descriptors() if number not in (writing, *worker)]
        self._left = False

    def do(self, work: Callable[[Leave], object]) -> None:
        error = None
        try:
            work(self._leave)
        except BaseException as raised:
            raised.add_note(traceback.format_exc())
            error = _parts(raised)
        if not self._left:
            forked.flush()
            self._say(False, error)

    def _leave(self) -> None:
        forked.flush()
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in self._inherited:
            os.dup2(nothing, number)
        with suppress(OSError):
            os.setsid()
        forked.end_with_parent(False)
        threading.Thread(target=self._end_in_time, daemon=True).start()
        self._left = True
        self._say(True, None)

    def _end_in_time(self) -> None:
        select.select(self._worker, [], [], LIMIT_S)
        os._exit(0)

    def _say(self, left: bool, error: tuple | None) -> None:
        with open(self._writing, "wb") as out:
            out.write(pickle.dumps((left, error)))


def _handle(process: int) -> list[int]:
    """A descriptor that can be read once a process has ended; none where the system has no such thing."""
    if not hasattr(os, "pidfd_open"):
        return []
    with suppress(OSError):
        return [os.pidfd_open(process)]
    return []


def _descriptors() -> list[int]:
    """The open descriptors of this process."""
    found = []
    for number in map(int, os.listdir("/dev/fd")):
        # One of them was the list's own.
        with suppress(OSError):
            os.fstat(number)
            found.append(number)
    return found


def _parts(error: BaseException) -> tuple[type[BaseException], tuple, dict]:
    """What an error is made of, if it can be sent: its class may take other arguments than those that it keeps."""
    parts = (type(error), error.args, vars(error))
    try:
        _assembled(*pickle.loads(pickle.dumps(parts)))
    except Exception:
        return Failed, (f"{type(error).__name__}: {error}",), {"__notes__": error.__notes__}
    return parts


def _assembled(kind: type[BaseException], args: tuple, attributes: dict) -> BaseException:
    error = kind.__new__(kind, *args)
    error.args = args
    vars(error).update(attributes)
    return error
