"""The table of commands, and how errors are said."""

import errno
import os

import click
import pytest
from click.testing import CliRunner

from cli import main as cli
from include.errors import UserError

ENTRIES = [entry for panel in cli.PANELS.values() for entry in panel]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_command_loads_and_has_help(entry: cli.Entry) -> None:
    assert entry.load().help, entry.target
    if entry.name not in ("airflow", "psql", "test"):
        assert CliRunner().invoke(entry.load(), ["--help"]).exit_code == 0


def test_the_table_is_the_help() -> None:
    shown = CliRunner().invoke(cli.millrace, ["--help"]).output
    for panel, entries in cli.PANELS.items():
        assert f"{panel}:" in shown
        assert all(entry.name in shown for entry in entries)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UserError("The topic is gone.", "Publish again."), 1, "millrace: The topic is gone. Publish again.\n"),
        (KeyboardInterrupt(), 130, "millrace: interrupted\n"),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/x"),
            1,
            "millrace: The disk that holds /data is full.",
        ),
        (
            PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/data/x"),
            1,
            "millrace: /data/x may not be used (Permission denied). Make it readable and writable for you.\n",
        ),
        (click.UsageError("No such option."), 2, "Error: No such option.\n"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_are_one_sentence(
    error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**options: object) -> None:
        raise error

    monkeypatch.delenv("MILLRACE_DEBUG", raising=False)
    monkeypatch.setattr(cli.millrace, "main", fail)
    assert cli.main([]) == code
    assert capsys.readouterr().err.startswith(said)


def test_a_traceback_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**options: object) -> None:
        raise UserError("The topic is gone.")

    monkeypatch.setenv("MILLRACE_DEBUG", "1")
    monkeypatch.setattr(cli.millrace, "main", fail)
    with pytest.raises(UserError):
        cli.main([])
