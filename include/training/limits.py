"""Limits: work in a process of its own, which is ended when it takes more memory or time than it may.

A limit that the process would watch itself is not kept while a library computes, and what the kernel ends for want of
memory cannot say why. The watcher is the task's process; it imports nothing and holds no rows.
"""

from __future__ import annotations

import json
import os
import select
import time
import traceback
from collections.abc import Callable
from typing import Any

from include.error_codes import Code
from include.errors import NonRetryableError, UserError
from include.forked import Child, Killed

LOOK_EVERY_S = 0.05


class Exceeded(NonRetryableError):
    """The work took more than it may."""


class Failed(Exception):
    """The work raised an error that is no ``UserError``; a note holds its traceback."""


def within(memory: int, seconds: float, about: str, work: Callable[[], None]) -> None:
    """Does the work in a forked process and waits for its end; the process ends with this one, whatever ends this one.

    Args:
        memory: What the process and its children may hold at most, in bytes; looked at every 50 ms.
        seconds: How long it may take.
        about: Who works, as the beginning of a sentence.

    Raises:
        Exceeded: It took more memory or time. What it had not committed is undone by the servers.
        UserError, NonRetryableError: As the work raised it.
        Killed: Something else ended the process.
        Failed: The work raised another error.
    """
    child = Child(lambda writing: _work(work, writing))
    try:
        answer = _watched(child, memory, seconds, about)
    except BaseException:
        child.kill()
        raise
    finally:
        child.close()
    os.waitpid(child.pid, 0)
    _raise(answer, memory, about)


def _watched(child: Child, memory: int, seconds: float, about: str) -> dict[str, Any]:
    from include.training.memory_monitor import MemoryMonitor

    started, usage = time.monotonic(), MemoryMonitor(child.pid)
    while not select.select([child.said], [], [], LOOK_EVERY_S)[0]:
        if (held := usage.look()) > memory:
            raise Exceeded(
                f"{about} holds {_mb(held)} of memory, and its memory_limit is {_mb(memory)}.",
                "Raise memory_limit in the definition, publish fewer rows, or use a model with partial_fit.",
            )
        if (took := time.monotonic() - started) > seconds:
            raise Exceeded(
                f"{about} has taken {took:.0f} s, and its time_limit is {seconds:.0f} s.",
                "Raise time_limit in the definition, publish fewer rows, or make the model smaller.",
            )
    if content := child.read():
        return dict(json.loads(content))
    raise Killed(
        f"{about} was ended by {child.ending()}; it held {_mb(usage.peak)} of memory at most, and its memory_limit is "
        f"{_mb(memory)}.",
        "If the machine has less memory than the limit, lower it.",
    )


def _work(work: Callable[[], None], writing: int) -> None:
    answer: dict[str, Any] = {"ended": "well"}
    try:
        work()
    except UserError as error:
        lasting = isinstance(error, NonRetryableError)
        answer = {"ended": "lasting" if lasting else "user", "what": error.what, "remedy": error.remedy}
        answer["code"] = error.code.name
    except MemoryError as error:
        answer = {"ended": "memory", "what": str(error)}
    except BaseException as error:
        answer = {"ended": "badly", "what": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
    with open(writing, "wb") as out:
        out.write(json.dumps(answer).encode())


def _raise(answer: dict[str, Any], memory: int, about: str) -> None:
    match answer["ended"]:
        case "lasting":
            raise NonRetryableError(answer["what"], answer["remedy"], code=Code[answer["code"]])
        case "user":
            raise UserError(answer["what"], answer["remedy"], code=Code[answer["code"]])
        case "memory":
            raise Exceeded(
                f"{about} asks for more memory than there is; its memory_limit is {_mb(memory)} ({answer['what']}).",
                "Publish fewer rows, or use a model with partial_fit.",
            )
        case "badly":
            failed = Failed(answer["what"])
            failed.add_note(answer["trace"])
            raise failed


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
