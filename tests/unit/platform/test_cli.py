"""The table of commands, and how they print errors."""

import errno
import os
from collections.abc import Callable

import click
import psycopg2
import pytest
from click.testing import CliRunner

from cli import main as cli
from include.error_codes import Code
from include.errors import UserError
from tests.errors import raises

ENTRIES = [entry for panel in cli.PANELS.values() for entry in panel]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_command_loads_and_has_help(entry: cli.Entry) -> None:
    assert entry.load().help, entry.target
    if entry.name not in ("airflow", "psql", "test"):
        assert CliRunner().invoke(entry.load(), ["--help"]).exit_code == 0


def test_the_help_lists_the_table() -> None:
    shown = CliRunner().invoke(cli.millrace, ["--help"]).output
    for panel, entries in cli.PANELS.items():
        assert f"{panel}:" in shown
        assert all(entry.name in shown for entry in entries)


GONE = UserError("The topic is gone.", "Publish again.", code=Code.INVALID_DEFINITION)


@pytest.mark.parametrize(
    ("error", "exit_code", "code", "values"),
    [
        (GONE, 1, Code.INVALID_DEFINITION, ["The topic is gone. Publish again."]),
        (KeyboardInterrupt(), 130, Code.COMMAND_INTERRUPTED, []),
        (click.Abort(), 130, Code.COMMAND_INTERRUPTED, []),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/x"), 1, Code.DISK_FULL, ["/data"]),
        (
            PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/data/x"),
            1,
            Code.PERMISSION_DENIED,
            ["/data/x", "Permission denied"],
        ),
        (psycopg2.OperationalError("server closed\nthe connection"), 1, Code.DATABASE_ERROR, ["server closed the"]),
        (click.UsageError("No such option."), 2, Code.INVALID_USAGE, ["No such option. Run ./millrace --help."]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_an_error_is_one_line_with_its_code(
    error: BaseException,
    exit_code: int,
    code: Code,
    values: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("MILLRACE_DEBUG", raising=False)
    monkeypatch.setattr(cli.millrace, "main", failing(error))
    assert cli.main([]) == exit_code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("millrace: ") and line.endswith(f" [{code}]")
    assert all(value in line for value in values)


def failing(error: BaseException) -> Callable[..., None]:
    def fail(**options: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("error", [ValueError("a defect"), SystemExit(3), OSError(errno.EIO, "Input/output error")])
def test_a_defect_shows_its_traceback_and_an_exit_code_stays(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MILLRACE_DEBUG", raising=False)
    monkeypatch.setattr(cli.millrace, "main", failing(error))
    with pytest.raises(type(error)) as caught:
        cli.main([])
    assert caught.value is error


def test_a_wrong_call_names_the_command_whose_help_to_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["publish"]) == 2
    assert "Run ./millrace publish --help. [invalid-usage]" in capsys.readouterr().err


def test_without_arguments_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    shown = capsys.readouterr()
    assert "Start here:" in shown.out + shown.err


def test_the_debug_variable_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_DEBUG", "1")
    monkeypatch.setattr(cli.millrace, "main", failing(GONE))
    with raises(Code.INVALID_DEFINITION):
        cli.main([])
