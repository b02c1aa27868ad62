"""Fields from other parts of a record than its value: the Kafka key, headers, the timestamp."""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pytest

from include.definitions import InvalidDefinition
from include.landing import copy, decoders
from include.landing.dead_letters import NO_STAMP
from include.landing.decoder import Others
from include.landing.tombstones import NO_KEY, KeyDecoder
from include.schemas import framing
from include.schemas.registry import SchemaRegistry
from include.schemas.schema import Schema
from include.streams import encoding
from include.streams.definition import (
    RECORD_TIMESTAMP,
    EpochMillis,
    Header,
    Instant,
    Key,
    RecordTimestamp,
    Stream,
    Zone,
)
from include.streams.parts import Part

UID = UUID("6f1c0b52-6c35-4f0e-9a0f-0d5f4b8f3a11")
TEN = datetime(2026, 1, 15, 10, tzinfo=UTC)
TEN_MS = int(TEN.timestamp() * 1000)


class Kind(Enum):
    A = "a"


class Place(msgspec.Struct):
    lat: float


class Click(msgspec.Struct):
    """An event of all parts."""

    user: Annotated[UUID, Key]
    ts: Instant
    at: Annotated[Instant, RecordTimestamp]
    page: str = msgspec.field(name="Page")
    trace: Annotated[str | None, Header("trace-id")]
    tenant: Annotated[str, Header("tenant")] = "main"
    dwell: float | None = None


CLICKS = Stream(name="clicks", event=Click, event_time="ts", key="user")
VALUE = b'{"ts": "2026-01-15T10:00Z", "Page": "/", "user": "not the key", "trace": 1}'


def events(stream: Stream, *records: tuple[bytes, bytes | None, list[tuple[str, Any]] | None, int]) -> Any:
    values, keys, headers, stamps = zip(*records, strict=True)
    return decoders.of(stream).events(values, headers, Others(keys, stamps))


def test_an_event_is_made_of_all_parts() -> None:
    found, bad = events(
        CLICKS,
        (VALUE, str(UID).encode(), [("trace-id", b"a"), ("tenant", b"eu"), ("trace-id", b"b")], TEN_MS),
        (VALUE, b'"%s"' % str(UID).encode(), None, TEN_MS + 1),
    )
    assert bad == {}
    assert found[0] == Click(UID, TEN, TEN, "/", "b", "eu")
    assert (found[1].user, found[1].trace, found[1].tenant) == (UID, None, "main")
    assert (found[1].at - TEN).total_seconds() == 0.001


def test_a_record_without_a_part_names_it() -> None:
    good = (VALUE, str(UID).encode(), None, TEN_MS)
    found, bad = events(
        CLICKS,
        (VALUE, None, None, TEN_MS),
        good,
        (VALUE, b"x", None, TEN_MS),
        (b"{", b"x", None, 0),
        (*good[:3], NO_STAMP),
    )
    assert len(found) == 1
    assert bad[0] == "user: the record has no Kafka key"
    assert bad[2] == "user, from the Kafka key: ValidationError: Invalid UUID"
    assert bad[3].startswith("DecodeError: ")
    assert bad[4] == "at: the record has no timestamp of the record"


@pytest.mark.parametrize(
    ("declared", "text", "expected"),
    [
        (str, b"null", "null"),
        (str, b"17", "17"),
        (str | None, b"", ""),
        (int, b"17", 17),
        (int, b"1e3x", None),
        (float, b"1.5", 1.5),
        (bool, b"true", True),
        (bool, b"yes", None),
        (Decimal, b"1.50", Decimal("1.50")),
        (date, b"2026-01-15", date(2026, 1, 15)),
        (Instant, b"2026-01-15 10:00+00", TEN),
        (Annotated[datetime, Zone("Europe/Berlin")], b"2026-01-15T11:00:00", datetime(2026, 1, 15, 11)),
        (Kind, b"a", Kind.A),
        (Kind, b"b", None),
        (Literal["x", "y"], b"x", "x"),
        (UUID, str(UID).encode(), UID),
        (bytes, b"\xff\x00", b"\xff\x00"),
        (str, b"\xff", None),
        (Place, b'{"lat": 1}', Place(1.0)),
        (dict[str, int], b'{"a": 1}', {"a": 1}),
        (Any, b"[1]", [1]),
        (list[int], b"1", None),
        (Annotated[int, msgspec.Meta(ge=5)], b"4", None),
    ],
)
@pytest.mark.parametrize("part", [Key, Header("h")], ids=["key", "header"])
def test_text_becomes_the_type_of_the_field(declared: Any, text: bytes, expected: Any, part: Part) -> None:
    event = msgspec.defstruct("Event", [("ts", Instant), ("field", Annotated[declared, part])])
    stream = Stream(name="events", event=event, event_time="ts")
    found, bad = events(stream, (b'{"ts": "2026-01-15T10:00:00Z"}', text, [("h", text)], TEN_MS))
    assert [each.field for each in found] == ([] if expected is None else [expected])
    if expected is None:
        assert bad[0].startswith(f"field, from {part}: ")


