"""Values that must not be stored: no table, no file and no log has them, whatever becomes of their records."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import fastavro
import msgspec
import pytest
from confluent_kafka import TopicPartition
from psycopg2 import sql

from embedded.component import SCHEMA_REGISTRY
from embedded.platform import SERVICES, Platform
from include.kafka import client, sample
from include.landing import maintenance, proof, replay, retry, table, trial, withheld
from include.landing.drain import drain
from include.landing.replay_selection import Wanted
from include.schemas import framing
from include.schemas.registry import SchemaRegistry
from include.streams import produce
from include.streams.definition import Header, Instant, Key, KeyedHash, LastCharacters, Null, Stream
from tests.integration.landing import NOW, kept_aside, one_disposition_each, rows, send
from tests.integration.test_landing_tables import execute

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

# What a stream without masks may store.
PLAIN = "persimmon-4802"
# No part of it may be anywhere.
SECRET = "kumquat-7319"
MASK = {
    "id": KeyedHash(),
    "email": KeyedHash(),
    "card": LastCharacters(4),
    "person.name": Null,
    "trace": Null,
}


class Person(msgspec.Struct):
    name: str | None
    age: int = 0


class Reading(msgspec.Struct, kw_only=True):
    """An event that has secrets everywhere, and code that quotes them."""

    id: Annotated[str, Key]
    ts: Instant
    text: str
    email: str
    card: str | None = None
    person: Person | None = None
    trace: Annotated[str | None, Header("trace")]

    def __post_init__(self) -> None:
        if self.text == "refused by code":
            raise ValueError(f"refused: {self.email}")


class Tolerant(Reading):
    def __post_init__(self) -> None:
        """Takes everything."""


AVRO: dict[str, Any] = {
    "type": "record",
    "name": "Reading",
    "fields": [
        {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "text", "type": "string"},
        {"name": "email", "type": "string"},
        {"name": "card", "type": ["null", "string"]},
        {
            "name": "person",
            "type": ["null", {"type": "record", "name": "Person", "fields": [{"name": "name", "type": "string"}]}],
        },
    ],
}


@pytest.fixture(scope="module")
def platform(services: Platform) -> Iterator[Platform]:
    """The services and a schema registry."""
    services.use_schema_registry(True)
    services.up((*SERVICES, SCHEMA_REGISTRY))
    yield services
    services.use_schema_registry(False)


def defined(topic: str, **options: Any) -> Stream:
    stream = Stream(
        name="readings",
        topic=topic,
        event=Reading,
        event_time="ts",
        key="id",
        current=True,
        deletes="tombstone",
        mask=MASK,
        quiet="1 second",
        window="1 minute",
        kafka_partitions=1,
        **options,
    )
    produce.make_topic(stream)
    return stream


def record(text: str, secret: str = SECRET, **fields: Any) -> dict[str, Any]:
    found = {"ts": NOW, "text": text, "email": f"{secret}@x", "card": f"{secret}1111", "person": {"name": secret}}
    return found | fields


def as_avro(stream: Stream) -> Callable[[dict[str, Any]], bytes]:
    with SchemaRegistry("millrace_registry") as registry:
        prefix = framing.prefix(registry.register(stream.subject, "AVRO", json.dumps(AVRO)))
    schema = fastavro.parse_schema(AVRO)

    def encode(found: dict[str, Any]) -> bytes:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, schema, found)
        return prefix + out.getvalue()

    return encode


def places_of_the_secret(connection: Connection, home: Path) -> list[str]:
    """The tables of the database and the files of the home that have the secret, without those of Kafka's log."""
    found = []
    tables = rows(
        connection,
        "SELECT nspname, relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace "
        "WHERE relkind IN ('r', 'p') AND nspname NOT IN ('pg_catalog', 'information_schema')",
    )
    for schema, name in tables:
        query = sql.SQL(
            "SELECT count(*) FROM {} AS stored WHERE position(%(plain)s IN CAST(stored AS text)) > 0 "
        ).format(sql.Identifier(schema, name))
        with connection.cursor() as cursor:
            # bytea is shown in hexadecimal.
            for plain in (SECRET, SECRET.encode().hex()):
                cursor.execute(query, {"plain": plain})
                if (cursor.fetchone() or (0,))[0]:
                    found.append(f"{schema}.{name}")
    connection.rollback()
    for path in home.rglob("*"):
        of_kafka = path.relative_to(home).parts[:1] == ("kafka",)
        if path.is_file() and not path.is_symlink() and not of_kafka and SECRET.encode() in path.read_bytes():
            found.append(str(path))
    return found


