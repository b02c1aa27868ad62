"""Streams whose records name their schema, with a real schema registry: equal tables, stops, downtime, many schemas."""

from __future__ import annotations

import io
import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import fastavro
import msgspec
import pytest

from embedded import backup, restore, schema_registry
from embedded.component import SCHEMA_REGISTRY
from embedded.platform import SERVICES, Platform
from embedded.ports import HOST
from embedded.supervisor import Supervisor
from include.error_codes import Code
from include.errors import UserError
from include.landing import proof, recovery, retry
from include.landing import replay as replays
from include.landing.choice import Choice
from include.landing.decoding import comparison
from include.landing.drain import drain
from include.landing.recovery import SchemaStops
from include.landing.replay_selection import Wanted
from include.schemas import framing
from include.schemas.registry import SchemaMissing, SchemaRegistry
from include.streams import encoding, produce, vehicle_positions
from include.streams.definition import Instant, Stream
from tests.faults.toolbox.servers import Registry
from tests.integration.landing import NOW, kept_aside, one_disposition_each, rows, send
from tests.polling import until

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

READING: dict[str, Any] = {
    "type": "record",
    "name": "Reading",
    "fields": [
        {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "text", "type": "string"},
        {"name": "number", "type": "long"},
    ],
}


class Reading(msgspec.Struct):
    ts: Instant
    text: str
    number: int = 0


@pytest.fixture(scope="module")
def platform(services: Platform) -> Iterator[Platform]:
    """The services and a schema registry."""
    services.use_schema_registry(True)
    services.up((*SERVICES, SCHEMA_REGISTRY))
    yield services
    services.use_schema_registry(False)


@pytest.fixture
def registry(platform: Platform) -> Iterator[SchemaRegistry]:
    with SchemaRegistry("millrace_registry") as found:
        yield found


@pytest.fixture
def stream(platform: Platform, warehouse: Connection, topic: Callable[..., str]) -> Stream:
    """A stream of Avro with an empty topic and without a table."""
    stream = Stream(
        name="readings",
        topic=topic("readings"),
        event=Reading,
        event_time="ts",
        format="avro",
        quiet="2 seconds",
        window="1 minute",
        kafka_partitions=3,
    )
    produce.make_topic(stream)
    return stream


def encoded(schema: Any, schema_id: int, **record: Any) -> bytes:
    out = io.BytesIO(framing.prefix(schema_id))
    out.seek(0, io.SEEK_END)
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), {"ts": NOW, "text": "x", "number": 0} | record)
    return out.getvalue()


def register(registry: SchemaRegistry, stream: Stream, schema: Any = READING) -> int:
    """Registers a schema, as one of its own: the registry gives equal schemas the same id."""
    return registry.register(stream.subject, "AVRO", json.dumps({"doc": stream.topic} | schema))


def texts(connection: Connection) -> list[str]:
    return [text for (text,) in rows(connection, "SELECT text FROM landing.readings ORDER BY kafka_offset")]


@pytest.mark.parametrize("format", ["avro", "protobuf", "json-schema"])
def test_events_land_as_those_of_json(
    platform: Platform, warehouse: Connection, topic: Callable[..., str], format: str
) -> None:
    events = list(islice(vehicle_positions.drive(Random(1)), 3_000))
    shipped = replace(vehicle_positions.stream, kafka_partitions=1, quiet="2 seconds", window="1 minute")
    streams = [
        replace(shipped, name="plain", topic=topic("plain")),
        replace(shipped, name="framed", topic=topic("framed"), format=format),
    ]
    for stream in streams:
        produce.make_topic(stream)
        send(stream, map(encoding.encoder(stream), events))
        drained = drain(stream, "test")
        assert (drained.landed, drained.dead_letters) == (3_000, 0)
    both = [rows(warehouse, f"SELECT * FROM landing.{stream.name} ORDER BY kafka_offset") for stream in streams]
    assert both[0] == both[1] and len(both[0]) == 3_000
    assert not proof.prove(warehouse, streams[1]).wrong
    done = replays.replay(warehouse, streams[1], Wanted(), "test")
    assert sum(each.records for each in done) == 3_000
    assert rows(warehouse, "SELECT * FROM landing.framed ORDER BY kafka_offset") == both[0]


def test_an_unknown_schema_stops_the_stream_until_a_user_decides(
    registry: SchemaRegistry, stream: Stream, warehouse: Connection
) -> None:
    known = register(registry, stream)
    send(stream, [encoded(READING, known, text="a"), encoded(READING, 999_999), encoded(READING, known, text="b")])
    with pytest.raises(SchemaStops, match="does not have schema id 999999") as stopped:
        drain(stream, "test")
    assert stopped.value.code is Code.SCHEMA_UNKNOWN
    assert f"accept {stream.name} bad" in stopped.value.remedy
    assert "partition 0, offset 1" in stopped.value.what
    recovery.accept(warehouse, stream, Choice.BAD, "test")
    assert drain(stream, "test").landed == 2
    assert texts(warehouse) == ["a", "b"]
    assert kept_aside(warehouse) == {
        1: ("dead letter", "the schema registry of connection 'millrace_registry' does not have schema id 999999")
    }
    one_disposition_each(warehouse, stream)
    assert not proof.prove(warehouse, stream).wrong
    # The decision does not cover later records.
    send(stream, [encoded(READING, 999_998)])
    with pytest.raises(SchemaStops, match="999998"):
        drain(stream, "test")


