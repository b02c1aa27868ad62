"""Which changes of the code require a restart of the platform."""

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
    """Writes a file, and creates its folders."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.mark.parametrize(
    "name",
    [
        *("requirements.txt", "include/runs.py", "include/queries/some.sql"),
        *("include/datasets/splits.py", "include/streams/field.py", "include/datasets/__init__.py"),
    ],
)
def test_a_change_of_code_changes_the_fingerprint(code: Path, name: str) -> None:
    before = platform.code_fingerprint()
    write(code / name, "new")
    assert platform.code_fingerprint() != before


@pytest.mark.parametrize("name", ["datasets/digits.py", "datasets/mine.py", "streams/payments.py", "streams/mine.py"])
def test_a_change_of_a_definition_does_not_change_the_fingerprint(code: Path, name: str) -> None:
    before = platform.code_fingerprint()
    write(code / "include" / name, "new")
    assert platform.code_fingerprint() == before


def test_other_connections_change_the_fingerprint(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new warehouse may need a migration, and running tasks use the old connections."""
    before = platform.code_fingerprint()
    monkeypatch.setenv("MILLRACE_CONN_POSTGRES", '{"conn_type": "postgres", "host": "db.example"}')
    assert platform.code_fingerprint() != before