class Texts(msgspec.Struct):
    key: Annotated[str, Key]
    number: Annotated[int | None, Header("number")]
    text: Annotated[str | None, Header("text")] = None


@pytest.mark.parametrize(
    "odd",
    [
        *(b"plain", b"", b'a","b', b'"', b'"quoted"', b"back\\slash", b"\\", b"\n", b"\x7f", b"\xc3\xa9"),
        *(b"\xff", b"null", b"17", b"[", None),
    ],
)
def test_records_are_decoded_together_as_they_are_alone(odd: bytes | None) -> None:
    stream = Stream(name="texts", event=Texts, event_time=RECORD_TIMESTAMP)
    records: list[Any] = [(b"{}", b"k%d" % n, [("number", b"%d" % n), ("text", b"t")], TEN_MS) for n in range(5)]
    records[2] = (b"{}", odd, [("number", odd), ("text", odd)], TEN_MS)
    records[3] = (b"{}", b"k", [("text", odd)], TEN_MS)
    alone = [events(stream, each) for each in records]
    found, bad = events(stream, *records)
    assert found == [event for some, _ in alone for event in some]
    assert bad == {index: reasons[0] for index, (_, reasons) in enumerate(alone) if reasons}


def test_a_number_of_a_header_is_a_time_in_its_unit() -> None:
    event = msgspec.defstruct("Event", [("sent", Annotated[EpochMillis, Header("sent")])])
    stream = Stream(name="events", event=event, event_time="sent")
    found, _ = events(stream, (b"{}", None, [("sent", str(TEN_MS).encode())], TEN_MS))
    (column,) = copy.columns_of_stream(stream)
    assert copy.times(column, column.read(found)).tolist() == [TEN_MS * 1000]


class Composed(msgspec.Struct, kw_only=True, frozen=True):
    """Keywords only, and code of the definition."""

    id: Annotated[int, Key("id")]
    region: Annotated[str | None, Key("place.region")] = None
    ts: Instant
    double: int = 0

    def __post_init__(self) -> None:
        if self.id < 0:
            raise ValueError("negative")
        msgspec.structs.force_setattr(self, "double", 2 * self.id)


COMPOSED = Stream(name="composed", event=Composed, event_time="ts", key=("id", "region"))


def test_fields_of_a_key_that_is_an_object() -> None:
    value = b'{"ts": "2026-01-15T10:00:00Z"}'
    found, bad = events(
        COMPOSED,
        *(
            (value, key, None, TEN_MS)
            for key in (
                b'{"id": 1, "place": {"region": "eu"}}',
                b'{"id": -1}',
                b'{"id": 2}',
                b'{"id": "2"}',
                b"2",
                None,
            )
        ),
    )
    assert [(each.id, each.region, each.double) for each in found] == [(1, "eu", 2), (2, None, 4)]
    assert bad[1] == "ValueError: negative"
    assert bad[3] == "Kafka key: ValidationError: Expected `int`, got `str` - at `$.id`"
    assert bad[4].startswith("Kafka key: ValidationError: Expected `object`, got `int`")
    assert bad[5] == "id: the record has no Kafka key"


