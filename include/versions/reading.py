"""Reading a sealed version: exactly the listed messages, each proven before its rows are used, or a refusal by name."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

from include import allocator
from include.errors import NonRetryableError, UserError
from include.kafka import topics
from include.kafka.position_errors import LogTruncated, OffsetsGone, TopicMissing
from include.kafka.reader import Stalled, place, read_range
from include.versions.assembly import Assembly
from include.versions.leakage import Leaking, Watch, repeated
from include.versions.manifest import PUBLICATION_HEADER, SPLITS, Column, Manifest, Message, Role

if TYPE_CHECKING:
    import confluent_kafka
    import pyarrow as pa

STABLE_WITHIN_S = 30.0
# A fetch that has filled the queue is taken up again at once and not after librdkafka's second of rest. A digest proves
# more than the checksum of a record batch does.
FETCH = {"fetch_queue_backoff_ms": 1, "queued_max_messages_kbytes": 8_192, "check_crcs": False}
# Proving a message takes longer than fetching it, and so does giving its rows a place in memory.
THREADS = min(2, os.cpu_count() or 1)
PROVEN_AHEAD = 4
LOOKED_AT_ROWS = 65_536

T = TypeVar("T")
log = logging.getLogger(__name__)


class VersionRefused(NonRetryableError):
    """A version cannot be trained on; ``reason`` names why in a word.

    Reasons: ``trimmed`` (retention or somebody removed messages), ``short`` (listed messages are missing), ``altered``
    (a message is not what was sealed), ``unlisted`` (a message claims the version and is not in its list), ``open``
    (the range lies behind an open transaction), ``repeated`` (an id occurs more than once), ``leaking`` (rows lie on
    the wrong side of the split).
    """

    def __init__(self, manifest: Manifest, reason: str, what: str) -> None:
        super().__init__(f"Version {manifest.short} of {manifest.dataset!r} is refused, {reason}: {what}")
        self.reason = reason


@dataclass(frozen=True)
class Rows:
    """The proven rows of a version, in the order and with the types of their publishing.

    Attributes:
        train: Rows to train on.
        test: Rows to test on.
        foreign: Messages of others that lay between those of the version, and were skipped.
    """

    train: pa.Table
    test: pa.Table
    foreign: int


def read(manifest: Manifest) -> Rows:
    """All rows of a version.

    Raises:
        VersionRefused: The version is not what its manifest says.
        UserError: Kafka does not answer.
    """
    allocator.keep_freed()
    parts = {split: Assembly(manifest.of(split), manifest.columns) for split in SPLITS}
    proof = Proof(manifest)

    def put(message: Message, value: bytes) -> None:
        part = parts[message.split]
        if not part.put_alike(message.batch, value):
            part.put(message.batch, proof.decoded(message, value), value)

    for _ in proof.each(put):
        pass
    rows = {split: part.table() for split, part in parts.items()}
    with proof.watch() as watch, ThreadPoolExecutor(THREADS, "watch") as threads:
        pieces = [(split, start) for split in SPLITS for start in range(0, rows[split].num_rows, LOOKED_AT_ROWS)]
        seen = [threads.submit(watch.see, s, start, rows[s].slice(start, LOOKED_AT_ROWS)) for s, start in pieces]
        for each in seen:
            each.result()
    return Rows(rows["train"], rows["test"], proof.foreign)


def prove(manifest: Manifest) -> None:
    """Reads a version without keeping its rows.

    Raises:
        VersionRefused: The version is not what its manifest says.
        UserError: Kafka does not answer.
    """
    proof, starts = Proof(manifest), manifest.starts()
    with proof.watch() as watch:
        for message, batch in proof.batches():
            watch.see(message.split, starts[message], batch)


def in_order(manifest: Manifest, split: Role, first: int = 0) -> Iterator[pa.RecordBatch]:
    """The rows of one split from a batch on, in batch order, a few batches in memory at a time.

    Each batch is proven before it is given. What lies between is passed over, unless it claims the version.

    Raises:
        VersionRefused: At the first message that does not fit.
        UserError: Kafka does not answer.
    """
    proof = Proof(manifest)
    with ExitStack() as lanes:
        reading: dict[int, _Lane] = {}
        for wanted in manifest.of(split)[first:]:
            lane = reading.get(wanted.partition)
            if lane is None or lane.next_offset > wanted.offset:
                lane = reading[wanted.partition] = lanes.enter_context(_Lane(proof, wanted))
            yield lane.to(wanted)


class _Lane:
    """One partition of a version, read from a message on."""

    def __init__(self, proof: Proof, start: Message) -> None:
        self.next_offset = start.offset
        self._proof = proof
        end = 1 + max(m.offset for m in proof.manifest.messages if m.partition == start.partition)
        ranges = {start.partition: (start.offset, end)}
        self._read = proof.read(ranges, max_records=2, queued_max_messages_kbytes=2_048)
        self._messages = chain.from_iterable(self._read)

    def __enter__(self) -> _Lane:
        return self

    def __exit__(self, *_: object) -> None:
        self._read.close()

    def to(self, wanted: Message) -> pa.RecordBatch:
        """The rows of a message further on."""
        for message in self._messages:
            _, offset = place(message)
            self.next_offset = offset + 1
            if offset == wanted.offset:
                return self._proof.decoded(wanted, self._proof.proven(wanted, message))
            if offset > wanted.offset:
                break
            self._proof.passed(message)
        raise self._proof.short({(wanted.partition, wanted.offset)})


class Proof:
    """One reading of a version.

    Attributes:
        foreign: Messages of others met so far.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.foreign = 0
        self._listed = {(m.partition, m.offset): m for m in manifest.messages}
        self._missing = dict(self._listed)
        self._schema: pa.Schema | None = None

    def batches(self) -> Iterator[tuple[Message, pa.RecordBatch]]:
        """Each listed message with its rows, as it arrives: in offset order within a partition.

        Raises:
            VersionRefused: At the first message that does not fit, or at the end when one is missing.
        """
        yield from self.each(lambda message, value: (message, self.decoded(message, value)))

    def each(self, work: Callable[[Message, bytes], T]) -> Iterator[T]:
        """What ``work`` makes of each listed message and its content, in the order in which the messages arrive.

        Args:
            work: Called in other threads, for several messages at a time, as soon as a message is proven.

        Raises:
            VersionRefused: At the first message that does not fit, or at the end when one is missing.
        """
        proving: deque[Future[T]] = deque()
        with ThreadPoolExecutor(THREADS, "prove") as threads:
            for messages in self.read(self._ranges(), max_records=2):
                for message in messages:
                    listed = self._missing.pop(place(message), None)
                    if listed is None:
                        self.passed(message)
                    else:
                        proving.append(threads.submit(self._proven, listed, message, work))
                # No name here holds a message while its successors are waited for.
                del messages, message
                while len(proving) > PROVEN_AHEAD:
                    yield proving.popleft().result()
            while proving:
                yield proving.popleft().result()
        if self._missing:
            raise self.short(self._missing)

    @contextmanager
    def watch(self) -> Iterator[Watch]:
        """Proves that no record repeats and that the split holds, once it was shown all batches in the ``with`` block.

        Raises:
            VersionRefused: At the first batch that shows the contrary, or at the end.
        """
        watch = Watch(self.manifest)
        try:
            yield watch
            doubtful = watch.doubtful()
            if len(doubtful):
                again = Proof(self.manifest).batches()
                repeated(self.manifest, doubtful, ((message.split, batch) for message, batch in again))
        except Leaking as error:
            raise self._refused(error.reason, str(error)) from error

    def _proven(self, listed: Message, message: confluent_kafka.Message, work: Callable[[Message, bytes], T]) -> T:
        return work(listed, self.proven(listed, message))

    def read(
        self, ranges: Mapping[int, tuple[int, int]], **options: Any
    ) -> Generator[list[confluent_kafka.Message], None, None]:
        """The messages of ranges of the topic, whosever they are, some at a time.

        Args:
            **options: As for ``read_range``.

        Raises:
            VersionRefused: A range is not there.
        """
        options = {"stalled_after_s": STABLE_WITHIN_S, **FETCH, **options}
        try:
            yield from read_range(self.manifest.topic, ranges, **options)
        except (OffsetsGone, TopicMissing) as error:
            raise self._refused("trimmed", str(error)) from error
        except LogTruncated as error:
            raise self._refused("short", str(error)) from error
        except Stalled as error:
            raise self._refused("open", str(error)) from error
        except UserError as error:
            # The brokers' answer about a partition that there is not says as little as one about a leader's loss.
            try:
                there = topics.describe(self.manifest.topic).partitions
            except TopicMissing as missing:
                raise self._refused("trimmed", str(missing)) from error
            if absent := sorted(set(ranges) - set(there)):
                what = f"the topic {self.manifest.topic} has no partition {absent[0]}."
                raise self._refused("short", what) from error
            raise

    def _ranges(self) -> dict[int, tuple[int, int]]:
        ranges: dict[int, tuple[int, int]] = {}
        for m in self.manifest.messages:
            first, end = ranges.get(m.partition, (m.offset, m.offset))
            ranges[m.partition] = (min(first, m.offset), max(end, m.offset + 1))
        return ranges

    def proven(self, listed: Message, message: confluent_kafka.Message) -> bytes:
        """The content of a listed message.

        Raises:
            VersionRefused: It is not what was sealed.
        """
        value = message.value() or b""
        if not listed.is_of(value):
            where = _at(self.manifest, listed.partition, listed.offset)
            raise self._refused("altered", f"the message {where} is not the one whose digest was sealed.")
        return value

    def decoded(self, listed: Message, value: bytes) -> pa.RecordBatch:
        """The rows of a listed message.

        Raises:
            VersionRefused: They are not what the manifest says.
        """
        import pyarrow as pa

        where = _at(self.manifest, listed.partition, listed.offset)
        try:
            with pa.ipc.open_stream(value) as reader:
                batches = list(reader)
                for batch in batches:
                    batch.validate()
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self._refused("altered", f"the message {where} is no Arrow stream: {error}.") from error
        if len(batches) != 1:
            raise self._refused("altered", f"the message {where} holds {len(batches)} record batches, not one.")
        if batches[0].num_rows != listed.rows:
            raise self._refused("altered", f"the message {where} holds {batches[0].num_rows} rows, not {listed.rows}.")
        if batches[0].schema != self._schema:
            columns = [Column(field.name, str(field.type)) for field in batches[0].schema]
            if columns != self.manifest.columns:
                raise self._refused("altered", f"the message {where} has another schema than the manifest.")
            self._schema = batches[0].schema
        return batches[0]

    def passed(self, message: confluent_kafka.Message) -> None:
        """Passes a message over that is not asked for.

        Raises:
            VersionRefused: It claims the version and is not listed.
        """
        if place(message) in self._listed:
            return
        if dict(message.headers() or []).get(PUBLICATION_HEADER) == self.manifest.publication.encode():
            where = _at(self.manifest, *place(message))
            raise self._refused("unlisted", f"the message {where} claims the version and is not in its list.")
        self.foreign += 1

    def short(self, missing: Collection[tuple[int, int]]) -> VersionRefused:
        """The refusal of a version without some of its messages.

        Args:
            missing: Their partitions and offsets.
        """
        first = min(missing)
        return self._refused(
            "short", f"{len(missing)} listed messages are missing, the first {_at(self.manifest, *first)}."
        )

    def _refused(self, reason: str, what: str) -> VersionRefused:
        return VersionRefused(self.manifest, reason, what)


def _at(manifest: Manifest, partition: int, offset: int) -> str:
    return f"at {manifest.topic}, partition {partition}, offset {offset},"
