"""Publishing a version: its rows, chosen and split, streamed into one Kafka transaction with their manifest."""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import msgspec

from include import allocator
from include.datasets.definition import Dataset
from include.versions.manifest import (
    CONTROL_TOPIC,
    PUBLICATION_HEADER,
    SPLITS,
    Column,
    Interval,
    Manifest,
    Message,
    encode,
    version_id,
)
from include.versions.packing import Batch, compression, packed
from include.versions.selection import NothingToPublish, Selection, select

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient
    from psycopg2.extensions import connection as Connection

__all__ = ["NothingToPublish", "Published", "publish"]

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

    from include.kafka import topics
    from include.versions import catalog
    from include.warehouse import connection

    allocator.keep_freed()
    # pyarrow's own pool asks for huge pages, and a kernel that has none at hand takes three times as long to make them.
    pa.set_memory_pool(pa.system_memory_pool())
    with dataset.source.scan(interval.start, interval.end) as scan:
        with _connecting() as connected:
            selection = select(dataset, scan, interval, most_rows, seed)
            warehouse, brokers = connected()
            topics.create(CONTROL_TOPIC, partitions=1, config=TOPIC_CONFIG, brokers=brokers)
            topics.create(dataset.topic, partitions=PARTITIONS, config=TOPIC_CONFIG, brokers=brokers)
            alike = catalog.alike(warehouse, brokers, dataset.name, selection.rows, selection.rule)
        # The rows have to be read to know whether they are those, so only versions of as many by the same rule are.
        if known := alike and alike.get(_content(dataset, selection, [batch for batch, _ in packed(selection)])):
            log.info("The same rows with the same split were published before, as version %s.", known)
            with connection.connected("millrace publish") as warehouse:
                state, says = catalog.training(warehouse, dataset.name, known)
            if state != "success":
                log.warning("%s", says)
            return Published(known, new=False)
        facts = {"interval": interval, "asked_by": asked_by, "parameters": dict(parameters or {})}
        return Published(_send(dataset, selection, facts), new=True)


@contextmanager
def _connecting() -> Iterator[Callable[[], tuple[Connection, AdminClient]]]:
    """Connects in the ``with`` block's background.

    Yields:
        What waits for the connections and returns them, or raises why there is none.
    """
    from include.kafka import topics
    from include.warehouse import connection

    with ThreadPoolExecutor(1, "connect") as thread:
        warehouse = thread.submit(connection.connect, "millrace publish")
        brokers = thread.submit(topics.connected)
        try:
            yield lambda: (warehouse.result(), brokers.result())
        finally:
            if warehouse.exception() is None:
                warehouse.result().close()


def _send(dataset: Dataset, selection: Selection, facts: Mapping[str, Any]) -> str:
    from include.kafka.publisher import transaction
    from include.provenance import code_version

    publication, batches = uuid.uuid4().hex, []
    headers = [(PUBLICATION_HEADER, publication.encode())]
    sending = packed(selection)
    first = next(sending)
    with transaction(f"millrace-publish-{dataset.name}", compression_type=compression(first[1])) as opened:
        for number, (batch, value) in enumerate(chain([first], sending)):
            opened.send(dataset.topic, value, partition=number % PARTITIONS, headers=headers)
            batches.append(batch)
        # While the brokers store what is left.
        code = code_version()
        messages = [
            Message(partition, offset, batch.split, batch.number, batch.rows, blake3=batch.blake3)
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
            features=selection.features,
            columns=[Column(field.name, str(field.type)) for field in selection.schema],
            split=selection.rule,
            classes=selection.classes,
            rows={split: sum(m.rows for m in messages if m.split == split) for split in SPLITS},
            messages=messages,
            content=_content(dataset, selection, batches),
            source=str(dataset.source),
            code=code,
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
        selection.features,
        selection.rule,
    ]
    by_split = sorted(batches, key=lambda batch: SPLITS.index(batch.split))
    rows = [(batch.split, batch.number, batch.blake3) for batch in by_split]
    return hashlib.sha256(msgspec.json.encode([*facts, str(selection.schema), rows])).hexdigest()
