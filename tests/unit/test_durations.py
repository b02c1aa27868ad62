"""Datasets and streams write durations alike."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from include.datasets import TimeSplit
from include.definitions import InvalidDefinition
from include.durations import duration
from include.streams.definition import Instant, Stream


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
def test_a_dataset_and_a_stream_read_the_same(text: str, span: timedelta) -> None:
    assert duration(text) == span
    assert TimeSplit(text).test == text
    assert Stream(name="events", event=Event, event_time="ts", early=text).earliness == span


@pytest.mark.parametrize(
    "text", ["", "soon", "0 days", "5", "d", "-1 days", "1 year", "1.5 hours", "9999999999 weeks", 7]
)
def test_what_is_no_duration_is_said_the_same_way(text: str) -> None:
    with pytest.raises(InvalidDefinition) as dataset:
        TimeSplit(text)
    with pytest.raises(InvalidDefinition) as stream:
        Stream(name="events", event=Event, event_time="ts", early=text)
    assert str(dataset.value) == f'split: {text!r} is no duration. Write TimeSplit(test="365 days").'
    assert str(stream.value).startswith(f"early: {text!r} is no duration. Write a number and one of second, ")
