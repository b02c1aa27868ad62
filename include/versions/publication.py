"""Publishes a version: sends its rows and their manifest in one Kafka transaction."""

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
    # A version outlives every run that trained on it: only `keep` deletes it.
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "cleanup.policy": "delete",
    "message.timestamp.type": "CreateTime",
    "max.message.bytes": "8388608",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Published:
    """The version that a publication made or found.

    Attributes:
        version: Its id.
        new: Whether it is new; False if the same rows were published before.
        rows: The number of its rows.
    """

    version: str
    new: bool
    rows: int


def publish(
    dataset: Dataset,
    interval: Interval,
    *,
    max_rows: int | None = None,
    seed: int = 0,
    asked_by: str = "",
    parameters: Mapping[str, Any] | None = None,
) -> Published:
    """Publishes the version of an interval, unless the same rows with the same split were published before.

    Args:
        max_rows: Take a sample of this many rows, drawn by the hash of their ids.
        seed: Another seed draws another sample.
        asked_by: The person or schedule that requested it.
        parameters: The values of the form; stored in the manifest.

    Raises:
        NothingToPublish: The interval has no rows, or none to train or to test on.
        UserError: The source or its columns do not fit the definition, or Kafka fails. Nothing was published.
    """
    import pyarrow as pa

    from include.kafka import topics
    from include.versions import catalog
    from include.warehouse import connection

    allocator.keep_freed()
    # pyarrow's own pool requests huge pages, which take three times as long if the kernel has to make them first.
    pa.set_memory_pool(pa.system_memory_pool())
    with dataset.source.scan(interval.start, interval.end) as scan:
        with _connecting() as connected:
            selection = select(dataset, scan, interval, max_rows, seed)
            warehouse, brokers = connected()
            topics.create(CONTROL_TOPIC, partitions=1, config=TOPIC_CONFIG, brokers=brokers)
            topics.create(dataset.topic, partitions=PARTITIONS, config=TOPIC_CONFIG, brokers=brokers)
            alike = catalog.alike(warehouse, brokers, dataset.name, selection.rows, selection.rule)
        # Comparing content reads all rows, so only versions with the same counts and rule are compared.
        if known := alike and alike.get(_content(dataset, selection, [batch for batch, _ in packed(selection)])):
            log.info("The same rows with the same split were published before, as version %s.", known)
            with connection.connected("millrace publish") as warehouse:
                state, summary = catalog.training(warehouse, dataset.name, known)
            if state != "success":
                log.warning("%s", summary)
            return Published(known, new=False, rows=sum(selection.rows.values()))
        facts = {"interval": interval, "asked_by": asked_by, "parameters": dict(parameters or {})}
        return Published(_send(dataset, selection, facts), new=True, rows=sum(selection.rows.values()))


@contextmanager
def _connecting() -> Iterator[Callable[[], tuple[Connection, AdminClient]]]:
    """Connects to PostgreSQL and Kafka in the background of the ``with`` block.

    Yields:
        A function that waits for both connections and returns them, or raises the error of one.
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
        # Runs while the brokers store the last messages.
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
    """A digest of everything in a version that can change a model, and of nothing else."""
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
