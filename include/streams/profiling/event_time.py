"""Which field of an event is its time: by its name, and by how close it is to the record's timestamp."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from statistics import median
from typing import Any

from include.streams.profiling import times
from include.streams.profiling.envelope import Event
from include.streams.profiling.times import Unit
from include.streams.profiling.types import DATE, INSTANT, Epoch, Field, Struct, words_of

# Names of event times, the most specific first, as words without the unit.
_NAMES: tuple[tuple[str, ...], ...] = (
    ("event", "time"),
    ("event", "timestamp"),
    ("event", "ts"),
    ("event", "date"),
    ("occurred", "at"),
    ("occurred",),
    ("happened", "at"),
    ("timestamp",),
    ("time", "stamp"),
    ("ts",),
    ("time",),
    ("t",),
    ("datetime",),
    ("date", "time"),
    ("date",),
    ("day",),
    ("observed", "at"),
    ("measured", "at"),
    ("recorded", "at"),
    ("taken", "at"),
    ("logged", "at"),
    ("emitted", "at"),
    ("sent", "at"),
    ("published", "at"),
    ("produced", "at"),
    ("created", "at"),
    ("created",),
    ("creation", "time"),
    ("create", "time"),
    ("created", "on"),
    ("updated", "at"),
    ("updated",),
    ("modified", "at"),
    ("last", "modified"),
    ("received", "at"),
    ("ingested", "at"),
)
_UNITS = frozenset(("ms", "millis", "us", "micros", "ns", "nanos", "s", "sec", "seconds", "utc"))
# Words of times that are not those of an event.
_OTHER = frozenset(
    (
        *("birth", "birthday", "dob", "born", "hired", "joined", "registered", "signup"),
        *("expires", "expiry", "expiration", "due", "deadline", "valid", "until", "end", "start", "begin"),
        *("scheduled", "planned", "estimated", "eta", "next"),
    )
)
# The defaults of late and early.
LATE_US = 7 * 86_400 * 10**6
EARLY_US = 3_600 * 10**6
# The share of records whose time must be within late and early.
_TIMELY = 0.99
_DAY_US = 86_400 * 10**6
_SIZES = (("day", 86_400.0), ("hour", 3_600.0), ("minute", 60.0), ("second", 1.0))
_MAX_DAYS = 365_000
# The most partitions of a day that the sample's times may span.
_MAX_PARTITIONS = 1_000


@dataclass(frozen=True)
class Candidate:
    """A field that is a time in every event.

    Attributes:
        field: The field.
        ages: How much older than its record each event is, in microseconds; empty if no record has a timestamp.
        first, last: The first and the last time, in microseconds since 1970.
    """

    field: Field
    ages: Sequence[int]
    first: int
    last: int

    @property
    def timely(self) -> int:
        """The number of events within the defaults of ``late`` and ``early``."""
        return sum(-EARLY_US <= age <= LATE_US for age in self.ages)

    @property
    def is_timely(self) -> bool:
        """Whether nearly all events are within the defaults, as far as that is known."""
        return self.timely >= _TIMELY * len(self.ages)

    @property
    def rank(self) -> tuple[bool, bool, int, float]:
        """Candidates in the order of this are the most likely first."""
        words = tuple(word for word in words_of(self.field.name) if word not in _UNITS)
        known = next((number for number, name in enumerate(_NAMES) if name == words), len(_NAMES))
        other = bool(_OTHER & set(words))
        distance = abs(median(self.ages)) if self.ages else 0.0
        return not self.is_timely, self.field.type == DATE, known + other * len(_NAMES), distance

    @property
    def is_likely(self) -> bool:
        """Whether its values or its name show that it is the time of the event; of a date, only its name does."""
        has_name = self.rank[2] < len(_NAMES)
        return has_name or (self.is_timely and bool(self.ages) and self.field.type != DATE)

    @property
    def age(self) -> str:
        """In words, how much older than their records the events are."""
        if not self.ages:
            return "the records have no timestamps to compare it with"
        oldest, newest, middle = (_relative(int(age)) for age in (max(self.ages), min(self.ages), median(self.ages)))
        return f"{middle} in the median" + (f", from {newest} to {oldest}" if newest != oldest else "")


@dataclass(frozen=True)
class EventTime:
    """The time of the events.

    Attributes:
        field: The field's name in the JSON; None for the record's timestamp.
        notes: Why it was chosen, and what else it could be.
        late, early, partition, keep: The durations of the definition.
    """

    field: str | None
    notes: tuple[str, ...]
    late: str = "7 days"
    early: str = "1 hour"
    partition: str = "1 day"
    keep: str = "90 days"


def event_time(fields: Sequence[Field], events: Sequence[Event], *, has_paths: bool = True) -> EventTime:
    """Chooses the event time among the fields.

    Args:
        fields: The fields of the events.
        has_paths: Whether a definition can have columns for what is inside of an object.
    """
    reasons = tuple(filter(None, map(_why_not, fields)))
    candidates = sorted(
        (_candidate(field, events) for field in fields if _is_time(field)), key=lambda candidate: candidate.rank
    )
    if not candidates or not candidates[0].is_likely:
        others = [f"{each.field.name} ({each.age})" for each in candidates]
        notes = ["No field is certainly the time of the event, so the record's timestamp in Kafka is."]
        if unused := [*others, *reasons, *_inside(fields, has_paths)]:
            notes.append(f"Not used: {'; '.join(unused)}.")
        return EventTime(None, tuple(notes))
    best, others = candidates[0], [f"{each.field.name} ({each.age})" for each in candidates[1:]]
    notes = [
        f"Compared with its record, {best.field.name} is {best.age}." if best.ages else f"{best.age.capitalize()}."
    ]
    if best.field.type == DATE:
        notes.append("A date is the moment at which it begins in UTC.")
    if others:
        notes.append(f"It could also be {'; '.join(others)}.")
    if reasons:
        notes.append(f"It cannot be {'; '.join(reasons)}.")
    return _with_durations(best, notes)


def of_moments(name: str, moments: Sequence[tuple[int, int | None]]) -> EventTime:
    """The event time in a column that every event has.

    Args:
        moments: The time of each event in microseconds since 1970, and the timestamp of its record in milliseconds.
    """
    ages = [stamp * 1_000 - moment for moment, stamp in moments if stamp is not None]
    times_only = [moment for moment, _ in moments]
    field = Field(name, INSTANT, len(moments), len(moments), 0)
    found = Candidate(field, ages, min(times_only, default=0), max(times_only, default=0))
    return _with_durations(found, [f"Compared with its record, {name} is {found.age}."] if ages else [])


def _with_durations(best: Candidate, notes: list[str]) -> EventTime:
    """The event time with durations that all of the sample's events fit in, except for single ones."""
    late, early, partition, partition_days = "7 days", "1 hour", "1 day", 1
    if (outside := len(best.ages) - best.timely) and best.is_timely:
        notes.append(f"{outside:,} of {len(best.ages):,} are outside of late and early: such events are quarantined.")
    elif best.ages:
        # Twice of what the sample has, since other records may be older.
        if 2 * (oldest := max(best.ages)) > LATE_US:
            late = _days(2 * oldest)
        if 2 * (newest := -min(best.ages)) > EARLY_US:
            early = _days(2 * newest) if 2 * newest > _DAY_US else f"{math.ceil(2 * newest / EARLY_US)} hours"
    if best.field.type == DATE and early == "1 hour":
        # East of Greenwich, a day begins before it does in UTC.
        early = "1 day"
    if best.last - best.first > _MAX_PARTITIONS * _DAY_US:
        partition, partition_days = "1 month", 31
    days = int(late.split()[0]) + partition_days
    keep = "90 days" if days <= 90 else f"{days + 90} days"
    return EventTime(best.field.name, tuple(notes), late, early, partition, keep)


