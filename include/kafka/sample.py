"""A bounded sample of a topic: records from the beginning of each partition, from its end and from between."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from include.kafka import reader, topics
from include.kafka.position_errors import OffsetsGone
from include.kafka.reader import Reader, place

if TYPE_CHECKING:
    from confluent_kafka import Message

    from include.kafka.topics import Extent

DEFAULT_RECORDS = 1_000
MAX_RECORDS = 100_000
MAX_S = 30.0
MAX_BYTES = 32 * 1024 * 1024
REPORT_EVERY_S = 1.0
# From how many places of a partition records are read.
WINDOWS = 10
_ATTEMPTS = 3
# After this long without progress, a new consumer continues. One whose partitions are assigned and paused in quick
# turns has, once in some hundred samples on a busy machine, fetched no more.
STALLED_S = 3.0
_POLL_S = 0.2
# A fetch that brings in much more than a window would read the topic as a whole.
_CONSUMER = {"fetch_message_max_bytes": 256 * 1024, "queued_max_messages_kbytes": 8 * 1024, "fetch_wait_max_ms": 10}


@dataclass(frozen=True)
class Window:
    """A part of one partition.

    Attributes:
        start: The first offset.
        until: The end (exclusive).
        records: The most records to take from it.
    """

    start: int
    until: int
    records: int


@dataclass
class Sample:
    """Some committed records of a topic.

    Attributes:
        topic: The topic's name.
        partitions: The number of its partitions.
        offsets: The number of offsets that its logs hold. Not each of them has a record.
        messages: The records, by partition and offset.
        cut: Why fewer records were read than asked for; empty if that is not so.
    """

    topic: str
    partitions: int
    offsets: int
    messages: list[Message] = field(default_factory=list)
    cut: str = ""


def read(
    topic: str,
    records: int = DEFAULT_RECORDS,
    *,
    max_s: float = MAX_S,
    max_bytes: int = MAX_BYTES,
    progress: Callable[[int], None] = lambda read: None,
) -> Sample:
    """Reads a sample with ``assign``: it joins no consumer group and commits no offsets.

    Args:
        records: The most records to read, divided among the partitions.
        max_s: Seconds after which it returns what it has read.
        max_bytes: Bytes of keys and values after which it returns what it has read.
        progress: Called about once a second with the number of records read so far.

    Raises:
        TopicMissing: There is no such topic.
        UserError: The brokers do not answer or refuse.
    """
    deadline = time.monotonic() + max_s
    for attempt in range(_ATTEMPTS):
        brokers = topics.connected()
        found = topics.describe(topic, brokers)
        extents = topics.extents(topic, found.partitions, brokers)
        sample = Sample(topic, len(extents), sum(extent.stable_end - extent.first for extent in extents.values()))
        try:
            _Reading(sample, deadline, max_bytes, progress).run(windows(extents, records))
        except OffsetsGone:
            # Retention has moved the beginning of a log since it was requested.
            if attempt == _ATTEMPTS - 1:
                raise
            continue
        break
    sample.messages.sort(key=place)
    return sample


def windows(extents: Mapping[int, Extent], records: int) -> dict[int, list[Window]]:
    """The windows of each partition that has offsets: the first at its beginning, the last at its end.

    Args:
        extents: The offsets that each partition holds.
        records: The most records of all windows together; more only if there are more partitions.
    """
    found = {}
    for number, (partition, quota) in enumerate(_quotas(extents, records).items()):
        extent = extents[partition]
        found[partition] = list(_windows(extent.first, extent.stable_end, quota, number))
    return found


def _quotas(extents: Mapping[int, Extent], records: int) -> dict[int, int]:
    """How many records to read of each partition: the same number, but no more than it has offsets."""
    lengths = {p: extent.stable_end - extent.first for p, extent in extents.items() if extent.stable_end > extent.first}
    quotas, left = {}, records
    for done, partition in enumerate(sorted(lengths, key=lambda p: lengths[p])):
        quotas[partition] = min(lengths[partition], max(1, left // (len(lengths) - done)))
        left -= quotas[partition]
    return dict(sorted(quotas.items()))


def _windows(first: int, end: int, records: int, number: int) -> Iterator[Window]:
    if end - first <= records:
        yield Window(first, end, records)
        return
    count = min(WINDOWS, records)
    if count == 1:
        # Of many partitions, one record each: here from the beginning, there from the middle or the end.
        start = first + (end - first - 1) * (number % 3) // 2
        yield Window(start, end, 1)
        return
    sizes = [records // count + (each < records % count) for each in range(count)]
    starts = [first + (end - first - sizes[each]) * each // (count - 1) for each in range(count)]
    for start, until, size in zip(starts, [*starts[1:], end], sizes, strict=True):
        yield Window(start, until, size)


class _Reading:
    """Reads the windows of all partitions into a sample."""

    def __init__(self, sample: Sample, deadline: float, max_bytes: int, progress: Callable[[int], None]) -> None:
        self._sample = sample
        self._deadline = deadline
        self._max_bytes = self._bytes_left = max_bytes
        self._progress = progress
        self._reported_at = time.monotonic()
        self._consumer = reader.connected(**_CONSUMER)

    def run(self, wanted: Mapping[int, Sequence[Window]]) -> None:
        try:
            for number in _order(max(map(len, wanted.values()), default=0)):
                self._round({partition: some[number] for partition, some in wanted.items() if number < len(some)})
                if self._sample.cut:
                    break
        finally:
            self._consumer.close()

    def _round(self, some: Mapping[int, Window]) -> None:
        """Reads one window of each partition."""
        source = self._from({partition: window.start for partition, window in some.items()})
        left = {partition: window.records for partition, window in some.items()}
        moved_at = time.monotonic()
        while left and not self._sample.cut:
            batch = source.batch(sum(left.values()), _POLL_S)
            if batch.next_offsets or batch.at_end:
                moved_at = time.monotonic()
            elif time.monotonic() - moved_at > STALLED_S:
                self._consumer.close()
                self._consumer = reader.connected(**_CONSUMER)
                source = self._from({partition: source.next_offsets[partition] for partition in left})
                moved_at = time.monotonic()
            for message in batch.messages:
                partition, offset = place(message)
                if left.get(partition) and offset < some[partition].until:
                    left[partition] -= 1
                    self._take(message)
            ended = {p for p, offset in batch.next_offsets.items() if p in left and offset >= some[p].until}
            for partition in ended | (batch.at_end & left.keys()) | {p for p, count in left.items() if not count}:
                source.pause(partition)
                del left[partition]
            self._check_limits()

    def _from(self, starts: Mapping[int, int]) -> Reader:
        from confluent_kafka import TopicPartition

        source = Reader(self._sample.topic, starts, consumer=self._consumer)
        # The window before has paused them.
        self._consumer.resume([TopicPartition(self._sample.topic, partition) for partition in starts])
        return source

    def _take(self, message: Message) -> None:
        if self._bytes_left > 0:
            self._sample.messages.append(message)
            self._bytes_left -= len(message.key() or b"") + len(message.value() or b"")

    def _check_limits(self) -> None:
        now = time.monotonic()
        if self._bytes_left <= 0:
            self._sample.cut = f"reading ended after {self._max_bytes // 1024 // 1024} MiB"
        elif now > self._deadline:
            self._sample.cut = "reading ended because it took too long"
        if now - self._reported_at > REPORT_EVERY_S:
            self._reported_at = now
            self._progress(len(self._sample.messages))


def _order(count: int) -> list[int]:
    """The windows in the order of reading: the beginning and the end first, in case that reading is cut."""
    return [*dict.fromkeys((0, count - 1, *range(count)))] if count else []
