"""What is inferred from a sample of a topic, and the definition that is written for it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from confluent_kafka import Message

from cli.scaffold import topic_stream
from cli.scaffold.event_source import python_names
from include.error_codes import Code
from include.kafka.sample import Sample, windows
from include.kafka.topics import Extent
from include.landing.profiling import avro
from include.landing.trial import trial
from include.schemas.schema import Format, Schema
from include.streams.change_events import PLACEHOLDER
from include.streams.profiling import Profile, Record, profile
from include.streams.profiling.envelope import Envelope, contents, is_protobuf
from include.streams.profiling.schema import Decoded
from include.streams.profiling.times import Unit
from include.streams.profiling.types import (
    Choice,
    DictOf,
    Epoch,
    ListOf,
    OfSource,
    Plain,
    Struct,
    Unscaled,
    named_like_a_time,
)
from tests.errors import raises

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)


def records(*values: Any, keys: list[bytes | None] | None = None) -> list[Record]:
    """Records with these values, as JSON unless they are bytes."""
    encoded = [value if isinstance(value, bytes | None) else json.dumps(value).encode() for value in values]
    keys = keys or [None] * len(values)
    return [Record(0, at, NOW_MS, keys[at], value) for at, value in enumerate(encoded)]


def event(**fields: Any) -> dict[str, Any]:
    return {"ts": "2026-03-01T11:59:59Z", **fields}


def profiled(*values: Any, keys: list[bytes | None] | None = None) -> Profile:
    return profile("topic", records(*values, keys=keys))


def declared(name: str, *values: Any) -> tuple[Any, bool, tuple[str, ...]]:
    """The type of a field with these values, whether it is nullable, and the notes."""
    found = profiled(*({**event(), name: value} for value in values))
    field = next(field for field in found.fields if field.name == name)
    return field.type, field.nullable, field.notes


def sample_of(values: list[Any], topic: str = "topic", keys: list[bytes | None] | None = None) -> Sample:
    messages = [
        Message(
            topic=topic,
            partition=0,
            offset=each.offset,
            key=each.key,
            value=each.value,
            timestamp=(1, each.stamp or -1),
        )
        for each in records(*values, keys=keys)
    ]
    return Sample(topic, 1, len(messages), messages)


def written(tmp_path: Path, values: list[Any], name: str = "clicks") -> tuple[str, Any]:
    """The definition for a topic with these values, and the values decoded with it."""
    sample = sample_of(values)
    found = topic_stream.write(name, sample, tmp_path)
    tried = trial(found.stream, sample.messages)
    assert tried.landed == len([value for value in values if value is not None]), tried
    return (tmp_path / f"{name}.py").read_text(), found.stream


@pytest.mark.parametrize(
    ("values", "name", "nullable"),
    [
        (["a", "b"], "str", False),
        ([1, 2], "int", False),
        ([1, 2.5], "float", False),
        ([1.0, 2e3], "float", False),
        ([True, False], "bool", False),
        ([1, None], "int", True),
        ([1, "a"], "Any", False),
        ([1, True], "Any", False),
        ([None, None], "Any", True),
        ([{}, {}], "Any", False),
        (["2026-01-31T10:00:00Z", "2026-01-31 10:00+01"], "Instant", False),
        (["2026-01-31T10:00:00", "2026-01-31 10:00"], "str", False),
        (["2026-01-31", "2026-02-28"], "date", False),
        (["2026-01-31", "2026-02-30"], "str", False),
        (["0001-01-01T00:00:00Z"], "str", False),
        ([str(UUID(int=n)) for n in range(3)], "UUID", False),
        ([str(UUID(int=n)) for n in range(3)] + [""], "str", False),
        ([f"{n}.50" for n in range(30)], "Decimal", False),
        ([f"{n}.50" for n in range(3)], "str", False),
        ([f"{n}.5" for n in range(30)] + ["7"], "str", False),
        ([f"{n:05}" for n in range(30)], "str", False),
        ([2**63, 1], "Decimal", False),
        ([2**63 - 1, -(2**63)], "int", False),
        ([b"0.1234567890123456789012", b"1"], "Decimal", False),
    ],
)
def test_the_type_of_a_field(values: list[Any], name: str, nullable: bool) -> None:
    if isinstance(values[0], bytes):
        found = profiled(*(b'{"ts": "2026-03-01T11:59:59Z", "x": ' + value + b"}" for value in values))
        assert found.fields[1].type == Plain(name)
        return
    assert declared("x", *values)[:2] == (Plain(name), nullable)


def test_whole_numbers_with_the_name_of_a_measure_may_have_a_fraction() -> None:
    found, _, (note,) = declared("unitPrice", 1, 2)
    assert found == Plain("float") and "whole" in note
    assert declared("price_id", 2**60 + 1, 2)[0] == Plain("int"), "a float would not hold it"
    nested = declared("x", {"lat": 1, "n": 1}, {"lat": 2, "n": 1})[0]
    assert [field.type for field in nested.fields] == [Plain("int | float"), Plain("int")]


def test_the_numbers_of_versions_stay_texts() -> None:
    assert declared("app_version", *(f"{n}.10" for n in range(30)))[0] == Plain("str")


def test_a_field_that_some_events_lack_allows_none() -> None:
    found = profiled(*(event(x=1) for _ in range(998)), event(), event(x=None))
    field = found.fields[1]
    assert (field.objects, field.present, field.nulls, field.nullable) == (1000, 999, 1, True)


@pytest.mark.parametrize(
    ("name", "values", "is_choice"),
    [
        ("status", ["open", "closed"] * 300, True),
        ("status", ["open", "closed"] * 200, False),  # too few
        ("status", ["open", "closed"] * 300 + ["new"], False),  # one is rare: others may follow
        ("status", ["open"] * 600, False),
        ("status", ["a1", "a2"] * 300, False),  # numbered
        ("status", ["open", ""] * 300, False),
        ("city", ["Rome", "Oslo"] * 300, False),
        ("userName", ["Rome", "Oslo"] * 300, False),
    ],
)
def test_texts_with_few_values(name: str, values: list[str], is_choice: bool) -> None:
    found, _, notes = declared(name, *values)
    assert isinstance(found, Choice) == is_choice
    if is_choice:
        assert found.values == ("closed", "open")
        assert notes == ("2 different values in 600",)


def test_the_key_is_never_a_choice() -> None:
    values = [event(status=text) for text in ["open", "closed"] * 300]
    found = profiled(*values, keys=[value["status"].encode() for value in values])
    assert found.key.field == "status"
    assert found.fields[1].type == Plain("str")


def test_nested_objects_keep_the_types_of_json() -> None:
    found = profiled(
        event(a={"b": "2026-01-31T10:00:00Z", "c": [{"d": 1}, {"d": None}], "e": []}),
        event(a={"b": "2026-01-31T10:00:00Z", "c": []}),
    )
    nested = found.fields[1].type
    assert isinstance(nested, Struct)
    b, c, e = nested.fields
    assert (b.type, b.notes) == (Plain("str"), ("times with a time zone",))
    assert isinstance(c.type, ListOf) and isinstance(c.type.item, Struct) and c.type.item.fields[0].nullable
    assert e.type == ListOf(Plain("Any")) and e.nullable


def test_an_object_whose_names_are_data() -> None:
    found = declared("counts", *({f"user-{n}": n, f"user-{n + 1}": 1.5} for n in range(100)))
    assert found[0] == DictOf(Plain("int | float"))
    assert "101 different names" in found[2][0]


@pytest.mark.parametrize(
    ("factor", "type_name"),
    [(0.001, "EpochSeconds"), (1, "EpochMillis"), (1_000, "EpochMicros"), (1_000_000, "EpochNanos")],
)
def test_numbers_since_1970(factor: float, type_name: str) -> None:
    values = [int((NOW_MS - 1000 * n) * factor) for n in range(5)]
    found, _, (note,) = declared("x", *values)
    assert isinstance(found, Epoch) and found.unit.declared == type_name
    assert "from 2026-03-01 11:59:56 UTC to 2026-03-01 12:00:00 UTC" in note and "in 5 of 5" in note


def test_numbers_that_may_be_ids_are_no_times() -> None:
    values = [1_300_000_000 + n for n in range(5)]  # in 2011
    assert declared("order", *values)[0] == Plain("int")
    assert isinstance(declared("created", *values)[0], Epoch)
    assert declared("created", *values, 0)[0] == Plain("int")


@pytest.mark.parametrize("name", ["ts", "ts_ms", "eventTime", "created_at", "createdAt", "TIMESTAMP", "updatedAtUtc"])
def test_names_of_times(name: str) -> None:
    assert named_like_a_time(name)


@pytest.mark.parametrize("name", ["id", "amount", "status", "items", "ms", "latitude", "attempts"])
def test_names_of_other_fields(name: str) -> None:
    assert not named_like_a_time(name)


def instant(**ago: float) -> str:
    return (NOW - timedelta(**ago)).isoformat()


@pytest.mark.parametrize(
    ("fields", "chosen"),
    [
        ({"created_at": {"seconds": 5}, "event_time": {"seconds": 9}}, "event_time"),
        ({"updated_at": {"seconds": 5}, "createdAt": {"seconds": 9}}, "createdAt"),
        ({"expires_at": {"minutes": -30}, "seen": {"seconds": 9}}, "seen"),
        ({"timestamp": {"days": 900}, "seen": {"seconds": 9}}, "seen"),
        ({"a": {"seconds": 90}, "b": {"seconds": 9}}, "b"),
        ({"birth_date": {"days": 9000}, "ts": {"days": 400}}, "ts"),
    ],
)
def test_the_event_time(fields: dict[str, Any], chosen: str) -> None:
    found = profiled(*({name: instant(**ago) for name, ago in fields.items()} for _ in range(10)))
    assert found.time.field == chosen
    assert all(name in " ".join(found.time.notes) for name in fields)


def test_a_time_inside_of_an_object_is_named_with_its_column() -> None:
    found = profiled(*({"meta": {"created": NOW_MS - at}} for at in range(5)))
    assert found.time.field is None
    assert (
        'meta.created, inside of an object: a column for it is Annotated[EpochMillis, Path("meta.created")]'
        in " ".join(found.time.notes)
    )


def test_a_date_is_the_event_time_if_no_time_is() -> None:
    found = profiled(*({"day": f"2026-02-{day:02}", "n": day} for day in range(20, 28)))
    assert found.time.field == "day" and "begins in UTC" in " ".join(found.time.notes)
    assert found.time.late == "19 days"
    assert profiled({"delivery": "2026-03-01"}).time.field is None
    assert profiled({"date": "2026-03-01", "seen": instant(seconds=1)}).time.field == "seen"


def test_late_and_keep_cover_a_history() -> None:
    found = profiled(*({"ts": instant(days=days)} for days in range(100, 1000)))
    assert (found.time.late, found.time.early, found.time.partition) == ("1998 days", "1 hour", "1 day")
    assert found.time.keep == "2089 days"
    found = profiled(*({"ts": instant(days=days)} for days in range(100, 4000)))
    assert (found.time.partition, found.time.late) == ("1 month", "7998 days")


def test_a_single_event_outside_of_the_limits_changes_none() -> None:
    found = profiled(*({"ts": instant(seconds=1)} for _ in range(999)), {"ts": instant(days=10_000)})
    assert (found.time.late, found.time.keep) == ("7 days", "90 days")
    assert "1 of 1,000" in " ".join(found.time.notes)


def test_without_a_time_in_every_event_the_timestamp_counts() -> None:
    values = [{"ts": None, "at": "2026-03-01T10:00:00", "x": 1}, {"ts": instant(), "at": "2026-03-01T10:00:00", "x": 1}]
    found = profiled(*values)
    assert found.time.field is None
    notes = " ".join(found.time.notes)
    assert "ts, missing or null in 1 of 2" in notes and "at: times without a time zone" in notes
    sample = sample_of(values)
    assert "event_time=RECORD_TIMESTAMP," in topic_stream.source("clicks", sample, found)


@pytest.mark.parametrize(
    "text",
    [
        "2010/01/31 00:00",
        "31.01.2010",
        "1/31/2010 4:05 PM",
        "Sun, 31 Jan 2010 10:00:00 GMT",
        "Sun Jan 31 10:00:00 UTC 2010",
        "Jan 31 2010",
        "31-Jan-2010",
    ],
)
def test_texts_that_may_be_times_in_another_notation_are_named(text: str) -> None:
    values = [event(day=text) for _ in range(3)]
    source = topic_stream.source("clicks", sample_of(values), profiled(*values))
    assert "day: str" in source and "a notation that Millrace does not read" in source


@pytest.mark.parametrize("text", ["10.0.0.1", "1.2.3", "2010/1", "3.14", "hello", "A-12"])
def test_other_texts_are_no_times(text: str) -> None:
    values = [event(day=text) for _ in range(3)]
    assert "does not read" not in topic_stream.source("clicks", sample_of(values), profiled(*values))


def test_the_kafka_key() -> None:
    values = [event(user=f"u{n}", kind=n % 2, id=n) for n in range(4)]
    found = profiled(*values, keys=[b"u0", b"u1", b"u2", b"u3"])
    assert found.key.field == "user"
    found = profiled(*values, keys=[b"0", b"1", b"2", None])
    assert (found.key.field, found.key.note) == ("id", "The Kafka key equals id in 3 of 4 records.")
    assert profiled(*values).key.note == "No record has a Kafka key."
    for key, kind in ((b'{"id": 1}', "JSON objects"), (b"x", "texts"), (b"\0\0\0\7", "4 bytes"), (b"\xff", "binary")):
        found = profiled(*values, keys=[key] * 4)
        assert found.key.field is None and kind in found.key.note


@pytest.mark.parametrize(
    ("key", "declared", "sql"),
    [
        (b"17", "key: Annotated[str, Key]", "text"),
        (b"6f1c0b52-6c35-4f0e-9a0f-0d5f4b8f3a11", "key: Annotated[UUID, Key]", "uuid"),
        (b'"a"', "key: Annotated[str, Key]", "text"),
        (b'{"id": 1}', "key: Annotated[Any, Key]", "jsonb"),
        (b'{"schema": null, "payload": {"id": 1}}', 'key: Annotated[Any, Key("payload")]', "jsonb"),
        (b"\0\0\0\0\0\0\0\7", "key: Annotated[bytes, Key]", "bytea"),
        (b"\xff\1", "key: Annotated[bytes, Key]", "bytea"),
    ],
)
def test_keys_that_equal_no_field_become_a_column(key: bytes, declared: str, sql: str, tmp_path: Path) -> None:
    sample = sample_of([event(n=at) for at in range(4)], keys=[key] * 4)
    found = topic_stream.write("clicks", sample, tmp_path)
    assert trial(found.stream, sample.messages).landed == 4
    assert declared in (tmp_path / "clicks.py").read_text()
    assert found.stream.fields[0].sql == sql


def test_a_column_of_keys_may_be_null_and_has_a_name_of_its_own(tmp_path: Path) -> None:
    sample = sample_of([event(KEY=1, record_key=2)] * 2, keys=[b"a", None])
    found = topic_stream.write("clicks", sample, tmp_path)
    assert trial(found.stream, sample.messages).landed == 2
    assert "record_2_key: Annotated[str | None, Key] = None  # in 1 of 2" in (tmp_path / "clicks.py").read_text()


def test_headers_are_named() -> None:
    names = frozenset({"trace", "__value_schema_id"})
    found = profile("topic", [Record(0, n, NOW_MS, None, json.dumps(event()).encode(), names) for n in range(2)])
    assert found.headers.startswith("Headers, which are not stored: trace (in 2). A field such as trace: Annotated[")
    assert any(found.headers in line for line in topic_stream.summary(found))
    assert profiled(event()).headers == ""


AVRO = b"\0\0\0\0\7\x06abc\x02\x9a\x99\x99\x99\x99\x99\xf1?"
PROTOBUF = b"\0\0\0\0\7\0\x0a\x03abc\x10\x96\x01"


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (b"hello", "plain text"),
        (b"2026-03-01,17,open", "lines of fields with ','"),
        (b"12", "single numbers"),
        (b'"hello"', "JSON strings"),
        (b'"{\\"a\\": 1}"', "JSON inside a JSON string"),
        (b"[1, 2]", "JSON arrays"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": 1', "JSON that is incomplete or invalid"),
        (b'{"a": 1}\n{"a": 2}', "several JSON documents in one record"),
        (b"<?xml version='1.0'?><a/>", "XML"),
        (b"", "empty values"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"Obj\x01...", "Avro files"),
        (b"\x82\xa1a\x01", "binary data"),
        (AVRO, "Avro with a schema registry's framing (schema id 7)"),
        (PROTOBUF, "Protobuf with a schema registry's framing (schema id 7)"),
        (b'\0\0\0\1\0{"a": 1}', "JSON Schema with a schema registry's framing (schema id 256)"),
    ],
)
def test_formats_that_cannot_land_are_named(value: bytes, kind: str) -> None:
    with raises(Code.RECORDS_UNSUPPORTED, "'topic'", kind, "0:0"):
        profiled(value, value)


def test_the_schema_id_in_a_header_is_named() -> None:
    found = contents([Record(0, 0, NOW_MS, None, AVRO[5:], frozenset({"__value_schema_id"}))])
    assert "__value_schema_id" in next(iter(found.others))


def test_protobuf() -> None:
    assert is_protobuf(b"") and is_protobuf(PROTOBUF[6:])
    assert not is_protobuf(AVRO[5:]) and not is_protobuf(b"\x0a\x05abc") and not is_protobuf(b"\0\0")


def test_an_empty_topic_and_tombstones() -> None:
    with raises(Code.TOPIC_EMPTY, "'topic'"):
        profiled()
    with raises(Code.TOPIC_EMPTY, "tombstones"):
        profiled(None, None)


def test_some_records_may_be_something_else() -> None:
    found = profiled(*(event() for _ in range(8)), b"hello", None)
    assert (found.events, found.tombstones, found.others, found.examples) == (
        8,
        1,
        {"plain text": 1},
        {"plain text": "0:8"},
    )


def change(op: str, **row: Any) -> dict[str, Any]:
    return {"before": None, "after": row, "op": op, "ts_ms": NOW_MS, "source": {"db": "shop", "ts_ms": NOW_MS}}


def test_envelopes() -> None:
    schema = {"type": "struct", "fields": []}
    assert profiled({"schema": schema, "payload": {"id": 1}}).envelope is Envelope.CONNECT
    metadata = {"status": "BEGIN", "id": "571", "event_count": None, "data_collections": None, "ts_ms": NOW_MS}
    for wrap, envelope in (
        (lambda event: event, Envelope.DEBEZIUM),
        (lambda event: {"schema": schema, "payload": event}, Envelope.DEBEZIUM_CONNECT),
    ):
        deleted = {**change("d"), "before": {"id": 1, "name": ""}, "after": None}
        found = profiled(*map(wrap, (change("c", id=1, name="a"), change("u", id=1, name=None), deleted)), metadata)
        assert (found.envelope, found.are_rows, found.time.field) == (envelope, True, "change_time")
        assert [(field.name, field.type, field.nullable) for field in found.fields] == [
            ("id", Plain("int"), True),
            ("name", Plain("str"), True),
        ], "without a Kafka key, no column is certain"
        assert (found.row_key, found.key.field) == ((), None)


def test_the_columns_of_changes_have_the_types_of_their_schema() -> None:
    columns: list[tuple[str, dict[str, Any]]] = [
        ("id", {"type": "int32", "optional": False}),
        ("day", {"type": "int32", "optional": True, "name": "io.debezium.time.Date"}),
        ("at", {"type": "int64", "optional": False, "name": "io.debezium.time.MicroTimestamp"}),
        ("amount", {"type": "bytes", "name": "org.apache.kafka.connect.data.Decimal", "parameters": {"scale": "2"}}),
        ("never", {"type": "string", "optional": True, "name": "io.debezium.data.Json"}),
    ]
    parts = {"field": "after", "fields": [{"field": name, **column} for name, column in columns]}
    event = change("c", id=1, day=20_000, at=NOW_MS * 1_000, amount="AQI=")
    event["source"]["lsn"] = 7
    record = Record(0, 0, NOW_MS, b'{"schema": {}, "payload": {"id": 1}}', b"")
    value = json.dumps({"schema": {"fields": [parts]}, "payload": event}).encode()
    found = profile("topic", [replace(record, value=value)])
    assert found.row_key == ("id",)
    assert [(field.name, field.type, field.nullable) for field in found.fields] == [
        ("id", Plain("int"), False),
        ("day", Plain("ConnectDate"), True),
        ("at", Plain("MicroTimestamp"), False),
        ("amount", Unscaled(2), False),
        ("never", Plain("JsonText"), True),
        ("lsn", OfSource("lsn", Plain("int")), True),
    ]


def test_the_columns_of_changes_have_the_types_of_a_registry() -> None:
    row = {
        "type": "record",
        "name": "Value",
        "fields": [
            {"name": "id", "type": "long"},
            {
                "name": "credit",
                "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}],
            },
            {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["a", "b"]}},
            {"name": "body", "type": "string"},
        ],
    }
    schema = {
        "type": "record",
        "name": "Envelope",
        "fields": [
            {"name": "before", "type": ["null", row]},
            {"name": "after", "type": ["null", "Value"]},
            {
                "name": "source",
                "type": {"type": "record", "name": "Source", "fields": [{"name": "lsn", "type": "long"}]},
            },
            {"name": "op", "type": "string"},
            {"name": "ts_ms", "type": "long"},
        ],
    }
    after = {"id": 1, "credit": Decimal("1.50"), "kind": "a", "body": PLACEHOLDER}
    event = {"before": None, "after": after, "source": {"lsn": 7}, "op": "u", "ts_ms": NOW_MS}
    record = Record(0, 0, NOW_MS, b"\0\0\0\0\7\2", b"\0\0\0\0\7")
    fields = avro.fields_of(Schema("AVRO", json.dumps(schema), {}))
    found = profile("topic", [record], Decoded(Format.AVRO, "registry", ["id 7"], fields, {(0, 0): event}))
    assert (found.are_rows, found.row_key, found.time.field) == (True, (), "change_time")
    assert [(field.name, field.type, field.nullable) for field in found.fields] == [
        ("id", Plain("int"), True),
        ("credit", Plain("Decimal"), True),
        ("kind", Plain("str"), True),
        ("body", Plain("str"), True),
        ("lsn", OfSource("lsn", Plain("int")), True),
    ]


def test_columns_of_changes_without_a_schema() -> None:
    values = [PLACEHOLDER if number % 2 else "text" for number in range(1_000)]
    changes = [
        change("u", id=n, body=body, kind="ab"[n % 2], price={"scale": 1, "value": "AQ=="})
        for n, body in enumerate(values)
    ]
    records = [Record(0, n, NOW_MS, b'{"id": 1}', json.dumps(each).encode()) for n, each in enumerate(changes)]
    found = {field.name: field for field in profile("topic", records).fields}
    assert found["id"].nullable is False
    assert found["body"].type == found["kind"].type == Plain("str")
    assert found["price"].type == Plain("VariableDecimal")


def test_several_types_of_events_are_recognized() -> None:
    signup, order = event(type="signup", email="a"), event(type="order", amount=1.5)
    found = profiled(signup, order, order)
    assert found.types is not None and (found.types.field, found.types.counts) == ("type", {"order": 2, "signup": 1})
    assert profiled(event(type="a", x=1), event(type="b", x=2)).types is None
    found = profiled(*[signup, order] * 300)
    assert found.fields[1].type == Plain("str"), "other types of events may follow"


def test_names_that_python_or_postgresql_do_not_allow() -> None:
    names = [
        "user-id",
        "user id",
        "class",
        "__op",
        "ctid",
        "kafka_offset",
        "2nd",
        "",
        "ok",
        "\N{LATIN SMALL LIGATURE FI}",
    ]
    found = python_names([*names, "x" * 70])
    assert list(map(found.get, names)) == [
        *("user_id", "user_id_2", "class_", "op", "ctid_", "event_kafka_offset", "field_2nd", "field", "ok", "fi")
    ]
    assert len(found["x" * 70]) <= 63


HOSTILE = {
    'quote"\\': 1,
    "line\nbreak": 1,
    '"""': 1,
    "date": "2026-01-31",
    "day": "2026-01-31",
    "float": 1.5,
    "other": 2.5,
    "list": [1],
    "Instant": "2026-01-31T10:00:00Z",
    "str": "x",
    "msgspec": 1,
    "Clicks": {"a": 1},
    "clicks": {"a": {"date": "x", "__b": 1}},
    "Any": None,
    "self": 1,
    "tab\there": {"\u2028": 1},
    "note": 'ends with """ and \\ and \n',
}


