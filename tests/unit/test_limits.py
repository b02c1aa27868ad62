"""Limits: work that exceeds its memory or time limit is killed, and the error names the limit."""

from __future__ import annotations

import os
import re
import resource
import signal
import time
from pathlib import Path

import psutil
import pytest

from include.error_codes import Code
from include.errors import NonRetryableError, UserError
from include.forked import Killed
from include.training import limits
from tests.errors import raises
from tests.polling import until

MB = 10**6
ROOMY = 1000 * MB


def within(work, memory: int = ROOMY, seconds: float = 60) -> None:  # type: ignore[no-untyped-def]
    limits.within(memory, seconds, "Model 'm' of dataset 'd'", work)


def test_work_within_its_limits_runs_in_another_process(tmp_path: Path) -> None:
    within(lambda: (tmp_path / "by").write_text(str(os.getpid())) and None)
    assert int((tmp_path / "by").read_text()) != os.getpid()


def test_a_process_with_many_open_files_starts_work() -> None:
    """``select`` takes no descriptor above 1,023."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4_096, most[1]), most[1]))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1_100)]
    try:
        within(lambda: None)
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, most)


def test_too_much_memory_is_an_error() -> None:
    def hoard() -> None:
        held = []
        while True:
            held.append(bytearray(os.urandom(1 << 20)) * 8)

    limit = psutil.Process().memory_info().rss + 200 * MB
    with raises(Code.MEMORY_LIMIT_EXCEEDED, "Model 'm' of dataset 'd'", "memory_limit", kind=limits.Exceeded) as caught:
        within(hoard, memory=limit)
    used, allowed = (int(number.replace(",", "")) * MB for number in re.findall(r"([\d,]+) MB", str(caught)))
    # Both are shown in whole megabytes.
    assert limit - MB < allowed <= used < allowed + 400 * MB


def test_more_memory_than_the_machine_has_is_an_error() -> None:
    with raises(Code.MEMORY_LIMIT_EXCEEDED, "Model 'm'", "1,000 MB", kind=limits.Exceeded):
        within(lambda: bytearray(1 << 50) and None)


def test_too_much_time_is_an_error_while_a_library_computes() -> None:
    started = time.monotonic()
    with raises(Code.TIME_LIMIT_EXCEEDED, "Model 'm'", "time_limit of 1 s", kind=limits.Exceeded):
        within(lambda: re.match(r"(a+)+b", "a" * 64) and None, seconds=1)
    assert time.monotonic() - started < 5


def test_errors_cross_the_process_with_their_code() -> None:
    def fail(error: BaseException) -> None:
        raise error

    with raises(Code.FIT_FAILED, "Down. Wait.") as user:
        within(lambda: fail(UserError("Down.", "Wait.", code=Code.FIT_FAILED)))
    assert not isinstance(user.error, NonRetryableError)
    with raises(Code.INVALID_GRID, "Gone.", kind=NonRetryableError):
        within(lambda: fail(NonRetryableError("Gone.", code=Code.INVALID_GRID)))
    with pytest.raises(limits.Failed, match="ValueError: n_jobs") as failed:
        within(lambda: fail(ValueError("n_jobs")))
    assert "in fail" in failed.value.__notes__[0], "the traceback of where it happened"


def test_a_process_that_was_killed_names_the_signal() -> None:
    def die() -> None:
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)

    with raises(Code.PROCESS_KILLED, "SIGKILL", "1,000 MB", kind=Killed):
        within(die)


def test_work_ends_with_the_process_that_waits_for_it(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"

    def write_pid() -> None:
        pid_file.write_text(str(os.getpid()))
        time.sleep(60)

    waiting = os.fork()
    if not waiting:
        within(write_pid)
        os._exit(0)
    until("the work has begun", lambda: pid_file.exists() and bool(pid_file.read_text()), 10, every_s=0.01)
    os.kill(waiting, signal.SIGKILL)
    os.waitpid(waiting, 0)
    until("the work has ended", lambda: not psutil.pid_exists(int(pid_file.read_text())), 10, every_s=0.01)
