"""Reads a sealed version: exactly the listed messages, each verified before its rows are used."""

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
from include.errors import UserError
from include.kafka import topics
from include.kafka.position_errors import LogTruncated, OffsetsGone, TopicMissing
from include.kafka.reader import Stalled, place, read_range
from include.versions.assembly import Assembly
from include.versions.leakage import SplitValidator, require_distinct
from include.versions.manifest import PUBLICATION_HEADER, SPLITS, Column, Manifest, Message, Role
from include.versions.refusal import InvalidRows, Reason, VersionRefused

if TYPE_CHECKING:
    import confluent_kafka
    import pyarrow as pa

__all__ = ["Rows", "VersionReader", "VersionRefused", "in_order", "prove", "read"]

STABLE_WITHIN_S = 30.0
# Fetching continues as soon as the queue has space, not after librdkafka's default second. The digest of each message
# makes the checksum of record batches unnecessary.
FETCH = {"fetch_queue_backoff_ms": 1, "queued_max_messages_kbytes": 8_192, "check_crcs": False}
# Verifying a message, and copying its rows, both take longer than fetching it.
THREADS = min(2, os.cpu_count() or 1)
MAX_PENDING = 4
VALIDATED_ROWS = 65_536

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rows:
    """The verified rows of a version, in the order and with the types in which they were published.

    Attributes:
        train: Rows to train on.
        test: Rows to test on.
        foreign: The number of messages between those of the version that belong to others, and were skipped.
    """

    train: pa.Table
    test: pa.Table
    foreign: int


def read(manifest: Manifest) -> Rows:
    """Reads all rows of a version.

    Raises:
        VersionRefused: The version is not what its manifest describes.
        UserError: Kafka does not answer.
    """
    allocator.keep_freed()
    parts = {split: Assembly(manifest.of(split), manifest.columns) for split in SPLITS}
    reader = VersionReader(manifest)

    def put(message: Message, value: bytes) -> None:
        part = parts[message.split]
        if not part.put_same_layout(message.batch, value):
            part.put(message.batch, reader.decode(message, value), value)

    for _ in reader.map_messages(put):
        pass
    rows = {split: part.table() for split, part in parts.items()}
    with reader.validating() as validator, ThreadPoolExecutor(THREADS, "validate") as threads:
        pieces = [(split, start) for split in SPLITS for start in range(0, rows[split].num_rows, VALIDATED_ROWS)]
        validating = [
            threads.submit(validator.add_batch, split, start, rows[split].slice(start, VALIDATED_ROWS))
            for split, start in pieces
        ]
        for each in validating:
            each.result()
    return Rows(rows["train"], rows["test"], reader.foreign)


def prove(manifest: Manifest) -> None:
    """Reads and checks a version without keeping its rows.

    Raises:
        VersionRefused: The version is not what its manifest describes.
        UserError: Kafka does not answer.
    """
    reader, starts = VersionReader(manifest), manifest.starts()
    with reader.validating() as validator:
        for message, batch in reader.batches():
            validator.add_batch(message.split, starts[message], batch)


def in_order(manifest: Manifest, split: Role, first: int = 0) -> Iterator[pa.RecordBatch]:
    """The rows of one split in batch order, with a few batches in memory at a time.

    Each batch is verified before it is returned. Messages between them are skipped, unless they claim the version.

    Args:
        first: The number of the first batch.

    Raises:
        VersionRefused: A message is missing or is not what was sealed.
        UserError: Kafka does not answer.
    """
    reader = VersionReader(manifest)
    with ExitStack() as lanes:
        reading: dict[int, _Lane] = {}
        for wanted in manifest.of(split)[first:]:
            lane = reading.get(wanted.partition)
            if lane is None or lane.next_offset > wanted.offset:
                lane = reading[wanted.partition] = lanes.enter_context(_Lane(reader, wanted))
            yield lane.advance_to(wanted)


class _Lane:
    """One partition of a version, read from a message on."""

    def __init__(self, reader: VersionReader, start: Message) -> None:
        self.next_offset = start.offset
        self._reader = reader
        end = 1 + max(m.offset for m in reader.manifest.messages if m.partition == start.partition)
        ranges = {start.partition: (start.offset, end)}
        self._read = reader.read(ranges, max_records=2, queued_max_messages_kbytes=2_048)
        self._messages = chain.from_iterable(self._read)

    def __enter__(self) -> _Lane:
        return self

    def __exit__(self, *_: object) -> None:
        self._read.close()

    def advance_to(self, wanted: Message) -> pa.RecordBatch:
        """The rows of a later message; skips the messages before it."""
        for message in self._messages:
            _, offset = place(message)
            self.next_offset = offset + 1
            if offset == wanted.offset:
                return self._reader.decode(wanted, self._reader.verified(wanted, message))
            if offset > wanted.offset:
                break
            self._reader.skip(message)
        raise self._reader.missing({(wanted.partition, wanted.offset)})


