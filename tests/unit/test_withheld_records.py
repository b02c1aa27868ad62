"""Which records of Kafka are those of withheld dead letters, and how many are read at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest

from include.kafka.position_errors import TopicMissing
from include.kafka.topics import Extent, Topic
from include.landing import dead_letters, withheld
from include.landing.withheld import WithheldRecords
from include.streams import payments

STAMP = 1_760_000_000_000
THEN = dead_letters.appended_at(STAMP)
FIRST, SECOND = f"{payments.stream.topic}-id", "another id"


class Message:
    def __init__(self, offset: int, *, partition: int = 0, stamp: int = STAMP, epoch: int | None = 3) -> None:
        self._partition, self._offset, self._stamp, self._epoch = partition, offset, stamp, epoch

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return 1, self._stamp

    def leader_epoch(self) -> int | None:
        return self._epoch

    def value(self) -> bytes:
        return b"x" * 10


class Kafka:
    """A topic and what the stream has read of it."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = messages
        self.ids = [FIRST]
        self.numbers = {FIRST: 1}
        self.ranges: list[tuple[int, tuple[int, int]]] = []
        self.epoch: int | None = 3

    def describe(self, name: str, brokers: object) -> Topic:
        found = self.ids.pop(0) if len(self.ids) > 1 else self.ids[0]
        if not found:
            raise TopicMissing(name)
        return Topic(name, found, (0, 1))

    def extents(self, name: str, partitions: Iterable[int], brokers: object) -> dict[int, Extent]:
        return {partition: Extent(first=5, stable_end=5_000, end=5_000) for partition in partitions}

    def read_positions(self, *_: object) -> dict[int, Any]:
        stored = SimpleNamespace(position=SimpleNamespace(leader_epoch=self.epoch))
        return {0: stored, 1: stored}

    def read_ranges(
        self, topic: str, ranges: Iterable[tuple[int, tuple[int, int]]], max_records: int
    ) -> Iterator[list[Message]]:
        for partition, (first, until) in ranges:
            self.ranges.append((partition, (first, until)))
            found = [each for each in self.messages if each.partition() == partition and first <= each.offset() < until]
            for at in range(0, len(found), max_records):
                yield found[at : at + max_records]


def read(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch, wanted: dict[tuple[int, int, int], datetime]
) -> tuple[list[tuple[int, int, int]], tuple[int, int, int] | None]:
    """The places of the records that are found, and the first place that was not looked for."""
    monkeypatch.setattr(withheld.client, "admin", lambda: None)
    monkeypatch.setattr(withheld.incarnation, "topics_of", lambda *_: {1: payments.stream.topic, 2: "unrelated"})
    monkeypatch.setattr(withheld.topics, "describe", kafka.describe)
    monkeypatch.setattr(withheld.topics, "extents", kafka.extents)
    monkeypatch.setattr(withheld.position, "read_positions", kafka.read_positions)
    monkeypatch.setattr(withheld.reader, "read_ranges", kafka.read_ranges)
    sql = SimpleNamespace(read_incarnation=lambda *_, topic_id, **__: kafka.numbers.get(topic_id))
    monkeypatch.setattr(withheld.queries, "load", lambda _: sql)
    found, end = WithheldRecords(None, payments.stream).read(wanted)  # type: ignore[arg-type]
    return sorted(found), end


def test_a_record_is_that_of_the_letter_if_nothing_was_written_at_its_offset_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kafka = Kafka(
        [
            Message(4),
            Message(5),
            Message(6, stamp=STAMP + 1),
            Message(7, epoch=4),
            Message(8, epoch=None),
            Message(9, epoch=2),
        ]
    )
    wanted = {(1, 0, offset): THEN for offset in range(4, 10)} | {(2, 0, 5): THEN, (9, 0, 5): THEN}
    assert read(kafka, monkeypatch, wanted) == ([(1, 0, 5), (1, 0, 8), (1, 0, 9)], None)
    # Retention has removed offset 4; the other topics are not read.
    assert kafka.ranges == [(0, (5, 10))]
    # Brokers that report no leader epochs leave the timestamp.
    kafka.epoch = None
    assert read(kafka, monkeypatch, wanted)[0] == [(1, 0, offset) for offset in (5, 7, 8, 9)]
    kafka.messages = [Message(5, stamp=dead_letters.NO_STAMP)]
    assert read(kafka, monkeypatch, {(1, 0, 5): dead_letters.appended_at(dead_letters.NO_STAMP)})[0] == [(1, 0, 5)]


@pytest.mark.parametrize("ids", [[SECOND], [FIRST, SECOND], [""], [FIRST, ""]])
def test_no_record_of_another_topic_with_the_same_name_is_taken(
    monkeypatch: pytest.MonkeyPatch, ids: list[str]
) -> None:
    kafka = Kafka([Message(5)])
    kafka.ids = ids.copy()
    assert read(kafka, monkeypatch, {(1, 0, 5): THEN}) == ([], None)
    assert len(kafka.ranges) == len(ids) - 1


def test_no_record_of_a_log_that_continues_as_a_new_incarnation_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = Kafka([Message(5)])
    kafka.numbers = {FIRST: 3}
    assert read(kafka, monkeypatch, {(1, 0, 5): THEN}) == ([], None)


def test_reading_stops_after_enough_bytes_and_enough_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    offsets = [(0, 10), (0, 11), (0, 12), (0, 900), (1, 10), (1, 2_000)]
    kafka = Kafka([Message(offset, partition=partition) for partition, offset in offsets])
    wanted = {(1, partition, offset): THEN for partition, offset in offsets}
    places = list(wanted)
    assert read(kafka, monkeypatch, wanted) == (places, None)
    assert kafka.ranges == [(0, (10, 13)), (0, (900, 901)), (1, (10, 11)), (1, (2_000, 2_001))]
    monkeypatch.setattr(withheld, "MAX_RANGES", 3)
    assert read(kafka, monkeypatch, wanted) == (places[:5], places[5])
    monkeypatch.setattr(withheld, "_AT_ONCE", 1)
    for limit, count in ((1, 1), (10, 1), (11, 2), (40, 4), (50, 5)):
        monkeypatch.setattr(withheld, "MAX_BYTES", limit)
        assert read(kafka, monkeypatch, wanted) == (places[:count], places[count])
