"""What a stream is: the topic its events come from, what an event looks like, and how long its table keeps them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from random import Random
from typing import Annotated, Any

import msgspec

from include.definitions import InvalidDefinition
from include.durations import of_field
from include.streams.field import MAX_BYTES, MAX_FIELDS, TIMESTAMP, Field, fields_of, least_bytes, undecodable

Instant = Annotated[datetime, msgspec.Meta(tz=True)]
"""A moment: a datetime that always carries its time zone."""

# A session's time zone is at most so far from UTC, and clients read times in it.
_ZONE = timedelta(hours=16)
CALENDAR = (datetime.min.replace(tzinfo=UTC) + _ZONE, datetime.max.replace(tzinfo=UTC) - _ZONE)
"""The first and the last time that lies within the years 1 to 9999, which clients can read, in every time zone."""

# A partition's table is named <stream>_<YYYYMMDD>_<HHMM>, in PostgreSQL's 63 bytes.
MAX_NAME = 48
NAME_RULE = (
    f"Use lower-case letters, digits and _, a letter first, {MAX_NAME} characters at most, and not "
    "a day at the end (_20260131), as partitions have it, nor _pkey, as their indexes have it."
)
RESERVED_PREFIX = "kafka_"
# PostgreSQL's documentation, "System Columns".
SYSTEM_COLUMNS = frozenset({"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"})
MAX_COLUMN_BYTES = 63
MAX_COUNT = {"kafka_partitions": 10_000, "drains": 1_000}
# Times between which no sum leaves the calendar, which ends with the year 9999.
_MAX_DURATION = {
    "partition": timedelta(days=36_500),
    "keep": timedelta(days=500_000),
    "late": timedelta(days=365_000),
    "early": timedelta(days=365_000),
    "window": timedelta(days=365),
    "quiet": timedelta(days=365),
}


@dataclass(frozen=True)
class Stream:
    """A topic of JSON events and the partitioned table ``landing.<name>`` that they land in, each exactly once.

    Args:
        name: Names the table, the DAG ``land__<name>`` and, unless ``topic`` says otherwise, the Kafka topic.
        event: The decoder, the validation, and the table's columns with their comments.
        event_time: The field, of type ``Instant``, by which the table is partitioned.
        partition: The span of one partition of the table, in UTC.
        keep: For how long after its end a partition is kept.
        late: An event older than its record in Kafka by more than this is quarantined.
        early: An event that claims to be newer than its record by more than this is quarantined.
        topic: The Kafka topic, when its name differs.
        key: The field whose value becomes the Kafka key when events are produced here; None sends no key.
        kafka_partitions: Partitions of the topic when it is made here.
        drains: How many tasks share the topic's partitions.
        window: The longest time one run drains before the next takes over.
        quiet: A run ends early when nothing came for so long.
        simulate: Makes events for ``./millrace produce``, endlessly.

    Raises:
        InvalidDefinition: A field says something that cannot be; names the field and the fix.
    """

    name: str
    event: type[msgspec.Struct]
    event_time: str
    partition: str = "1 day"
    keep: str = "90 days"
    late: str = "7 days"
    early: str = "1 hour"
    topic: str = ""
    key: str | None = None
    kafka_partitions: int = 4
    drains: int = 1
    window: str = "5 minutes"
    quiet: str = "15 seconds"
    simulate: Callable[[Random], Iterator[Any]] | None = None

    def __post_init__(self) -> None:
        if not usable(self.name):
            raise InvalidDefinition(
                "name",
                f"{self.name!r} cannot name a table and a DAG.",
                NAME_RULE,
            )
        object.__setattr__(self, "topic", self.topic or self.name)
        self._check_topic()
        self._check_event()
        self._check_event_time()
        self._check_spans()
        self._check_counts()
        if self.key is not None and self.key not in self.event.__struct_fields__:
            raise InvalidDefinition(
                "key", f"the event has no field {self.key!r}.", f"Write one of {self._names()}, or None."
            )
        if self.simulate is not None and not callable(self.simulate):
            raise InvalidDefinition(
                "simulate", f"{self.simulate!r} is not a function.", "Write a generator function, or None."
            )

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The event's fields, each a column of the table."""
        return fields_of(self.event)

    @property
    def reader(self) -> str:
        """Under which name the stream's positions stand in ``millrace.position``."""
        return f"landing:{self.name}"

    @property
    def width(self) -> timedelta:
        """``partition`` as a duration."""
        return of_field("partition", self.partition)

    @property
    def retention(self) -> timedelta:
        """``keep`` as a duration."""
        return of_field("keep", self.keep)

    @property
    def lateness(self) -> timedelta:
        """``late`` as a duration."""
        return of_field("late", self.late)

    @property
    def earliness(self) -> timedelta:
        """``early`` as a duration."""
        return of_field("early", self.early)

    @property
    def window_s(self) -> float:
        """``window`` in seconds."""
        return of_field("window", self.window).total_seconds()

    @property
    def quiet_s(self) -> float:
        """``quiet`` in seconds."""
        return of_field("quiet", self.quiet).total_seconds()

    def _names(self) -> str:
        return ", ".join(self.event.__struct_fields__)

    def _check_topic(self) -> None:
        if (
            not isinstance(self.topic, str)
            or not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", self.topic)
            or self.topic in (".", "..")
        ):
            raise InvalidDefinition(
                "topic",
                f"{self.topic!r} cannot be the name of a Kafka topic.",
                "Use letters, digits, ., _ and -, 249 characters at most; a stream reads one topic, not a pattern.",
            )

    def _check_counts(self) -> None:
        for name, most in MAX_COUNT.items():
            count = getattr(self, name)
            if not isinstance(count, int) or isinstance(count, bool):
                raise InvalidDefinition(name, f"{count!r} is not a whole number.", f"Write 1 to {most:,}.")
            if not 1 <= count <= most:
                raise InvalidDefinition(
                    name, f"{count:,} is too {'few' if count < 1 else 'many'}.", f"Write 1 to {most:,}."
                )

    def _check_event(self) -> None:
        if not (isinstance(self.event, type) and issubclass(self.event, msgspec.Struct)):
            raise InvalidDefinition(
                "event", f"{self.event!r} is not a msgspec.Struct.", "Write class YourEvent(msgspec.Struct): …"
            )
        try:
            msgspec.json.Decoder(self.event)
            fields, foreign = self.fields, undecodable(self.event)
        except Exception as error:  # annotations are code
            raise InvalidDefinition(
                "event",
                f"{self.event.__name__} cannot be decoded: {type(error).__name__}: {error}.",
                "Correct its types.",
            ) from error
        for field in fields:
            self._check_name(field.name)
            if field.name in foreign:
                raise InvalidDefinition(
                    f"event.{field.name}",
                    f"no JSON can be decoded to {foreign[field.name]}.",
                    "Declare a type that msgspec decodes from JSON, or Any.",
                )
            if field.is_naive:
                raise InvalidDefinition(
                    f"event.{field.name}", "a time without a time zone is ambiguous.", "Declare it as Instant."
                )
        if len(fields) > MAX_FIELDS:
            raise InvalidDefinition(
                "event",
                f"it has {len(fields):,} fields, and a table of PostgreSQL holds {MAX_FIELDS:,} of them.",
                "Put some of them into a nested struct, which becomes one column.",
            )
        if (size := least_bytes(fields)) > MAX_BYTES:
            raise InvalidDefinition(
                "event",
                f"its fields take {size:,} bytes in every row, and a row of PostgreSQL holds {MAX_BYTES:,}.",
                "Put some of them into a nested struct, which becomes one column.",
            )

    def _check_name(self, name: str) -> None:
        remedy = 'Name it otherwise; msgspec.field(name="…") keeps the name in the JSON.'
        if name.startswith(RESERVED_PREFIX):
            raise InvalidDefinition(
                f"event.{name}",
                f"names with {RESERVED_PREFIX!r} are for the columns that say where in Kafka a row comes from.",
                remedy,
            )
        if name in SYSTEM_COLUMNS:
            raise InvalidDefinition(f"event.{name}", "PostgreSQL has a column of that name in every table.", remedy)
        if (size := len(name.encode())) > MAX_COLUMN_BYTES:
            raise InvalidDefinition(
                f"event.{name}",
                f"the name takes {size} bytes, and PostgreSQL's columns {MAX_COLUMN_BYTES} at most.",
                remedy,
            )

    def _check_event_time(self) -> None:
        field = next((field for field in self.fields if field.name == self.event_time), None)
        if field is None:
            raise InvalidDefinition(
                "event_time", f"the event has no field {self.event_time!r}.", f"Write one of {self._names()}."
            )
        if field.sql != TIMESTAMP or field.nullable:
            raise InvalidDefinition(
                "event_time",
                f"{self.event_time!r} is not always a moment.",
                f"Declare it as {self.event_time}: Instant.",
            )

    def _check_spans(self) -> None:
        day = timedelta(days=1)
        for field, longest in _MAX_DURATION.items():
            if of_field(field, getattr(self, field)) > longest:
                raise InvalidDefinition(
                    field, f"{getattr(self, field)!r} is longer than can be.", f'Write "{longest.days} days" at most.'
                )
        if self.width < timedelta(hours=1) or (self.width % day and day % self.width):
            raise InvalidDefinition(
                "partition",
                f"{self.partition!r} does not divide the days evenly.",
                'Write whole days, or 1, 2, 3, 4, 6, 8 or 12 hours, such as "1 day".',
            )
        if self.retention < self.lateness + self.width:
            raise InvalidDefinition(
                "keep",
                f"{self.keep!r} is shorter than late and partition together, so that fresh rows would be dropped.",
                f'Write at least "{(self.lateness + self.width) // day + 1} days".',
            )


def usable(name: object) -> bool:
    """Whether a table, a DAG and a file can have this name, and no partition or index of another stream has it."""
    return (
        isinstance(name, str)
        and re.fullmatch(r"[a-z][a-z0-9_]*", name) is not None
        and len(name) <= MAX_NAME
        and re.search(r"_(\d{8}(_\d{4})?|pkey\d*)$", name) is None
    )
