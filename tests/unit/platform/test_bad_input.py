"""Commands refuse invalid input before they start anything: one line with a code, an exit code, no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli import main as cli
from include.error_codes import Code


@pytest.fixture(autouse=True)
def never_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a platform, so that a command that goes too far fails."""
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MILLRACE_DEBUG", raising=False)


@pytest.mark.parametrize(
    ("call", "value"),
    [
        ("accept payments perhaps", "'perhaps'"),
        ("publish digits --from yesterday", "'--from': 'yesterday' is not a time"),
        ("publish digits --rows 1", "'--rows': 1 is"),
        ("publish digits --rows many", "'--rows': 'many'"),
        ("publish digits --seed x", "'--seed': 'x'"),
        ("train digits --seed -1", "'--seed': -1"),
        ("train digits --until soon", "'--until': 'soon'"),
        ("produce payments --events 0", "'--events': 0"),
        ("produce payments --events -5", "'--events': -5"),
        ("produce payments --rate 0", "'--rate': 0.0"),
        ("replay payments --since x", "'--since': 'x' is not a time"),
        ("check --against-topic", "STREAM"),
        ("check --sample 5", "STREAM"),
        ("check payments --against-topic --sample 0", "'--sample': 0"),
        ("new stream mine --sample 5", "--from-topic"),
        ("new stream mine --from-topic payments --sample 0", "'--sample': 0"),
        ("logs -n -1", "'-n' / '--lines': -1"),
        ("demo --events 0", "'--events': 0"),
        ("bench landing --repetitions 0", "'--repetitions': 0"),
        ("bench training --rows 10", "'--rows': 10"),
        ("bench gate --json /nowhere/figures.json", "'--json': the directory '/nowhere'"),
        ("bench gate --json /", "'--json': '/' is a directory"),
    ],
)
def test_an_invalid_option_is_a_usage_error(
    call: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(call.split()) == 2
    assert value in only_line(capsys, Code.INVALID_USAGE)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("call", "code", "value"),
    [
        ("publish nope", Code.UNKNOWN_DEFINITION, "'nope'"),
        ("train nope", Code.UNKNOWN_DEFINITION, "'nope'"),
        ("produce nope", Code.UNKNOWN_DEFINITION, "'nope'"),
        ("accept nope lost", Code.UNKNOWN_DEFINITION, "'nope'"),
        ("dead-letters nope", Code.UNKNOWN_DEFINITION, "'nope'"),
        ("replay nope", Code.UNKNOWN_DEFINITION, "'nope'"),
        ("verify stream nope", Code.UNKNOWN_DEFINITION, "'nope'"),
        ("publish digits --from 2015-01-01 --until 2014-01-01", Code.INVALID_INTERVAL, ""),
        ("publish digits --from 2015-01-01 --until 2015-01-01", Code.INVALID_INTERVAL, ""),
        ("train digits --model nope", Code.UNKNOWN_MODEL, "nope"),
        ("train digits --grid {", Code.INVALID_GRID, ""),
        ("replay payments --first 5", Code.INVALID_USAGE, "--partition 0"),
        ("replay payments --partition 0 --first 9 --last 3", Code.INVALID_INTERVAL, "9 to 3"),
        ("replay payments --since 2026-01-02 --until 2026-01-01", Code.INVALID_INTERVAL, "2026-01-02"),
        ("new stream payments", Code.DEFINITION_EXISTS, "'payments'"),
        ("new stream Payments", Code.INVALID_NAME, "'Payments'"),
        ("new stream payments --from-topic payments", Code.DEFINITION_EXISTS, "'payments'"),
        ("new stream mine --from-topic payments", Code.PLATFORM_DOWN, "./millrace up"),
        ("check nope --against-topic", Code.UNKNOWN_DEFINITION, "'nope'"),
        ("check payments --against-topic", Code.PLATFORM_DOWN, "./millrace up"),
        ("new dataset digits --from x.csv --target y", Code.DEFINITION_EXISTS, "'digits'"),
        ("new dataset mine --from /nowhere/x.csv --target y", Code.FILE_NOT_FOUND, "/nowhere/x.csv"),
        ("new dataset mine --from / --target y", Code.INVALID_PATH, "millrace: / "),
        ("produce payments", Code.PLATFORM_DOWN, "./millrace up"),
    ],
)
def test_invalid_input_is_an_error_before_anything_starts(
    call: str, code: Code, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(call.split()) == 1
    assert value in only_line(capsys, code)
    assert not (tmp_path / "home").exists()


def only_line(capsys: pytest.CaptureFixture[str], code: Code) -> str:
    """The only line of the error output, which ends with the code."""
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("millrace: ")
    assert line.endswith(f"[{code}]"), line
    return line