def test_a_deleted_schema_stops_the_stream_and_its_return_lets_it_continue(
    registry: SchemaRegistry, stream: Stream, warehouse: Connection
) -> None:
    known = register(registry, stream)
    registry._request("DELETE", f"/subjects/{stream.subject}")
    registry._request("DELETE", f"/subjects/{stream.subject}?permanent=true")
    with pytest.raises(SchemaMissing):
        registry.schema(known)
    send(stream, [encoded(READING, known, text="a")])
    with pytest.raises(SchemaStops):
        drain(stream, "test")
    assert register(registry, stream) == known
    send(stream, [encoded(READING, known, text="b")])
    assert drain(stream, "test").landed == 2
    assert texts(warehouse) == ["a", "b"]


def test_a_schema_that_does_not_fit_stops_the_stream_until_the_definition_is_corrected(
    registry: SchemaRegistry, stream: Stream, warehouse: Connection
) -> None:
    other = json.loads(json.dumps(READING).replace('"text"', '"title"'))
    key = register(registry, stream, other)
    send(stream, [encoded(other, key, title="a")])
    with pytest.raises(SchemaStops, match="field 'text': the schema does not have this field") as stopped:
        drain(stream, "test")
    assert stopped.value.code is Code.SCHEMA_INCOMPATIBLE
    assert f"{stream.subject} version 1" in stopped.value.what
    corrected = replace(stream, event=msgspec.defstruct("Reading", [("ts", Instant), ("text", str, "none")]))
    assert drain(corrected, "test").landed == 1
    assert texts(warehouse) == ["none"]


def test_bytes_that_do_not_fit_become_dead_letters_that_name_schema_and_field(
    registry: SchemaRegistry, stream: Stream, warehouse: Connection
) -> None:
    key = register(registry, stream)
    good = encoded(READING, key, text="good")
    send(stream, [good, good[:-1], b'{"ts": 1}', good + b"x", None, good[:9]])
    assert drain(stream, "test").landed == 1
    name = f"schema id {key} ({stream.subject} version 1): Unreadable: "
    found = kept_aside(warehouse)
    assert found[1][1] == name + "field 'number': the value ends before this number does"
    assert found[2][1].startswith("the value names no schema: it begins with 7b 22")
    assert found[3][1] == name + "1 bytes are left after the last field"
    assert found[5][1].startswith(name + "field 'ts'")
    assert retry.retry(warehouse, stream) == (0, 4, 0)
    one_disposition_each(warehouse, stream)


def test_a_header_names_the_schema_also_for_a_retry(
    registry: SchemaRegistry, stream: Stream, warehouse: Connection
) -> None:
    key = register(registry, stream)
    value = encoded(READING, key, number=-5)[framing.PREFIX_BYTES :]
    fields = [("ts", Instant), ("text", str), ("number", Annotated[int, msgspec.Meta(ge=0)])]
    positive = replace(stream, event=msgspec.defstruct("Reading", fields))
    send(stream, [value], headers=[(framing.HEADER, framing.prefix(key))])
    assert drain(positive, "test").dead_letters == 1
    assert "Expected `int` >= 0" in kept_aside(warehouse)[0][1]
    assert retry.retry(warehouse, stream) == (1, 0, 0)
    assert rows(warehouse, "SELECT number FROM landing.readings") == [(-5,)]
    assert not proof.prove(warehouse, stream).wrong


def test_a_registry_without_guids_is_named(registry: SchemaRegistry, stream: Stream, warehouse: Connection) -> None:
    """Apicurio does not have Confluent's search by GUID."""
    guid = uuid4()
    value = encoded(READING, register(registry, stream))[framing.PREFIX_BYTES :]
    send(stream, [value], headers=[(framing.HEADER, b"\1" + guid.bytes)])
    with pytest.raises(UserError) as refused:
        drain(stream, "test")
    assert refused.value.code is Code.REGISTRY_REFUSED
    assert f"does not find schemas by GUID, and a record names the GUID {guid}" in refused.value.what
    assert rows(warehouse, "SELECT FROM millrace.landing_ledger") == []


def test_a_drain_waits_for_a_registry_that_is_down(
    platform: Platform, registry: SchemaRegistry, stream: Stream, warehouse: Connection
) -> None:
    key = register(registry, stream)
    send(stream, [encoded(READING, key, text=str(number)) for number in range(100)])
    supervisor = Supervisor(platform.home)
    supervisor.stop_component(SCHEMA_REGISTRY)
    landed: list[Any] = []
    drains = threading.Thread(target=lambda: landed.append(drain(stream, "test")))
    drains.start()
    try:
        # Longer than the stream's quiet time.
        time.sleep(6)
        assert drains.is_alive() and not landed
    finally:
        platform.up((*SERVICES, SCHEMA_REGISTRY))
    drains.join(60)
    assert landed[0].landed == 100
    one_disposition_each(warehouse, stream)


