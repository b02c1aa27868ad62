"""Temporary files and definitions of benchmarks: those of a killed benchmark are removed when the next one starts.

Until then its definition is ignored. The benchmark that runs holds a file lock, which the kernel releases when it ends.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from embedded.home import Home
from include.error_codes import Code
from include.errors import UserError
from include.project import ROOT

DEFINITIONS = ROOT / "include" / "datasets"
# A user's own dataset may be called bench_press.
MARK = '"""Generated rows for a benchmark'


@contextmanager
def workplace() -> Iterator[None]:
    """Locks the benchmarks' folder of this home, and removes the files and definitions that a killed one left.

    Raises:
        UserError: Another benchmark is running there.
    """
    lock = _lock()
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                "Another benchmark of training is running.", "Wait for its end.", code=Code.BENCHMARK_RUNNING
            ) from error
        _clear()
        folder().mkdir()
        try:
            yield
        finally:
            _clear()


def folder() -> Path:
    """The folder for files inside a ``workplace``."""
    return Home.current().path / "bench"


@contextmanager
def definition(name: str, text: str) -> Iterator[None]:
    """A dataset's definition for the ``with`` block; its name begins with ``bench_``, its text with ``MARK``."""
    file = DEFINITIONS / f"{name}.py"
    file.write_text(text)
    try:
        yield
    finally:
        file.unlink()


def at_work() -> bool:
    """Whether a benchmark holds this home's ``workplace``."""
    with suppress(FileNotFoundError), _lock().open() as free:
        try:
            fcntl.flock(free, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _lock() -> Path:
    return Home.current().path / "bench.lock"


def _clear() -> None:
    for file in DEFINITIONS.glob("bench_*.py"):
        if file.read_text().startswith(MARK):
            file.unlink()
    shutil.rmtree(folder(), ignore_errors=True)
