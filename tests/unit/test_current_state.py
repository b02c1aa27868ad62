"""The current state without servers: what a definition may say, the keys of tombstones, the last record of each key."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from random import Random
from typing import Any
from uuid import UUID

import msgspec
import numpy as np
import pytest

from include.definitions import InvalidDefinition
from include.landing import copy
from include.landing.latest import Moved, last, numbers
from include.landing.tombstones import NO_KEY, KeyDecoder
from include.streams import produce
from include.streams.definition import RECORD_TIMESTAMP, EpochMillis, Instant, Stream
from include.streams.keys import MAX_KEY_BYTES


class Kind(Enum):
    A = "a"
    B = "b"


class Order(msgspec.Struct):
    """An event with fields of many types."""

    ts: Instant
    id: int
    name: str
    uid: UUID
    kind: Kind
    day: date
    at: EpochMillis
    amount: Decimal
    region: str = msgspec.field(name="Region")
    note: str | None = None
    version: int = 0
    gone: bool = False
    op: str | None = None


ORDERS = Stream(name="orders", event=Order, event_time="ts", key="id", current=True)


def columns(stream: Stream) -> tuple[copy.Column, ...]:
    found = {column.name: column for column in copy.columns_of_stream(stream)}
    return tuple(found[name] for name in stream.keys)


@pytest.mark.parametrize(
    "fields",
    [
        {"key": ("region", "id")},
        {"key": ("uid", "kind", "day", "at")},
        {"order_by": "ts"},
        {"order_by": "version", "deletes": ("op", "d", "t")},
        {"deletes": "gone"},
        {"deletes": "tombstone"},
        {"event_time": RECORD_TIMESTAMP, "order_by": RECORD_TIMESTAMP, "deletes": "tombstone"},
        {"current": False, "key": ("id", "name")},
    ],
)
def test_a_definition_of_the_current_state_is_valid(fields: dict[str, Any]) -> None:
    replace(ORDERS, **fields)


@pytest.mark.parametrize(
    ("fields", "field", "part"),
    [
        ({"key": None}, "current", "no key"),
        ({"key": "other"}, "key", "'other'"),
        ({"key": ()}, "key", "no field"),
        ({"key": ("id", "id")}, "key", "twice"),
        ({"key": "note"}, "key", "can be null"),
        ({"key": "amount"}, "key", "numeric"),
        ({"current": 1}, "current", "1 is not"),
        ({"order_by": "note"}, "order_by", "'note'"),
        ({"order_by": "name"}, "order_by", "'name'"),
        ({"order_by": []}, "order_by", "[]"),
        ({"key": ("id", ["name"])}, "key", "['name']"),
        ({"deletes": 5}, "deletes", "5"),
        ({"deletes": (["op"], "d")}, "deletes", "op"),
        ({"order_by": RECORD_TIMESTAMP}, "order_by", "timestamp of the record"),
        ({"order_by": "ts", "deletes": "tombstone"}, "order_by", "a tombstone has no field"),
        ({"current": False, "order_by": "ts"}, "order_by", "only the current state"),
        ({"current": False, "deletes": "gone"}, "deletes", "only the current state"),
        ({"deletes": "op"}, "deletes", "text"),
        ({"deletes": ("op",)}, "deletes", "its values"),
        ({"deletes": ("op", 1)}, "deletes", "cannot be 1"),
        ({"deletes": ("version", True)}, "deletes", "cannot be True"),
        ({"deletes": "other"}, "deletes", "'other'"),
    ],
)
def test_an_invalid_definition_names_the_field(fields: dict[str, Any], field: str, part: str) -> None:
    with pytest.raises(InvalidDefinition) as error:
        replace(ORDERS, **fields)
    assert error.value.field == field
    assert part in str(error.value)


def test_the_kafka_key_of_several_fields_is_a_json_object() -> None:
    event = Order(datetime(2026, 1, 1, tzinfo=UTC), 7, "x", UUID(int=1), Kind.A, date(2026, 1, 2), 5, Decimal(1), "eu")
    assert produce._key(replace(ORDERS, key="name"), event) == b"x"
    assert (
        produce._key(replace(ORDERS, key=("region", "id", "day")), event)
        == b'{"Region":"eu","id":7,"day":"2026-01-02"}'
    )


UID = "12345678-1234-4234-9234-123456789abc"


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("id", b"7", (7,)),
        ("id", b'"7"', None),
        ("id", b'{"id": 7, "other": 1}', (7,)),
        ("id", b"seven", None),
        ("id", b"", None),
        ("id", b"\xff", None),
        ("id", b"9223372036854775808", None),
        ("name", b"plain", ("plain",)),
        ("name", b'"quoted"', ("quoted",)),
        ("name", b"7", ("7",)),
        ("name", b"null", ("null",)),
        ("name", b"{not json", ("{not json",)),
        ("name", b"a\x00b", None),
        ("name", b"x" * (MAX_KEY_BYTES + 1), None),
        ("uid", UID.encode(), (UUID(UID),)),
        ("uid", f'"{UID}"'.encode(), (UUID(UID),)),
        ("kind", b"b", (Kind.B.value,)),
        ("kind", b"c", None),
        ("day", b"2026-01-02", (date(2026, 1, 2),)),
        ("at", b"1768471200123", (1768471200123,)),
        (("region", "id"), b'{"Region": "eu", "id": 7}', ("eu", 7)),
        (("region", "id"), b'{"Region": "eu"}', None),
        (("region", "id"), b"eu", None),
    ],
)
def test_the_key_of_a_tombstone(key: Any, text: bytes, expected: tuple[Any, ...] | None) -> None:
    stream = replace(ORDERS, key=key, deletes="tombstone")
    keys, bad = KeyDecoder(stream, columns(stream)).keys([text])
    if expected is None:
        assert keys == []
        assert bad[0].startswith("Kafka key: ")
    else:
        assert bad == {}
        assert tuple(column.read(keys)[0] for column in columns(stream)) == expected


def test_a_tombstone_without_a_key_says_so_and_good_ones_keep_their_order() -> None:
    stream = replace(ORDERS, key="name", deletes="tombstone")
    keys, bad = KeyDecoder(stream, columns(stream)).keys([b"a", None, b"\0", b"b"])
    assert [key.name for key in keys] == ["a", "b"]
    assert bad.keys() == {1, 2}
    assert bad[1] == NO_KEY


def test_a_key_that_the_index_cannot_hold_is_refused() -> None:
    (column,) = columns(replace(ORDERS, key="name"))
    column.array(["é" * (MAX_KEY_BYTES // 2)])
    with pytest.raises(ValueError, match="2,002 bytes"):
        column.array(["é" * (MAX_KEY_BYTES // 2 + 1)])
    (unlimited,) = (each for each in copy.columns_of(ORDERS.fields) if each.name == "name")
    unlimited.array(["x" * 10 * MAX_KEY_BYTES])


class Place(msgspec.Struct):
    """A key of two fields."""

    region: str
    id: int


def test_equal_keys_have_equal_numbers() -> None:
    random = Random(1)
    stream = replace(ORDERS, key=("region", "id"))
    events = [Place(random.choice(("", "eu", "us")), random.randrange(-2, 3)) for _ in range(500)]
    found = numbers(columns(stream), events[:300], events[300:])
    by_key: dict[tuple[str, int], set[int]] = {}
    for event, number in zip(events, found.tolist(), strict=True):
        by_key.setdefault((event.region, event.id), set()).add(number)
    assert all(len(each) == 1 for each in by_key.values())
    assert len(set.union(*by_key.values())) == len(by_key)
    assert numbers(columns(stream), [], []).tolist() == []


@pytest.mark.parametrize("seed", range(50))
def test_the_last_record_of_each_key_is_found(seed: int) -> None:
    random = Random(seed)
    count = random.randrange(60)
    keys = [random.randrange(12) for _ in range(count)]
    places = sorted((random.randrange(2), random.randrange(3)) for _ in range(count))
    orders = [random.randrange(-5, 5) for _ in range(count)] if seed % 2 else None
    partitions = [key % 3 if orders is None else partition for key, (_, partition) in zip(keys, places, strict=True)]
    if orders is None:
        incarnations = [incarnation for incarnation, _ in places]
        order = sorted(range(count), key=lambda index: (incarnations[index], partitions[index]))
    else:
        incarnations = [0] * count
        order = sorted(range(count), key=lambda index: partitions[index])
    keys, partitions, incarnations = ([some[index] for index in order] for some in (keys, partitions, incarnations))
    expected: dict[int, tuple[int, int]] = {}
    for index, key in enumerate(keys):
        rank = (index if orders is None else orders[index], index)
        expected[key] = max(expected.get(key, rank), rank)
    found = last(
        np.array(keys, np.int64),
        np.array(partitions, np.int32),
        None if orders is None else np.array(orders, np.int64),
        np.array(incarnations),
    )
    assert found.tolist() == sorted(index for _, index in expected.values())


def test_a_key_in_two_partitions_needs_an_order() -> None:
    keys, partitions = np.array([0, 1, 0]), np.array([0, 0, 1])
    with pytest.raises(Moved) as moved:
        last(keys, partitions, None)
    assert (moved.value.first, moved.value.second) == (0, 2)
    assert last(keys, partitions, np.array([5, 0, 4])).tolist() == [0, 1]
    # Another incarnation is always newer.
    assert last(keys, partitions, None, np.array([1, 1, 2])).tolist() == [1, 2]
