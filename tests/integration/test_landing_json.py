"""Streams without a struct: every kind of JSON lands as it is, and other values become dead letters with a reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec

from include.kafka import sample
from include.landing import proof, replay, retry, trial
from include.landing.drain import drain
from include.landing.replay_selection import Wanted
from include.streams import produce
from include.streams.definition import RECORD_TIMESTAMP, EpochMillis, Json, Path, Stream
from tests.integration.landing import NOW, kept_aside, one_disposition_each, rows, send

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

STAMP = int(NOW.timestamp() * 1000)


def test_documents_land_as_they_are(warehouse: Connection, topic: Callable[..., str]) -> None:
    stream = Stream(
        name="readings",
        topic=topic("documents"),
        event=Json,
        event_time=Path("meta.ts", EpochMillis),
        quiet="1 second",
        window="1 minute",
        kafka_partitions=1,
    )
    produce.make_topic(stream)

    def document(fields: bytes = b"", stamp: object = STAMP) -> bytes:
        return b'{"meta": {"ts": %s}%s}' % (str(stamp).encode(), fields)

    good = [
        document(),
        document(b', "exact": 1.100000000000000000000001, "big": 1e400, "twice": 1, "twice": 2'),
        document(b', "\\u00e9": ["\\ud83d\\ude00"]'),
        document(b', "deep": ' + b"[" * 400 + b"]" * 400),
    ]
    bad = [
        document(b', "nul": "\\u0000"'),
        document(b', "number": 1e5000'),
        document(b', "text": "\xff"'),
        document(b', "surrogate": "\\ud800"'),
        document(b', "deep": ' + b"[" * 600 + b"]" * 600),
        document(b', "small": 1e-20000'),
        b"17",
        b"{}",
        document(stamp=STAMP // 1000),
        document(stamp='"soon"'),
    ]
    send(stream, [*good, None, *bad, document(stamp=STAMP - 90 * 86_400_000)])
    found = trial.trial(stream, sample.read(stream.topic, 100).messages)
    assert found.unknown == {}
    assert drain(stream, "test").landed == len(good)
    for (text, event_time), sent in zip(
        rows(warehouse, "SELECT CAST(value AS text), event_time FROM landing.readings ORDER BY kafka_offset"),
        good,
        strict=True,
    ):
        assert json.loads(text, parse_float=Decimal, parse_int=Decimal) == json.loads(
            sent, parse_float=Decimal, parse_int=Decimal
        )
        assert event_time == datetime.fromtimestamp(STAMP / 1000, UTC)
    letters = kept_aside(warehouse)
    assert [kind for _, (kind, _) in sorted(letters.items())] == ["dead letter"] * len(bad) + ["quarantined"]
    expected = ["NUL", "digits", "utf-8", "", "deep", "", "`object`", "`meta`", "milliseconds", "", "older"]
    for (_, reason), part in zip((letters[offset] for offset in sorted(letters)), expected, strict=True):
        assert part in reason, reason
    assert proof.prove(warehouse, stream).wrong == []
    one_disposition_each(warehouse, stream)
    assert retry.retry(warehouse, stream)[0] == 0
    replay.replay(warehouse, stream, Wanted(), "test")
    assert kept_aside(warehouse) == letters
    assert proof.prove(warehouse, stream).wrong == []


def test_any_json_lands_with_the_timestamp_of_its_record(warehouse: Connection, topic: Callable[..., str]) -> None:
    stream = Stream(
        name="readings",
        topic=topic("documents"),
        event=Json,
        event_time=RECORD_TIMESTAMP,
        simulate=lambda random: iter(lambda: {"n": random.randrange(9)}, None),
        quiet="1 second",
        window="1 minute",
        kafka_partitions=1,
    )
    values = [b"1", b'"a"', b"null", b"[1, {}]", b"true", b"{}"]
    produce.produce(stream, 3, seed=1)
    send(stream, values)
    assert drain(stream, "test").landed == 3 + len(values)
    texts = [
        text for (text,) in rows(warehouse, "SELECT CAST(value AS text) FROM landing.readings ORDER BY kafka_offset")
    ]
    assert [msgspec.json.decode(text) for text in texts[3:]] == list(map(msgspec.json.decode, values))
    assert proof.prove(warehouse, replace(stream, simulate=None)).wrong == []
