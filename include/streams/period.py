"""The time that one partition of a stream's table spans: a fixed duration, or months of the calendar."""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import datetime, timedelta

from include.definitions import InvalidDefinition
from include.durations import duration_field

MONTHS_OF_YEAR = 12
MAX_DAYS = 36_500
MAX_YEARS = 100
NOTATION = (
    "Write a number of days, or 1, 2, 3, 4, 6, 8 or 12 hours, or 1, 2, 3, 4 or 6 months, or a number of years, such as "
    '"1 day".'
)
_DAY = timedelta(days=1)
_MONTHS = re.compile(r"(\d+)\s*(month|year)s?")


@dataclass(frozen=True)
class Period:
    """The time that one partition spans, in UTC.

    Attributes:
        duration: Its length; None for months.
        months: A number of months that divides a year, or the months of some years; 0 for a duration.
    """

    duration: timedelta | None
    months: int = 0

    def before(self, moment: datetime) -> datetime:
        """The moment that is this long before another one, by the calendar in UTC.

        A month has fewer days than another: one month before March 31 is the last day of February.

        Raises:
            ValueError, OverflowError: It is before the year 1.
        """
        if self.duration is not None:
            return moment - self.duration
        year, month = divmod(moment.year * MONTHS_OF_YEAR + moment.month - 1 - self.months, MONTHS_OF_YEAR)
        return moment.replace(year=year, month=month + 1, day=min(moment.day, monthrange(year, month + 1)[1]))

    @property
    def longest(self) -> timedelta:
        """The duration, or the length of the longest period with this number of months."""
        if self.duration is not None:
            return self.duration
        # A month has at most 31 days, and a year 366.
        years, months = divmod(self.months, MONTHS_OF_YEAR)
        return timedelta(days=366 * years + 31 * months)

    @property
    def shortest(self) -> timedelta:
        """The duration, or the length of the shortest period with this number of months."""
        if self.duration is not None:
            return self.duration
        years, months = divmod(self.months, MONTHS_OF_YEAR)
        return timedelta(days=365 * years + 28 * months)

    @property
    def interval(self) -> timedelta | str:
        """The period as an interval of PostgreSQL."""
        return self.duration if self.duration is not None else f"{self.months} months"


def length_field(field: str, text: str, remedy: str) -> Period:
    """Parses a duration, or a number of months or years, in a field of a definition.

    Args:
        remedy: What to write instead.

    Raises:
        InvalidDefinition: The text is neither, or not positive.
    """
    match = _MONTHS.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        return Period(duration_field(field, text, remedy))
    if not (count := _count(match)):
        raise InvalidDefinition(field, f"{text!r} is not a duration.", remedy)
    return Period(None, count)


def period_field(field: str, text: str) -> Period:
    """Parses the period in a field of a definition.

    Raises:
        InvalidDefinition: The text is not a period, or periods of this length do not divide days or years evenly.
    """
    match = _MONTHS.fullmatch(text.strip()) if isinstance(text, str) else None
    found = _months(field, text, match) if match else Period(duration_field(field, text, NOTATION))
    width = found.duration
    if width is not None and (width < timedelta(hours=1) or (width % _DAY and _DAY % width)):
        raise InvalidDefinition(field, f"{text!r} does not divide days evenly.", NOTATION)
    if width is not None and width > timedelta(days=MAX_DAYS):
        raise InvalidDefinition(
            field, f"{text!r} is longer than {MAX_DAYS:,} days.", f'Write "{MAX_DAYS} days" or less.'
        )
    return found


def _months(field: str, text: str, match: re.Match[str]) -> Period:
    count = _count(match)
    if not count or (MONTHS_OF_YEAR % count and count % MONTHS_OF_YEAR):
        raise InvalidDefinition(field, f"{text!r} does not divide years evenly.", NOTATION)
    if count > MAX_YEARS * MONTHS_OF_YEAR:
        raise InvalidDefinition(
            field, f"{text!r} is longer than {MAX_YEARS} years.", f'Write "{MAX_YEARS} years" or less.'
        )
    return Period(None, count)


def _count(match: re.Match[str]) -> int:
    """The months of a number of months or years."""
    # A number of many digits is above the limit in any case.
    return int(match[1][:6]) * (MONTHS_OF_YEAR if match[2] == "year" else 1)
