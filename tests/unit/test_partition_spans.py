"""Partition arithmetic: spans, gaps and the names of tables."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np

from include.landing.spans import (
    FIRST,
    Span,
    cut_off,
    droppable_until,
    gaps,
    kept,
    moment_of,
    name_of,
    next_spans,
    partitionable,
    span_from,
    span_of,
    spans_of,
    start_of,
)
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


MONTHLY = replace(DAILY, partition="1 month")
QUARTERLY = replace(DAILY, partition="3 months", keep="1000 days")
YEARLY = replace(DAILY, partition="1 year", keep="1000 days")
DECADES = replace(DAILY, partition="10 years", keep="forever")


def day(year: int, month: int = 1, number: int = 1) -> datetime:
    return datetime(year, month, number, tzinfo=UTC)


def test_spans_of_months_follow_the_calendar() -> None:
    moment = datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC)
    assert span_of(MONTHLY, moment) == Span(day(2024, 2), day(2024, 3))
    assert span_of(QUARTERLY, moment) == Span(day(2024, 1), day(2024, 4))
    assert span_of(YEARLY, moment) == Span(day(2024), day(2025))
    assert span_of(DECADES, moment) == Span(day(2020), day(2030))
    assert span_of(MONTHLY, day(2024, 12, 31)) == Span(day(2024, 12), day(2025))


def test_moments_are_grouped_into_months() -> None:
    moments = [day(1969, 12, 31), day(2024, 1), day(2024, 1, 31), day(2023, 12, 31)]
    times = np.array([int(moment.timestamp()) * 1_000_000 for moment in moments], np.int64)
    assert spans_of(MONTHLY, times) == [
        Span(day(1969, 12), day(1970)),
        Span(day(2023, 12), day(2024)),
        Span(day(2024, 1), day(2024, 2)),
    ]
    for stream in (MONTHLY, QUARTERLY, YEARLY, DECADES):
        assert spans_of(stream, times) == sorted({span_of(stream, moment) for moment in moments})
        assert spans_of(stream, times[:0]) == []


def test_the_next_months_begin_with_the_current_one() -> None:
    assert next_spans(MONTHLY, at(31), 2) == [
        Span(day(2026, 3), day(2026, 4)),
        Span(day(2026, 4), day(2026, 5)),
        Span(day(2026, 5), day(2026, 6)),
    ]


def test_months_are_named_after_their_first_day() -> None:
    for stream in (MONTHLY, QUARTERLY, YEARLY, DECADES):
        span = span_of(stream, at(17))
        assert name_of(stream, span) == f"orders_{span.start:%Y%m%d}"
        assert span_from(stream, start_of(stream, name_of(stream, span))) == span


def test_a_part_of_a_month_ends_with_the_month() -> None:
    """Before the width of partitions changed to a month, there were days."""
    (rest,) = gaps(span_of(MONTHLY, at(20)), [Span(at(1), at(2)), Span(at(2), at(18))])
    assert rest == Span(at(18), day(2026, 4))
    assert span_from(MONTHLY, start_of(MONTHLY, name_of(MONTHLY, rest))) == rest


def test_the_calendar_holds_whole_months_only() -> None:
    for stream, first, end in (
        (MONTHLY, day(1, 2), day(9999, 12)),
        (YEARLY, day(2), day(9999)),
        (DECADES, day(10), day(9990)),
    ):
        found = partitionable(stream)
        assert [moment_of(moment) for moment in found] == [first, end]
        times = np.array([found[0], found[1] - 1], np.int64)
        assert [spans_of(stream, times)[0].start, spans_of(stream, times)[-1].end] == [first, end]


def test_what_is_kept_forever_is_never_past_its_retention() -> None:
    now = at(1)
    assert cut_off(DAILY, now) == now - timedelta(days=90)
    assert droppable_until(DAILY, now) == now - timedelta(days=83)
    for stream in (DECADES, replace(DAILY, keep="forever", late="any")):
        assert cut_off(stream, now) == droppable_until(stream, now) == FIRST


def test_the_number_of_partitions_that_are_kept() -> None:
    assert kept(DAILY) == 90
    assert kept(replace(HOURLY, keep="365 days")) == 8_760
    assert kept(replace(MONTHLY, keep="366 days")) == 14, "of the shortest months"
    assert kept(replace(YEARLY, keep="1000 days")) == 3
    assert kept(DECADES) == 0
