"""The times of events: the types of fields that hold them, and the notations in which producers send them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from msgspec import Meta

RECORD_TIMESTAMP = "kafka_timestamp"
"""As ``event_time`` of a stream whose events have no time: the record's timestamp in Kafka, a column of this name."""

PLAUSIBLE = (datetime(1971, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC))
"""Between which times, the end excluded, a number is plausible. No number is plausible in two units."""

KEY = "millrace"
"""Under which name an annotation has the notation of a field."""


@dataclass(frozen=True)
class Epoch:
    """Times as numbers since the beginning of 1970 in UTC.

    Attributes:
        unit: What is counted, in the plural.
        per_second: How many of them a second has.
        is_certain: Whether the unit is known, so that no number is taken for a time in another one.
    """

    unit: str
    per_second: int
    is_certain: bool = False

    @cached_property
    def plausible(self) -> tuple[int, int]:
        """``PLAUSIBLE`` in this unit."""
        first, end = (int(moment.timestamp()) * self.per_second for moment in PLAUSIBLE)
        return first, end


@dataclass(frozen=True)
class LocalTime:
    """Times without a time zone, as the clocks of a place show them.

    Attributes:
        zone: The name of the place's time zone in the IANA database.
    """

    zone: str

    @cached_property
    def info(self) -> ZoneInfo:
        """The rules of the zone."""
        return ZoneInfo(self.zone)


@dataclass(frozen=True)
class Midnight:
    """Dates, each the moment at which it begins in UTC."""


Notation = Epoch | LocalTime | Midnight
"""How producers write a time, if not as a text with a time zone."""

SECONDS, MILLISECONDS = Epoch("seconds", 1), Epoch("milliseconds", 1_000)
MICROSECONDS, NANOSECONDS = Epoch("microseconds", 1_000_000), Epoch("nanoseconds", 1_000_000_000)
MIDNIGHT = Midnight()
EPOCHS = (SECONDS, MILLISECONDS, MICROSECONDS, NANOSECONDS)

Instant = Annotated[datetime, Meta(tz=True)]
"""A moment: a datetime that always carries its time zone."""

EpochSeconds = Annotated[int | float | str, Meta(extra={KEY: SECONDS})]
"""A time as seconds since 1970, whole or with a fraction. Code of the definition gets the number."""

EpochMillis = Annotated[int | float | str, Meta(extra={KEY: MILLISECONDS})]
"""A time as milliseconds since 1970. Code of the definition gets the number."""

EpochMicros = Annotated[int | float | str, Meta(extra={KEY: MICROSECONDS})]
"""A time as microseconds since 1970. Code of the definition gets the number."""

EpochNanos = Annotated[int | float | str, Meta(extra={KEY: NANOSECONDS})]
"""A time as nanoseconds since 1970, stored in whole microseconds. Code of the definition gets the number."""


def Zone(name: str) -> Meta:
    """The time zone of a field whose times have none: ``Annotated[datetime, Zone("Europe/Berlin")]``.

    Args:
        name: A name of the IANA database.

    Raises:
        ValueError: There is no such zone.
    """
    try:
        ZoneInfo(name)
    except Exception as error:  # ZoneInfo raises errors of files, too
        raise ValueError(f'{name!r} is not a time zone of the IANA database, such as "Europe/Berlin"') from error
    return Meta(extra={KEY: LocalTime(name)})


def notation_of(extra: dict[str, Any] | None) -> Notation | None:
    """The notation that the annotation of a field declares, from ``msgspec.inspect.Metadata.extra``."""
    found = (extra or {}).get(KEY)
    return found if isinstance(found, Epoch | LocalTime) else None