def test_any_name_and_value_can_be_written(tmp_path: Path) -> None:
    text, stream = written(tmp_path, [event(**HOSTILE), event(**HOSTILE)])
    assert "date as date_type" in text
    left_out = {name for name in HOSTILE if not set(name).isdisjoint('"\\\n\t')}
    assert set(stream.event.__struct_encode_fields__) == {"ts", *HOSTILE} - left_out
    assert text.count("is left out") == len(left_out) == 4


@pytest.mark.parametrize("name", ["any", "literal", "stream", "epoch_millis", "msgspec", "class", "ts", "true"])
def test_a_stream_may_have_the_name_of_an_import(name: str, tmp_path: Path) -> None:
    written(tmp_path, [event(a={"b": 1}, c=None, kind="open")], name)


def test_the_written_file_passes_the_linter(tmp_path: Path) -> None:
    values = [
        event(**HOSTILE, status=("open", "closed")[n % 2], very_long_name_of_a_field=[{"a": n}] if n % 3 else None)
        for n in range(600)
    ]
    written(tmp_path, [*values, None])
    config = Path(__file__).parents[2] / "pyproject.toml"
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [Path(sys.executable).with_name("ruff"), *command, "--config", config, tmp_path / "clicks.py"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}{(tmp_path / 'clicks.py').read_text()}"


