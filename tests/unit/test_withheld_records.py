"""Which records of Kafka a retry takes for those of withheld dead letters."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from include.kafka import position, reader, topics
from include.landing import dead_letters, incarnation
from include.landing.withheld import Place, WithheldRecords
from include.streams.definition import Instant, Stream

NOW_MS = 1_770_000_000_000
STREAM = Stream(name="readings", event=msgspec.defstruct("Reading", [("ts", Instant)]), event_time="ts")


class Message:
    """A record of partition 0."""

    def __init__(self, offset: int, stamp: int, leader_epoch: int | None) -> None:
        self._offset, self._stamp, self._leader_epoch = offset, stamp, leader_epoch

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return 1, self._stamp

    def leader_epoch(self) -> int | None:
        return self._leader_epoch


class Kafka:
    """One topic, whose position has the leader epoch 5."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[Message] = []
        self.ids: Iterator[str] = iter(["a", "a"])
        self.position_epoch: int | None = 5
        monkeypatch.setattr(position, "read_topics", lambda *_: ["readings"])
        monkeypatch.setattr(position, "read_positions", lambda *_: {0: self._position()})
        monkeypatch.setattr(incarnation, "number", lambda *_: 1)
        monkeypatch.setattr(topics, "describe", lambda name: SimpleNamespace(name=name, id=next(self.ids)))
        monkeypatch.setattr(topics, "extents", lambda *_: {0: SimpleNamespace(first=0, stable_end=100)})
        monkeypatch.setattr(reader, "read_range", lambda *_, **__: iter([self.log]))

    def _position(self) -> Any:
        return SimpleNamespace(position=SimpleNamespace(leader_epoch=self.position_epoch))

    def found(self, letters: dict[Place, datetime]) -> list[Place]:
        records = WithheldRecords(cast(Any, None), STREAM)
        records.prepare()
        return list(records.read(letters))


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> Kafka:
    return Kafka(monkeypatch)


def letters(**stamps: int) -> dict[Place, datetime]:
    return {(1, 0, int(name[1:])): dead_letters.appended_at(stamp) for name, stamp in stamps.items()}


def test_a_record_with_the_timestamp_of_the_letter_is_its_record(kafka: Kafka) -> None:
    kafka.log = [Message(3, NOW_MS, 5), Message(4, NOW_MS + 1, 2), Message(5, dead_letters.NO_STAMP, None)]
    wanted = letters(o3=NOW_MS, o4=NOW_MS + 1, o5=dead_letters.NO_STAMP)
    assert kafka.found(wanted) == [(1, 0, 3), (1, 0, 4), (1, 0, 5)]


def test_a_record_that_took_the_offset_in_a_rewritten_log_is_not(kafka: Kafka) -> None:
    kafka.log = [Message(3, NOW_MS + 1, 5), Message(4, NOW_MS, 6), Message(5, NOW_MS, 5)]
    assert kafka.found(letters(o3=NOW_MS, o4=NOW_MS, o5=NOW_MS)) == [(1, 0, 5)]


def test_brokers_that_report_no_leader_epoch_leave_the_timestamp(kafka: Kafka) -> None:
    kafka.position_epoch = None
    kafka.log = [Message(3, NOW_MS + 1, None), Message(4, NOW_MS, None)]
    assert kafka.found(letters(o3=NOW_MS, o4=NOW_MS)) == [(1, 0, 4)]


def test_a_topic_that_was_created_again_meanwhile_has_none(kafka: Kafka) -> None:
    kafka.ids = iter(["a", "b"])
    kafka.log = [Message(3, NOW_MS, 0)]
    assert kafka.found(letters(o3=NOW_MS)) == []