@pytest.mark.parametrize(
    ("declared", "key", "expected"),
    [
        (int, struct.pack(">i", -3), -3),
        (int, struct.pack(">q", 1234), 1234),
        (float, struct.pack(">d", 1.5), 1.5),
        (UUID, UID.bytes, UID),
        (int, b"12", None),
    ],
)
def test_binary_keys(declared: Any, key: bytes, expected: Any) -> None:
    event = msgspec.defstruct("Event", [("ts", Instant), ("id", Annotated[declared, Key(binary=True)])])
    stream = Stream(name="events", event=event, event_time="ts", key="id")
    found, bad = events(stream, (b'{"ts": "2026-01-15T10:00:00Z"}', key, None, TEN_MS))
    assert [each.id for each in found] == ([] if expected is None else [expected])
    assert bool(bad) == (expected is None)


def decoded_again(stream: Stream, event: Any) -> Any:
    from include.streams import produce

    key_of, headers_of = produce._key_encoder(stream), produce._headers(stream)
    found, bad = events(stream, (encoding.encoder(stream)(event), key_of(event), headers_of(event), TEN_MS))
    assert bad == {}
    return found[0]


@pytest.mark.parametrize(
    ("stream", "event"),
    [
        (CLICKS, Click(UID, TEN, TEN, "/", "t", "eu", 1.5)),
        (CLICKS, Click(UID, TEN, TEN, "/", None)),
        (COMPOSED, Composed(id=3, region="eu", ts=TEN)),
    ],
)
def test_what_produce_sends_is_decoded_to_the_same_event(stream: Stream, event: Any) -> None:
    assert decoded_again(stream, event) == event
    assert not {"user", "trace", "id"} & msgspec.json.decode(encoding.encoder(stream)(event)).keys()


def test_tombstones_name_a_key_as_events_do() -> None:
    stream = Stream(name="clicks", event=Click, event_time="ts", key="user", current=True, deletes="tombstone")
    columns = [column for column in copy.columns_of_stream(stream) if column.name == "user"]
    found, bad = KeyDecoder(stream, columns).keys([str(UID).encode(), None, b"x"])
    assert [key.user for key in found] == [UID]
    assert bad[1] == NO_KEY
    assert "Invalid UUID" in bad[2]


def test_a_header_may_name_the_schema_of_the_key_of_a_tombstone(monkeypatch: pytest.MonkeyPatch) -> None:
    event = msgspec.defstruct("Event", [("ts", Instant), ("id", Annotated[int, Key])])
    stream = Stream(
        name="ids", event=event, event_time="ts", key="id", key_format="avro", current=True, deletes="tombstone"
    )
    monkeypatch.setattr(SchemaRegistry, "schema", lambda *_: Schema("AVRO", '"long"', {}))
    keys = KeyDecoder(stream, [column for column in copy.columns_of_stream(stream) if column.name == "id"])
    assert keys.reads_headers
    prefix = framing.prefix(7)
    found, bad = keys.keys([prefix + b"\6", b"\10", b"\12"], [None, [("__key_schema_id", prefix)], []])
    assert [key.id for key in found] == [3, 4]
    assert list(bad) == [2] and "names no schema" in bad[2]


def definition(declared: Any, **options: Any) -> Callable[[], Stream]:
    event = msgspec.defstruct("Event", [("ts", Instant), ("id", int), ("field", declared)])
    fields: dict[str, Any] = {"name": "events", "event": event, "event_time": "ts"} | options
    return lambda: Stream(**fields)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (definition(Annotated[str, RecordTimestamp]), "event.field"),
        (definition(Annotated[str, Header("")]), "event.field"),
        (definition(Annotated[str, Key, Header("a")]), "event.field"),
        (definition(Annotated[str, Key("a..b")]), "event.field"),
        (definition(Annotated[str, Key(binary=True)]), "event.field"),
        (definition(Annotated[str, Key], key_format="yaml"), "key_format"),
        (definition(str, key_format="avro"), "key_format"),
        (definition(Annotated[str, Key], key_format="protobuf"), "event.field"),
        (
            definition(Annotated[str, Header("a")], key="field", current=True, deletes="tombstone"),
            "deletes",
        ),
        (
            definition(Annotated[str, Key], key=("field", "id"), current=True, deletes="tombstone"),
            "deletes",
        ),
    ],
)
def test_definitions_that_are_not_possible(make: Callable[[], Stream], field: str) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        make()
    assert caught.value.field == field