def _days(microseconds: int) -> str:
    return f"{min(_MAX_DAYS, math.ceil(microseconds / _DAY_US))} days"


def _is_time(field: Field) -> bool:
    # A schema may allow null, although no event has it.
    return not field.lacking and (field.type in (INSTANT, DATE) or isinstance(field.type, Epoch))


def _why_not(field: Field) -> str | None:
    """Why a field with times cannot be the event time; None if it can, or has no times."""
    if field.type == INSTANT or isinstance(field.type, Epoch):
        count = field.objects - field.present + field.nulls
        return f"{field.name}, missing or null in {count:,} of {field.objects:,}" if count else None
    about_time = next((note for note in field.notes if "since 1970" in note or "times " in note), None)
    return f"{field.name}: {about_time}" if about_time else None


def _inside(fields: Sequence[Field], has_paths: bool, path: str = "") -> Iterator[str]:
    """The times inside of objects, which cannot be the event time because they are not fields of the event."""
    for field in fields:
        if path and any("since 1970" in note or "times with" in note for note in field.notes):
            column = f": a column for it is {_column(field, path)}" if has_paths else ""
            yield f"{path}{field.name}, inside of an object{column}"
        if isinstance(field.type, Struct):
            yield from _inside(field.type.fields, has_paths, f"{path}{field.name}.")


def _column(field: Field, path: str) -> str:
    """The declaration of a column for a time inside of an object."""
    unit = next((unit for unit in Unit if any(note.startswith(f"{unit.label} since") for note in field.notes)), None)
    return f'Annotated[{unit.declared if unit else "Instant"}, Path("{path}{field.name}")]'


def _candidate(field: Field, events: Sequence[Event]) -> Candidate:
    moments = [_microseconds(event.fields[field.name], field) for event in events]
    ages = [
        event.record.stamp * 1000 - moment
        for event, moment in zip(events, moments, strict=True)
        if event.record.stamp is not None
    ]
    return Candidate(field, ages, min(moments), max(moments))


def _microseconds(value: Any, field: Field) -> int:
    if isinstance(field.type, Epoch):
        return field.type.unit.microseconds(int(value) if isinstance(value, str) else value)
    if field.type == DATE:
        day = value if isinstance(value, date) else date.fromisoformat(value)
        return times.microseconds(datetime(day.year, day.month, day.day, tzinfo=UTC))
    found = value if isinstance(value, datetime) else times.moment(value)
    assert found is not None
    return times.microseconds(found)


def _relative(microseconds: int) -> str:
    """A duration in one unit, such as ``3.5 hours older``."""
    seconds = abs(microseconds) / 10**6
    if seconds < 0.0005:
        return "equal"
    unit, size = next(((unit, size) for unit, size in _SIZES if seconds >= size), ("ms", 0.001))
    number = f"{seconds / size:,.1f}".removesuffix(".0")
    plural = "" if number == "1" or unit == "ms" else "s"
    return f"{number} {unit}{plural} {'older' if microseconds > 0 else 'newer'}"
