"""The profile of a sample: everything that the definition of a stream needs to know about its topic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from include.error_codes import Code
from include.errors import UserError
from include.schemas.schema import Format
from include.streams.field import MAX_FIELDS
from include.streams.profiling import changes
from include.streams.profiling.envelope import (
    ARRAYS,
    LINES,
    NUMBERS,
    SEVERAL,
    STRING_OF_JSON,
    TEXT,
    Contents,
    Envelope,
    contents,
    envelope,
)
from include.streams.profiling.event_time import EventTime, event_time
from include.streams.profiling.event_types import EventTypes, event_types
from include.streams.profiling.key import Key, headers, key
from include.streams.profiling.record import Record
from include.streams.profiling.schema import Decoded
from include.streams.profiling.types import STR, Choice, Field, Seen, fields_of

_BEFORE_KEY = ("record_", *(f"record_{number}_" for number in range(2, MAX_FIELDS)))
_AS_JSON = "A definition with event=Json lands any JSON as jsonb (docs/streams.md)."
_REMEDIES = {
    TEXT: 'Let the producer send each text as a field of a JSON object, such as {"text": "…"}.',
    LINES: 'Let the producer send each line as a JSON object with the names of its fields, such as {"id": 17}.',
    NUMBERS: f'{_AS_JSON} Or let the producer send each value as a field of a JSON object, such as {{"value": 17}}.',
    ARRAYS: "If each position has a meaning, write the definition yourself (./millrace new stream NAME), with a struct "
    "whose fields are the positions: class Event(msgspec.Struct, array_like=True). Otherwise let the producer send "
    f"each item as an object. {_AS_JSON}",
    STRING_OF_JSON: "The producer serializes each event twice. Let it send the bytes of the JSON object itself; in "
    f"Kafka's clients, use a serializer of bytes or strings for a text that is JSON already. {_AS_JSON}",
    SEVERAL: "Let the producer send one record for each.",
}


@dataclass(frozen=True)
class Profile:
    """What a sample of a topic shows.

    Attributes:
        topic: The topic's name.
        records: The number of records in the sample.
        events: The number of records that are events.
        tombstones: The number of records without a value.
        others: The number of other records by what they are; they cannot land.
        examples: The partition and offset of the first of each.
        envelope: What surrounds the events.
        fields: The fields of the events.
        time: The event time.
        key: The Kafka keys.
        types: The types of the events, if there are several.
        decoded: The records that name schemas of a registry, if the events do.
        row_key: If the events are changes of rows: the columns of the key of the current state, none without one.
        are_rows: Whether the fields are the columns of a table, of which the events are changes.
        headers: A sentence about the headers of the records; empty without any.
    """

    topic: str
    records: int
    events: int
    tombstones: int
    others: Mapping[str, int]
    examples: Mapping[str, str]
    envelope: Envelope
    fields: Sequence[Field]
    time: EventTime
    key: Key
    types: EventTypes | None
    decoded: Decoded | None = None
    row_key: tuple[str, ...] = ()
    are_rows: bool = False
    headers: str = ""


def profile(
    topic: str, records: Sequence[Record], decoded: Decoded | None = None, key_format: Format | None = None
) -> Profile:
    """Describes the records of a sample.

    Args:
        topic: The topic's name.
        decoded: The records that name schemas of a registry, if most of them do.
        key_format: How the keys are encoded, if they name schemas of a registry.

    Raises:
        UserError: The topic is empty, or its records are neither JSON objects nor decoded.
    """
    found = contents(records, decoded)
    _require_events(topic, len(records), found)
    surrounding = envelope(found.events)
    if surrounding.is_change and (rows := changes.rows(found.events, decoded)) is not None:
        return _of_rows(topic, len(records), found, surrounding, rows, decoded)
    seen = [Seen(event.fields, event.record.stamp) for event in found.events]
    fields = fields_of(seen) if decoded is None else decoded.fields_in(seen)
    if len(fields) > MAX_FIELDS:
        raise UserError(
            f"The {len(found.events):,} events of the sample of topic {topic!r} have {len(fields):,} different fields; "
            f"a table has room for {MAX_FIELDS:,}.",
            "Let the producer send an object whose names are data inside a field.",
            code=Code.RECORDS_UNSUPPORTED,
        )
    keys = key(found.events, key_format)
    types = event_types(found.events) if surrounding is Envelope.NONE and decoded is None else None
    open_ended = {keys.field, types.field if types else None}
    fields = tuple(_adapted(field, open_ended) for field in fields)
    if surrounding.has_schema:
        fields = tuple(field for field in fields if field.name == "payload")
    time = event_time(fields, found.events, has_paths=decoded is None)
    fields = tuple(_always(field) if field.name == time.field and field.optional else field for field in fields)
    if keys.column is not None:
        fields = (_key_column(keys, fields, len(found.events)), *fields)
    return Profile(
        topic,
        len(records),
        len(found.events),
        found.tombstones,
        found.others,
        found.examples,
        surrounding,
        fields,
        time,
        keys,
        types,
        decoded,
        headers=headers(found.events),
    )


def _key_column(keys: Key, fields: Sequence[Field], events: int) -> Field:
    """The field of the Kafka key, with a name that no other field has."""
    taken = {field.name.lower() for field in fields}
    name = next(name for name in (f"{before}key" for before in ("", *_BEFORE_KEY)) if name not in taken)
    assert keys.column is not None
    return Field(name, keys.column, events, events - keys.missing, 0)


def _always(field: Field) -> Field:
    """The event time, which is never null, whatever its schema allows."""
    note = "the schema allows records without it, which become dead letters"
    return replace(field, optional=False, notes=(*field.notes, note))


def _of_rows(
    topic: str, records: int, found: Contents, surrounding: Envelope, rows: changes.Rows, decoded: Decoded | None
) -> Profile:
    """The profile of change events: the fields are the columns of the table."""
    return Profile(
        topic,
        records,
        len(found.events),
        found.tombstones,
        found.others,
        found.examples,
        surrounding,
        rows.fields,
        rows.time,
        changes.key(rows),
        None,
        decoded,
        row_key=rows.key,
        are_rows=True,
    )


def _adapted(field: Field, open_ended: set[str | None]) -> Field:
    """The field, where the key or the types of events show more about it than its values.

    Args:
        open_ended: The fields that will have other values, too: the key, and the types of events.
    """
    if isinstance(field.type, Choice) and field.name in open_ended:
        return replace(field, type=STR)
    return field


def _require_events(topic: str, records: int, found: Contents) -> None:
    if not records:
        raise UserError(
            f"The topic {topic!r} has no records to write a definition from.",
            "Start its producer, or run ./millrace new stream without --from-topic and write the fields yourself.",
            code=Code.TOPIC_EMPTY,
        )
    if found.tombstones == records:
        raise UserError(
            f"The {records:,} records of the sample of topic {topic!r} have no values: all are tombstones.",
            "Start its producer, or take a larger sample with --sample.",
            code=Code.TOPIC_EMPTY,
        )
    if len(found.events) * 2 < records - found.tombstones:
        counts = {**({"JSON objects": len(found.events)} if found.events else {}), **found.others}
        listed = ", ".join(f"{kind} ({count:,})" for kind, count in counts.items())
        example = next(iter(found.examples.values()))
        raise UserError(
            f"The values of topic {topic!r} are not JSON objects but {listed}, such as the record {example}. "
            "Millrace cannot land them.",
            _remedy(next(iter(found.others))),
            code=Code.RECORDS_UNSUPPORTED,
        )


def _remedy(kind: str) -> str:
    """What to do about a topic whose values are not events."""
    found = next((remedy for beginning, remedy in _REMEDIES.items() if kind.startswith(beginning)), "")
    return found or "Send each event as one JSON object, encoded in UTF-8."
