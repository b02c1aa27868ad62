"""Every field of a definition that holds a duration has the same notation."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from include.datasets import TimeSplit, not_worse_and_fresher
from include.durations import duration
from include.error_codes import Code
from include.streams.definition import Instant, Stream
from tests.errors import raises


class Event(msgspec.Struct):
    ts: Instant


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("90 seconds", timedelta(seconds=90)),
        ("1 minute", timedelta(minutes=1)),
        ("2hours", timedelta(hours=2)),
        (" 365 days ", timedelta(days=365)),
        ("1 week", timedelta(days=7)),
        ("365d", timedelta(days=365)),
    ],
)
def test_every_field_has_the_same_notation(text: str, span: timedelta) -> None:
    assert duration(text) == span
    assert TimeSplit(text).test == text
    assert Stream(name="events", event=Event, event_time="ts", early=text).earliness == span
    assert not_worse_and_fresher(0.01, text).older_than == span


@pytest.mark.parametrize(
    "text", ["", "soon", "0 days", "5", "d", "-1 days", "1 year", "1.5 hours", "9999999999 weeks", 7]
)
def test_every_field_refuses_the_same_texts(text: str) -> None:
    with raises(Code.INVALID_DEFINITION, "split", repr(text)):
        TimeSplit(text)
    with raises(Code.INVALID_DEFINITION, "early", repr(text)):
        Stream(name="events", event=Event, event_time="ts", early=text)
    with raises(Code.INVALID_DEFINITION, "promotion", repr(text)):
        not_worse_and_fresher(0.01, text)
