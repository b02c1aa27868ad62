"""The Kafka keys of a sample: whether they repeat a field of the event, and what they are otherwise."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec

from include.schemas.schema import Format
from include.streams.profiling.envelope import Event
from include.streams.profiling.types import ANY, BYTES, STR, OfKey, quoted
from include.streams.profiling.types import UUID as UUID_TYPE

_SCHEMA_HEADERS = ("__value_schema_id", "__key_schema_id")
_LISTED = 8
_UUID = re.compile(r"[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")


@dataclass(frozen=True)
class Key:
    """The Kafka keys of a sample.

    Attributes:
        field: The field's name in the JSON that every key equals; None if there is none.
        note: What the keys are.
        column: The type of a column for the keys, if they equal no field.
        missing: The number of events without a key.
        format: How the keys are encoded, if they name schemas of a registry.
    """

    field: str | None
    note: str
    column: OfKey | None = None
    missing: int = 0
    format: Format | None = None


def key(events: Sequence[Event], format: Format | None = None) -> Key:
    """Describes the keys, and finds the field that they equal.

    Args:
        format: How the keys are encoded, if they name schemas of a registry.
    """
    keyed = [(event.record.key, event.fields) for event in events if event.record.key is not None]
    if not keyed:
        return Key(None, "No record has a Kafka key.")
    share = f"in {len(keyed):,} of {len(events):,} records" if len(keyed) < len(events) else "in every record"
    equal = {
        name: _distinct(keyed, name) for name in keyed[0][1] if all(_equals(key, each, name) for key, each in keyed)
    }
    if equal:
        field = max(equal, key=lambda name: equal[name])
        return Key(field, f"The Kafka key equals {field} {share}.")
    missing = len(events) - len(keyed)
    if format is not None:
        note = f"The Kafka keys, {share}, name schemas: they are {format}, and land in a column."
        return Key(None, note, OfKey(ANY), missing, format)
    kind, column = _kind([key for key, _ in keyed])
    return Key(
        None, f"The Kafka keys, {share}, are {kind}. They equal no field, and land in a column.", column, missing
    )


def headers(events: Sequence[Event]) -> str:
    """A sentence about the headers of the records; empty without any."""
    counts = Counter(name for event in events for name in event.record.headers if name not in _SCHEMA_HEADERS)
    if not counts:
        return ""
    listed = ", ".join(f"{name} (in {count:,})" for name, count in counts.most_common(_LISTED))
    more = f" and {len(counts) - _LISTED:,} more" if len(counts) > _LISTED else ""
    return (
        f"Headers, which are not stored: {listed}{more}. A field such as trace: Annotated[str | None, "
        f"Header({json.dumps(counts.most_common(1)[0][0], ensure_ascii=False)})] makes a column of one."
    )


def _equals(found: bytes, fields: dict[str, Any], name: str) -> bool:
    value = fields.get(name)
    is_id = isinstance(value, str | UUID) or (isinstance(value, int) and not isinstance(value, bool))
    return is_id and found == str(value).encode("utf-8", "replace")


def _distinct(keyed: Sequence[tuple[bytes | None, dict[str, Any]]], name: str) -> int:
    return len({fields[name] for _, fields in keyed})


def _kind(keys: Sequence[bytes]) -> tuple[str, OfKey]:
    """What keys are, and the type of their column."""
    lengths = {len(each) for each in keys}
    # A whole number of 8 bytes begins with zeros, as the framing does.
    if lengths != {8} and all(len(each) >= 5 and each[0] == 0 for each in keys):
        return "serialized with a schema registry's framing; see key_format", OfKey(BYTES)
    try:
        decoded = [msgspec.json.decode(each) for each in keys]
    except (ValueError, RecursionError):
        pass
    else:
        if all(isinstance(each, dict) for each in decoded):
            example = quoted(json.dumps(decoded[0], ensure_ascii=False))
            if all(each.keys() == {"schema", "payload"} for each in decoded):
                return f"JSON objects in Kafka Connect's envelope, such as {example}", OfKey(ANY, "payload")
            return f"JSON objects, such as {example}", OfKey(ANY)
        if all(isinstance(each, str) for each in decoded):
            return f"JSON strings, such as {quoted(keys[0].decode())}", OfKey(STR)
    try:
        texts = [each.decode() for each in keys]
    except UnicodeDecodeError:
        texts = []
    if texts and all(text.isprintable() for text in texts):
        return f"texts, such as {quoted(texts[0])}", OfKey(UUID_TYPE if all(map(_UUID.fullmatch, texts)) else STR)
    if lengths in ({4}, {8}):
        note = "as a serializer writes numbers; if they are, declare the column as Annotated[int, Key(binary=True)]"
        return f"{lengths.pop()} bytes each, {note}", OfKey(BYTES)
    if lengths == {16}:
        return "16 bytes each; if they are UUIDs, declare the column as Annotated[UUID, Key(binary=True)]", OfKey(BYTES)
    return "binary", OfKey(BYTES)
