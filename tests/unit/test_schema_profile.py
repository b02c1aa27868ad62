"""What is inferred from a sample whose records name schemas, and the definition that is written for it."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import fastavro
import pytest
from confluent_kafka import Message
from google.protobuf import json_format, message_factory

from cli.scaffold import topic_stream
from include.error_codes import Code
from include.kafka.sample import Sample
from include.landing.decoding import framed
from include.landing.profiling import avro, json_schema, protobuf, sampled
from include.landing.trial import trial
from include.schemas import framing
from include.schemas.protobuf import ProtobufFile
from include.schemas.registry import RegistryUnavailable, SchemaMissing
from include.schemas.schema import Schema
from include.streams.profiling.types import Choice, Epoch, Field, ListOf, Plain, Struct
from tests.errors import raises

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)
STRING, LONG = "string", "long"
MILLIS = {"type": "long", "logicalType": "timestamp-millis"}


class Registry:
    """A registry with some schemas."""

    def __init__(self) -> None:
        self.schemas: dict[Any, Schema] = {}
        self.error: Exception | None = None
        self.name = "mine"

    def __call__(self, name: str) -> Registry:
        self.name = name
        return self

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None: ...

    def schema(self, key: Any) -> Schema:
        if self.error is not None:
            raise self.error
        if key not in self.schemas:
            raise SchemaMissing(str(key))
        return self.schemas[key]

    def subjects(self, key: Any) -> tuple[str, ...]:
        return (f"topic-value version {key}",)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    found = Registry()
    monkeypatch.setattr(sampled, "SchemaRegistry", found)
    monkeypatch.setattr(framed, "SchemaRegistry", found)
    return found


def sample_of(values: Sequence[bytes | None], headers: Any = None, keys: Sequence[bytes] | None = None) -> Sample:
    messages = [
        Message(
            topic="topic",
            partition=0,
            offset=at,
            value=value,
            key=keys[at] if keys else None,
            headers=headers,
            timestamp=(1, NOW_MS),
        )
        for at, value in enumerate(values)
    ]
    return Sample("topic", 1, len(messages), messages)


Write = Callable[..., tuple[str, dict[str, Field], Any]]


@pytest.fixture
def written(tmp_path: Path, registry: Registry) -> Write:
    """Writes the definition of a topic with some values; all but those that are expected not to must land."""

    def write(values: Sequence[bytes | None], others: int = 0, **options: Any) -> tuple[str, dict[str, Field], Any]:
        sample = sample_of(values, **options)
        found = topic_stream.write("clicks", sample, tmp_path)
        tried = trial(found.stream, sample.messages)
        assert tried.landed == len([value for value in values if value is not None]) - others, tried
        assert not tried.unknown
        text = (tmp_path / "clicks.py").read_text()
        return text, {field.name: field for field in found.profile.fields}, found

    return write


def record(*fields: tuple[str, Any], name: str = "Click") -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": field, "type": kind} for field, kind in fields]}


def in_avro(schema: Any, key: int | UUID, *events: dict[str, Any]) -> list[bytes]:
    parsed, found = fastavro.parse_schema(schema), []
    for event in events:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, parsed, event)
        found.append((framing.prefix(key) if isinstance(key, int) else b"") + out.getvalue())
    return found


AVRO = record(
    ("ts", MILLIS),
    ("user", {"type": "string", "logicalType": "uuid"}),
    ("kind", {"type": "enum", "name": "Kind", "symbols": ["A", "B", "C"]}),
    ("note", ["null", STRING]),
    ("value", ["null", LONG, STRING]),
    ("number", ["int", "double"]),
    ("day", {"type": "int", "logicalType": "date"}),
    ("at", {"type": "long", "logicalType": "time-micros"}),
    ("amount", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}),
    ("local", {"type": "long", "logicalType": "local-timestamp-micros"}),
    ("hash", {"type": "fixed", "name": "Hash", "size": 4}),
    ("sent_ms", LONG),
    ("count", LONG),
    ("page", STRING),
    ("empty", "null"),
    ("place", ["null", record(("lat", "double"), ("seen", ["null", MILLIS]), name="Place")]),
    ("tags", {"type": "array", "items": STRING}),
    ("counts", {"type": "map", "values": LONG}),
    ("lines", {"type": "array", "items": record(("sku", STRING), name="Line")}),
    ("tree", ["null", record(("children", {"type": "array", "items": "Tree"}), name="Tree")]),
    ("class", STRING),
)


def avro_event(number: int) -> dict[str, Any]:
    return {
        "ts": NOW - timedelta(seconds=number),
        "user": UUID(int=number),
        "kind": "ABC"[number % 2],
        "note": None,
        "value": number if number % 2 else "x",
        "number": number if number % 2 else 1.5,
        "day": date(2026, 3, 1),
        "at": time(1, 2, 3),
        "amount": Decimal("1.25"),
        "local": datetime(2026, 3, 1, 12),
        "hash": b"abcd",
        "sent_ms": NOW_MS - number,
        "count": number,
        "page": ("/", "/a", "/b")[number % 3],
        "empty": None,
        "place": {"lat": 1.5, "seen": NOW} if number % 2 else None,
        "tags": ["a"],
        "counts": {"a": 1},
        "lines": [{"sku": "a"}],
        "tree": {"children": [{"children": []}]},
        "class": "x",
    }


def test_the_fields_of_an_avro_schema(written: Write, registry: Registry) -> None:
    registry.schemas[7] = Schema("AVRO", json.dumps(AVRO))
    text, fields, found = written(in_avro(AVRO, 7, *map(avro_event, range(200))))
    assert {name: field.type for name, field in fields.items() if isinstance(field.type, Plain)} == {
        "ts": Plain("Instant"),
        "user": Plain("UUID"),
        "note": Plain("str"),
        "value": Plain("Any"),
        "number": Plain("float"),
        "day": Plain("date"),
        "at": Plain("time"),
        "amount": Plain("Decimal"),
        "local": Plain("int"),
        "hash": Plain("bytes"),
        "count": Plain("int"),
        "page": Plain("str"),
        "empty": Plain("Any"),
        "class": Plain("str"),
    }
    assert fields["kind"].type == Choice(("A", "B", "C"))
    assert isinstance(fields["sent_ms"].type, Epoch) and fields["sent_ms"].type.unit.label == "milliseconds"
    assert {name for name, field in fields.items() if field.nullable} == {
        *("note", "value", "empty", "place", "tree"),
    }
    place = fields["place"].type
    assert isinstance(place, Struct)
    assert [(each.name, each.type, each.nullable) for each in place.fields] == [
        ("lat", Plain("float"), False),
        ("seen", Plain("Instant"), True),
    ]
    assert fields["tags"].type == ListOf(Plain("str"))
    assert 'format="avro",' in text and "registry=" not in text and "schema id 7 (topic-value version 7)" in text
    assert 'event_time="ts"' in text and "Zone('Europe/Berlin')" in text and "long or string by the schema" in text
    assert {field.name: field.sql for field in found.stream.fields}["amount"] == "numeric"


def test_few_texts_of_a_schema_may_be_a_choice(written: Write, registry: Registry) -> None:
    schema = record(("ts", MILLIS), ("status", STRING), ("city", STRING))
    registry.schemas[7] = Schema("AVRO", json.dumps(schema))
    events = ({"ts": NOW, "status": ("open", "paid")[at % 2], "city": "Rome"} for at in range(600))
    _, fields, _ = written(in_avro(schema, 7, *events))
    assert fields["status"].type == Choice(("open", "paid")) and fields["city"].type == Plain("str")


def test_schemas_of_several_versions_are_merged(written: Write, registry: Registry) -> None:
    old = record(("ts", MILLIS), ("old", STRING), ("number", "int"), ("mixed", STRING))
    new = record(("ts", MILLIS), ("new", STRING), ("number", "double"), ("mixed", LONG))
    registry.schemas |= {3: Schema("AVRO", json.dumps(old)), 9: Schema("AVRO", json.dumps(new))}
    values = [
        *in_avro(old, 3, {"ts": NOW, "old": "x", "number": 1, "mixed": "a"}),
        *in_avro(new, 9, {"ts": NOW, "new": "x", "number": 1.5, "mixed": 1}),
    ]
    text, fields, _ = written(values)
    assert [(name, field.type, field.nullable) for name, field in fields.items()] == [
        ("ts", Plain("Instant"), False),
        ("new", Plain("str"), True),
        ("number", Plain("float"), False),
        ("mixed", Plain("Any"), False),
        ("old", Plain("str"), True),
    ]
    assert text.index("schema id 9") < text.index("schema id 3")


def test_an_event_time_that_the_schema_allows_to_be_null_is_stated(written: Write, registry: Registry) -> None:
    schema = record(("ts", ["null", MILLIS]), ("id", LONG))
    registry.schemas[7] = Schema("AVRO", json.dumps(schema))
    text, fields, _ = written(in_avro(schema, 7, *({"ts": NOW, "id": at} for at in range(5))))
    assert not fields["ts"].nullable
    assert "ts: Instant  # the schema allows records without it, which become dead letters" in text


def test_the_guid_of_a_schema_in_a_header(written: Write, registry: Registry) -> None:
    guid = UUID(int=7)
    schema = record(("ts", MILLIS))
    registry.schemas[guid] = Schema("AVRO", json.dumps(schema))
    headers = [(framing.HEADER, b"\1" + guid.bytes)]
    text, _, _ = written(in_avro(schema, guid, {"ts": NOW}), headers=headers)
    assert f"schema GUID {guid}" in text


def test_a_uuid_may_be_the_key(written: Write, registry: Registry) -> None:
    registry.schemas[7] = Schema("AVRO", json.dumps(AVRO))
    values = in_avro(AVRO, 7, *map(avro_event, range(3)))
    text, _, _ = written(values, keys=[str(UUID(int=at)).encode() for at in range(3)])
    assert 'key="user"' in text


def test_a_key_that_names_a_schema_becomes_a_column(written: Write, registry: Registry) -> None:
    key, value = record(("id", LONG), name="Id"), record(("ts", MILLIS))
    registry.schemas |= {3: Schema("AVRO", json.dumps(key)), 7: Schema("AVRO", json.dumps(value))}
    text, _, _ = written(in_avro(value, 7, {"ts": NOW}), keys=in_avro(key, 3, {"id": 17}))
    assert "key: Annotated[Any, Key]" in text and 'key_format="avro",' in text


def test_records_that_do_not_fit_are_counted(written: Write, registry: Registry) -> None:
    schema = record(("ts", MILLIS))
    registry.schemas[7] = Schema("AVRO", json.dumps(schema))
    good = in_avro(schema, 7, *({"ts": NOW} for _ in range(9)))
    text, _, _ = written([*good, good[0] + b"x", b"hello", b'{"ts": 1}', None], others=3)
    assert "Avro that does not fit its schema in 1, such as 0:9" in text.replace("\n  ", " ")
    assert "Plain text without the id of a schema in 1" in text.replace("\n  ", " ")
    assert "JSON objects without the id of a schema in 1" in text.replace("\n  ", " ")


PROTO = """
syntax = "proto3";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/duration.proto";
enum Kind { UNKNOWN = 0; SMALL = 1; }
message Other { string a = 1; }
message Click {
  message Line { string sku = 1; optional int32 count = 2; }
  google.protobuf.Timestamp ts = 1;
  string user = 2;
  Kind kind = 3;
  optional double amount = 4;
  repeated Line lines = 5;
  map<string, int64> counts = 6;
  map<int32, string> by_number = 7;
  oneof target { string page = 8; int64 product = 9; }
  google.protobuf.StringValue note = 10;
  google.protobuf.Struct more = 11;
  google.protobuf.Duration took = 12;
  bytes data = 13;
  uint32 small = 14;
  Other other = 15;
  bool is_new = 16;
}
"""


def in_protobuf(key: int, indexes: tuple[int, ...], *events: dict[str, Any]) -> list[bytes]:
    make = message_factory.GetMessageClass(ProtobufFile(Schema("PROTOBUF", PROTO)).message(indexes))
    zigzag = b"\0" if indexes == (0,) else bytes([2 * len(indexes), *(2 * index for index in indexes)])
    encoded = (json_format.ParseDict(event, make()).SerializeToString() for event in events)
    return [framing.prefix(key) + zigzag + each for each in encoded]


def test_the_fields_of_a_protobuf_message(written: Write, registry: Registry) -> None:
    registry.schemas[7] = Schema("PROTOBUF", PROTO)
    events = [
        {
            "ts": NOW.isoformat().replace("+00:00", "Z"),
            "user": f"u{at}",
            "kind": "SMALL",
            "lines": [{"sku": "a"}, {"sku": "b", "count": 1}],
            "counts": {"a": 1},
            "by_number": {"1": "x"},
            "page": "/",
            "more": {"a": [1, None]},
            "took": "1.5s",
            "data": "YQ==",
            "small": at,
            **({"amount": 1.5, "note": "n", "other": {"a": "x"}} if at % 2 else {}),
        }
        for at in range(100)
    ]
    text, fields, _ = written(in_protobuf(7, (1,), *events))
    assert {name: field.type for name, field in fields.items() if isinstance(field.type, Plain)} == {
        "ts": Plain("Instant"),
        "user": Plain("str"),
        "amount": Plain("float"),
        "by_number": Plain("Any"),
        "page": Plain("str"),
        "product": Plain("int"),
        "note": Plain("str"),
        "took": Plain("timedelta"),
        "data": Plain("bytes"),
        "small": Plain("int"),
        "is_new": Plain("bool"),
    }
    assert fields["kind"].type == Choice(("UNKNOWN", "SMALL"))
    assert {name for name, field in fields.items() if field.nullable} == {
        *("amount", "page", "product", "note", "more", "took", "other"),
    }
    lines = fields["lines"].type
    assert isinstance(lines, ListOf) and isinstance(lines.item, Struct)
    assert [(each.name, each.nullable) for each in lines.item.fields] == [("sku", False), ("count", True)]
    assert 'format="protobuf",' in text and 'event_time="ts"' in text and "one of page, product" in text


def test_several_messages_of_a_protobuf_schema_are_merged(written: Write, registry: Registry) -> None:
    registry.schemas[7] = Schema("PROTOBUF", PROTO)
    values = [*in_protobuf(7, (0,), {"a": "x"}), *in_protobuf(7, (1,), {"user": "u"})]
    _, fields, _ = written(values)
    assert fields["a"].nullable and fields["user"].nullable


JSON_SCHEMA = {
    "type": "object",
    "properties": {
        "ts": {"type": "string", "format": "date-time"},
        "status": {"enum": ["open", "paid", "late"], "type": "string"},
        "amount": {"type": "number"},
        "note": {"anyOf": [{"type": "null"}, {"type": "string"}]},
        "place": {"$ref": "#/definitions/place"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "later": {"type": "integer"},
        "any": {},
    },
    "required": ["ts", "status", "amount", "note", "place", "tags"],
    "definitions": {
        "place": {
            "type": "object",
            "properties": {"lat": {"type": "number"}, "inner": {"$ref": "#/definitions/place"}},
            "required": ["lat"],
        }
    },
}


def test_the_fields_of_a_json_schema(written: Write, registry: Registry) -> None:
    registry.schemas[7] = Schema("JSON", json.dumps(JSON_SCHEMA))
    event = {"ts": NOW.isoformat(), "status": "open", "amount": 1, "note": "n", "place": {"lat": 1}, "tags": []}
    values = [framing.prefix(7) + json.dumps(event | {"number": at}).encode() for at in range(20)]
    text, fields, _ = written(values)
    assert {name: (field.type, field.nullable) for name, field in fields.items() if name != "place"} == {
        "ts": (Plain("Instant"), False),
        "status": (Choice(("open", "paid", "late")), False),
        "amount": (Plain("float"), False),
        "note": (Plain("str"), True),
        "tags": (ListOf(Plain("str")), False),
        "number": (Plain("int"), False),
        "later": (Plain("int"), True),
        "any": (Plain("Any"), True),
    }
    place = fields["place"].type
    assert isinstance(place, Struct)
    assert [(each.name, each.type, each.nullable) for each in place.fields] == [
        ("lat", Plain("int | float"), False),
        ("inner", Plain("Any"), True),
    ]
    assert 'format="json-schema",' in text


def test_a_registry_that_cannot_help_is_an_error(registry: Registry, tmp_path: Path) -> None:
    sample = sample_of([framing.prefix(7) + struct.pack("<d", 1.0)])
    with raises(Code.SCHEMA_UNKNOWN, "'topic'", "schema id 7", "--registry"):
        topic_stream.write("clicks", sample, tmp_path)
    registry.error = RegistryUnavailable("It does not answer.", "Start it.", code=Code.REGISTRY_UNAVAILABLE)
    with raises(Code.REGISTRY_UNAVAILABLE, "'topic'", "schema id 7", "Start it.", "--registry"):
        topic_stream.write("clicks", sample, tmp_path)
    registry.error = None
    registry.schemas[7] = Schema("AVRO", '"double"')
    with raises(Code.RECORDS_UNSUPPORTED, "not records but of type double"):
        topic_stream.write("clicks", sample, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_schema_may_contain_itself() -> None:
    text = json.dumps(record(("children", {"type": "array", "items": "Click"})))
    assert avro.fields_of(Schema("AVRO", text))[0].type == ListOf(Plain("Any"))
    text = 'syntax = "proto3"; message Tree { repeated Tree children = 1; }'
    assert protobuf.fields_of(ProtobufFile(Schema("PROTOBUF", text)).message((0,)))[0].type == ListOf(Plain("Any"))
    text = json.dumps({"properties": {"children": {"type": "array", "items": {"$ref": "#"}}}})
    found = json_schema.fields_of(Schema("JSON", text))[0].type
    assert isinstance(found, ListOf)
