"""What becomes of a record: it lands as it is, or is a dead letter, quarantined or skipped."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from include.kafka import client, position, topics
from include.landing import partitions, status
from include.landing.drain import drain
from include.streams.definition import Stream
from tests.integration.landing import (
    NOW,
    event,
    kept_aside,
    landed,
    one_disposition_each,
    rows,
    send,
    stream,
)

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

__all__ = ["stream"]


HAZARDS = [
    "",
    "\\N",
    "\\",
    "a\tb\nc\rd\\t",
    "NULL",
    "null",
    '"quoted", comma',
    "é😀\u2028\u00a0",
    "\x01\x7f\x1f",
    "x" * 300_000,
    "\\.",
    "'; DROP TABLE landing.readings; --",
]


def test_texts_are_landed_unchanged(stream: Stream, warehouse: Connection) -> None:
    send(stream, [event(text, extra={"deep": [text, None]}) for text in HAZARDS])
    assert drain(stream, "test").landed == len(HAZARDS)
    found = rows(warehouse, "SELECT text, extra FROM landing.readings ORDER BY kafka_offset")
    assert found == [(text, {"deep": [text, None]}) for text in HAZARDS]
    one_disposition_each(warehouse, stream)


def test_numbers_times_and_nulls_are_landed_unchanged(stream: Stream, warehouse: Connection) -> None:
    odd = NOW.astimezone().replace(tzinfo=UTC)
    send(
        stream,
        [
            event(number=2**63 - 1, real=-0.0, amount="12345678901234567890.0001", extra=""),
            event(number=-(2**63), real=5e-324, amount="-0.000000000100", extra=None),
            event(real=None, amount="1E+20", extra={}, ts=odd + timedelta(microseconds=1)),
            event(real=1.7976931348623157e308, amount="NaN"),
        ],
    )
    drain(stream, "test")
    found = rows(
        warehouse, "SELECT number, real, amount::text, extra::text, ts FROM landing.readings ORDER BY kafka_offset"
    )
    assert [row[:4] for row in found] == [
        (2**63 - 1, -0.0, "12345678901234567890.0001", '""'),
        (-(2**63), 5e-324, "-0.000000000100", None),
        (0, None, "100000000000000000000", "{}"),
        (0, 1.7976931348623157e308, "NaN", None),
    ]
    assert found[0][4] == NOW
    assert found[2][4] == odd + timedelta(microseconds=1)


BAD = {
    b"": "truncated",
    b"not json": "malformed",
    b'{"ts": "2026-01-01T00:00:00Z"}': "missing required field `text`",
    event().replace(b'"x"', b'"\xff\xfe"'): "utf-8",
    event().replace(b'"x"', b"7"): "Expected `str`, got `int`",
    event().replace(b"Z", b"").replace(b"+00:00", b""): "timezone component",
    event(real=1).replace(b'"real":1', b'"real":NaN'): "malformed",
    event(real=1).replace(b'"real":1', b'"real":1e999'): "out of range",
    event(number=2**63): "number: ",
    event("nul \0 here"): "text: PostgreSQL's texts cannot hold a NUL character",
    event(extra={"deep": "nul \0"}): "extra: PostgreSQL's jsonb cannot hold a NUL character",
    b"[" * 5000: "Error",
    event(amount="1E+200000"): "amount: ",
}


@pytest.mark.parametrize("place", ["first", "middle", "last", "alone"])
def test_a_bad_record_becomes_a_dead_letter_and_others_land(stream: Stream, warehouse: Connection, place: str) -> None:
    good = [event(f"good-{number}") for number in range(4)]
    before = {"first": 0, "middle": 2, "last": 4, "alone": 0}[place]
    after = [] if place == "alone" else good[before:]
    send(stream, [*good[:before], *BAD, *after])
    drained = drain(stream, "test")
    assert (drained.landed, drained.dead_letters) == (before + len(after), len(BAD))
    letters = rows(warehouse, "SELECT value, reason, key, headers FROM millrace.dead_letter ORDER BY kafka_offset")
    for (value, reason, _, _), (bad, expected) in zip(letters, BAD.items(), strict=True):
        assert bytes(value) == bad
        assert expected in reason
    assert [text for _, _, text in landed(warehouse)] == [f"good-{number}" for number in range(before + len(after))]
    one_disposition_each(warehouse, stream)


def test_a_dead_letter_keeps_key_headers_and_timestamp(stream: Stream, warehouse: Connection) -> None:
    send(stream, [b"bad"], partition=2, key=b"\0key", headers=[("trace", b"\xff"), ("empty", None), ("nul\0", b"")])
    drain(stream, "test")
    ((partition, offset, disposition, key, headers, appended, stated),) = rows(
        warehouse,
        "SELECT kafka_partition, kafka_offset, disposition, key, headers, appended_at, sqlstate "
        "FROM millrace.dead_letter",
    )
    assert (partition, offset, disposition, bytes(key), stated) == (2, 0, "dead letter", b"\0key", None)
    assert headers[:2] == [["trace", "/w=="], ["empty", None]]
    assert abs(appended - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_tombstone_is_skipped_and_counted(stream: Stream, warehouse: Connection) -> None:
    send(stream, [event("a"), None, event("b")])
    assert drain(stream, "test").landed == 2
    assert rows(warehouse, "SELECT skipped FROM millrace.landing_ledger WHERE skipped > 0") == [(1,)]
    assert not kept_aside(warehouse)
    one_disposition_each(warehouse, stream)


def test_late_and_early_events_are_quarantined(stream: Stream, warehouse: Connection) -> None:
    stream = replace(stream, late="2 days", early="1 hour")
    now, minute = datetime.now(UTC), timedelta(minutes=1)
    shifts = [
        -timedelta(days=2) - minute,
        -timedelta(days=2) + minute,
        timedelta(0),
        timedelta(hours=1) - minute,
        timedelta(hours=1) + minute,
        timedelta(days=365 * 30),
        -timedelta(days=365 * 30),
    ]
    send(stream, [event(str(number), now + shift) for number, shift in enumerate(shifts)])
    drained = drain(stream, "test")
    assert (drained.landed, drained.quarantined) == (3, 4)
    assert [offset for _, offset, _ in landed(warehouse)] == [1, 2, 3]
    aside = kept_aside(warehouse)
    assert {disposition for disposition, _ in aside.values()} == {"quarantined"}
    assert "older than the record; late='2 days'" in aside[0][1]
    assert "newer than the record; early='1 hour'" in aside[5][1]
    assert len(partitions.listed(warehouse, "readings")) <= 4, "a far date creates no partition"
    one_disposition_each(warehouse, stream)


def test_markers_and_aborted_records_move_the_position(stream: Stream, warehouse: Connection) -> None:
    producer = client.producer(transactional_id=stream.topic)
    producer.init_transactions(20)

    def transact(*values: bytes, commit: bool) -> None:
        producer.begin_transaction()
        for value in values:
            producer.produce(stream.topic, value, partition=0)
        producer.flush(20)
        (producer.commit_transaction if commit else producer.abort_transaction)(20)

    transact(event("a"), event("b"), commit=True)
    transact(event("never"), commit=False)
    assert drain(stream, "test").landed == 2
    assert drain(stream, "test").batches == 0, "no record is read twice"
    transact(event("never"), event("never"), commit=False)
    drained = drain(stream, "test")
    assert (drained.landed, drained.batches) == (0, 1), "markers alone move the position"
    stored = position.read_positions(warehouse, stream.reader, stream.topic)[0]
    assert stored.position.next_offset == topics.extents(stream.topic, [0])[0].end == 8
    assert sum(count for (count,) in rows(warehouse, "SELECT no_records FROM millrace.landing_ledger")) == 6
    one_disposition_each(warehouse, stream)


def test_an_open_transaction_holds_back_later_records(stream: Stream, warehouse: Connection) -> None:
    producer = client.producer(transactional_id=stream.topic)
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(stream.topic, event("open"), partition=0)
    producer.flush(20)
    send(stream, [event("behind")])
    assert drain(stream, "test").landed == 0
    stored = status.of(stream, warehouse)
    assert stored.lag == 0
    assert stored.blocked_since is not None
    assert abs(stored.blocked_since - datetime.now(UTC)) < timedelta(minutes=1)
    producer.commit_transaction(20)
    assert drain(stream, "test").landed == 2
    assert status.of(stream, warehouse).blocked_since is None
    one_disposition_each(warehouse, stream)
