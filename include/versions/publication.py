"""Publishing a version: its rows, chosen and split, streamed into one Kafka transaction with their manifest."""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import msgspec

from include.datasets.definition import Dataset
from include.versions.manifest import (
    CONTROL_TOPIC,
    PUBLICATION_HEADER,
    SPLITS,
    Column,
    Interval,
    Manifest,
    Message,
    Role,
    encode,
    version_id,
)
from include.versions.selection import NothingToPublish, Selection, select

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["NothingToPublish", "Published", "publish", "stream"]

MESSAGE_BYTES = 512 * 1024
FEWEST_ROWS = 16
ENCODED_AHEAD = 4
WORTH_COMPRESSING = 0.9
PARTITIONS = 3
TOPIC_CONFIG = {
    # A version must outlive every run that trained on it: only `keep` deletes.
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "cleanup.policy": "delete",
    "message.timestamp.type": "CreateTime",
    "max.message.bytes": "8388608",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Published:
    """A version that is there now.

    Attributes:
        version: Its id.
        new: Whether this publish made it, or the same rows were published before.
    """

    version: str
    new: bool


@dataclass(frozen=True)
class Batch:
    """What is kept of a message once it is sent."""

    split: Role
    number: int
    rows: int
    sha256: str


def publish(
    dataset: Dataset,
    interval: Interval,
    *,
    most_rows: int | None = None,
    seed: int = 0,
    asked_by: str = "",
    parameters: Mapping[str, Any] | None = None,
) -> Published:
    """Publishes the version of an interval, unless the same rows with the same split were published before.

    Args:
        most_rows: Take a sample of so many rows, drawn by the hash of their ids.
        seed: Another seed draws another sample.
        asked_by: The person or schedule behind it.
        parameters: The form as it was received; kept in the manifest.

    Raises:
        NothingToPublish: The interval has no rows, or too few to train and test.
        UserError: The source or its columns are not as defined, or Kafka does not take it. Nothing was published.
    """
    import pyarrow as pa

    from include.kafka import client, topics

    # pyarrow's own pool asks for huge pages, and a kernel that has none at hand takes three times as long to make them.
    pa.set_memory_pool(pa.system_memory_pool())
    with dataset.source.scan(interval.start, interval.end) as scan:
        selection = select(dataset, scan, interval, most_rows, seed)
        brokers = client.admin()
        topics.create(CONTROL_TOPIC, partitions=1, config=TOPIC_CONFIG, brokers=brokers)
        topics.create(dataset.topic, partitions=PARTITIONS, config=TOPIC_CONFIG, brokers=brokers)
        if known := _known(dataset, selection):
            log.info("The same rows with the same split were published before, as version %s.", known)
            return Published(known, new=False)
        facts = {"interval": interval, "asked_by": asked_by, "parameters": dict(parameters or {})}
        return Published(_send(dataset, selection, facts), new=True)


def encoded(selection: Selection) -> Iterator[tuple[Batch, pa.Buffer]]:
    """The rows as messages: Arrow IPC streams of one record batch, ``MESSAGE_BYTES`` each or a little less.

    Which rows go together depends on the rows alone, not on how the source hands them out: the same rows are the same
    messages.
    """
    numbers = dict.fromkeys(SPLITS, 0)
    encoding: deque[Future[tuple[Batch, pa.Buffer]]] = deque()
    # Laying out and hashing take longer than choosing the rows, and need the interpreter for a moment only.
    with ThreadPoolExecutor(1, "encode") as thread:
        for split, rows in _messages(selection):
            encoding.append(thread.submit(_encoded, split, numbers[split], rows))
            numbers[split] += 1
            while len(encoding) > ENCODED_AHEAD:
                yield encoding.popleft().result()
        while encoding:
            yield encoding.popleft().result()


def stream(batch: pa.RecordBatch) -> bytes:
    """A record batch as an Arrow IPC stream of its own, schema included."""
    return _stream(batch).to_pybytes()


def rows_of_a_message(schema: pa.Schema) -> int:
    """So many rows are ``MESSAGE_BYTES``, headers included, if a value of variable length takes 16 bytes."""
    bits = sum(1 + (field.type.bit_width if _fixed(field.type) else 128) for field in schema)
    return max(1, (MESSAGE_BYTES - 16_384) * 8 // bits)


def compression(value: pa.Buffer) -> str:
    """What messages like this one are compressed with: numbers at random get no smaller, and reading them no faster."""
    import pyarrow as pa

    return "lz4" if pa.Codec("lz4_raw").compress(value).size < WORTH_COMPRESSING * value.size else "none"


def _messages(selection: Selection) -> Iterator[tuple[Role, pa.RecordBatch]]:
    cutters = {split: _Cutter(rows_of_a_message(selection.schema)) for split in SPLITS}
    for split, rows in selection.parts():
        for piece in cutters[split].cut(rows):
            yield split, piece
    for split in SPLITS:
        for piece in cutters[split].rest():
            yield split, piece


def _encoded(split: Role, number: int, rows: pa.RecordBatch) -> tuple[Batch, pa.Buffer]:
    value = _stream(_clean(rows))
    return Batch(split, number, rows.num_rows, hashlib.sha256(value).hexdigest()), value


def _clean(rows: pa.RecordBatch) -> pa.RecordBatch:
    """The rows without traces of those before and after them, which views have in the last byte of their bitmaps."""
    import pyarrow as pa

    plain = all(_fixed(column.type) and not column.null_count and column.type.bit_width >= 8 for column in rows.columns)
    return rows if plain else pa.concat_batches([rows, rows.slice(0, 0)])


def _stream(batch: pa.RecordBatch) -> pa.Buffer:
    import pyarrow as pa

    # A buffer of the right size from the beginning is several times as fast as one that grows.
    measure = pa.MockOutputStream()
    with pa.ipc.new_stream(measure, batch.schema) as writer:
        writer.write_batch(batch)
    content = pa.allocate_buffer(measure.size())
    with pa.ipc.new_stream(pa.FixedSizeBufferWriter(content), batch.schema) as writer:
        writer.write_batch(batch)
    return content


class _Cutter:
    """Cuts a stream of rows into batches of ``size`` rows, or of a part of them where these take too many bytes."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._rest: pa.RecordBatch | None = None

    def cut(self, rows: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """The batches that are full now."""
        import pyarrow as pa

        if self._rest is not None:
            # Only the batch across the border is put together; the others are views.
            short = min(self._size - self._rest.num_rows, rows.num_rows)
            rows, joined = rows.slice(short), pa.concat_batches([self._rest, rows.slice(0, short)])
            self._rest = joined
            if joined.num_rows < self._size:
                return
            yield from _small(joined)
        full = rows.num_rows - rows.num_rows % self._size
        for start in range(0, full, self._size):
            yield from _small(rows.slice(start, self._size))
        self._rest = rows.slice(full) if full < rows.num_rows else None

    def rest(self) -> Iterator[pa.RecordBatch]:
        """The last batches."""
        if self._rest is not None:
            yield from _small(self._rest)


def _small(rows: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    if rows.nbytes <= MESSAGE_BYTES or rows.num_rows <= FEWEST_ROWS:
        yield rows
        return
    half = rows.num_rows // 2
    yield from _small(rows.slice(0, half))
    yield from _small(rows.slice(half))


def _fixed(type_: pa.DataType) -> bool:
    import pyarrow.types as types

    return bool(types.is_primitive(type_) or types.is_decimal(type_)) and not types.is_null(type_)


def _known(dataset: Dataset, selection: Selection) -> str | None:
    """The version that holds these very rows in this very split, if there is one.

    The rows have to be read for that, so it is only looked for among versions of as many rows by the same rule.
    """
    from include.versions import register

    alike = register.alike(dataset.name, selection.rows, selection.rule)
    if not alike:
        return None
    return alike.get(_content(dataset, selection, [batch for batch, _ in encoded(selection)]))


def _send(dataset: Dataset, selection: Selection, facts: Mapping[str, Any]) -> str:
    from include.kafka.publisher import transaction
    from include.provenance import code_version

    publication, batches = uuid.uuid4().hex, []
    headers = [(PUBLICATION_HEADER, publication.encode())]
    sending = encoded(selection)
    first = next(sending)
    with transaction(f"millrace-publish-{dataset.name}", compression_type=compression(first[1])) as opened:
        for number, (batch, value) in enumerate(chain([first], sending)):
            opened.send(dataset.topic, value, partition=number % PARTITIONS, headers=headers)
            batches.append(batch)
        messages = [
            Message(partition, offset, batch.split, batch.number, batch.rows, batch.sha256)
            for batch, (partition, offset) in zip(batches, opened.delivered(), strict=True)
        ]
        manifest = Manifest(
            dataset=dataset.name,
            version=version_id(dataset.topic, messages),
            publication=publication,
            topic=dataset.topic,
            kind=dataset.kind,
            record_id=dataset.record_id,
            event_time=dataset.event_time,
            target=dataset.target,
            features=dataset.feature_names(selection.schema.names),
            columns=[Column(field.name, str(field.type)) for field in selection.schema],
            split=selection.rule,
            classes=selection.classes,
            rows={split: sum(m.rows for m in messages if m.split == split) for split in SPLITS},
            messages=messages,
            content=_content(dataset, selection, batches),
            source=str(dataset.source),
            code=code_version(),
            **facts,
        )
        opened.send(CONTROL_TOPIC, encode(manifest), key=dataset.name.encode())
    log.info("Published version %s: %s rows in %d messages.", manifest.version, manifest.rows, len(messages))
    return manifest.version


def _content(dataset: Dataset, selection: Selection, batches: Sequence[Batch]) -> str:
    """A digest of everything that a model could notice, and of nothing else."""
    facts = [
        dataset.kind,
        dataset.record_id,
        dataset.event_time,
        dataset.target,
        dataset.feature_names(selection.schema.names),
        selection.rule,
    ]
    by_split = sorted(batches, key=lambda batch: SPLITS.index(batch.split))
    rows = [(batch.split, batch.number, batch.sha256) for batch in by_split]
    return hashlib.sha256(msgspec.json.encode([*facts, str(selection.schema), rows])).hexdigest()
