"""What replay's options mean, and which of them contradict each other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click
import pytest
from click.testing import CliRunner

from cli.landing import Moment, replay
from include.errors import UserError


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--first", "10"], "Name it: --partition"),
        (["--last", "10", "--partition", "0", "--partition", "1"], "Name it: --partition"),
        (["--first", "10", "--last", "9", "--partition", "0"], "ends before it begins"),
        (["--since", "2026-11-24", "--until", "2026-11-24"], "ends before it begins"),
    ],
)
def test_a_range_that_means_nothing_is_refused(options: list[str], says: str) -> None:
    found = CliRunner().invoke(replay, ["payments", *options]).exception
    assert isinstance(found, UserError) and says in str(found)


def test_times_are_utc_unless_they_say_otherwise() -> None:
    half_past_nine = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
    for text in ("2026-11-24 09:30", "2026-11-24T09:30Z", "2026-11-24T10:30+01:00"):
        assert Moment().convert(text, None, None) - half_past_nine == timedelta(0)
    with pytest.raises(click.BadParameter, match="is no time such as"):
        Moment().convert("yesterday", None, None)
