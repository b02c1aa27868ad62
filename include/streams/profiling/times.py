"""Times in a sample: texts with and without a time zone, dates, and numbers since 1970 with their unit."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum

from include.streams.definition import CALENDAR

LOCAL = "times without a time zone; declare the zone as in Annotated[datetime, Zone('Europe/Berlin')]"
FOREIGN = "times or dates, it seems, in a notation that Millrace does not read; they are stored as text"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# A number is a time if it is between the beginnings of these years.
_YEARS = (2000, 2100)
_CLOCK = r"[0-9]{2}(:?[0-9]{2}(:?[0-9]{2}([.,][0-9]+)?)?)?"
_ZONE = r"([Zz]|[+-][0-9]{2}(:?[0-9]{2})?)"
_DATED = rf"([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}[Tt ]|[0-9]{{8}}[Tt]){_CLOCK}"
_WITH_ZONE = re.compile(_DATED + _ZONE)
_WITHOUT_ZONE = re.compile(_DATED)
_MONTH = r"(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*"
_OF_DAY = r"[0-9]{1,2}:[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)?( ?[AaPp][Mm])?"
_AND_CLOCK = rf"([T ,]+{_OF_DAY})?( ?({_ZONE}|[A-Z]{{2,5}}))?( [0-9]{{4}})?"
# 2010/01/31 00:00, 31.01.2010, 1/31/2010 4:05 PM, Sun, 31 Jan 2010 10:00:00 GMT, Jan 31 2010.
_FOREIGN = re.compile(
    r"([A-Z][a-z]{2,8},? )?"
    r"([0-9]{4}([/.])[0-9]{1,2}\3[0-9]{1,2}|[0-9]{1,2}([-/.])[0-9]{1,2}\4([0-9]{4}|[0-9]{2})"
    rf"|[0-9]{{1,2}}[ -]{_MONTH}[ -][0-9]{{2,4}}|{_MONTH} [0-9]{{1,2}},?( [0-9]{{4}})?)"
    rf"{_AND_CLOCK}"
)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class Unit(Enum):
    """A unit of time since 1970: its name, the type that a definition declares, and how many are a second."""

    SECONDS = ("seconds", "EpochSeconds", 1)
    MILLISECONDS = ("milliseconds", "EpochMillis", 10**3)
    MICROSECONDS = ("microseconds", "EpochMicros", 10**6)
    NANOSECONDS = ("nanoseconds", "EpochNanos", 10**9)

    def __init__(self, label: str, declared: str, per_second: int) -> None:
        self.label = label
        self.declared = declared
        self.per_second = per_second

    def holds(self, number: int | Decimal) -> bool:
        """Whether a number is a time between 2000 and 2100 in this unit."""
        first, end = (_seconds(datetime(year, 1, 1, tzinfo=UTC)) * self.per_second for year in _YEARS)
        return first <= number < end

    def microseconds(self, number: int | Decimal) -> int:
        """A number of this unit as microseconds since 1970."""
        return int(number * 10**6 // self.per_second)


def unit_of(numbers: Iterable[int | Decimal]) -> Unit | None:
    """The unit in which all numbers are times between 2000 and 2100; None if there is none."""
    numbers = tuple(numbers)
    return next((unit for unit in Unit if numbers and all(map(unit.holds, numbers))), None)


def moment(text: str) -> datetime | None:
    """The moment of a text with a time zone in a notation that definitions decode; None for another text."""
    if not _WITH_ZONE.fullmatch(text):
        return None
    try:
        found = datetime.fromisoformat(text.upper())
    except ValueError:
        return None
    try:
        return found if CALENDAR[0] <= found <= CALENDAR[1] else None
    except OverflowError:  # the first hours of year 1, east of UTC
        return None


def is_local(text: str) -> bool:
    """Whether a text is a date and a time of day without a time zone."""
    if not _WITHOUT_ZONE.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text.upper())
    except ValueError:
        return False
    return True


def is_foreign(text: str) -> bool:
    """Whether a text looks like a date or a time in another notation than those that definitions decode."""
    return _FOREIGN.fullmatch(text) is not None


def is_date(text: str) -> bool:
    """Whether a text is a date such as 2026-01-31."""
    if not _DATE.fullmatch(text):
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def microseconds(found: datetime) -> int:
    """Microseconds since 1970."""
    return (found - _EPOCH) // timedelta(microseconds=1)


def shown(microseconds: int) -> str:
    """A number of microseconds since 1970 as a time in UTC, to the second."""
    return f"{_EPOCH + timedelta(seconds=microseconds // 10**6):%Y-%m-%d %H:%M:%S} UTC"


def _seconds(found: datetime) -> int:
    return (found - _EPOCH) // timedelta(seconds=1)
