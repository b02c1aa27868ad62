"""The handover at the end of a window: the draining process continues after its task, until the next one takes over.

Airflow needs a second from the end of one task to the start of the next, and several on a busy machine. The drain runs
in a child of the task's process. When the window is over, the child detaches, so that the task can end, and keeps
draining. The epoch of the positions makes this safe: once the next drain has claimed them, this one can write nothing.
It then ends. It also ends after ``LIMIT_S``, and when the worker that ran the task ends.

Errors after the task has ended are not reported. No data is lost: the next drain hits the same error and reports it.

Gain: at a window change rows stop for 0.1 s. Without it they would stop for the one to two seconds that Airflow needs
between two tasks. ``./millrace bench freshness`` shows the longest stops.
"""

from __future__ import annotations

import os
import pickle
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from typing import Any

from include import forked
from include.error_codes import Code
from include.forked import Child, Killed

LIMIT_S = 20.0

Detach = Callable[..., None]
"""Called with the result of the work so far, which becomes the result of ``run``."""
ErrorParts = tuple[type[BaseException], tuple[Any, ...], dict[str, Any]]
"""The class, the arguments and the attributes of an error."""


class Failed(Exception):
    """The work raised an error that cannot be pickled; a note holds its traceback."""


def run(name: str, work: Callable[[Detach], object]) -> Any:
    """Does the work in a child process, and waits until it ends or detaches. Returns its result, which can be pickled.

    Args:
        name: What works, as the beginning of a sentence.
        work: It may call its argument once, to continue after this process has ended.

    Raises:
        Killed: The child was killed.
        Failed: The child raised an error that cannot be pickled. Any other error is raised here as it was there.
    """
    worker = _handle(os.getppid())
    child = Child(lambda writing: _Work(writing, worker).do(work))
    try:
        answer = child.read()
        if not answer:
            raise Killed(
                f"{name} was ended by {child.ending()}.",
                "If the kernel ended it for lack of memory, give the machine more memory or lower the stream's load.",
                code=Code.PROCESS_KILLED,
            )
        detached, error, result = pickle.loads(answer)
        if not detached:
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
    return result


class _Work:
    """The child's side.

    Args:
        writing: The descriptor to write the result to.
        worker: Handles of the worker process; the child ends with it.
    """

    def __init__(self, writing: int, worker: Sequence[int]) -> None:
        self._writing, self._worker = writing, worker
        # A task's supervisor waits until no process holds one of these any more.
        self._inherited = [number for number in _descriptors() if number not in (writing, *worker)]
        self._detached = False

    def do(self, work: Callable[[Detach], object]) -> None:
        error = result = None
        try:
            result = work(self._detach)
        except BaseException as raised:
            raised.add_note(traceback.format_exc())
            error = _parts(raised)
        if not self._detached:
            forked.flush()
            self._send(False, error, result)

    def _detach(self, result: object = None) -> None:
        forked.flush()
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in self._inherited:
            os.dup2(nothing, number)
        with suppress(OSError):
            os.setsid()
        forked.end_with_parent(False)
        threading.Thread(target=self._end_in_time, daemon=True).start()
        self._detached = True
        self._send(True, None, result)

    def _end_in_time(self) -> None:
        wait(self._worker, LIMIT_S)
        os._exit(0)

    def _send(self, detached: bool, error: ErrorParts | None, result: object) -> None:
        with open(self._writing, "wb") as out:
            out.write(pickle.dumps((detached, error, result)))


def _handle(process: int) -> list[int]:
    """A descriptor that becomes readable when a process ends; empty if the system has no pidfd_open."""
    if not hasattr(os, "pidfd_open"):
        return []
    with suppress(OSError):
        return [os.pidfd_open(process)]
    return []


def _descriptors() -> list[int]:
    """The open descriptors of this process."""
    found = []
    for number in map(int, os.listdir("/dev/fd")):
        # The descriptor of the listing itself is closed by now.
        with suppress(OSError):
            os.fstat(number)
            found.append(number)
    return found


def _parts(error: BaseException) -> ErrorParts:
    """The parts of an error, to be pickled instead of it: its class may take other arguments than ``args``."""
    parts = (type(error), error.args, vars(error))
    try:
        _assembled(*pickle.loads(pickle.dumps(parts)))
    except Exception:
        return Failed, (f"{type(error).__name__}: {error}",), {"__notes__": error.__notes__}
    return parts


def _assembled(kind: type[BaseException], args: tuple[Any, ...], attributes: dict[str, Any]) -> BaseException:
    error = kind.__new__(kind, *args)
    error.args = args
    vars(error).update(attributes)
    return error
