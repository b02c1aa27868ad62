"""Which changes of the code a running platform has to be started again for."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedded import platform


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of a few files."""
    for name in ("requirements.txt", "embedded/kafka.lock.toml", "include/runs.py", "include/queries/some.sql"):
        write(tmp_path / name, "old")
    for name in ("datasets/splits.py", "datasets/digits.py", "streams/field.py", "streams/payments.py"):
        write(tmp_path / "include" / name, "old")
    monkeypatch.setattr(platform, "ROOT", tmp_path)
    return tmp_path


def write(file: Path, text: str) -> None:
    """Writes a file, in folders that need not be there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.mark.parametrize(
    "name",
    [
        *("requirements.txt", "include/runs.py", "include/queries/some.sql"),
        *("include/datasets/splits.py", "include/streams/field.py", "include/datasets/__init__.py"),
    ],
)
def test_code_that_tasks_are_forked_with_makes_another(code: Path, name: str) -> None:
    before = platform.code_fingerprint()
    write(code / name, "new")
    assert platform.code_fingerprint() != before


@pytest.mark.parametrize("name", ["datasets/digits.py", "datasets/mine.py", "streams/payments.py", "streams/mine.py"])
def test_definitions_are_read_anew_by_each_task_and_make_none(code: Path, name: str) -> None:
    before = platform.code_fingerprint()
    write(code / "include" / name, "new")
    assert platform.code_fingerprint() == before


def test_other_connections_make_another(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The warehouse behind them may never have been migrated, and running tasks have the old ones."""
    before = platform.code_fingerprint()
    monkeypatch.setenv("MILLRACE_CONN_POSTGRES", '{"conn_type": "postgres", "host": "db.example"}')
    assert platform.code_fingerprint() != before
