"""The options of replay, and which of them contradict each other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click
import pytest
from click.testing import CliRunner

from cli.landing import Moment, replay
from include.error_codes import Code
from tests.errors import raises


@pytest.mark.parametrize(
    ("options", "code", "named"),
    [
        (["--first", "10"], Code.INVALID_USAGE, "--partition"),
        (["--last", "10", "--partition", "0", "--partition", "1"], Code.INVALID_USAGE, "--partition"),
        (["--first", "10", "--last", "9", "--partition", "0"], Code.INVALID_INTERVAL, "10 to 9"),
        (["--since", "2026-11-24", "--until", "2026-11-24"], Code.INVALID_INTERVAL, "2026-11-24"),
    ],
)
def test_contradicting_options_are_refused(options: list[str], code: Code, named: str) -> None:
    with raises(code, named):
        CliRunner().invoke(replay, ["payments", *options], catch_exceptions=False)


def test_times_without_a_zone_are_utc() -> None:
    half_past_nine = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
    for text in ("2026-11-24 09:30", "2026-11-24T09:30Z", "2026-11-24T10:30+01:00"):
        assert Moment().convert(text, None, None) - half_past_nine == timedelta(0)
    with pytest.raises(click.BadParameter, match="yesterday"):
        Moment().convert("yesterday", None, None)
