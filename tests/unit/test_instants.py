"""Columns of times become microseconds since 1970: numbers in four units, and times of a place."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import pairwise
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from include.landing import copy, instants
from include.landing.copy import Column
from include.landing.decoder import Decoder
from include.landing.instants import converter
from include.landing.spans import MICROSECOND, UNIX_EPOCH
from include.streams.definition import (
    EpochMicros,
    EpochMillis,
    EpochNanos,
    EpochSeconds,
    Stream,
    Zone,
)
from include.streams.times import EPOCHS, MICROSECONDS, MILLISECONDS, NANOSECONDS, PLAUSIBLE, SECONDS, Epoch, LocalTime

AT = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
AT_US = 1_700_000_000_000_000
BERLIN = LocalTime("Europe/Berlin")


class Event(msgspec.Struct):
    s: EpochSeconds
    ms: EpochMillis
    us: EpochMicros
    ns: EpochNanos
    local: Annotated[datetime, Zone("Europe/Berlin")]
    maybe: EpochMillis | None = None


def columns() -> dict[str, Column]:
    return {column.name: column for column in copy.columns_of(Stream(name="x", event=Event, event_time="s").fields)}


def decoded(**values: Any) -> Any:
    base = {"s": 1_700_000_000, "ms": 1, "us": 1, "ns": 1, "local": "2026-01-15T10:00:00"}
    events, bad = Decoder(Event).events([json.dumps(base | values).encode()])
    assert not bad
    return events[0]


def in_us(values: list[Any], unit: Epoch) -> list[Any]:
    found: list[Any] = converter(unit)(values).to_pylist()
    return found


@pytest.mark.parametrize(
    ("unit", "number", "microseconds"),
    [
        (SECONDS, 1_700_000_000, AT_US),
        (SECONDS, 1_700_000_000.123, AT_US + 123_000),
        (SECONDS, 1_700_000_000.123456, AT_US + 123_456),
        # Where a float's precision is nearly a microsecond.
        (SECONDS, 7_200_000_000.000001, 7_200_000_000_000_001),
        (SECONDS, "1700000000", AT_US),
        (SECONDS, "1700000000.5", AT_US + 500_000),
        (SECONDS, "1.7e9", AT_US),
        (SECONDS, 0, 0),
        (SECONDS, -1, -1_000_000),
        (SECONDS, -1.25, -1_250_000),
        (SECONDS, 7_258_118_399, 7_258_118_399_000_000),
        (MILLISECONDS, 1_700_000_000_123, AT_US + 123_000),
        (MILLISECONDS, 1_700_000_000_123.25, AT_US + 123_250),
        (MILLISECONDS, "1700000000123", AT_US + 123_000),
        (MILLISECONDS, 1.7e12, AT_US),
        (MILLISECONDS, -473_385_600_000, -473_385_600_000_000),
        (MICROSECONDS, 1_700_000_000_000_001, AT_US + 1),
        (NANOSECONDS, 1_700_000_000_000_001_999, AT_US + 1),
        (NANOSECONDS, "1700000000000001999", AT_US + 1),
        (NANOSECONDS, -1, -1),
    ],
)
def test_numbers_are_counted_in_their_unit(unit: Epoch, number: Any, microseconds: int) -> None:
    assert in_us([number], unit) == [microseconds]


def test_a_value_becomes_the_same_instant_in_any_company() -> None:
    company: list[list[Any]] = [
        [],
        [None],
        [1_700_000_000],
        [1_700_000_000.5],
        ["1700000000"],
        [0],
        [1_700_000_000, 0.5],
    ]
    for value in (1_700_000_000, 1_700_000_000.123456, "1700000000.123456", 0, -5, 1_700_000_000.0, None, 1e10):
        (alone,) = in_us([value], SECONDS)
        for others in company:
            assert in_us([*others, value], SECONDS)[-1] == alone, (value, others)
    assert in_us([None, None], SECONDS) == [None, None]
    assert in_us([], NANOSECONDS) == []


def test_no_number_is_plausible_in_two_units() -> None:
    ranges = sorted(unit.plausible for unit in EPOCHS)
    assert all(end <= first for (_, end), (first, _) in pairwise(ranges))
    assert [moment.year for moment in PLAUSIBLE] == [1971, 2200]


@pytest.mark.parametrize(
    ("unit", "number", "reason"),
    [
        (
            SECONDS,
            1_700_000_000_000,
            "1700000000000 is not a time in seconds; in milliseconds it is 2023-11-14T22:13:20Z",
        ),
        (
            SECONDS,
            "1700000000000",
            "1700000000000 is not a time in seconds; in milliseconds it is 2023-11-14T22:13:20Z",
        ),
        (
            MILLISECONDS,
            1_700_000_000,
            "1700000000 is not a time in milliseconds; in seconds it is 2023-11-14T22:13:20Z",
        ),
        (
            MILLISECONDS,
            1_700_000_000.5,
            "1700000000.5 is not a time in milliseconds; in seconds it is 2023-11-14T22:13:20Z",
        ),
        (
            NANOSECONDS,
            1_700_000_000_000_000,
            "1700000000000000 is not a time in nanoseconds; in microseconds it is 2023",
        ),
        (MICROSECONDS, 1_700_000_000_000_000_000, "is not a time in microseconds; in nanoseconds it is 2023-11-14"),
        (SECONDS, 9 * 10**18, "is not a time in seconds: it is outside of the years 1 to 9999"),
        (SECONDS, -(10**13), "is not a time in seconds: it is outside of the years 1 to 9999"),
        (NANOSECONDS, 2**63, "is not a time in nanoseconds: it is outside of the years 1 to 9999"),
        pytest.param(SECONDS, 10**5_000, "is not a time in seconds: it is outside of the years 1 to 9999", id="huge"),
        (SECONDS, 1e300, "1e+300 is not a time in seconds: it is outside of the years 1 to 9999"),
        (SECONDS, "2026-01-15T10:00:00Z", "'2026-01-15T10:00:00Z' is not a number of seconds"),
        *(
            (MILLISECONDS, text, f"{text!r} is not a number of milliseconds")
            for text in (
                "",
                " 1700000000000",
                "1_700_000_000_000",
                "0x18BCFE56800",
                "NaN",
                "inf",
                "\u0661\u0667",
                "+5",
                "1.",
                "9" * 31,
            )
        ),
    ],
)
def test_a_number_that_is_not_a_time_is_refused_with_the_unit_that_it_fits(
    unit: Epoch, number: Any, reason: str
) -> None:
    for values in ([number], [1_700_000_000 * unit.per_second, None, number]):
        with pytest.raises(ValueError) as caught:
            in_us(values, unit)
        assert reason in str(caught.value)


def test_each_refused_number_is_found() -> None:
    column = columns()["ms"]
    events = [decoded(ms=value) for value in (1_700_000_000_000, 1_700_000_000, "x", "1700000000000", 5)]
    assert copy.refused([column], events) == {
        1: "ms: 1700000000 is not a time in milliseconds; in seconds it is 2023-11-14T22:13:20Z",
        2: "ms: 'x' is not a number of milliseconds",
    }
    with pytest.raises(TypeError, match="it is None"):
        copy.times(columns()["maybe"], [None])


def local(*times: datetime | None, place: LocalTime = BERLIN) -> list[datetime | None]:
    found = converter(place)(times).to_pylist()
    return [None if each is None else UNIX_EPOCH + each * MICROSECOND for each in found]


def test_dates_begin_at_midnight_in_utc() -> None:
    days = [date(1969, 12, 31), None, date(2026, 3, 1), date(1, 1, 1), date(9999, 12, 31)]
    moments = [None if day is None else datetime(day.year, day.month, day.day, tzinfo=UTC) for day in days]
    assert instants.of_dates(days).equals(instants.of_moments(moments))
    assert instants.of_dates([]).equals(instants.of_moments([]))


def test_local_times_are_in_their_zone() -> None:
    winter, summer = datetime(2026, 1, 15, 10), datetime(2026, 7, 15, 10, 0, 0, 1)
    assert local(winter, None, summer) == [
        datetime(2026, 1, 15, 9, tzinfo=UTC),
        None,
        datetime(2026, 7, 15, 8, 0, 0, 1, tzinfo=UTC),
    ]
    aware = datetime(2026, 7, 15, 10, tzinfo=timezone(timedelta(hours=-5)))
    assert local(aware, summer) == [aware, datetime(2026, 7, 15, 8, 0, 0, 1, tzinfo=UTC)], "an offset comes first"


def test_an_hour_that_occurs_twice_is_the_first() -> None:
    assert local(datetime(2026, 10, 25, 2, 30)) == [datetime(2026, 10, 25, 0, 30, tzinfo=UTC)]
    assert local(datetime(2026, 10, 25, 2, 30), datetime(2026, 1, 1)) == [
        datetime(2026, 10, 25, 0, 30, tzinfo=UTC),
        datetime(2025, 12, 31, 23, tzinfo=UTC),
    ]
    assert local(datetime(2026, 10, 25, 2, 30, tzinfo=timezone(timedelta(hours=1)))) == [
        datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
    ]


def test_an_hour_that_does_not_exist_is_refused() -> None:
    reason = "2026-03-29T02:30:00 does not exist in Europe/Berlin: clocks were set forward over it"
    for times in ([datetime(2026, 3, 29, 2, 30)], [datetime(2026, 3, 29, 1), datetime(2026, 3, 29, 2, 30)]):
        with pytest.raises(ValueError, match=reason):
            local(*times)
    assert local(datetime(2026, 3, 29, 1, 59, 59), datetime(2026, 3, 29, 3)) == [
        datetime(2026, 3, 29, 0, 59, 59, tzinfo=UTC),
        datetime(2026, 3, 29, 1, tzinfo=UTC),
    ]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu", "America/St_Johns", "UTC"])
def test_local_times_agree_with_python(zone: str) -> None:
    """Every 25 minutes of two years, and the ends of the calendar, in one column and one by one."""
    place = LocalTime(zone)
    times = [datetime(2025, 1, 1) + timedelta(minutes=25 * step) for step in range(42_000)]
    times += [datetime.min, datetime.max, datetime(1800, 1, 1, 0, 0, 1)]
    expected = {}
    for each in times:
        there = each.replace(tzinfo=ZoneInfo(zone))
        before, after = there.utcoffset(), there.replace(fold=1).utcoffset()
        assert before is not None and after is not None
        if before >= after:
            expected[each] = (each.replace(tzinfo=UTC) - UNIX_EPOCH - before) // MICROSECOND
    assert converter(place)(list(expected)).to_pylist() == list(expected.values())
    for missing in set(times) - expected.keys():
        with pytest.raises(ValueError, match="does not exist"):
            local(missing, place=place)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-15T10:00:00", datetime(2026, 1, 15, 9, tzinfo=UTC)),
        ("2026-01-15 10:00", datetime(2026, 1, 15, 9, tzinfo=UTC)),
        ("2026-01-15 10:00:00.123456789", datetime(2026, 1, 15, 9, 0, 0, 123457, tzinfo=UTC)),
        ("20260115T100000", datetime(2026, 1, 15, 9, tzinfo=UTC)),
        ("2026-01-15 10:00:00+00", datetime(2026, 1, 15, 10, tzinfo=UTC)),
        ("2026-01-15T10:00Z", datetime(2026, 1, 15, 10, tzinfo=UTC)),
    ],
)
def test_texts_without_a_zone_are_decoded(text: str, expected: datetime) -> None:
    assert local(decoded(local=text).local) == [expected]


def test_a_column_is_copied_in_postgres_microseconds() -> None:
    column = columns()["maybe"]
    assert column.array([1_700_000_000_000, None]).to_pylist() == [AT_US - 946_684_800_000_000, None]
    assert column.width == ">i8"
    with pytest.raises(ValueError, match="years 1 to 9999"):
        column.array([-(10**14)])
