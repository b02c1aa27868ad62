"""Readings as Avro behind a schema registry, with a current state by the meter's name.

The schema of an event follows from its fields, so that a new field registers a new version of the schema. The audit
decodes the values with fastavro, which landing does not use.
"""

from __future__ import annotations

import io
import json
import urllib.request
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import fastavro
import msgspec

from include.streams.definition import Instant, Stream
from tests.faults.toolbox.events import Reading

TYPES: Mapping[str, Any] = {
    "id": "long",
    "ts": {"type": "long", "logicalType": "timestamp-micros"},
    "name": "string",
    "amount": ["null", "double"],
}
PREFIX_BYTES = 5
# The schemas by their ids, for the audit.
_schemas: dict[tuple[str, int], Any] = {}


class Meter(msgspec.Struct):
    """One reading of a meter whose name is never null, so that it can be a key."""

    id: int
    ts: Instant
    name: str
    amount: float | None = None


def keyed_avro(stream: Stream) -> Stream:
    """The stream with readings as Avro and with a current state; others as they are."""
    if stream.event is not Reading or stream.key is not None:
        return stream
    return replace(stream, event=Meter, format="avro", key="name", current=True, order_by="ts")


class Encoder:
    """Encodes the events of one topic, and registers their schemas.

    Args:
        url: The address of the registry's API.
    """

    def __init__(self, url: str, topic: str) -> None:
        self._url, self._topic = f"{url}", topic
        self._ids: dict[tuple[str, ...], int] = {}
        self.request("PUT", f"/config/{topic}-value", {"compatibility": "NONE"})

    def __call__(self, event: Mapping[str, Any]) -> bytes:
        """The event with its schema's id. An event of other types becomes bytes that the schema does not fit."""
        fields = tuple(event)
        if fields not in self._ids:
            self._ids[fields] = self.register(fields)
        schema_id = self._ids[fields]
        out = io.BytesIO(b"\0" + schema_id.to_bytes(4, "big"))
        out.seek(PREFIX_BYTES)
        try:
            record = {**event, "ts": datetime.fromisoformat(event["ts"])}
            fastavro.schemaless_writer(out, _schemas[self._topic, schema_id], record)
        except (TypeError, ValueError):
            return out.getvalue()[:PREFIX_BYTES]
        return out.getvalue()

    def register(self, fields: tuple[str, ...]) -> int:
        """Registers the schema of events with these fields, and returns its id."""
        schema = {
            "type": "record",
            "name": "Meter",
            "doc": self._topic,
            "fields": [{"name": name, "type": TYPES.get(name, "string")} for name in fields],
        }
        path = f"/subjects/{self._topic}-value/versions"
        schema_id = int(self.request("POST", path, {"schemaType": "AVRO", "schema": json.dumps(schema)})["id"])
        _schemas[self._topic, schema_id] = fastavro.parse_schema(schema)
        return schema_id

    def request(self, method: str, path: str, body: Any) -> Any:
        """A request to the registry. Raises OSError."""
        request = urllib.request.Request(self._url + path, json.dumps(body).encode(), method=method)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)


def event_of(topic: str, value: bytes) -> dict[str, Any]:
    """The event in a value, as its JSON would have it."""
    schema = _schemas[topic, int.from_bytes(value[1:PREFIX_BYTES], "big")]
    event = fastavro.schemaless_reader(io.BytesIO(value[PREFIX_BYTES:]), schema, None)
    assert isinstance(event, dict)
    return {**event, "ts": event["ts"].isoformat()}
