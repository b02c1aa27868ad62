"""`check` without a platform."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli import main as cli
from include.datasets import definitions as datasets
from include.streams import definitions as streams


def test_check_starts_nothing_and_reports_what_it_did_not_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path / "home"))
    assert cli.main(["check"]) == 0
    printed = capsys.readouterr()
    expected: list[str] = []
    for name, dataset in sorted(datasets.find().valid.items()):
        expected.append(f"dataset  {name}: valid")
        if dataset.schedule:
            expected += [
                f"{' ' * 9}schedule '@yearly' from 2013-01-01 to 2016-01-01: "
                "a version for each interval, the oldest first",
                f"{' ' * 9}versions due now: 3; they are published and trained once Airflow has parsed the definition",
            ]
    expected += [f"stream   {name}: valid" for name in sorted(streams.find().valid)]
    platform = f"The platform in {tmp_path / 'home'} was never started."
    remark = f"Tables were not compared, and orphans were not searched for: {platform}"
    assert (printed.out.splitlines(), printed.err) == ([*expected, remark], "")
    assert not (tmp_path / "home").exists()
