"""A batch that could not be prepared is prepared again, and counts the same offsets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from confluent_kafka import Message

from include.error_codes import Code
from include.kafka.reader import Batch
from include.landing import batch as batches
from include.landing.batch import Preparer
from include.landing.effects import Reducer
from include.schemas.registry import RegistryUnavailable
from include.streams.definition import Instant, Stream

TEN = datetime(2026, 1, 15, 10, tzinfo=UTC)


class Reading(msgspec.Struct):
    id: str
    ts: Instant


STREAM = Stream(name="readings", event=Reading, event_time="ts", key="id", current=True, deletes="tombstone")


def batch(*values: bytes | None) -> Batch:
    stamp = int(TEN.timestamp() * 1000)
    messages = [
        Message(topic="readings", partition=0, offset=offset, key=b"a", value=value, timestamp=(1, stamp))
        for offset, value in enumerate(values, 7)
    ]
    return Batch(messages, {0: 7 + len(values)}, leader_epochs={0: 1})


def event(hours: int = 0) -> bytes:
    return msgspec.json.encode(Reading("a", TEN - timedelta(hours=hours)))


def failing_once(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, after: int = 0) -> None:
    """Lets a method fail once, as if the registry did not answer, after some calls."""
    original, calls = getattr(owner, name), []

    def fail(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == after + 1:
            raise RegistryUnavailable("It does not answer.", "Start it.", code=Code.REGISTRY_UNAVAILABLE)
        return original(*args)

    monkeypatch.setattr(owner, name, fail)


def entries(preparer: Preparer, records: Batch) -> list[Any]:
    return [entry for piece in preparer.pieces(records) for entry in piece.entries]


def test_a_registry_that_is_away_at_a_tombstone_changes_no_count(monkeypatch: pytest.MonkeyPatch) -> None:
    records = batch(event(), None)
    expected = entries(Preparer(STREAM, 1, {0: 7}), records)
    preparer = Preparer(STREAM, 1, {0: 7})
    failing_once(monkeypatch, Reducer, "tombstones")
    with pytest.raises(RegistryUnavailable):
        preparer.pieces(records)
    assert entries(preparer, records) == expected
    assert [(each.first, each.next, each.landed, each.skipped) for each in expected] == [(7, 9, 1, 1)]


def test_a_registry_that_is_away_between_two_pieces_changes_no_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MAX_SPANS", 1)
    records = batch(event(), event(25), event(50))
    expected = entries(Preparer(STREAM, 1, {0: 7}), records)
    preparer = Preparer(STREAM, 1, {0: 7})
    # The whole batch and the first piece succeed.
    failing_once(monkeypatch, Preparer, "prepare", after=2)
    with pytest.raises(RegistryUnavailable):
        preparer.pieces(records)
    assert entries(preparer, records) == expected
    assert [(each.first, each.next) for each in expected] == [(7, 8), (8, 9), (9, 10)]