class VersionReader:
    """Reads the messages of a version once.

    Attributes:
        foreign: The number of messages of others so far.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.foreign = 0
        self._listed = {(m.partition, m.offset): m for m in manifest.messages}
        self._missing = dict(self._listed)
        self._schema: pa.Schema | None = None

    def batches(self) -> Iterator[tuple[Message, pa.RecordBatch]]:
        """The listed messages with their rows, in offset order within each partition.

        Raises:
            VersionRefused: A message is missing or is not what was sealed.
        """
        yield from self.map_messages(lambda message, value: (message, self.decode(message, value)))

    def map_messages(self, work: Callable[[Message, bytes], T]) -> Iterator[T]:
        """Calls ``work`` with each listed message and its content; yields the results in the order of arrival.

        Args:
            work: Runs in other threads, for several messages at a time, once a message is verified.

        Raises:
            VersionRefused: A message is missing or is not what was sealed.
        """
        pending: deque[Future[T]] = deque()
        with ThreadPoolExecutor(THREADS, "verify") as threads:
            for messages in self.read(self._ranges(), max_records=2):
                for message in messages:
                    listed = self._missing.pop(place(message), None)
                    if listed is None:
                        self.skip(message)
                    else:
                        pending.append(threads.submit(self._verify_and, work, listed, message))
                # These names would keep messages in memory while the next ones are fetched.
                del messages, message
                while len(pending) > MAX_PENDING:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        if self._missing:
            raise self.missing(self._missing)

    @contextmanager
    def validating(self) -> Iterator[SplitValidator]:
        """Checks at the end of the ``with`` block that no record repeats and that the split holds.

        Yields:
            The validator; pass every batch to its ``add_batch``.

        Raises:
            VersionRefused: The rows contradict the manifest.
        """
        validator = SplitValidator(self.manifest)
        try:
            yield validator
            possible = validator.possible_duplicates()
            if len(possible):
                again = VersionReader(self.manifest).batches()
                require_distinct(self.manifest, possible, ((message.split, batch) for message, batch in again))
        except InvalidRows as error:
            raise self._refused(error.reason, str(error)) from error

    def _verify_and(self, work: Callable[[Message, bytes], T], listed: Message, message: confluent_kafka.Message) -> T:
        return work(listed, self.verified(listed, message))

    def read(
        self, ranges: Mapping[int, tuple[int, int]], **options: Any
    ) -> Generator[list[confluent_kafka.Message], None, None]:
        """All messages of ranges of the topic, including those of others, some at a time.

        Args:
            **options: As for ``read_range``.

        Raises:
            VersionRefused: Kafka does not have the range.
        """
        options = {"stalled_after_s": STABLE_WITHIN_S, **FETCH, **options}
        try:
            yield from read_range(self.manifest.topic, ranges, **options)
        except (OffsetsGone, TopicMissing) as error:
            raise self._refused(Reason.TRIMMED, error.what) from error
        except LogTruncated as error:
            raise self._refused(Reason.SHORT, error.what) from error
        except Stalled as error:
            raise self._refused(Reason.OPEN, error.what) from error
        except UserError as error:
            # The brokers give the same answer for a missing partition as for a lost leader.
            try:
                existing = topics.describe(self.manifest.topic).partitions
            except TopicMissing as missing:
                raise self._refused(Reason.TRIMMED, missing.what) from error
            if absent := sorted(set(ranges) - set(existing)):
                what = f"the topic {self.manifest.topic} has no partition {absent[0]}."
                raise self._refused(Reason.SHORT, what) from error
            raise

    def _ranges(self) -> dict[int, tuple[int, int]]:
        ranges: dict[int, tuple[int, int]] = {}
        for m in self.manifest.messages:
            first, end = ranges.get(m.partition, (m.offset, m.offset))
            ranges[m.partition] = (min(first, m.offset), max(end, m.offset + 1))
        return ranges

    def verified(self, listed: Message, message: confluent_kafka.Message) -> bytes:
        """The content of a listed message, whose digest was checked.

        Raises:
            VersionRefused: The content is not what was sealed.
        """
        value = message.value() or b""
        if not listed.is_of(value):
            where = _at(self.manifest, listed.partition, listed.offset)
            raise self._refused(Reason.ALTERED, f"the message {where} does not have the digest that was sealed.")
        return value

    def decode(self, listed: Message, value: bytes) -> pa.RecordBatch:
        """The rows of a listed message.

        Raises:
            VersionRefused: They are not what the manifest describes.
        """
        import pyarrow as pa

        where = _at(self.manifest, listed.partition, listed.offset)
        try:
            with pa.ipc.open_stream(value) as reader:
                batches = list(reader)
                for batch in batches:
                    batch.validate()
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self._refused(Reason.ALTERED, f"the message {where} is not an Arrow stream: {error}.") from error
        if len(batches) != 1:
            raise self._refused(Reason.ALTERED, f"the message {where} has {len(batches)} record batches, not one.")
        if batches[0].num_rows != listed.rows:
            raise self._refused(
                Reason.ALTERED, f"the message {where} has {batches[0].num_rows} rows, not {listed.rows}."
            )
        if batches[0].schema != self._schema:
            columns = [Column(field.name, str(field.type)) for field in batches[0].schema]
            if columns != self.manifest.columns:
                raise self._refused(Reason.ALTERED, f"the message {where} has another schema than the manifest.")
            self._schema = batches[0].schema
        return batches[0]

    def skip(self, message: confluent_kafka.Message) -> None:
        """Skips a message that is not needed.

        Raises:
            VersionRefused: The message claims the version and is not listed.
        """
        if place(message) in self._listed:
            return
        if dict(message.headers() or []).get(PUBLICATION_HEADER) == self.manifest.publication.encode():
            where = _at(self.manifest, *place(message))
            raise self._refused(
                Reason.UNLISTED, f"the message {where} claims to belong to it and is not in its manifest."
            )
        self.foreign += 1

    def missing(self, missing: Collection[tuple[int, int]]) -> VersionRefused:
        """The error for missing messages.

        Args:
            missing: Their partitions and offsets.
        """
        first = min(missing)
        return self._refused(
            Reason.SHORT, f"{len(missing)} listed messages are missing, the first {_at(self.manifest, *first)}."
        )

    def _refused(self, reason: Reason, what: str) -> VersionRefused:
        return VersionRefused(self.manifest, reason, what)


def _at(manifest: Manifest, partition: int, offset: int) -> str:
    return f"at {manifest.topic}, partition {partition}, offset {offset},"
