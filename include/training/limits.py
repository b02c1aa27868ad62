"""Limits: work in a child process, which is killed when it exceeds its memory or time limit.

A process cannot watch its own limit while a library computes, and a process that the kernel kills because memory ran
out cannot report why. The parent, the task's process, watches; it imports little and holds no rows.
"""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable
from enum import StrEnum
from multiprocessing.connection import wait
from typing import Any

from include.error_codes import Code
from include.errors import NonRetryableError, UserError
from include.forked import Child, Killed

CHECK_EVERY_S = 0.05


class Exceeded(NonRetryableError):
    """The work exceeded its memory or time limit."""


class Failed(Exception):
    """The work raised an error other than a ``UserError``; a note holds its traceback."""


class _Ending(StrEnum):
    """How the work ended."""

    DONE = "done"
    NON_RETRYABLE = "non-retryable"
    USER_ERROR = "user error"
    OUT_OF_MEMORY = "out of memory"
    FAILED = "failed"


def within(memory: int, seconds: float, about: str, work: Callable[[], None]) -> None:
    """Runs the work in a child process and waits for its end. The child ends when this process ends.

    Args:
        memory: The most memory that the child and its children may use, in bytes; checked every 50 ms.
        seconds: The longest time that it may take.
        about: The subject of an error message, such as ``Model 'forest' of dataset 'digits'``.

    Raises:
        Exceeded: It took more memory or time. The servers roll back what it had not committed.
        UserError, NonRetryableError: As the work raised it.
        Killed: Something else ended the child.
        Failed: The work raised another error.
    """
    child = Child(lambda writing: _work(work, writing))
    try:
        answer = _watch(child, memory, seconds, about)
    except BaseException:
        child.kill()
        raise
    finally:
        child.close()
    os.waitpid(child.pid, 0)
    _raise(answer, memory, about)


def _watch(child: Child, memory: int, seconds: float, about: str) -> dict[str, Any]:
    from include.training.memory_monitor import MemoryMonitor

    started, monitor = time.monotonic(), MemoryMonitor(child.pid)
    while not wait([child.answer], CHECK_EVERY_S):
        if (used := monitor.read()) > memory:
            raise Exceeded(
                f"{about} used {_mb(used)} of memory, more than its memory_limit of {_mb(memory)}, and was ended.",
                "Raise memory_limit in the definition, publish fewer rows, or use a model with partial_fit.",
                code=Code.MEMORY_LIMIT_EXCEEDED,
            )
        if (taken := time.monotonic() - started) > seconds:
            raise Exceeded(
                f"{about} took {taken:.0f} s, more than its time_limit of {seconds:.0f} s, and was ended.",
                "Raise time_limit in the definition, publish fewer rows, or make the model smaller.",
                code=Code.TIME_LIMIT_EXCEEDED,
            )
    if content := child.read():
        return dict(json.loads(content))
    raise Killed(
        f"{about} was ended by {child.ending()}; it used at most {_mb(monitor.peak)} of memory, and its memory_limit "
        f"is {_mb(memory)}.",
        "If the machine has less memory than the limit, lower the limit. Otherwise start the task again.",
        code=Code.PROCESS_KILLED,
    )


def _work(work: Callable[[], None], writing: int) -> None:
    answer: dict[str, Any] = {"ending": _Ending.DONE}
    try:
        work()
    except UserError as error:
        ending = _Ending.NON_RETRYABLE if isinstance(error, NonRetryableError) else _Ending.USER_ERROR
        answer = {"ending": ending, "what": error.what, "remedy": error.remedy, "code": error.code.name}
    except MemoryError as error:
        answer = {"ending": _Ending.OUT_OF_MEMORY, "what": str(error)}
    except BaseException as error:
        what = f"{type(error).__name__}: {error}"
        answer = {"ending": _Ending.FAILED, "what": what, "trace": traceback.format_exc()}
    with open(writing, "wb") as out:
        out.write(json.dumps(answer).encode())


def _raise(answer: dict[str, Any], memory: int, about: str) -> None:
    match _Ending(answer["ending"]):
        case _Ending.NON_RETRYABLE:
            raise NonRetryableError(answer["what"], answer["remedy"], code=Code[answer["code"]])
        case _Ending.USER_ERROR:
            raise UserError(answer["what"], answer["remedy"], code=Code[answer["code"]])
        case _Ending.OUT_OF_MEMORY:
            raise Exceeded(
                f"{about} needs more memory than the machine has; its memory_limit is {_mb(memory)} "
                f"({answer['what']}).",
                "Publish fewer rows, or use a model with partial_fit.",
                code=Code.MEMORY_LIMIT_EXCEEDED,
            )
        case _Ending.FAILED:
            failed = Failed(answer["what"])
            failed.add_note(answer["trace"])
            raise failed


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
