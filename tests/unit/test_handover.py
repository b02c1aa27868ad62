"""The handover: a process that may go on behind the one that waits for it."""

from __future__ import annotations

import multiprocessing
import os
import select
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from include.errors import NonRetryableError
from include.forked import Killed
from include.kafka.position_errors import Fenced, OffsetsGone, PositionError
from include.landing import handover
from include.landing.handover import Leave


class Unsendable(Exception):
    """It holds what cannot be pickled."""

    def __init__(self) -> None:
        super().__init__("a lock")
        self.lock = threading.Lock()


def run(work: Callable[[Leave], object]) -> None:
    handover.run("The drain", work)


def fail(error: BaseException) -> None:
    raise error


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + 5
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return path.read_text()


def test_work_is_done_elsewhere(tmp_path: Path) -> None:
    run(lambda _: (tmp_path / "by").write_text(f"{os.getpid()} {os.getppid()}"))
    child, parent = map(int, (tmp_path / "by").read_text().split())
    assert child != os.getpid() == parent
    assert not psutil.pid_exists(child)


def test_errors_come_back_as_they_were_raised() -> None:
    with pytest.raises(OffsetsGone, match=r"offsets 3 to 6 were removed .* accept it") as gone:
        run(lambda _: fail(OffsetsGone("topic", 1, 3, 7).with_remedy("accept it")))
    assert isinstance(gone.value, PositionError)
    assert (gone.value.topic, gone.value.partition, gone.value.first, gone.value.remedy) == ("topic", 1, 7, "accept it")
    assert "fail(" in "".join(gone.value.__notes__)
    with pytest.raises(NonRetryableError, match="broken") as lasting:
        run(lambda _: fail(NonRetryableError("broken.", "fix it")))
    assert lasting.value.remedy == "fix it"
    with pytest.raises(Fenced, match="taken over"):
        run(lambda _: fail(Fenced("taken over")))


def test_an_error_that_cannot_be_sent_is_told() -> None:
    with pytest.raises(handover.Failed, match="Unsendable: a lock") as failed:
        run(lambda _: fail(Unsendable()))
    assert "in fail" in "".join(failed.value.__notes__)


def test_a_child_that_is_killed_is_told() -> None:
    with pytest.raises(Killed, match=r"The drain was ended by SIGKILL\."):
        run(lambda _: os.kill(os.getpid(), 9))


def test_who_takes_leave_goes_on_and_holds_nothing_of_its_parent(tmp_path: Path) -> None:
    """A task's supervisor waits for the end of everybody who holds its sockets."""
    supervisor, task = os.pipe()

    def work(leave: Leave) -> None:
        leave()
        (tmp_path / "left").write_text(f"{os.getpid()} {os.getsid(0)}")
        time.sleep(0.5)
        (tmp_path / "done").write_text("behind")

    started = time.monotonic()
    run(work)
    assert time.monotonic() - started < 0.5
    os.close(task)
    assert select.select([supervisor], [], [], 0.2)[0], "the end of the pipe is seen at once"
    assert not (tmp_path / "done").exists()
    child, session = map(int, wait_for(tmp_path / "left").split())
    assert child == session
    assert wait_for(tmp_path / "done") == "behind"
    assert os.waitpid(child, 0) == (child, 0)


def test_what_fails_behind_the_end_is_told_to_nobody(tmp_path: Path) -> None:
    def work(leave: Leave) -> None:
        (tmp_path / "pid").write_text(str(os.getpid()))
        leave()
        raise NonRetryableError("broken.")

    run(work)
    child = int(wait_for(tmp_path / "pid"))
    assert os.waitpid(child, 0) == (child, 0)


def test_it_goes_on_for_a_short_time_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "LIMIT_S", 0.3)

    def work(leave: Leave) -> None:
        (tmp_path / "pid").write_text(str(os.getpid()))
        leave()
        time.sleep(60)

    run(work)
    started = time.monotonic()
    os.waitpid(int(wait_for(tmp_path / "pid")), 0)
    assert time.monotonic() - started < 2


def leave_and_stay(path: Path) -> None:
    def work(leave: Leave) -> None:
        leave()
        path.write_text(str(os.getpid()))
        time.sleep(60)

    run(work)


def be_worker(path: Path) -> None:
    task = multiprocessing.get_context("fork").Process(target=leave_and_stay, args=(path,))
    task.start()
    task.join()
    path.with_suffix(".ended").write_text(str(task.exitcode))
    time.sleep(60)


def test_it_ends_with_the_worker_that_ran_the_task(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    worker = multiprocessing.get_context("fork").Process(target=be_worker, args=(path,))
    worker.start()
    left = psutil.Process(int(wait_for(path)))
    assert wait_for(path.with_suffix(".ended")) == "0"
    time.sleep(0.3)
    assert left.is_running() and left.status() != psutil.STATUS_ZOMBIE
    worker.kill()
    worker.join()
    left.wait(2)
