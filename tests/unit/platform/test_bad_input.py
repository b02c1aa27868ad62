"""What a command refuses before it begins anything: a sentence, an exit code, no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli import main as cli

UNKNOWN_DATASET = "millrace: There is no dataset 'nope'; there are: "
UNKNOWN_STREAM = "millrace: There is no stream 'nope'; there are: "
INTERVAL = "[invalid-interval]"


@pytest.fixture(autouse=True)
def never_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No platform, so that whatever goes further than it should says so."""
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MILLRACE_DEBUG", raising=False)


@pytest.mark.parametrize(
    ("call", "code", "says"),
    [
        ("publish nope", 1, UNKNOWN_DATASET),
        ("train nope", 1, UNKNOWN_DATASET),
        ("produce nope", 1, UNKNOWN_STREAM),
        ("accept nope lost", 1, UNKNOWN_STREAM),
        ("dead-letters nope", 1, UNKNOWN_STREAM),
        ("replay nope", 1, UNKNOWN_STREAM),
        ("verify stream nope", 1, UNKNOWN_STREAM),
        ("accept payments perhaps", 2, "'perhaps' is not one of 'lost', 'recreated', 'truncated', 'bad'."),
        ("publish digits --from yesterday", 2, "Invalid value for '--from': 'yesterday' is no time such as 2026-11-24"),
        ("publish digits --from 2015-01-01 --until 2014-01-01", 1, INTERVAL),
        ("publish digits --from 2015-01-01 --until 2015-01-01", 1, INTERVAL),
        ("publish digits --rows 1", 2, "Invalid value for '--rows': 1 is not in the range x>=2."),
        ("publish digits --rows many", 2, "Invalid value for '--rows': 'many' is not"),
        ("publish digits --seed x", 2, "Invalid value for '--seed': 'x' is not a valid integer."),
        ("train digits --seed -1", 2, "Invalid value for '--seed': -1 is not in the range 0<=x<=4294967295."),
        ("train digits --until soon", 2, "Invalid value for '--until': 'soon' does not match the format '%Y-%m-%d'."),
        (
            "train digits --model nope",
            1,
            "has no model nope. Use one of logistic, forest, ",
        ),
        ("train digits --grid {", 1, "[invalid-grid]"),
        ("produce payments --events 0", 2, "Invalid value for '--events': 0 is not in the range x>=1."),
        ("produce payments --events -5", 2, "Invalid value for '--events': -5 is not in the range x>=1."),
        ("produce payments --rate 0", 2, "Invalid value for '--rate': 0.0 is not in the range x>0."),
        ("replay payments --first 5", 1, "[invalid-usage]"),
        ("replay payments --partition 0 --first 9 --last 3", 1, "from 9 to 3 ends before it begins."),
        ("replay payments --since 2026-01-02 --until 2026-01-01", 1, "[invalid-interval]"),
        ("replay payments --since x", 2, "Invalid value for '--since': 'x' is no time such as 2026-11-24"),
        ("logs -n -1", 2, "-1 is not in the range x>=0."),
        ("demo --events 0", 2, "0 is not in the range x>=1."),
        ("bench landing --repetitions 0", 2, "0 is not in the range x>=1."),
        ("bench training --rows 10", 2, "10 is not in the range x>=1000."),
        ("bench gate --json /nowhere/figures.json", 2, "Invalid value for '--json': there is no directory '/nowhere'."),
        ("bench gate --json /", 2, "Invalid value for '--json': '/' is a directory."),
        ("new stream payments", 1, "millrace: The name 'payments' is taken. Choose another."),
        ("new stream Payments", 1, "millrace: 'Payments' cannot name a stream. Use lower-case letters"),
        ("new dataset digits --from x.csv --target y", 1, "millrace: The name 'digits' is taken. Choose another."),
        ("new dataset mine --from /nowhere/x.csv --target y", 1, "millrace: The file /nowhere/x.csv does not exist."),
        ("new dataset mine --from / --target y", 1, "millrace: / is a directory, not a file."),
        ("produce payments", 1, "was never started. Run ./millrace up first. [platform-down]"),
    ],
)
def test_what_cannot_be_is_said_at_once(
    call: str, code: int, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(call.split()) == code
    errors = capsys.readouterr().err
    assert says in errors
    assert "Traceback" not in errors
    if code == 1:
        assert len(errors.splitlines()) == 1
    assert not (tmp_path / "home").exists()
