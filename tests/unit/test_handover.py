"""The handover: a process that can continue after the one that waits for it."""

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

from include.error_codes import Code
from include.errors import NonRetryableError
from include.forked import Killed
from include.kafka.position_errors import Fenced, OffsetsGone, PositionError
from include.landing import handover
from include.landing.handover import Detach
from tests.errors import raises
from tests.polling import until


class Unsendable(Exception):
    """An error that cannot be pickled."""

    def __init__(self) -> None:
        super().__init__("a lock")
        self.lock = threading.Lock()


def run(work: Callable[[Detach], object]) -> None:
    handover.run("The drain", work)


def fail(error: BaseException) -> None:
    raise error


def wait_for(path: Path) -> str:
    return until(f"{path.name} is written", lambda: (path.exists() and path.read_text()) or None, 10, every_s=0.01)


def test_the_work_runs_in_a_child_process(tmp_path: Path) -> None:
    run(lambda _: (tmp_path / "by").write_text(f"{os.getpid()} {os.getppid()}"))
    child, parent = map(int, (tmp_path / "by").read_text().split())
    assert child != os.getpid() == parent
    assert not psutil.pid_exists(child)


def test_an_error_is_raised_with_its_class_and_attributes() -> None:
    with raises(Code.OFFSETS_REMOVED, "3 to 6", "accept it", kind=OffsetsGone) as caught:
        run(lambda _: fail(OffsetsGone("topic", 1, 3, 7).with_remedy("accept it")))
    gone = caught.error
    assert isinstance(gone, OffsetsGone) and isinstance(gone, PositionError)
    assert (gone.topic, gone.partition, gone.first, gone.remedy) == ("topic", 1, 7, "accept it")
    assert "fail(" in "".join(gone.__notes__)
    with raises(Code.NAME_TAKEN, "broken", kind=NonRetryableError) as caught:
        run(lambda _: fail(NonRetryableError("broken.", "fix it", code=Code.NAME_TAKEN)))
    assert caught.error.remedy == "fix it"
    with raises(Code.POSITIONS_TAKEN_OVER, "[2]", kind=Fenced):
        run(lambda _: fail(Fenced("landing:orders", "orders", [2])))


def test_an_error_that_cannot_be_pickled_is_reported() -> None:
    with pytest.raises(handover.Failed, match="Unsendable: a lock") as failed:
        run(lambda _: fail(Unsendable()))
    assert "in fail" in "".join(failed.value.__notes__)


def test_a_killed_child_is_reported() -> None:
    with raises(Code.PROCESS_KILLED, "The drain", "SIGKILL", kind=Killed):
        run(lambda _: os.kill(os.getpid(), 9))


def test_a_detached_child_continues_and_holds_no_descriptor_of_its_parent(tmp_path: Path) -> None:
    """A task's supervisor waits until no process holds its sockets any more."""
    supervisor, task = os.pipe()

    def work(detach: Detach) -> None:
        detach()
        (tmp_path / "detached").write_text(f"{os.getpid()} {os.getsid(0)}")
        until("the test has seen the pipe's end", (tmp_path / "seen").exists, 10, every_s=0.01)
        (tmp_path / "done").write_text("after")

    run(work)
    os.close(task)
    assert select.select([supervisor], [], [], 5)[0], "the pipe is closed while the child still runs"
    assert not (tmp_path / "done").exists()
    (tmp_path / "seen").touch()
    child, session = map(int, wait_for(tmp_path / "detached").split())
    assert child == session
    assert wait_for(tmp_path / "done") == "after"
    assert os.waitpid(child, 0) == (child, 0)


def test_the_result_is_that_of_the_end_or_of_detaching() -> None:
    def work(detach: Detach) -> str:
        detach({"landed": 3})
        return "after"

    assert handover.run("The drain", lambda _: 7) == 7
    assert handover.run("The drain", work) == {"landed": 3}


def test_an_error_after_detaching_is_not_reported(tmp_path: Path) -> None:
    def work(detach: Detach) -> None:
        (tmp_path / "pid").write_text(str(os.getpid()))
        detach()
        raise NonRetryableError("broken.", code=Code.STATEMENT_REFUSED)

    run(work)
    child = int(wait_for(tmp_path / "pid"))
    assert os.waitpid(child, 0) == (child, 0)


def test_a_detached_child_ends_after_its_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "LIMIT_S", 0.3)

    def work(detach: Detach) -> None:
        (tmp_path / "pid").write_text(str(os.getpid()))
        detach()
        time.sleep(60)

    run(work)
    child = int(wait_for(tmp_path / "pid"))
    until("it has ended, long before its work", lambda: os.waitpid(child, os.WNOHANG) == (child, 0), 30)


def detach_and_stay(path: Path) -> None:
    def work(detach: Detach) -> None:
        detach()
        path.write_text(str(os.getpid()))
        time.sleep(60)

    run(work)


def be_worker(path: Path) -> None:
    task = multiprocessing.get_context("fork").Process(target=detach_and_stay, args=(path,))
    task.start()
    task.join()
    path.with_suffix(".ended").write_text(str(task.exitcode))
    time.sleep(60)


def test_a_detached_child_ends_with_its_worker(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    worker = multiprocessing.get_context("fork").Process(target=be_worker, args=(path,))
    worker.start()
    detached = psutil.Process(int(wait_for(path)))
    assert wait_for(path.with_suffix(".ended")) == "0"
    time.sleep(0.3)
    assert detached.is_running() and detached.status() != psutil.STATUS_ZOMBIE
    worker.kill()
    worker.join()
    detached.wait(10)