def test_comments_say_how_often_the_sample_shows_it(tmp_path: Path) -> None:
    values = [event(status=("open", "closed")[n % 2], x=n) for n in range(998)]
    text, _ = written(tmp_path, [*values, event(status="open"), event(status="open", x=None)])
    assert '    status: Literal["closed", "open"]  # 2 different values in 1,000' in text
    assert "    x: int | None = None  # in 999 of 1,000, null in 1" in text


def test_what_is_not_known_is_stated(tmp_path: Path) -> None:
    text, _ = written(tmp_path, [event(a=None, b=[], c={"d": {}}), event(a=None, b=[], c={"d": {}})])
    for line in ("- a: its type is unknown", "- b: always empty", "- c.d: always an empty object"):
        assert line in text


def test_missing_fields_of_nested_objects_stay_missing(tmp_path: Path) -> None:
    _, stream = written(tmp_path, [event(a={"b": 1}), event(a={"c": 2})])
    found = msgspec.json.decode(json.dumps(event(a={"b": 1})), type=stream.event)
    assert msgspec.json.encode(found.a) == b'{"b":1}'


def test_a_trial_says_what_would_not_land(tmp_path: Path) -> None:
    _, stream = written(tmp_path, [event(x=1, a={"b": 1}), event(x=2, a={"b": 1})])
    values = [
        event(x=1, a={"b": 1}),
        event(x="one", a={"b": 1}),
        event(x="two", a={"b": 1}),
        None,
        event(x=1, a={"b": 1, "new": 1}, more=1),
        {**event(x=1, a={"b": 1}), "ts": instant(days=9)},
        {**event(x=1, a={"b": 1}), "ts": instant(days=8)},
    ]
    tried = trial(stream, sample_of(values).messages)
    assert (tried.records, tried.landed, tried.tombstones) == (7, 2, 1)
    assert [(reason.records, reason.example) for reason in tried.reasons] == [(2, "0:1"), (2, "0:5")]
    assert tried.unknown == {"a.new": 1, "more": 1}
    assert trial(stream, sample_of([{"ts": instant()}]).messages).unused == ["x", "a"]


