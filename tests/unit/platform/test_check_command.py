"""`check` where there is no platform."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli import main as cli
from include.datasets import definitions as datasets
from include.streams import definitions as streams


def test_it_starts_nothing_and_says_what_it_did_not_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path / "home"))
    assert cli.main(["check"]) == 0
    said = capsys.readouterr()
    good: list[str] = []
    for name, dataset in sorted(datasets.find().valid.items()):
        good.append(f"dataset  {name}: good")
        if dataset.schedule:
            good += [
                f"{' ' * 9}schedule '@yearly' from 2013-01-01 to 2016-01-01: "
                "a version for each interval, the oldest first",
                f"{' ' * 9}versions due now: 3; "
                "they are published and trained as soon as Airflow has read the definition",
            ]
    good += [f"stream   {name}: good" for name in sorted(streams.find().valid)]
    never = f"tables were not compared, nor orphans looked for: The platform in {tmp_path / 'home'} was never started."
    assert (said.out.splitlines(), said.err) == ([*good, never], "")
    assert not (tmp_path / "home").exists()
