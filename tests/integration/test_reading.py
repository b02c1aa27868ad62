"""Topics and bounded reading on a real broker: every committed record is read, and a gap is an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from include.error_codes import Code
from include.kafka import client, reader, topics
from include.kafka.position_errors import LogTruncated, OffsetsGone
from tests.errors import raises


@pytest.fixture
def orders(topic: Callable[..., str]) -> str:
    """A topic of two partitions."""
    name = topic("orders")
    topics.create(name, partitions=2, config={"retention.ms": "-1"})
    return name


class Transactions:
    """Sends records in transactions to partition 0."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.producer = client.producer(transactional_id=topic)
        self.producer.init_transactions(20)

    def open(self, *values: bytes) -> None:
        self.producer.begin_transaction()
        for value in values:
            self.producer.produce(self.topic, value, partition=0)
        self.producer.flush(20)

    def commit(self, *values: bytes) -> None:
        self.open(*values)
        self.producer.commit_transaction(20)

    def abort(self, *values: bytes) -> None:
        self.open(*values)
        self.producer.abort_transaction(20)


def read(topic: str, start: int, end: int, **options: float) -> list[tuple[int, bytes | None]]:
    batches = reader.read_range(topic, {0: (start, end)}, **options)  # type: ignore[arg-type]
    return [(reader.place(message)[1], message.value()) for batch in batches for message in batch]


def drop_below(topic: str, offset: int) -> None:
    """Deletes the records of partition 0 below an offset, as retention does."""
    from confluent_kafka import TopicPartition

    brokers = client.admin()
    for future in brokers.delete_records([TopicPartition(topic, 0, offset)]).values():
        future.result()


def test_a_topic_is_created_once(orders: str) -> None:
    assert not topics.create(orders, partitions=2, config={})
    assert topics.describe(orders).partitions == (0, 1)


def test_a_missing_topic_is_named(topic: Callable[..., str]) -> None:
    name = topic("nowhere")
    with raises(Code.TOPIC_MISSING, name):
        topics.describe(name)


def test_a_range_ends_behind_markers_and_aborted_records(orders: str) -> None:
    send = Transactions(orders)
    send.commit(b"a", b"b")  # offsets 0 and 1, marker 2
    send.abort(b"c")  # offset 3, marker 4
    send.commit(b"d")  # offset 5, marker 6
    assert read(orders, 0, 7) == [(0, b"a"), (1, b"b"), (5, b"d")]
    assert read(orders, 1, 5) == [(1, b"b")]
    assert read(orders, 2, 5) == [], "a range of markers and aborted records alone ends, too"
    assert read(orders, 3, 3) == [], "an empty range reads nothing, not the next record"


def test_an_open_transaction_is_awaited_and_then_an_error(orders: str) -> None:
    send = Transactions(orders)
    send.commit(b"a")
    send.open(b"b")
    extent = topics.extents(orders, [0])[0]
    assert (extent.first, extent.stable_end, extent.end) == (0, 2, 3)
    with raises(Code.READ_STALLED, orders, "offset 2"):
        read(orders, 0, 3, stalled_after_s=2)
    send.producer.commit_transaction(20)
    assert read(orders, 0, 3) == [(0, b"a"), (2, b"b")]


def test_a_trimmed_start_is_named(orders: str) -> None:
    Transactions(orders).commit(b"a", b"b", b"c")
    drop_below(orders, 2)
    with raises(Code.OFFSETS_REMOVED, orders, "0 to 1"):
        read(orders, 0, 3)


def test_a_range_past_the_end_of_the_log_is_named(orders: str) -> None:
    Transactions(orders).commit(b"a")
    with raises(Code.LOG_TRUNCATED, orders, "9", "offset 2"):
        read(orders, 0, 9)


@pytest.fixture
def open_reader(orders: str) -> Iterator[Callable[[int], reader.Reader]]:
    """Readers of partition 0 from an offset on, closed at the end."""
    readers: list[reader.Reader] = []

    def start(offset: int) -> reader.Reader:
        readers.append(reader.Reader(orders, {0: offset}))
        return readers[-1]

    yield start
    for one in readers:
        one.close()


def until(one: reader.Reader, offset: int) -> list[bytes | None]:
    """Values read until the position reaches an offset."""
    values: list[bytes | None] = []
    for _ in range(40):
        values += [message.value() for message in one.batch(100, 0.5).messages]
        if one.next_offsets[0] >= offset:
            return values
    raise AssertionError(f"the position stays at {one.next_offsets[0]}, expected {offset}")


def test_the_position_moves_past_markers(orders: str, open_reader: Callable[[int], reader.Reader]) -> None:
    send = Transactions(orders)
    send.commit(b"a")
    send.abort(b"b")
    assert until(open_reader(0), 4) == [b"a"]


def test_reading_notices_retention_on_its_way(orders: str, open_reader: Callable[[int], reader.Reader]) -> None:
    Transactions(orders).commit(b"a", b"b", b"c")
    drop_below(orders, 2)
    with pytest.raises(OffsetsGone):
        until(open_reader(0), 4)


def test_reading_notices_a_truncated_log(orders: str, open_reader: Callable[[int], reader.Reader]) -> None:
    with pytest.raises(LogTruncated):
        until(open_reader(7), 8)
