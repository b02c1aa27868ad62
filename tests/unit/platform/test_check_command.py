"""`check` where there is no platform."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.datasets import definitions as datasets
from include.platform import cli
from include.streams import definitions as streams


def test_it_starts_nothing_and_says_what_it_did_not_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path / "home"))
    assert cli.main(["check"]) == 0
    said = capsys.readouterr()
    good = [f"dataset  {name}: good" for name in sorted(datasets.find().valid)]
    good += [f"stream   {name}: good" for name in sorted(streams.find().valid)]
    never = "tables were not compared, nor orphans looked for: The platform was never started."
    assert (said.out.splitlines(), said.err) == ([*good, never], "")
    assert not (tmp_path / "home").exists()