def test_a_registry_that_is_down_for_a_window_fails_the_drain_and_loses_nothing(
    registry: SchemaRegistry, stream: Stream, warehouse: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = register(registry, stream)
    send(stream, [encoded(READING, key, text="a")])
    with monkeypatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_MILLRACE_REGISTRY", "http://127.0.0.1:9")
        with pytest.raises(UserError) as failed:
            drain(replace(stream, window="3 seconds"), "test")
    assert failed.value.code is Code.REGISTRY_UNAVAILABLE
    assert drain(stream, "test").landed == 1


def test_a_thousand_schemas_land(registry: SchemaRegistry, stream: Stream, warehouse: Connection) -> None:
    registry._request("PUT", f"/config/{stream.subject}", {"compatibility": "NONE"})
    values = []
    for number in range(1_000):
        schema = {**READING, "fields": [*READING["fields"], {"name": f"extra_{number}", "type": "long"}]}
        key = register(registry, stream, schema)
        values += [encoded(schema, key, number=number, **{f"extra_{number}": 1})] * 3
    assert len({value[: framing.PREFIX_BYTES] for value in values}) == 1_000
    send(stream, values)
    assert drain(stream, "test").landed == 3_000
    found = rows(warehouse, "SELECT number FROM landing.readings ORDER BY kafka_offset")
    assert found == [(number,) for number in range(1_000) for _ in range(3)]


def test_references_are_read(registry: SchemaRegistry, stream: Stream, warehouse: Connection) -> None:
    place = {"type": "record", "name": "Place", "fields": [{"name": "lat", "type": "double"}]}
    registry.register(f"{stream.topic}-place", "AVRO", json.dumps(place))
    whole = {**READING, "fields": [*READING["fields"], {"name": "place", "type": "Place"}]}
    body = {
        "schemaType": "AVRO",
        "schema": json.dumps(whole),
        "references": [{"name": "Place", "subject": f"{stream.topic}-place", "version": 1}],
    }
    key = registry._request("POST", f"/subjects/{stream.subject}/versions", body)["id"]
    inline = {**READING, "fields": [*READING["fields"], {"name": "place", "type": place}]}
    event = msgspec.defstruct("Reading", [("ts", Instant), ("text", str), ("place", Any)])
    send(stream, [encoded(inline, key, place={"lat": 1.5})])
    assert drain(replace(stream, event=event), "test").landed == 1
    assert rows(warehouse, "SELECT place FROM landing.readings") == [({"lat": 1.5},)]


def test_a_backup_of_a_running_platform_has_the_schemas(
    platform: Platform, registry: SchemaRegistry, stream: Stream, tmp_path: Path
) -> None:
    key = register(registry, stream)
    file, other = tmp_path / "all.backup", Platform(tmp_path / "other")
    backup.make(platform, file, lambda step: None)
    until("the registry answers again", lambda: answers(platform), 120)
    assert json.loads(registry.schema(key).text)["doc"] == stream.topic
    restore.make(other, file, restore.check(file, lambda step: None), lambda step: None)
    assert other.home.state()["schema_registry"]
    # The registry alone: the schemas need neither Kafka nor PostgreSQL.
    restored = Registry(other.home)
    restored.start()
    try:
        with urllib.request.urlopen(f"{restored.url}/schemas/ids/{key}", timeout=60) as answer:
            assert json.loads(json.load(answer)["schema"])["doc"] == stream.topic
        # Two registries on one machine share no port, and other machines reach neither.
        assert {address.removeprefix("::ffff:") for address in restored.addresses()} == {HOST}
    finally:
        restored.stop()


def answers(platform: Platform) -> bool:
    with suppress(UserError):
        schema_registry.check(platform.home.state()["ports"]["schema_registry"])
        return True
    return False


def test_the_client_sees_versions(registry: SchemaRegistry, stream: Stream) -> None:
    assert registry.versions(stream.subject) == {}
    key = register(registry, stream)
    assert register(registry, stream) == key
    ((number, (found, schema)),) = registry.versions(stream.subject).items()
    assert (number, found, json.loads(schema.text)["fields"]) == (1, key, READING["fields"])
    assert schema.subjects == (f"{stream.subject} version 1",)


def test_check_compares_every_registered_schema(registry: SchemaRegistry, stream: Stream) -> None:
    registry._request("PUT", f"/config/{stream.subject}", {"compatibility": "NONE"})
    fields = READING["fields"]
    for some in (fields, fields[:2], [*fields[:2], {"name": "number", "type": ["null", "long"]}], fields[1:]):
        register(registry, stream, {**READING, "fields": some})
    compared = comparison.compare(stream)
    assert [(each.version, each.stops) for each in compared] == [(1, False), (2, False), (3, False), (4, True)]
    assert [each.reasons for each in compared] == [
        (),
        (),
        ("field 'number': the schema allows null, the definition does not",),
        ("field 'ts': the schema does not have this field, and the definition gives it no default",),
    ]
    assert comparison.compare(replace(stream, format="json-schema"))[0].stops
