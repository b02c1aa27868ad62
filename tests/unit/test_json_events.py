"""Streams without a struct: the whole value lands as jsonb, with an event time at a path."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import pytest

from include.definitions import InvalidDefinition
from include.landing import copy, decoders
from include.landing.decoder import MAX_DEPTH, Others
from include.streams import encoding
from include.streams.definition import (
    RECORD_TIMESTAMP,
    EpochMillis,
    Header,
    Instant,
    Json,
    Key,
    KeyedHash,
    Path,
    Stream,
    Value,
    Zone,
)

TEN = datetime(2026, 1, 15, 10, tzinfo=UTC)
TEN_MS = int(TEN.timestamp() * 1000)


def stream(**options: Any) -> Stream:
    fields: dict[str, Any] = {"name": "documents", "event": Json, "event_time": RECORD_TIMESTAMP} | options
    return Stream(**fields)


def decoded(stream: Stream, *values: bytes) -> Any:
    return decoders.of(stream).events(
        values, [None] * len(values), Others([b"k"] * len(values), [TEN_MS] * len(values))
    )


@pytest.mark.parametrize(
    "text",
    [
        b'{"a": 1.10, "b": [1e400, "\\u00e9"]}',
        b"[1, 2]",
        b'"text"',
        b"17",
        b"null",
        b"12345678901234567890.123456789",
        b" {} ",
    ],
)
def test_every_json_lands_as_it_is(text: bytes) -> None:
    (event,), bad = decoded(stream(), text)
    assert bad == {}
    (column,) = copy.columns_of_stream(stream())
    assert column.array(column.read([event])).to_pylist() == [b"\x01" + text.strip()]
    assert [field.sql for field in stream().fields] == ["jsonb"]
    assert not stream().fields[0].nullable


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "DecodeError: Input data was truncated"),
        (b"{", "DecodeError: Input data was truncated"),
        (b'{"a": NaN}', "DecodeError: JSON is malformed"),
        (b'{"a": "\xff"}', "UnicodeDecodeError"),
        (b'"\\ud800"', "DecodeError"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "ValueError: it nests too deep"),
    ],
)
def test_other_values_are_dead_letters(text: bytes, reason: str) -> None:
    events, bad = decoded(stream(), text, b"1")
    assert len(events) == 1
    assert bad[0].startswith(reason)


@pytest.mark.parametrize(
    ("text", "reason"),
    [(b'{"a": "\\u0000"}', "NUL"), (b'{"\\u0000": 1}', "NUL"), (b"1e5000", "4,300 digits")],
)
def test_json_that_jsonb_cannot_hold_has_a_reason(text: bytes, reason: str) -> None:
    events, _ = decoded(stream(), text)
    assert reason in copy.refused(copy.columns_of_stream(stream()), events)[0]


@pytest.mark.parametrize(
    ("event_time", "text"),
    [
        ("payload.created", b'{"payload": {"created": "2026-01-15T10:00:00Z"}}'),
        (Path("payload.created"), b'{"x": 1, "payload": {"created": "2026-01-15 11:00+01", "x": null}}'),
        (Path("ts", EpochMillis), b'{"ts": %d}' % TEN_MS),
        (Path("ts", EpochMillis), b'{"ts": "%d"}' % TEN_MS),
        (Path("a.b.c", Annotated[datetime, Zone("Europe/Berlin")]), b'{"a": {"b": {"c": "2026-01-15T11:00:00"}}}'),
    ],
)
def test_the_event_time_is_at_a_path(event_time: str, text: bytes) -> None:
    found = stream(event_time=event_time)
    assert found.event_time == "event_time"
    events, bad = decoded(found, text)
    assert bad == {}
    column = next(each for each in copy.columns_of_stream(found) if each.name == "event_time")
    assert copy.times(column, column.read(events)).tolist() == [TEN_MS * 1000]


def test_a_value_without_its_event_time_names_the_path() -> None:
    _, bad = decoded(stream(event_time="payload.created"), b"{}", b"1", b'{"payload": {"created": 1}}', b"[]")
    assert bad[0] == "ValidationError: Object missing required field `payload`"
    assert bad[1] == "ValidationError: Expected `object`, got `int`"
    assert bad[2].startswith("ValidationError: Expected `datetime`, got `int` - at `$.payload.created`")
    assert bad[3] == "ValidationError: Expected `object`, got `array`"


class Mixed(msgspec.Struct, kw_only=True):
    """The whole value, parts of it, and parts of the record."""

    ts: Annotated[Instant, Path("meta.ts")]
    id: Annotated[int, Key]
    kind: str
    city: Annotated[str | None, Path("where.city")]
    document: Annotated[Any, Value]
    trace: Annotated[str | None, Header("trace")] = None


def test_a_struct_can_have_the_whole_value_and_fields_at_paths() -> None:
    mixed = Stream(name="mixed", event=Mixed, event_time="ts", key="id")
    text = b'{"meta": {"ts": "2026-01-15T10:00:00Z"}, "kind": "a", "x": [1]}'
    (event,), bad = decoders.of(mixed).events([text], [None], Others([b"7"], [TEN_MS]))
    assert bad == {}
    assert (event.ts, event.id, event.kind, event.city) == (TEN, 7, "a", None)
    assert event.document == msgspec.json.decode(text)


def test_a_masked_document_is_decoded() -> None:
    masked = stream(mask={"value.email": KeyedHash()})
    assert [field.sql for field in masked.fields] == ["jsonb"]


def test_produce_sends_documents() -> None:
    document = {"payload": {"created": TEN}}
    assert encoding.encoder(stream())(document) == b'{"payload":{"created":"2026-01-15T10:00:00Z"}}'


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"event_time": ""}, "event_time"),
        ({"event_time": None}, "event_time"),
        ({"event_time": Path("a..b")}, "event.event_time"),
        ({"event_time": Path("a.b", str)}, "event_time"),
        ({"event_time": "ts", "format": "avro"}, "event.value"),
        ({"event": Mixed, "event_time": Path("ts")}, "event_time"),
        ({"key": "value", "current": True}, "key"),
    ],
)
def test_definitions_that_are_not_possible(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        stream(**options)
    assert caught.value.field == field