def test_a_sample_has_the_beginning_the_end_and_the_middle() -> None:
    found = windows({0: Extent(100, 1_100, 1_100), 1: Extent(0, 5, 5), 2: Extent(7, 7, 7)}, 105)
    assert set(found) == {0, 1}
    assert [(window.start, window.records) for window in found[1]] == [(0, 5)]
    first, *_, last = found[0]
    assert (first.start, first.records) == (100, 10)
    assert (last.start, last.until, last.records) == (1_090, 1_100, 10)
    assert sum(window.records for window in found[0]) == 100
    assert all(a.until == b.start for a, b in zip(found[0], found[0][1:], strict=False))


def test_a_sample_of_many_partitions_has_a_record_of_each() -> None:
    found = windows({p: Extent(0, 100, 100) for p in range(50)}, 10)
    assert sum(window.records for some in found.values() for window in some) == 50
    assert {window.start for some in found.values() for window in some} == {0, 49, 99}


def test_a_double_is_a_time_in_seconds() -> None:
    found, _, _ = declared("x", NOW_MS / 1000 + 0.25, NOW_MS / 1000)
    assert isinstance(found, Epoch)


def test_texts_of_digits_may_be_times() -> None:
    texts = [str(NOW_MS - n) for n in range(5)]
    found = profiled(*({"x": text} for text in texts))
    assert (found.fields[0].type, found.time.field) == (Epoch(Unit.MILLISECONDS), "x")
    assert declared("phone", *(f"1300{n:06}" for n in range(5)))[0] == Plain("str")
