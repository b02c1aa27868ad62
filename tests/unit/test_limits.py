"""Limits: what takes more memory or time than it may is ended, with a sentence that names the limit."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import psutil
import pytest

from include.errors import NonRetryableError, UserError
from include.forked import Killed
from include.training import limits

MB = 10**6
ROOMY = 1000 * MB


def within(work, memory: int = ROOMY, seconds: float = 60) -> None:  # type: ignore[no-untyped-def]
    limits.within(memory, seconds, "Model 'm' of dataset 'd'", work)


def test_work_within_its_limits_is_done_elsewhere(tmp_path: Path) -> None:
    within(lambda: (tmp_path / "by").write_text(str(os.getpid())) and None)
    assert int((tmp_path / "by").read_text()) != os.getpid()


def test_too_much_memory_is_named() -> None:
    def hoard() -> None:
        held = []
        while True:
            held.append(bytearray(os.urandom(1 << 20)) * 8)

    limit = psutil.Process().memory_info().rss + 200 * MB
    with pytest.raises(limits.Exceeded, match=r"Model 'm' of dataset 'd' holds [\d,]+ MB .* its memory_limit is") as it:
        within(hoard, memory=limit)
    held, allowed = (int(number.replace(",", "")) * MB for number in re.findall(r"([\d,]+) MB", str(it.value)))
    # Both are given in whole megabytes.
    assert allowed <= held < allowed + 400 * MB


def test_memory_that_does_not_exist_is_named_too() -> None:
    with pytest.raises(limits.Exceeded, match="asks for more memory than there is; its memory_limit is 1,000 MB"):
        within(lambda: bytearray(1 << 50) and None)


def test_too_much_time_is_named_also_while_a_library_computes() -> None:
    started = time.monotonic()
    with pytest.raises(limits.Exceeded, match=r"has taken 1 s, and its time_limit is 1 s\. Raise time_limit"):
        within(lambda: re.match(r"(a+)+b", "a" * 64) and None, seconds=1)
    assert time.monotonic() - started < 5


def test_errors_come_back() -> None:
    def fail(error: BaseException) -> None:
        raise error

    with pytest.raises(UserError, match=r"away\. wait") as user:
        within(lambda: fail(UserError("away.", "wait")))
    assert not isinstance(user.value, NonRetryableError)
    with pytest.raises(NonRetryableError, match="gone"):
        within(lambda: fail(NonRetryableError("gone")))
    with pytest.raises(limits.Failed, match="ValueError: n_jobs") as failed:
        within(lambda: fail(ValueError("n_jobs")))
    assert "in fail" in failed.value.__notes__[0], "the traceback of where it happened"


def test_what_somebody_else_ends_is_no_riddle() -> None:
    def die() -> None:
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(Killed, match=r"was ended by SIGKILL; it held [\d,]+ MB .* its memory_limit is 1,000 MB"):
        within(die)


def test_work_ends_with_the_process_that_waits_for_it(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"

    def tell() -> None:
        pid_file.write_text(str(os.getpid()))
        time.sleep(60)

    waiting = os.fork()
    if not waiting:
        within(tell)
        os._exit(0)
    deadline = time.monotonic() + 10
    while not (pid_file.exists() and pid_file.read_text()):
        assert time.monotonic() < deadline
    os.kill(waiting, signal.SIGKILL)
    os.waitpid(waiting, 0)
    while psutil.pid_exists(int(pid_file.read_text())):
        assert time.monotonic() < deadline
