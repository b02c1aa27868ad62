"""Columns from Kafka keys, headers and timestamps: landing, retry, replay, the audit, the current state."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from random import Random
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import fastavro
import msgspec
import pytest

from embedded.component import SCHEMA_REGISTRY
from embedded.platform import SERVICES, Platform
from include.error_codes import Code
from include.kafka import sample
from include.landing import proof, recovery, replay, retry, trial
from include.landing.choice import Choice
from include.landing.decoding import comparison
from include.landing.drain import drain
from include.landing.replay_selection import Wanted
from include.schemas import framing
from include.schemas.registry import SchemaRegistry
from include.streams import produce
from include.streams.definition import Header, Instant, Key, RecordTimestamp, Stream
from tests.errors import raises
from tests.integration.landing import NOW, kept_aside, one_disposition_each, rows, send

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

IDS = [UUID(int=number) for number in range(1, 4)]


class Reading(msgspec.Struct, kw_only=True):
    """An event of a value, a key, a header and a timestamp."""

    id: Annotated[UUID, Key]
    ts: Instant
    at: Annotated[Instant, RecordTimestamp]
    text: str
    level: Annotated[int | None, Header("level")]


class Strict(Reading):
    level: Annotated[int, Header("level")]


class Flagged(Strict):
    late: Annotated[str | None, Header("flag")] = None


def simulate(random: Random) -> Iterator[Reading]:
    while True:
        yield Reading(id=random.choice(IDS), ts=NOW, at=NOW, text="x", level=random.choice([None, 1]))


@pytest.fixture(scope="module")
def platform(services: Platform) -> Iterator[Platform]:
    """The services and a schema registry."""
    services.use_schema_registry(True)
    services.up((*SERVICES, SCHEMA_REGISTRY))
    yield services
    services.use_schema_registry(False)


@pytest.fixture
def stream(warehouse: Connection, topic: Callable[..., str]) -> Stream:
    stream = Stream(
        name="readings",
        topic=topic("parts"),
        event=Strict,
        event_time="ts",
        key="id",
        current=True,
        deletes="tombstone",
        simulate=simulate,
        quiet="1 second",
        window="1 minute",
        kafka_partitions=1,
    )
    produce.make_topic(stream)
    return stream


def value(text: str = "x") -> bytes:
    return msgspec.json.encode({"ts": NOW, "text": text})


def landed(connection: Connection, columns: str = "id, text, level") -> list[tuple[Any, ...]]:
    return rows(connection, f"SELECT {columns} FROM landing.readings ORDER BY kafka_offset")


def test_keys_headers_and_timestamps_on_every_path(warehouse: Connection, stream: Stream) -> None:
    def record(text: str, key: bytes | None, **headers: bytes) -> None:
        send(stream, [value(text)], key=key, headers=list(headers.items()))

    keys = [str(each).encode() for each in IDS]
    record("a", keys[0], level=b"1", flag=b"f")
    record("b", keys[1])
    record("c", None, level=b"2")
    record("d", b"no UUID", level=b"3")
    record("e", keys[1], level=b"high")
    record("f", keys[2], level=b"4")
    send(stream, [None], key=keys[2])
    send(stream, [None], key=b"no UUID")

    seen = trial.trial(stream, sample.read(stream.topic, 100).messages)
    assert (seen.landed, seen.tombstones) == (2, 1)
    assert drain(stream, "test").landed == 2
    assert landed(warehouse) == [(str(IDS[0]), "a", 1), (str(IDS[2]), "f", 4)]
    reasons = {offset: reason for offset, (_, reason) in kept_aside(warehouse).items()}
    assert reasons == {
        1: "level: the record has no header 'level'",
        2: "id: the record has no Kafka key",
        3: "id, from the Kafka key: ValidationError: Invalid UUID",
        4: "level, from the header 'level': ValidationError: Expected `int`, got `str`",
        7: "id, from the Kafka key: ValidationError: Invalid UUID",
    }
    assert rows(warehouse, "SELECT id FROM landing.readings_current") == [(str(IDS[0]),)]
    stamps = rows(warehouse, "SELECT bool_and(at > ts) FROM landing.readings")
    assert stamps == [(True,)]
    assert proof.prove(warehouse, stream).wrong == []

    # A record without the header lands once the type allows None; it is decoded from what the dead letter has.
    tolerant = replace(stream, event=Reading)
    assert retry.retry(warehouse, tolerant) == (1, 3, 0)
    assert (str(IDS[1]), "b", None) in landed(warehouse)
    assert proof.prove(warehouse, tolerant).wrong == []

    # A replay fills the column of a new header, and is stricter again.
    flagged = replace(stream, event=Flagged)
    replay.replay(warehouse, flagged, Wanted(), "test")
    assert landed(warehouse, "id, late") == [(str(IDS[0]), "f"), (str(IDS[2]), None)]
    assert proof.prove(warehouse, flagged).wrong == []
    one_disposition_each(warehouse, flagged)

    # What produce sends lands as it was.
    produce.produce(tolerant, 50, seed=1)
    assert drain(tolerant, "test").landed == 50
    expected = [(str(each.id), each.level) for each in islice(simulate(Random(1)), 50)]
    assert landed(warehouse, "id, level")[-50:] == expected
    assert proof.prove(warehouse, replace(tolerant, event=Reading)).wrong == []


class Ordered(msgspec.Struct):
    """The key is a record in Avro."""

    id: Annotated[int, Key("id")]
    text: str
    ts: Instant
    region: Annotated[str | None, Key("region")] = None


KEY_SCHEMA = {
    "type": "record",
    "name": "Id",
    "fields": [{"name": "id", "type": "long"}, {"name": "region", "type": ["null", "string"], "default": None}],
}


def test_keys_of_a_schema_registry(platform: Platform, warehouse: Connection, topic: Callable[..., str]) -> None:
    stream = Stream(
        name="readings",
        topic=topic("keys"),
        event=Ordered,
        event_time="ts",
        key="id",
        key_format="avro",
        current=True,
        deletes="tombstone",
        simulate=lambda random: (Ordered(random.randrange(5), "x", NOW, "eu") for _ in iter(int, 1)),
        quiet="1 second",
        window="1 minute",
        kafka_partitions=1,
    )
    produce.make_topic(stream)
    with SchemaRegistry("millrace_registry") as registry:
        schema_id = registry.register(stream.key_subject, "AVRO", json.dumps(KEY_SCHEMA))

    def key(**fields: Any) -> bytes:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, fastavro.parse_schema(KEY_SCHEMA), fields)
        return framing.prefix(schema_id) + out.getvalue()

    text = msgspec.json.encode({"ts": NOW, "text": "a"})
    send(stream, [text], key=key(id=1, region="eu"))
    send(stream, [text], key=key(id=2))
    send(stream, [text], key=b"1")
    send(stream, [None], key=key(id=2))
    # A header may name the schema of a key, which then has no prefix.
    named: dict[str, Any] = {
        "key": key(id=3)[framing.PREFIX_BYTES :],
        "headers": [("__key_schema_id", framing.prefix(schema_id))],
    }
    send(stream, [text], **named)
    send(stream, [None], **named)
    assert drain(stream, "test").landed == 3
    assert landed(warehouse, "id, region") == [(1, "eu"), (2, None), (3, None)]
    assert rows(warehouse, "SELECT id FROM landing.readings_current") == [(1,)]
    assert "the key names no schema: it begins with 31" in kept_aside(warehouse)[2][1]
    assert proof.prove(warehouse, stream).wrong == []
    assert [each.verdict for each in comparison.compare(stream, of_key=True)] == ["fits"]

    # The keys that produce sends are those of a schema of their own.
    produce.produce(stream, 20, seed=1)
    assert drain(stream, "test").landed == 20
    assert proof.prove(warehouse, stream).wrong == []

    send(stream, [text], key=framing.prefix(987_654_321) + b"x")
    with raises(Code.SCHEMA_UNKNOWN):
        drain(stream, "test")
    recovery.accept(warehouse, stream, Choice.BAD, "test")
    drain(stream, "test")
    assert "Kafka key: " in kept_aside(warehouse)[26][1]


def test_whole_keys_of_a_schema_registry(platform: Platform, warehouse: Connection, topic: Callable[..., str]) -> None:
    event = msgspec.defstruct("Reading", [("id", Annotated[int, Key]), ("ts", Instant), ("text", str)])

    def simulated(random: Random) -> Iterator[Any]:
        while True:
            yield event(random.randrange(5), NOW, "x")

    for number, form in enumerate(["avro", "json-schema"]):
        name = f"readings{number}"
        stream = Stream(
            name=name,
            topic=topic(name),
            event=event,
            event_time="ts",
            key="id",
            format=form,
            key_format=form,
            simulate=simulated,
            quiet="1 second",
            window="1 minute",
            kafka_partitions=1,
        )
        produce.produce(stream, 20, seed=1)
        assert drain(stream, "test").landed == 20
        assert rows(warehouse, f"SELECT count(DISTINCT id) FROM landing.{name}") == [(5,)]
        assert proof.prove(warehouse, stream).wrong == []
