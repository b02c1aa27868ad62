"""Twenty kinds of topics: the definition that is written for each lands it unedited, and says what is not known.

The facts that a definition must have are written down with each topic, before the command reads it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import fastavro
import pytest
from google.protobuf import json_format, message_factory

from cli.check import check
from cli.new import new
from embedded.component import SCHEMA_REGISTRY
from embedded.platform import SERVICES, Platform
from include.kafka import client, topics
from include.landing import proof
from include.schemas import framing
from include.schemas.protobuf import ProtobufFile
from include.schemas.registry import SchemaRegistry
from include.schemas.schema import Schema
from include.streams.change_events import PLACEHOLDER as UNKNOWN
from tests.integration.test_from_topic import NAME, folder, land, load, run

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

__all__ = ["folder"]

NOW = datetime.now(UTC)
COUNT = 40
TIME, TEXT, INT, FLOAT = "timestamp with time zone", "text", "bigint", "double precision"
Make = Callable[[int], Any]
Headers = list[tuple[str, bytes]]


@dataclass(frozen=True)
class Topic:
    """A topic, and the facts of its definition.

    Attributes:
        make: The value of each record: bytes, None, or what becomes JSON.
        time: The column with the event time.
        columns: Every column: its type, with ``?`` if it allows null.
        key: The Kafka key of each record.
        key_field: The field that the definition names as the key.
        stated: What the file says.
        schemas: The registered schemas, by the kind; ``make`` then returns a schema's number and the data.
        settings: Lines of the definition.
        headers: Whether headers, and not the values, name the schema.
        count: The number of records.
    """

    make: Make
    time: str
    columns: dict[str, str]
    key: Callable[[int], bytes] | None = None
    key_field: str | None = None
    stated: Sequence[str] = ()
    schemas: tuple[str, Sequence[str]] | None = None
    settings: Sequence[str] = ()
    headers: bool = False
    count: int = COUNT


def ago(number: int) -> datetime:
    return NOW - timedelta(seconds=number + 1)


def epoch(number: int, per_second: int) -> int:
    return int(ago(number).timestamp() * 10**6) * per_second // 10**6


def in_avro(schema: dict[str, Any], event: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), event)
    return out.getvalue()


MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
ORDER: dict[str, Any] = {
    "type": "record",
    "name": "Order",
    "fields": [
        {"name": "placed", "type": MILLIS},
        {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "status", "type": {"type": "enum", "name": "Status", "symbols": ["OPEN", "PAID"]}},
        {"name": "total", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "note", "type": ["null", "string"], "default": None},
        {"name": "reference", "type": ["long", "string"]},
        {"name": "sent_ms", "type": "long"},
        {"name": "lines", "type": {"type": "array", "items": {"type": "record", "name": "Line", "fields": []}}},
        {"name": "counts", "type": {"type": "map", "values": "int"}},
        {"name": "opens", "type": {"type": "long", "logicalType": "local-timestamp-millis"}},
        {"name": "nothing", "type": "null"},
    ],
}
OLD: dict[str, Any] = {
    "type": "record",
    "name": "Reading",
    "fields": [{"name": "at", "type": MILLIS}, {"name": "value", "type": "int"}, {"name": "unit", "type": "string"}],
}
NEW: dict[str, Any] = {
    "type": "record",
    "name": "Reading",
    "fields": [
        {"name": "at", "type": MILLIS},
        {"name": "value", "type": "double"},
        {"name": "site", "type": ["null", "string"], "default": None},
    ],
}
PROTO = """
syntax = "proto3";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
enum Level { LEVEL_UNKNOWN = 0; LOW = 1; HIGH = 2; }
message Alarm {
  message Source { string host = 1; optional int32 port = 2; }
  google.protobuf.Timestamp raised = 1;
  Level level = 2;
  Source source = 3;
  repeated string tags = 4;
  map<string, int64> counters = 5;
  map<int32, string> codes = 6;
  oneof cause { string text = 7; int64 number = 8; }
  google.protobuf.BoolValue confirmed = 9;
}
"""
JSON_SCHEMA = {
    "type": "object",
    "required": ["ts", "state", "value"],
    "properties": {
        "ts": {"type": "string", "format": "date-time"},
        "state": {"type": "string", "enum": ["on", "off", "broken"]},
        "value": {"type": "number"},
        "note": {"type": ["string", "null"]},
        "serial": {"type": "integer"},
    },
}


def order(number: int) -> tuple[int, bytes]:
    return 0, in_avro(
        ORDER,
        {
            "placed": ago(number),
            "id": UUID(int=number),
            "status": "OPEN",
            "total": Decimal("12.50"),
            "note": None,
            "reference": number if number % 2 else "x",
            "sent_ms": epoch(number, 1000),
            "lines": [{}],
            "counts": {"a": 1},
            "opens": datetime(2026, 1, 1),
            "nothing": None,
        },
    )


def reading(number: int) -> tuple[int, bytes]:
    if number % 2:
        return 0, in_avro(OLD, {"at": ago(number), "value": number, "unit": "C"})
    return 1, in_avro(NEW, {"at": ago(number), "value": number + 0.5, "site": None})


def alarm(number: int) -> tuple[int, bytes]:
    found = {
        "raised": f"{ago(number):%Y-%m-%dT%H:%M:%S}Z",
        "level": "HIGH",
        "source": {"host": "a"},
        "tags": ["x"],
        "counters": {"a": 1},
        "codes": {"1": "a"},
        "text": "broken",
    }
    make = message_factory.GetMessageClass(ProtobufFile(Schema("PROTOBUF", PROTO)).message((0,)))
    return 0, b"\0" + json_format.ParseDict(found, make()).SerializeToString()


def state(number: int) -> tuple[int, bytes]:
    return 0, json.dumps({"ts": ago(number).isoformat(), "state": "on", "value": number, "note": "x"}).encode()


def iso(number: int) -> str:
    made = f"{ago(number):%Y-%m-%dT%H:%M:%S}", f"{ago(number):%Y-%m-%d %H:%M}", f"{ago(number):%Y%m%dT%H%M%S}"
    return made[number % 3] + ("Z", "+00", "+0000", "+00:00")[number % 4]


def change(number: int) -> dict[str, Any]:
    row = {"id": number, "name": "a"}
    source = {"db": "shop", "lsn": number, "ts_ms": epoch(number, 1000)}
    return {"before": None, "after": row, "source": source, "op": "c", "ts_ms": epoch(number, 1000)}


def change_with_schema(number: int) -> dict[str, Any]:
    """A change event as Debezium writes it with its schema."""
    row = {"id": number, "amount": "AQI=", "born": 3, "at": epoch(number, 10**6), "doc": '{"a": 1}', "kept": UNKNOWN}
    columns = [
        {"field": "id", "type": "int64", "optional": False},
        {
            "field": "amount",
            "type": "bytes",
            "optional": True,
            "name": "org.apache.kafka.connect.data.Decimal",
            "parameters": {"scale": "2"},
        },
        {"field": "born", "type": "int32", "optional": True, "name": "io.debezium.time.Date"},
        {"field": "at", "type": "int64", "optional": False, "name": "io.debezium.time.MicroTimestamp"},
        {"field": "doc", "type": "string", "optional": True, "name": "io.debezium.data.Json"},
        {"field": "kept", "type": "string", "optional": False},
    ]
    parts = [{"type": "struct", "fields": columns, "optional": True, "field": name} for name in ("before", "after")]
    event = change(number)
    event |= {"op": "d", "before": {"id": number}, "after": None} if number % 10 == 9 else {"op": "u", "after": row}
    return {"schema": {"type": "struct", "fields": parts, "optional": False}, "payload": event}


VALUE = {
    "type": "record",
    "name": "Value",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "credit", "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}]},
        {"name": "body", "type": "string"},
    ],
}
ENVELOPE = {
    "type": "record",
    "name": "Envelope",
    "fields": [
        {"name": "before", "type": ["null", VALUE]},
        {"name": "after", "type": ["null", "Value"]},
        {
            "name": "source",
            "type": {
                "type": "record",
                "name": "Source",
                "fields": [{"name": "ts_ms", "type": "long"}, {"name": "lsn", "type": ["null", "long"]}],
            },
        },
        {"name": "op", "type": "string"},
        {"name": "ts_ms", "type": ["null", "long"]},
    ],
}


def change_in_avro(number: int) -> tuple[int, bytes]:
    row = {"id": number, "credit": Decimal("1.50"), "body": UNKNOWN if number % 3 else "text"}
    source = {"ts_ms": epoch(number, 1000), "lsn": number}
    event: dict[str, Any] = {"before": None, "after": row, "source": source, "op": "u"}
    if number % 10 == 9:
        event |= {"before": {"id": number, "credit": None, "body": ""}, "after": None, "op": "d"}
    return 0, in_avro(ENVELOPE, {**event, "ts_ms": epoch(number, 1000)})


CHANGE = {"change_op": TEXT, "change_time": TIME, "change_unchanged": "jsonb?"}
TOPICS = {
    "ISO times, a text as key": Topic(
        lambda n: {"ts": ago(n).isoformat(), "user": f"u{n}", "page": f"/{n}", "dwell": None if n % 3 else 1.5},
        "ts",
        {"ts": TIME, "user": TEXT, "page": TEXT, "dwell": f"{FLOAT}?"},
        key=lambda n: f"u{n}".encode(),
        key_field="user",
        stated=["equals user in every record", f"null in 26 of {COUNT}"],
    ),
    "notations of ISO": Topic(lambda n: {"time": iso(n), "n": n}, "time", {"time": TIME, "n": INT}),
    "seconds, a whole number as key": Topic(
        lambda n: {"created": epoch(n, 1), "order": n},
        "created",
        {"created": TIME, "order": INT},
        key=lambda n: str(n).encode(),
        key_field="order",
        stated=["seconds since 1970"],
    ),
    "milliseconds as texts, a UUID as key": Topic(
        lambda n: {"eventTime": str(epoch(n, 1000)), "device": str(UUID(int=n))},
        "eventTime",
        {"eventTime": TIME, "device": "uuid"},
        key=lambda n: str(UUID(int=n)).encode(),
        key_field="device",
        stated=["milliseconds since 1970", "sent as texts"],
    ),
    "microseconds, JSON as key": Topic(
        lambda n: {"ts": epoch(n, 10**6), "n": n},
        "ts",
        {"key": "jsonb?", "ts": TIME, "n": INT},
        key=lambda n: json.dumps({"n": n}).encode(),
        stated=["microseconds since 1970", "JSON objects, such as"],
    ),
    "nanoseconds": Topic(
        lambda n: {"time_unix_nano": epoch(n, 10**9), "body": "x"},
        "time_unix_nano",
        {"time_unix_nano": TIME, "body": TEXT},
        stated=["nanoseconds since 1970", "No record has a Kafka key"],
    ),
    "times without a zone": Topic(
        lambda n: {"at": f"{ago(n):%Y-%m-%dT%H:%M:%S}", "machine": "press"},
        "kafka_timestamp",
        {"at": TEXT, "machine": TEXT},
        stated=["times without a time zone; declare the zone"],
    ),
    "dates": Topic(
        lambda n: {"day": f"{NOW - timedelta(days=n % 3):%Y-%m-%d}", "sales": n},
        "day",
        {"day": TIME, "sales": INT},
        stated=["A date is the moment at which it begins in UTC"],
    ),
    "no time": Topic(
        lambda n: {"sensor": "north", "value": n / 2},
        "kafka_timestamp",
        {"key": "uuid", "sensor": TEXT, "value": FLOAT},
        key=lambda n: str(UUID(int=n)).encode(),
        stated=["No field is certainly the time of the event"],
    ),
    "nested objects and times inside": Topic(
        lambda n: {"order": {"id": n, "at": ago(n).isoformat(), "lines": [{"price": 1.5}]}, "tags": ["a"]},
        "kafka_timestamp",
        {"order": "jsonb", "tags": "jsonb"},
        stated=["order.at, inside of an object", 'Annotated[Instant, Path("order.at")]'],
    ),
    "values of several types": Topic(
        lambda n: {"ts": ago(n).isoformat(), "value": n if n % 2 else "x", "never": None, "empty": []},
        "ts",
        {"ts": TIME, "value": "jsonb?", "never": "jsonb?", "empty": "jsonb"},
        stated=["different types", "its type is unknown", "the type of its items is unknown"],
    ),
    "odd names": Topic(
        lambda n: {"@timestamp": ago(n).isoformat(), "user-id": n, "class": "a", "xmin": n, "kafka_offset": n},
        "timestamp",
        {"timestamp": TIME, "user_id": INT, "class_": TEXT, "xmin_": INT, "event_kafka_offset": INT},
    ),
    "a history": Topic(
        lambda n: {"ts": (NOW - timedelta(days=10 * n + 1)).isoformat(), "v": n},
        "ts",
        {"ts": TIME, "v": INT},
        settings=['late="783 days"'],
    ),
    "names that are data": Topic(
        lambda n: {"ts": ago(n).isoformat(), "visits": {f"user-{n}": 1, f"user-{n + 1000}": 2}},
        "ts",
        {"key": "bytea", "ts": TIME, "visits": "jsonb"},
        key=lambda n: n.to_bytes(8, "big"),
        stated=["the names are data", "Key(binary=True)"],
    ),
    "Connect's envelope": Topic(
        lambda n: {"schema": {"type": "struct", "fields": []}, "payload": {"id": n, "name": "a"}},
        "kafka_timestamp",
        {"payload": "jsonb"},
        stated=["Kafka Connect's envelope"],
    ),
    "Debezium": Topic(
        change,
        "change_time",
        {**CHANGE, "id": INT, "name": f"{TEXT}?", "lsn": f"{INT}?"},
        key=lambda n: json.dumps({"id": n}).encode(),
        key_field="id",
        stated=["Debezium", "The events have no schema"],
        settings=['envelope="debezium"', "current=True"],
    ),
    "Debezium with schemas": Topic(
        change_with_schema,
        "change_time",
        {
            **CHANGE,
            "id": INT,
            "amount": "numeric?",
            "born": "date?",
            "at": f"{TIME}?",
            "doc": "jsonb?",
            "kept": f"{TEXT}?",
            "lsn": f"{INT}?",
        },
        key=lambda n: json.dumps({"schema": {}, "payload": {"id": n}}).encode(),
        key_field="id",
        stated=["Debezium", "The primary key is id"],
        settings=['envelope="debezium"', "current=True", "ConnectDecimal(2)"],
    ),
    "Debezium in Avro": Topic(
        change_in_avro,
        "change_time",
        {**CHANGE, "id": f"{INT}?", "credit": "numeric?", "body": f"{TEXT}?", "lsn": f"{INT}?"},
        stated=["Debezium", "do not name the primary key"],
        schemas=("AVRO", [json.dumps(ENVELOPE)]),
        settings=['envelope="debezium"', 'format="avro"'],
    ),
    "CloudEvents": Topic(
        lambda n: {"specversion": "1.0", "id": f"a{n}", "source": "/s", "type": "t", "time": iso(n), "data": {"v": n}},
        "time",
        {"specversion": TEXT, "id": TEXT, "source": TEXT, "type": TEXT, "time": TIME, "data": "jsonb"},
        stated=["CloudEvents"],
    ),
    "a compacted topic with tombstones": Topic(
        lambda n: None if n % 5 == 4 else {"id": f"c{n}", "changed": ago(n).isoformat(), "name": "x"},
        "changed",
        {"id": TEXT, "changed": TIME, "name": TEXT},
        key=lambda n: f"c{n}".encode(),
        key_field="id",
        stated=["Tombstones", ": 8."],
    ),
    "Avro": Topic(
        order,
        "placed",
        {
            "placed": TIME,
            "id": "uuid",
            "status": TEXT,
            "total": "numeric",
            "note": f"{TEXT}?",
            "reference": "jsonb?",
            "sent_ms": TIME,
            "lines": "jsonb",
            "counts": "jsonb",
            "opens": INT,
            "nothing": "jsonb?",
        },
        key=lambda n: str(UUID(int=n)).encode(),
        key_field="id",
        stated=["an enum of the schema", "long or string by the schema", "without a time zone", "always null"],
        schemas=("AVRO", [json.dumps(ORDER)]),
        settings=['format="avro"'],
    ),
    "Avro of two versions, named by GUIDs": Topic(
        reading,
        "at",
        {"at": TIME, "value": FLOAT, "site": f"{TEXT}?", "unit": f"{TEXT}?"},
        schemas=("AVRO", [json.dumps(OLD), json.dumps(NEW)]),
        settings=['format="avro"'],
        headers=True,
    ),
    "Protobuf": Topic(
        alarm,
        "raised",
        {
            "raised": TIME,
            "level": TEXT,
            "source": "jsonb?",
            "tags": "jsonb",
            "counters": "jsonb",
            "codes": "jsonb?",
            "text": f"{TEXT}?",
            "number": f"{INT}?",
            "confirmed": "boolean?",
        },
        stated=["the schema allows records without it", "one of text, number", "keys are whole numbers"],
        schemas=("PROTOBUF", [PROTO]),
        settings=['format="protobuf"'],
    ),
    "JSON Schema": Topic(
        state,
        "ts",
        {"ts": TIME, "state": TEXT, "value": FLOAT, "note": f"{TEXT}?", "serial": f"{INT}?"},
        stated=[f"in 0 of {COUNT}"],
        schemas=("JSON", [json.dumps(JSON_SCHEMA)]),
        settings=['format="json-schema"'],
    ),
}


@pytest.fixture(scope="module")
def registry(services: Platform) -> Iterator[SchemaRegistry]:
    """A registry that runs next to the services."""
    services.use_schema_registry(True)
    services.up((*SERVICES, SCHEMA_REGISTRY))
    with SchemaRegistry("millrace_registry") as found:
        yield found
    services.use_schema_registry(False)


@dataclass
class Fill:
    """Fills topics with records."""

    registry: SchemaRegistry
    producer: Any = field(default_factory=client.producer)

    def __call__(self, name: str, kind: Topic) -> None:
        topics.create(name, partitions=2, config={"message.timestamp.type": "LogAppendTime"})
        ids = []
        for text in kind.schemas[1] if kind.schemas is not None else ():
            assert kind.schemas is not None
            ids.append(self.registry.register(f"{name}-value", kind.schemas[0], text))
        for number in range(kind.count):
            key = kind.key(number) if kind.key is not None else None
            value, headers = self._encoded(kind, kind.make(number), ids)
            self.producer.produce(name, value, key, partition=number % 2, headers=headers)
        assert self.producer.flush(30) == 0

    def _encoded(self, kind: Topic, made: Any, ids: Sequence[int]) -> tuple[bytes | None, Headers]:
        if kind.schemas is None:
            return made if made is None else json.dumps(made).encode(), []
        number, data = made
        prefix = framing.prefix(ids[number])
        return (data, [(framing.HEADER, prefix)]) if kind.headers else (prefix + data, [])


@pytest.mark.parametrize("name", TOPICS)
def test_a_topic_lands_with_its_unedited_definition(
    name: str, registry: SchemaRegistry, folder: Path, topic: Callable[..., str], warehouse: Connection
) -> None:
    kind = TOPICS[name]
    Fill(registry)(source := topic("twenty"), kind)
    done = run(new, "stream", NAME, "--from-topic", source)
    assert done.exit_code == 0, done.output
    text = (folder / f"{NAME}.py").read_text()
    stream = load(folder)
    assert stream.event_time == kind.time, text
    columns = {each.name: f"{each.sql}{'?' if each.nullable else ''}" for each in stream.fields}
    assert not kind.columns or columns == kind.columns, text
    assert stream.key == kind.key_field, text
    shown = " ".join(line.strip().removeprefix("# ") for line in text.splitlines())
    assert not [each for each in (*kind.stated, *kind.settings) if each not in shown], text
    events = sum(kind.make(number) is not None for number in range(kind.count))
    assert land(stream, warehouse) == (events, 0, 0), text
    assert not proof.prove(warehouse, stream).wrong
    done = run(check, NAME, "--against-topic")
    # The schema of an envelope is left out.
    left_out = [line for line in done.output.splitlines() if "not in the definition" in line and ": schema" not in line]
    assert (done.exit_code, left_out) == (0, []), done.output
