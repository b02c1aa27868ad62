"""The decoder of records that name their schema: what it remembers of schemas."""

from __future__ import annotations

import gc
import io
import json
import tracemalloc
from typing import Any

import fastavro
import msgspec
import pytest

from include.landing.decoding import framed
from include.schemas import framing
from include.schemas.framing import SchemaKey
from include.schemas.schema import Schema
from include.streams.definition import Instant, Stream


class Event(msgspec.Struct):
    ts: Instant
    number: int


STREAM = Stream(name="events", event=Event, event_time="ts", format="avro")


class Registry:
    """A registry whose schemas each have a field of their own."""

    def __init__(self) -> None:
        self.requests = 0

    def schema(self, key: SchemaKey) -> Schema:
        self.requests += 1
        return Schema("AVRO", json.dumps(schema(key)))

    def subjects(self, key: SchemaKey) -> tuple[str, ...]:
        return (f"events-value version {key}",)


def schema(key: SchemaKey) -> Any:
    fields = [("ts", {"type": "long", "logicalType": "timestamp-micros"}), ("number", "long"), (f"own_{key}", "string")]
    return {"type": "record", "name": "Event", "fields": [{"name": name, "type": kind} for name, kind in fields]}


def value(key: int) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema(key)), {"ts": 0, "number": key, f"own_{key}": "x"})
    return framing.prefix(key) + out.getvalue()


def test_the_memory_of_a_thousand_schemas_is_flat(monkeypatch: pytest.MonkeyPatch) -> None:
    """More schemas than are remembered, again and again; of each a good record and one that does not fit."""
    monkeypatch.setattr(framed, "MAX_SCHEMAS", 100)
    decoder, registry = framed.FramedDecoder(STREAM), Registry()
    monkeypatch.setattr(decoder, "_registry", registry)
    values = [each for key in range(1_000) for each in (value(key), value(key)[:-1])]

    def decode() -> None:
        for at in range(0, len(values), 200):
            events, bad = decoder.events(values[at : at + 200])
            assert [event.number for event in events] == list(range(at // 2, at // 2 + 100))
            assert len(bad) == 100

    tracemalloc.start()
    try:
        decode()
        gc.collect()
        first, _ = tracemalloc.get_traced_memory()
        decode()
        gc.collect()
        second, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert registry.requests == 2_000
    # A thousand more schemas would take ten times the memory of those that are remembered.
    assert second - first < 0.2 * first
