"""The definition of a stream: its topic, the type of its events, and the partitions of its table."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from dataclasses import fields as dataclass_fields
from datetime import UTC, datetime, timedelta
from functools import cached_property
from random import Random
from typing import Any

import msgspec

from include.definitions import InvalidDefinition
from include.durations import NOTATION, duration_field
from include.kafka.topic_choice import Pattern, TopicChoice
from include.notifiers import Notifiers, check_notify
from include.schemas.schema import Format
from include.streams.change_events import DEBEZIUM, DELETION, Changes, Source, check_row
from include.streams.connect_types import (
    ConnectDate,
    ConnectDecimal,
    ConnectTime,
    ConnectTimestamp,
    JsonText,
    MicroTime,
    MicroTimestamp,
    NanoTime,
    NanoTimestamp,
    VariableDecimal,
)
from include.streams.field import DATE, MAX_BYTES, MAX_FIELDS, TIMESTAMP, Field, fields_of, least_bytes, undecodable
from include.streams.indexes import check_indexes
from include.streams.keys import Deletion, check_current, deletion_of, names_of
from include.streams.masks import KeyedHash, LastCharacters, Mask, Null, check_masks
from include.streams.parts import (
    JSON_TIME,
    PLAIN,
    Header,
    Json,
    Key,
    PartField,
    Path,
    RecordTimestamp,
    Value,
    check_parts,
    json_struct,
    parts_of,
    value_struct,
)
from include.streams.paths import paths_of_key, paths_of_value
from include.streams.period import Period, length_field, period_field
from include.streams.times import (
    MIDNIGHT,
    RECORD_TIMESTAMP,
    EpochMicros,
    EpochMillis,
    EpochNanos,
    EpochSeconds,
    Instant,
    Zone,
)

__all__ = [
    "RECORD_TIMESTAMP",
    "ConnectDate",
    "ConnectDecimal",
    "ConnectTime",
    "ConnectTimestamp",
    "EpochMicros",
    "EpochMillis",
    "EpochNanos",
    "EpochSeconds",
    "Header",
    "Instant",
    "Json",
    "JsonText",
    "Key",
    "KeyedHash",
    "LastCharacters",
    "MicroTime",
    "MicroTimestamp",
    "NanoTime",
    "NanoTimestamp",
    "Null",
    "Path",
    "Pattern",
    "RecordTimestamp",
    "Source",
    "Stream",
    "Value",
    "VariableDecimal",
    "Zone",
]

# Clients read times in the session's time zone, which is at most this far from UTC.
_MAX_ZONE = timedelta(hours=16)
CALENDAR = (datetime.min.replace(tzinfo=UTC) + _MAX_ZONE, datetime.max.replace(tzinfo=UTC) - _MAX_ZONE)
"""The first and the last time that is within the years 1 to 9999, which clients can read, in every time zone."""

# A partition's table is named <stream>_<YYYYMMDD>_<HHMM>, in PostgreSQL's 63 bytes.
MAX_NAME = 48
NAME_RULE = (
    f"Use a lower-case letter, then lower-case letters, digits and underscores, {MAX_NAME} characters at most. The "
    "name must not end in a date (_20260131) or _pkey, the suffixes of partitions and their indexes."
)
RESERVED_PREFIX = "kafka_"
REGISTRY = "millrace_registry"
"""The connection to the schema registry, if a definition names no other."""
KAFKA_TOPIC = "kafka_topic"
"""The column with the topic of a record, in the table of a stream that reads several."""
_TOPIC = Field(KAFKA_TOPIC, "text", False, "The topic of the record")
_RECORD_TIME = Field(RECORD_TIMESTAMP, TIMESTAMP, False, "The record's timestamp in Kafka")
# PostgreSQL's documentation, "System Columns".
SYSTEM_COLUMNS = frozenset({"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"})
MAX_COLUMN_BYTES = 63
MAX_COUNT = {"kafka_partitions": 10_000, "drains": 1_000}
FOREVER, ANY = "forever", "any"
# What a field with a duration may be instead.
_UNLIMITED = {"keep_dead_letters": FOREVER, "late": ANY, "fresh": None}
# With these limits, no sum of a time and a duration exceeds the year 9999.
_MAX_DURATION = {
    "keep": timedelta(days=500_000),
    "keep_dead_letters": timedelta(days=365_000),
    "late": timedelta(days=365_000),
    "early": timedelta(days=365_000),
    "window": timedelta(days=365),
    "quiet": timedelta(days=365),
    "fresh": timedelta(days=365),
}


@dataclass(frozen=True)
class Stream:
    """A topic of events, and the partitioned table ``landing.<name>`` where each event lands exactly once.

    Durations are a number and a unit, such as ``90 seconds`` or ``7 days``.

    Args:
        name: The name of the table, of the DAG ``land__<name>`` and, by default, of the Kafka topic.
        event: The struct that decodes and validates events. Its fields are the table's columns. ``Json`` lands the
            whole value as jsonb.
        event_time: The field by which the table is partitioned, a time or a date that is never null; or
            ``RECORD_TIMESTAMP``. A date becomes the moment at which it begins in UTC.
        partition: The time that one partition of the table spans, in UTC: a duration, months or years.
        keep: How long a partition is kept after its end: a duration, months or years; ``forever`` drops none.
        late: An event that is older than its record in Kafka by more than this is quarantined; ``any`` sets no limit.
        early: An event that is newer than its record in Kafka by more than this is quarantined.
        topic: The Kafka topic, if it has another name. If there are several, the text of ``topic_choice``.
        topics: Several topics, as a tuple of their names or a ``Pattern``, instead of one. The table has the column
            ``kafka_topic``, and a topic that is created later is read from its beginning.
        format: How the topic encodes events: ``json``, ``avro``, ``protobuf`` or ``json-schema``. In all but the first,
            each record names its schema, which a schema registry has.
        key_format: How the topic encodes the Kafka keys that fields come from: ``plain`` for text or JSON, or ``avro``,
            ``protobuf`` or ``json-schema`` with a schema registry.
        registry: The Airflow connection to the schema registry; empty for ``millrace_registry``.
        envelope: ``debezium`` if the values are Debezium's change events, and ``event`` is a row of their table.
        where: A function that an event is given to; events for which it returns False do not land, and are counted as
            filtered. None lands all.
        key: The field, or the fields, that identify what an event is about. ``current`` has one row for each key, and
            ``./millrace produce`` sends it as the Kafka key: the text of one field, or several as a JSON object.
        current: Whether to keep the current state: ``landing.<name>_current`` has the last event of each key.
        order_by: The field that orders the events of a key, a time or a whole number. None orders them by their
            offsets, and requires that all events of a key are in one partition of the topic.
        deletes: Which records delete their key from the current state: ``tombstone``, the name of a boolean field, or a
            field with values, such as ``("op", "d")``. None deletes no key.
        indexes: The indexes of the table: for each the field, or a tuple of fields.
        brin: Whether the event time has a BRIN index, which is small and finds ranges of time within a partition.
        storage: Storage parameters of PostgreSQL for new partitions, such as ``{"fillfactor": 90}``.
        mask: What is stored of fields instead of their values, by the paths of the fields, such as
            ``{"email": KeyedHash(), "card": LastCharacters(4), "customer.ssn": Null}``. Nothing else is stored of the
            bytes of records that do not land.
        keep_dead_letters: For how long the bytes of dead letters and quarantined records are kept; ``forever`` keeps
            them until they land.
        kafka_partitions: The number of partitions with which Millrace creates the topic.
        drains: How many tasks share the topic's partitions.
        window: How long a run drains before the next run takes over.
        quiet: A run ends early if no event arrives for this long.
        simulate: A generator function that yields events for ``./millrace produce``, without end.
        fresh: No record that waits in the topic may be older than this; None expects nothing.
        max_dead_letters: At most this many records may have become dead letters or been quarantined within a day and
            still be stored; None expects nothing.
        notify: Notifiers of Airflow, or a function that returns them. They are notified when an expectation fails, when
            the stream stops, and when that is over.

    Raises:
        InvalidDefinition: A field has an invalid value; names the field and the fix.
    """

    name: str
    event: type[msgspec.Struct]
    event_time: str
    partition: str = "1 day"
    keep: str = "90 days"
    late: str = "7 days"
    early: str = "1 hour"
    topic: str = ""
    topics: tuple[str, ...] | Pattern | None = None
    format: Format | str = Format.JSON
    key_format: Format | str = PLAIN
    registry: str = ""
    envelope: str | None = None
    where: Callable[[Any], bool] | None = None
    key: str | tuple[str, ...] | None = None
    current: bool = False
    order_by: str | None = None
    deletes: str | tuple[str | int | bool, ...] | None = None
    indexes: tuple[str | tuple[str, ...], ...] = ()
    brin: bool = False
    storage: Mapping[str, str | int | float | bool] = dataclasses.field(default_factory=dict, hash=False)
    mask: Mapping[str, Mask] = dataclasses.field(default_factory=dict, hash=False)
    keep_dead_letters: str = FOREVER
    kafka_partitions: int = 4
    drains: int = 1
    window: str = "5 minutes"
    quiet: str = "15 seconds"
    simulate: Callable[[Random], Iterator[Any]] | None = None
    fresh: str | None = None
    max_dead_letters: int | None = None
    notify: Notifiers = ()

    def __post_init__(self) -> None:
        self._expand_json()
        if not usable(self.name):
            raise InvalidDefinition("name", f"{self.name!r} is not a valid name for a stream.", NAME_RULE)
        self._check_topics()
        self._check_format()
        self._check_envelope()
        self._check_event()
        self._check_event_time()
        self._check_durations()
        self._check_counts()
        check_current(self)
        check_parts(self)
        check_masks(self)
        if self.where is not None and not callable(self.where):
            raise InvalidDefinition(
                "where",
                f"{self.where!r} is not a function.",
                'Write a function of an event, such as lambda event: event.country == "DE", or omit the field.',
            )
        check_indexes(self)
        if self.simulate is not None and not callable(self.simulate):
            raise InvalidDefinition(
                "simulate", f"{self.simulate!r} is not a function.", "Write a generator function, or None."
            )
        self._check_expectations()

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The event's fields, each a column of the table; of change events also what is known of the change."""
        return tuple(map(self._as_column, fields_of(self.event) if self.changes is None else self.changes.fields))

    def _as_column(self, field: Field) -> Field:
        """The field; as a moment if it is the event time and a date."""
        is_day = field.name == self.event_time and field.sql == DATE
        return replace(field, sql=TIMESTAMP, notation=MIDNIGHT) if is_day else field

    @cached_property
    def changes(self) -> Changes | None:
        """How change events are decoded; None for other events."""
        if self.envelope is None:
            return None
        return Changes(self.event, self.keys if self.current else ())

    @cached_property
    def parts(self) -> tuple[PartField, ...]:
        """The event's fields that do not come from the record's value."""
        return parts_of(self.event)

    @cached_property
    def value_event(self) -> type[msgspec.Struct]:
        """What a value is decoded to: the event without these fields, or the envelope that it is in."""
        if self.changes is None:
            return value_struct(self.event, self.parts)
        return self.changes.value if self.format == Format.JSON else self.changes.event

    def __getstate__(self) -> dict[str, Any]:
        """Without what is derived from the fields: no module has the structs that were made."""
        return {field.name: getattr(self, field.name) for field in dataclass_fields(self)}

    @cached_property
    def record_fields(self) -> tuple[Field, ...]:
        """What a row has of the record in Kafka besides its coordinates, each a column of the table."""
        time = (_RECORD_TIME,) if self.has_record_time else ()
        return time if self.topics is None else (*time, _TOPIC)

    @cached_property
    def topic_choice(self) -> TopicChoice:
        """The topics that the stream reads."""
        if isinstance(self.topics, Pattern):
            return TopicChoice((), self.topics.expression)
        return TopicChoice((self.topic,) if self.topics is None else tuple(self.topics))

    @property
    def keys(self) -> tuple[str, ...]:
        """The fields of ``key``, in their order."""
        return names_of(self.key)

    @property
    def deletion(self) -> Deletion | None:
        """The field of ``deletes`` with its values; None if no field deletes."""
        return deletion_of(self.deletes)

    @property
    def reader(self) -> str:
        """The name of the stream's reader in ``millrace.position``."""
        return f"landing:{self.name}"

    @property
    def has_record_time(self) -> bool:
        """Whether the table is partitioned by the timestamps of records, and not by a field of the event."""
        return self.event_time == RECORD_TIMESTAMP

    @cached_property
    def period(self) -> Period:
        """``partition`` as a period."""
        return period_field("partition", self.partition)

    @cached_property
    def kept(self) -> Period | None:
        """``keep`` as a period; None for ``forever``."""
        if self.keep == FOREVER:
            return None
        return length_field("keep", self.keep, f'{NOTATION} Or write months, years or "{FOREVER}".')

    @property
    def retention(self) -> timedelta | None:
        """The longest time that ``keep`` can be; None for ``forever``."""
        return None if self.kept is None else self.kept.longest

    @property
    def letter_retention(self) -> timedelta | None:
        """``keep_dead_letters`` as a duration; None for ``forever``."""
        return self._duration("keep_dead_letters")

    @property
    def lateness(self) -> timedelta | None:
        """``late`` as a duration; None for ``any``."""
        return self._duration("late")

    @property
    def earliness(self) -> timedelta:
        """``early`` as a duration."""
        return duration_field("early", self.early)

    @property
    def window_s(self) -> float:
        """``window`` in seconds."""
        return duration_field("window", self.window).total_seconds()

    @property
    def quiet_s(self) -> float:
        """``quiet`` in seconds."""
        return duration_field("quiet", self.quiet).total_seconds()

    @property
    def freshness(self) -> timedelta | None:
        """``fresh`` as a duration."""
        return self._duration("fresh")

    def of_topic(self, topic: str) -> Stream:
        """The same stream, if it read only this topic."""
        return replace(self, topic=topic, topics=None)

    @property
    def subject(self) -> str:
        """The registry's name for the schemas of the topic's values."""
        return f"{self.topic}-value"

    @property
    def key_subject(self) -> str:
        """The registry's name for the schemas of the topic's keys."""
        return f"{self.topic}-key"

    @property
    def is_json(self) -> bool:
        """Whether the whole value is a column, and no field of it is decoded by its name."""
        return not self.value_event.__struct_fields__ and any(part.part == Value for part in self.parts)

    def _expand_json(self) -> None:
        """Replaces ``event=Json`` by the struct that it stands for."""
        if self.event is not Json:
            if isinstance(self.event_time, Path):
                raise InvalidDefinition(
                    "event_time",
                    "a path is only possible with event=Json.",
                    f'Declare a field of the event, such as ts: Annotated[Instant, Path("{self.event_time}")].',
                )
            return
        if not isinstance(self.event_time, str) or not self.event_time:
            raise InvalidDefinition(
                "event_time",
                f"{self.event_time!r} is not a path.",
                'Write Path("payload.created", EpochMillis), "payload.created" for a text with a zone, or '
                "RECORD_TIMESTAMP.",
            )
        object.__setattr__(self, "event", json_struct(self.event_time, exact=not self.mask))
        if self.event_time != RECORD_TIMESTAMP:
            object.__setattr__(self, "event_time", JSON_TIME)

    def _duration(self, field: str) -> timedelta | None:
        """The duration in a field; None if the field sets no limit."""
        text, word = getattr(self, field), _UNLIMITED.get(field)
        if field in _UNLIMITED and text == word:
            return None
        return duration_field(field, text, f'{NOTATION} Or write "{word}".' if word else NOTATION)

    def _names(self) -> str:
        return ", ".join(self.event.__struct_fields__)

    def _check_topics(self) -> None:
        if self.topics is None:
            object.__setattr__(self, "topic", self.topic or self.name)
            _check_topic(
                "topic", self.topic, 'To read several topics, write topics=("a", "b") or topics=Pattern("a.*").'
            )
            return
        if isinstance(self.topics, Pattern):
            _check_pattern(self.topics)
        else:
            _check_names(self.topics)
        if self.topic not in ("", str(self.topic_choice)):
            raise InvalidDefinition("topic", "topics names the topics already.", "Omit one of both.")
        object.__setattr__(self, "topic", str(self.topic_choice))
        if self.current and self.order_by is None:
            raise InvalidDefinition(
                "order_by",
                "offsets do not say which record of two topics is newer, and a key may be in both.",
                f'Name the field that orders the events of a key, such as order_by="{self.event_time}".',
            )

    def _check_format(self) -> None:
        known = [each.value for each in Format]
        if self.format not in known:
            raise InvalidDefinition(
                "format", f"{self.format!r} is not a format.", f"Use one of {', '.join(map(repr, known))}."
            )
        object.__setattr__(self, "format", Format(self.format))
        if not isinstance(self.registry, str):
            raise InvalidDefinition(
                "registry", f"{self.registry!r} is not the name of a connection.", f'Write "{REGISTRY}".'
            )
        if self.format == Format.JSON and self.key_format == PLAIN and self.registry:
            raise InvalidDefinition(
                "registry",
                "events of the format 'json' need no schema registry.",
                'Omit it, or write format="avro", "protobuf" or "json-schema".',
            )
        if self.format != Format.JSON or self.key_format != PLAIN:
            object.__setattr__(self, "registry", self.registry or REGISTRY)

    def _check_envelope(self) -> None:
        if self.envelope is None:
            return
        if self.envelope != DEBEZIUM:
            raise InvalidDefinition(
                "envelope", f"{self.envelope!r} is not an envelope.", f'Write "{DEBEZIUM}", or None.'
            )
        if self.current and self.where is not None:
            raise InvalidDefinition(
                "where",
                "a row that is deleted, or that leaves the selection by an update, would stay in the current state: a "
                "delete may have only the key, and where would filter both changes.",
                f"Omit where, and create a view of landing.{self.name}_current with the condition; or set "
                "current=False.",
            )
        if self.current and self.deletes is None:
            object.__setattr__(self, "deletes", DELETION)

    def _check_counts(self) -> None:
        for name, limit in MAX_COUNT.items():
            count = getattr(self, name)
            if not isinstance(count, int) or isinstance(count, bool):
                raise InvalidDefinition(name, f"{count!r} is not a whole number.", f"Write 1 to {limit:,}.")
            if not 1 <= count <= limit:
                raise InvalidDefinition(
                    name, f"{count:,} is too {'small' if count < 1 else 'large'}.", f"Write 1 to {limit:,}."
                )

    def _check_expectations(self) -> None:
        most = self.max_dead_letters
        if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 0):
            raise InvalidDefinition(
                "max_dead_letters", f"{most!r} is not a number of records.", "Write 0 or more, or omit the field."
            )
        check_notify(self.notify)

    def _check_event(self) -> None:
        if not (isinstance(self.event, type) and issubclass(self.event, msgspec.Struct)):
            raise InvalidDefinition(
                "event", f"{self.event!r} is not a msgspec.Struct.", "Write class YourEvent(msgspec.Struct): …"
            )
        try:
            msgspec.json.Decoder(self.event)
            if self.envelope is not None:
                check_row(self.event, self.keys)
                for part in self.parts:
                    raise InvalidDefinition(
                        f"event.{part.name}",
                        "a row of a table has no fields from Kafka keys, headers or timestamps.",
                        "Omit the field; Source names values of the change.",
                    )
                msgspec.json.Decoder(self.value_event)
            fields, foreign = self.fields, undecodable(self.event)
            msgspec.json.Decoder(self.value_event)
            paths_of_key(self.parts)
            paths_of_value(self.parts)
        except InvalidDefinition:
            raise
        except Exception as error:  # msgspec evaluates annotations, which are arbitrary code
            raise InvalidDefinition(
                "event",
                f"msgspec cannot decode {self.event.__name__}: {type(error).__name__}: {error}.",
                "Correct the types of its fields.",
            ) from error
        for field in fields:
            self._check_name(field.name)
            if field.name in foreign:
                raise InvalidDefinition(
                    f"event.{field.name}",
                    f"msgspec cannot decode JSON to {foreign[field.name]}.",
                    "Use a type that msgspec decodes from JSON, or Any.",
                )
            self._check_zone(field)
            if field.has_raw and self.format in (Format.AVRO, Format.PROTOBUF):
                raise InvalidDefinition(
                    f"event.{field.name}",
                    f"msgspec.Raw is undecoded JSON, and events of the format {str(self.format)!r} are not JSON.",
                    "Use Any.",
                )
        if len(fields) > (room := MAX_FIELDS - len(self.record_fields) - bool(self.current)):
            raise InvalidDefinition(
                "event",
                f"{self.event.__name__} has {len(fields):,} fields; a table has room for {room:,}.",
                "Move some of them into a nested struct, which becomes one column.",
            )
        if (size := least_bytes((*self.record_fields, *fields))) > MAX_BYTES:
            raise InvalidDefinition(
                "event",
                f"the fields of {self.event.__name__} that are never null take {size:,} bytes; a row has room for "
                f"{MAX_BYTES:,}.",
                "Move some of them into a nested struct, which becomes one column.",
            )

    def _check_zone(self, field: Field) -> None:
        local = 'Annotated[datetime, Zone("Europe/Berlin")]'
        if field.is_naive:
            raise InvalidDefinition(
                f"event.{field.name}",
                "the type allows times without a time zone.",
                f"Declare it as Instant. If its times have no zone, name the zone: {local}.",
            )
        if field.has_zone_without_effect:
            raise InvalidDefinition(
                f"event.{field.name}",
                "Zone has no effect on this type, which takes no times without a time zone.",
                f"Write {local}, or omit the zone.",
            )

    def _check_name(self, name: str) -> None:
        remedy = 'Rename the field; msgspec.field(name="…") keeps the name in the JSON.'
        if name.startswith(RESERVED_PREFIX):
            raise InvalidDefinition(
                f"event.{name}",
                f"names with {RESERVED_PREFIX!r} are reserved for the columns with a row's partition and offset.",
                remedy,
            )
        if name in SYSTEM_COLUMNS:
            raise InvalidDefinition(
                f"event.{name}", "every table of PostgreSQL has a system column of this name.", remedy
            )
        if (size := len(name.encode())) > MAX_COLUMN_BYTES:
            raise InvalidDefinition(
                f"event.{name}",
                f"the name has {size} bytes, more than the {MAX_COLUMN_BYTES} that a column's name can have.",
                remedy,
            )

    def _check_event_time(self) -> None:
        if self.has_record_time:
            return
        field = next((field for field in self.fields if field.name == self.event_time), None)
        if field is None:
            raise InvalidDefinition(
                "event_time",
                f"the event has no field {self.event_time!r}.",
                f"Name one of {self._names()}; or write RECORD_TIMESTAMP if events have no time.",
            )
        if field.sql != TIMESTAMP or field.nullable:
            raise InvalidDefinition(
                "event_time",
                f"the field {self.event_time!r} is not always a time with a time zone.",
                f"Declare it as {self.event_time}: Instant. If the topic has numbers, as EpochSeconds, EpochMillis, "
                "EpochMicros or EpochNanos. If it has dates, as date.",
            )

    def _check_durations(self) -> None:
        for field, longest in _MAX_DURATION.items():
            duration = self.retention if field == "keep" else self._duration(field)
            if duration is not None and duration > longest:
                raise InvalidDefinition(
                    field,
                    f"{getattr(self, field)!r} is longer than {longest.days:,} days.",
                    f'Write "{longest.days} days" or less.',
                )
        longest, late = self.period.longest, self.lateness
        if self.kept is None:
            return
        if late is None:
            raise InvalidDefinition(
                "keep",
                f"{self.keep!r} limits the age of rows, and late={ANY!r} does not, so that new rows would be dropped.",
                f'Write "{FOREVER}", or set late to a duration.',
            )
        if self.kept.shortest < late + longest:
            raise InvalidDefinition(
                "keep",
                f"{self.keep!r} is shorter than late and partition together, so that new rows would be dropped.",
                f'Write at least "{(late + longest) // timedelta(days=1) + 1} days".',
            )


