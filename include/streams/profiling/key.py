"""The Kafka keys of a sample: whether they repeat a field of the event, and what they are otherwise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec

from include.streams.profiling.envelope import Event
from include.streams.profiling.types import quoted


@dataclass(frozen=True)
class Key:
    """The Kafka keys of a sample.

    Attributes:
        field: The field's name in the JSON that every key equals; None if there is none.
        note: What the keys are.
    """

    field: str | None
    note: str


def key(events: Sequence[Event]) -> Key:
    """Describes the keys, and finds the field that they equal."""
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
    kind = _kind([key for key, _ in keyed])
    return Key(None, f"The Kafka keys, {share}, are {kind}. They equal no field, and are not stored.")


def _equals(found: bytes, fields: dict[str, Any], name: str) -> bool:
    value = fields.get(name)
    is_id = isinstance(value, str | UUID) or (isinstance(value, int) and not isinstance(value, bool))
    return is_id and found == str(value).encode("utf-8", "replace")


def _distinct(keyed: Sequence[tuple[bytes | None, dict[str, Any]]], name: str) -> int:
    return len({fields[name] for _, fields in keyed})


def _kind(keys: Sequence[bytes]) -> str:
    example = keys[0]
    if all(len(each) >= 5 and each[0] == 0 for each in keys):
        return "serialized with a schema registry's framing"
    try:
        decoded = [msgspec.json.decode(each) for each in keys]
    except (ValueError, RecursionError):
        pass
    else:
        if all(isinstance(each, dict) for each in decoded):
            return f"JSON objects, such as {quoted(json.dumps(decoded[0], ensure_ascii=False))}"
        if all(isinstance(each, str) for each in decoded):
            return f"JSON strings, such as {quoted(example.decode())}"
    try:
        texts = [each.decode() for each in keys]
    except UnicodeDecodeError:
        texts = []
    if texts and all(text.isprintable() for text in texts):
        return f"texts, such as {quoted(texts[0])}"
    lengths = {len(each) for each in keys}
    if lengths in ({4}, {8}):
        return f"{lengths.pop()} bytes each, as a serializer writes whole numbers"
    return "binary"
