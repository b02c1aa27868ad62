"""Partition arithmetic: spans, gaps and the names of tables."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np

from include.landing.spans import Span, gaps, name_of, next_spans, partitionable, span_of, spans_of, start_of
from include.streams.definition import Instant, Stream


class Event(msgspec.Struct):
    ts: Instant


DAILY = Stream(name="orders", event=Event, event_time="ts")
HOURLY = replace(DAILY, partition="1 hour")


def at(day: int, hour: int = 0) -> datetime:
    return datetime(2026, 3, day, hour, tzinfo=UTC)


def test_spans_are_half_open() -> None:
    span = Span(at(1), at(2))
    assert at(1) in span
    assert at(2) not in span
    assert at(2) - timedelta(microseconds=1) in span


def test_gaps_are_the_parts_that_no_span_covers() -> None:
    day = Span(at(2), at(3))
    assert list(gaps(day, [])) == [day]
    assert list(gaps(day, [Span(at(1), at(2)), Span(at(3), at(4))])) == [day], "adjacent spans do not cover it"
    assert list(gaps(day, [Span(at(1), at(4))])) == []
    assert list(gaps(day, [Span(at(2, 6), at(2, 7)), Span(at(2, 12), at(3, 3))])) == [
        Span(at(2), at(2, 6)),
        Span(at(2, 7), at(2, 12)),
    ]


def test_tables_are_named_after_their_start() -> None:
    assert name_of(DAILY, Span(at(2), at(3))) == "orders_20260302"
    assert name_of(HOURLY, Span(at(2), at(2, 1))) == "orders_20260302_0000"
    assert name_of(HOURLY, Span(at(2, 23), at(3))) == "orders_20260302_2300"


def test_next_spans_begin_with_the_current_one() -> None:
    assert next_spans(HOURLY, at(2, 22) + timedelta(minutes=59), 2) == [
        Span(at(2, 22), at(2, 23)),
        Span(at(2, 23), at(3)),
        Span(at(3), at(3, 1)),
    ]


def test_a_name_gives_the_start_of_its_span() -> None:
    for stream in (DAILY, HOURLY):
        span = span_of(stream, at(2, 23))
        assert start_of(stream, name_of(stream, span)) == span.start


def test_moments_are_grouped_into_the_spans_that_hold_them() -> None:
    moments = [at(2, 23), at(2, 1), at(3)]
    times = np.array([int(moment.timestamp() * 1_000_000) for moment in moments], np.int64)
    assert spans_of(DAILY, times) == [Span(at(2), at(3)), Span(at(3), at(4))]
    assert spans_of(DAILY, times[:0]) == []


def test_the_calendar_holds_whole_spans_only() -> None:
    weekly = replace(DAILY, partition="7 days", keep="90 days")
    first, end = partitionable(weekly)
    assert first % (7 * 86_400_000_000) == end % (7 * 86_400_000_000) == 0