@pytest.mark.parametrize("format", ["json", "avro"])
def test_no_secret_is_stored(
    platform: Platform,
    warehouse: Connection,
    topic: Callable[..., str],
    caplog: pytest.LogCaptureFixture,
    format: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    stream = defined(topic("masks"), format=format)
    encode = as_avro(stream) if format == "avro" else msgspec.json.encode
    key, headers = SECRET.encode(), [("trace", SECRET.encode()), ("other", SECRET.encode())]

    def sent(*values: bytes | None, key: bytes | None = key) -> None:
        send(stream, values, key=key, headers=headers)

    sent(encode(record("landed")))
    sent(encode(record("refused by code")))
    sent(encode(record("refused by PostgreSQL")))
    sent(encode(record("too old", ts=NOW.replace(year=NOW.year - 1))))
    sent(SECRET.encode(), encode(record("cut"))[:-9])
    sent(encode(record("no key")), key=None)
    sent(encode(record("NUL\0")))
    sent(None, key=b"\xff" + SECRET.encode())

    tried = trial.trial(stream, sample.read(stream.topic, 100).messages)
    assert SECRET not in repr(tried)
    with warehouse.cursor() as cursor:
        table.bring_up_to_date(warehouse, stream)
        cursor.execute("ALTER TABLE landing.readings ADD CHECK (text <> 'refused by PostgreSQL')")
    warehouse.commit()
    assert drain(stream, "test").landed == 1
    ((email, card, person, trace, id),) = rows(warehouse, "SELECT email, card, person, trace, id FROM landing.readings")
    assert (card, person, trace) == ("1111", {"name": None, "age": 0}, None)
    assert len(email) == len(id) == 64
    letters = kept_aside(warehouse)
    assert sorted(letters) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert {kind for kind, _ in letters.values()} == {"dead letter", "quarantined"}
    stored = rows(warehouse, "SELECT DISTINCT key, value, headers, withheld FROM millrace.dead_letter")
    assert stored == [(None, None, None, "masked")]
    assert proof.prove(warehouse, stream).wrong == []
    one_disposition_each(warehouse, stream)
    found = places_of_the_secret(warehouse, platform.home.path)

    # A retry reads the records from Kafka, and gives the rows that a replay gives.
    tolerant = replace(stream, event=Tolerant)
    assert retry.retry(warehouse, tolerant)[0] == 1
    landed = "SELECT text, email, card, person, id FROM landing.readings ORDER BY kafka_offset"
    after_retry = rows(warehouse, landed)
    assert [text for text, *_ in after_retry] == ["landed", "refused by code"]
    assert after_retry[1][1:] == after_retry[0][1:] == (email, card, person, id)
    replay.replay(warehouse, tolerant, Wanted(), "test")
    assert rows(warehouse, landed) == after_retry
    assert proof.prove(warehouse, tolerant).wrong == []

    # A tombstone deletes the key whose hash is stored.
    sent(None)
    assert drain(tolerant, "test").landed == 0
    assert rows(warehouse, "SELECT count(*) FROM landing.readings_current") == [(0,)]
    assert proof.prove(warehouse, tolerant).wrong == []
    assert found + places_of_the_secret(warehouse, platform.home.path) == []
    assert SECRET not in caplog.text
    assert SECRET.encode().hex(" ") not in caplog.text


def test_old_dead_letters_lose_their_bytes(
    services: Platform, warehouse: Connection, topic: Callable[..., str]
) -> None:
    plain = replace(defined(topic("masks")), mask={})
    values = [msgspec.json.encode(record("refused by code", PLAIN)), b"{", msgspec.json.encode(record("landed", PLAIN))]
    send(plain, values, key=b"k")
    drain(plain, "test")
    kept = "SELECT kafka_offset, value IS NULL, withheld FROM millrace.dead_letter ORDER BY 1"
    maintenance.maintain(warehouse, replace(plain, keep_dead_letters="1 hour"))
    assert rows(warehouse, kept) == [(0, False, None), (1, False, None)]
    execute(warehouse, "UPDATE millrace.dead_letter SET kept_at = kept_at - interval '2 hours'")
    maintenance.maintain(warehouse, replace(plain, keep_dead_letters="1 hour"))
    assert rows(warehouse, kept) == [(0, True, "old"), (1, True, "old")]
    assert kept_aside(warehouse)[0][1].startswith("ValueError: refused: ")
    assert proof.prove(warehouse, plain).wrong == []

    # A record is another one if it has another timestamp, or a later leader epoch than all that were read.
    tolerant = replace(plain, event=Tolerant)
    for other in (
        "UPDATE millrace.dead_letter SET appended_at = appended_at - interval '1 ms'",
        "UPDATE millrace.position SET leader_epoch = leader_epoch - 1",
    ):
        execute(warehouse, other)
        assert retry.retry(warehouse, tolerant) == (0, 2, 0)
        execute(warehouse, other.translate(str.maketrans("-", "+")))

    # A retry finds what Kafka still has; what it has not stays a dead letter.
    brokers = client.admin()
    next(iter(brokers.delete_records([TopicPartition(plain.topic, 0, 1)]).values())).result()
    assert retry.retry(warehouse, tolerant) == (0, 2, 0)
    send(plain, [msgspec.json.encode(record("refused by code", PLAIN))], key=b"k")
    drain(plain, "test")
    execute(warehouse, "UPDATE millrace.dead_letter SET kept_at = kept_at - interval '2 hours'")
    # A stream that gets masks later loses all bytes, and the reasons.
    masked = replace(tolerant, mask=MASK)
    maintenance.maintain(warehouse, masked)
    assert rows(warehouse, "SELECT count(*) FROM millrace.dead_letter WHERE value IS NOT NULL OR key IS NOT NULL") == [
        (0,)
    ]
    assert not any(PLAIN in reason for _, reason in kept_aside(warehouse).values())
    assert retry.retry(warehouse, masked) == (1, 2, 0)
    one_disposition_each(warehouse, masked)


def test_many_withheld_letters_are_read_with_one_consumer_and_a_few_megabytes_at_a_time(
    services: Platform, warehouse: Connection, topic: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = replace(defined(topic("masks")), mask={}, key=None, current=False, deletes=None)
    values = [msgspec.json.encode(record("refused by code", PLAIN, card=str(at))) for at in range(30)]
    send(plain, values, key=b"k")
    drain(plain, "test")
    execute(warehouse, "UPDATE millrace.dead_letter SET key = NULL, value = NULL, headers = NULL, withheld = 'old'")
    consumers: list[object] = []
    make = client.consumer

    def counted(**options: Any) -> object:
        consumers.append(options)
        return make(**options)

    monkeypatch.setattr(client, "consumer", counted)
    monkeypatch.setattr(withheld, "_NEAR", 1)
    monkeypatch.setattr(withheld, "_AT_ONCE", 4)
    # Ranges of one letter each, and one of ten.
    execute(warehouse, "DELETE FROM millrace.dead_letter WHERE kafka_offset % 2 = 1 AND kafka_offset < 20")
    monkeypatch.setattr(withheld, "MAX_RANGES", 6)
    monkeypatch.setattr(withheld, "MAX_BYTES", 6 * len(values[0]))
    done: list[tuple[int, ...]] = []
    tolerant = replace(plain, event=Tolerant)
    assert retry.retry(warehouse, tolerant, lambda *each: done.append(each)) == (20, 0, 0)
    assert done == [(6, 0, 0), (14, 0, 0), (20, 0, 0)]
    assert len(consumers) == len(done)
    found = rows(warehouse, "SELECT CAST(card AS integer) FROM landing.readings ORDER BY kafka_offset")
    assert [number for (number,) in found] == [*range(0, 20, 2), *range(20, 30)]