def _check_topic(field: str, name: object, remedy: str) -> None:
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", name) or name in (".", ".."):
        raise InvalidDefinition(
            field,
            f"{name!r} is not a valid name for a Kafka topic.",
            f"Use up to 249 letters, digits, '.', '_' and '-'. {remedy}",
        )


def _check_names(names: object) -> None:
    if not isinstance(names, tuple) or not names:
        raise InvalidDefinition(
            "topics", f"{names!r} is not a tuple of topics or a Pattern.", 'Write ("a", "b") or Pattern("a.*").'
        )
    for name in names:
        _check_topic("topics", name, 'For a regular expression, write topics=Pattern("a.*").')
    if len(set(names)) < len(names):
        raise InvalidDefinition("topics", "it names a topic twice.", "Name each topic once.")


def _check_pattern(pattern: Pattern) -> None:
    try:
        re.compile(pattern.expression)
    except (re.error, TypeError) as error:
        raise InvalidDefinition(
            "topics",
            f"{pattern.expression!r} is not a regular expression: {error}.",
            'Write one that matches whole names, such as Pattern(r"orders\\..*").',
        ) from error


def usable(name: object) -> bool:
    """Whether a table, a DAG and a file can have this name, and no partition or index of another stream can."""
    return (
        isinstance(name, str)
        and re.fullmatch(r"[a-z][a-z0-9_]*", name) is not None
        and len(name) <= MAX_NAME
        and re.search(r"_(\d{8}(_\d{4})?|pkey\d*)$", name) is None
    )
