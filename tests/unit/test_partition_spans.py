"""Spans of partitions: what is missing, and how the tables are named."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec

from include.landing.partitions import Span, ahead, gaps, name_of
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


def test_gaps_are_what_nobody_covers() -> None:
    day = Span(at(2), at(3))
    assert list(gaps(day, [])) == [day]
    assert list(gaps(day, [Span(at(1), at(2)), Span(at(3), at(4))])) == [day], "neighbours cover nothing of it"
    assert list(gaps(day, [Span(at(1), at(4))])) == []
    assert list(gaps(day, [Span(at(2, 6), at(2, 7)), Span(at(2, 12), at(3, 3))])) == [
        Span(at(2), at(2, 6)),
        Span(at(2, 7), at(2, 12)),
    ]


def test_tables_are_named_after_their_start() -> None:
    assert name_of(DAILY, Span(at(2), at(3))) == "orders_20260302"
    assert name_of(HOURLY, Span(at(2), at(2, 1))) == "orders_20260302_0000"
    assert name_of(HOURLY, Span(at(2, 23), at(3))) == "orders_20260302_2300"


def test_ahead_begins_with_the_span_of_now() -> None:
    assert ahead(HOURLY, at(2, 22) + timedelta(minutes=59), 2) == [
        Span(at(2, 22), at(2, 23)),
        Span(at(2, 23), at(3)),
        Span(at(3), at(3, 1)),
    ]
