"""Publishing a version: the source's rows, checked and split, in one Kafka transaction with their manifest."""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from include.datasets.definition import Dataset
from include.datasets.durations import duration
from include.errors import LastingError
from include.versions.manifest import (
    CONTROL_TOPIC,
    PUBLICATION_HEADER,
    Column,
    Interval,
    Manifest,
    Message,
    Role,
    encode,
    version_id,
)

if TYPE_CHECKING:
    import pyarrow as pa

MESSAGE_BYTES = 512 * 1024
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


class NothingToPublish(LastingError):
    """The interval holds nothing to learn from or to test on; no version is made of it."""


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
    """A message before it is sent."""

    split: Role
    number: int
    rows: int
    value: bytes
    sha256: str


def publish(
    dataset: Dataset,
    interval: Interval,
    *,
    most_rows: int | None = None,
    seed: int = 0,
    asked_by: str = "",
) -> Published:
    """Publishes the version of an interval, unless the same rows with the same split were published before.

    Args:
        most_rows: Take a sample of so many rows, drawn by the hash of their ids.
        seed: Another seed draws another sample.
        asked_by: The person or schedule behind it.

    Raises:
        NothingToPublish: The interval has no rows, or too few to train and test.
        UserError: The source or its columns are not as defined, or Kafka does not take it. Nothing was published.
    """
    from include.kafka import topics
    from include.versions import register

    rows = select(dataset, interval, most_rows, seed)
    parts = divide(dataset, rows, interval)
    batches = [batch for split in ("train", "test") for batch in encoded(parts[split], split)]
    rule = dataset.split.rule(rows, dataset, interval.end)
    content = _content(dataset, rows.schema, rule, batches)
    topics.create(CONTROL_TOPIC, partitions=1, config=TOPIC_CONFIG)
    topics.create(dataset.topic, partitions=PARTITIONS, config=TOPIC_CONFIG)
    if known := register.with_content(dataset.name, content):
        log.info("The same rows with the same split were published before, as version %s.", known)
        return Published(known, new=False)
    facts = {
        "split": rule,
        "classes": _classes(dataset, rows),
        "content": content,
        "interval": interval,
        "asked_by": asked_by,
    }
    return Published(_send(dataset, rows.schema, batches, facts), new=True)


def select(dataset: Dataset, interval: Interval, most_rows: int | None, seed: int) -> pa.Table:
    """The rows of a version, checked, in canonical order: by event time, then by record id.

    Raises:
        NothingToPublish: The interval has none.
        UserError: The source or its columns are not as defined.
    """
    rows = dataset.source.rows(interval.start, interval.end)
    if not rows.num_rows:
        raise LastingError(f"Dataset {dataset.name!r}: its source {dataset.source} has no rows at all.", "Fill it.")
    rows = _columns(dataset, rows).replace_schema_metadata(None)
    rows = _within(dataset, rows, interval)
    _require_ids(dataset, rows)
    rows = _with_target(dataset, rows)
    if most_rows is not None and most_rows < rows.num_rows:
        rows = _sample(dataset, rows, most_rows, seed)
    order = [dataset.event_time, dataset.record_id] if dataset.event_time else [dataset.record_id]
    return rows.sort_by([(name, "ascending") for name in dict.fromkeys(order)])


def divide(dataset: Dataset, rows: pa.Table, interval: Interval) -> dict[Role, pa.Table]:
    """The rows by split.

    Raises:
        NothingToPublish: One side is empty, or all training rows are of one class.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    tests = pa.array(dataset.split.tests(rows, dataset, interval.end))
    train, test = rows.filter(pc.invert(tests)), rows.filter(tests)
    about = f"Dataset {dataset.name!r}{_of(interval)}"
    for part, use in ((train, "train on"), (test, "test on")):
        if not part.num_rows:
            raise NothingToPublish(f"{about} has no rows to {use}, of {rows.num_rows}; its split is {dataset.split}.")
    if dataset.kind == "classification" and len(pc.unique(train[dataset.target])) < 2:
        raise NothingToPublish(f"{about} has {train.num_rows} rows to train on, all of one class.")
    return {"train": train, "test": test}


def encoded(rows: pa.Table, split: Role) -> Iterator[Batch]:
    """The rows as messages: Arrow IPC streams of one record batch and at most ``MESSAGE_BYTES`` each."""
    size = max(1, int(rows.num_rows * (MESSAGE_BYTES - 16_384) / max(1, rows.nbytes)))
    for number, batch in enumerate(rows.combine_chunks().to_batches(max_chunksize=size)):
        value = stream(batch)
        yield Batch(split, number, batch.num_rows, value, hashlib.sha256(value).hexdigest())


def stream(batch: pa.RecordBatch) -> bytes:
    """A record batch as an Arrow IPC stream of its own, schema included."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def _send(dataset: Dataset, schema: pa.Schema, batches: list[Batch], facts: dict[str, Any]) -> str:
    from include.kafka.publisher import transaction
    from include.provenance import code_version

    publication = uuid.uuid4().hex
    with transaction(f"millrace-publish-{dataset.name}") as opened:
        for number, batch in enumerate(batches):
            headers = [(PUBLICATION_HEADER, publication.encode())]
            opened.send(dataset.topic, batch.value, partition=number % PARTITIONS, headers=headers)
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
            features=dataset.feature_names(schema.names),
            columns=[Column(field.name, str(field.type)) for field in schema],
            rows={split: sum(m.rows for m in messages if m.split == split) for split in ("train", "test")},
            messages=messages,
            source=str(dataset.source),
            code=code_version(),
            **facts,
        )
        opened.send(CONTROL_TOPIC, encode(manifest), key=dataset.name.encode())
    log.info("Published version %s: %s rows in %d messages.", manifest.version, manifest.rows, len(messages))
    return manifest.version


def _columns(dataset: Dataset, rows: pa.Table) -> pa.Table:
    features = dataset.feature_names(rows.column_names)
    wanted = {
        "record_id": [dataset.record_id],
        "event_time": [dataset.event_time] if dataset.event_time else [],
        "split": [dataset.split.column] if dataset.split.column else [],
        "features": features,
        "target": [dataset.target],
        "slices": dataset.slice_columns(rows.column_names),
    }
    for field, names in wanted.items():
        if missing := [name for name in names if name not in rows.column_names]:
            raise LastingError(
                f"Dataset {dataset.name!r}, field {field}: its source has no column {', '.join(missing)}; "
                f"it has {', '.join(rows.column_names)}.",
                "Correct the definition.",
            )
    if not features:
        raise LastingError(f"Dataset {dataset.name!r}: no column is left to learn from.", "Name features.")
    return rows.select(list(dict.fromkeys(name for names in wanted.values() for name in names)))


def _within(dataset: Dataset, rows: pa.Table, interval: Interval) -> pa.Table:
    if dataset.event_time is None:
        return rows
    import numpy as np
    import pyarrow as pa

    from include.datasets.splits import moments

    happened = moments(rows, dataset)
    inside = np.ones(len(happened), bool)
    if interval.start is not None:
        inside &= happened >= _utc(interval.start)
    if interval.end is not None:
        inside &= happened < _utc(interval.end)
    if not inside.any():
        raise NothingToPublish(
            f"Dataset {dataset.name!r} has no rows{_of(interval)}; "
            f"its source's go from {happened.min()} to {happened.max()}."
        )
    if dataset.history != "interval":
        inside = np.ones(len(happened), bool) if interval.end is None else happened < _utc(interval.end)
        if dataset.history != "all":
            end = happened.max() if interval.end is None else _utc(interval.end)
            inside &= happened >= end - np.timedelta64(duration(dataset.history))
    return rows.filter(pa.array(inside))


def _require_ids(dataset: Dataset, rows: pa.Table) -> None:
    import pyarrow.compute as pc

    ids = rows[dataset.record_id]
    if ids.null_count:
        raise LastingError(
            f"Dataset {dataset.name!r}: {ids.null_count} rows have no {dataset.record_id!r}, their record_id."
        )
    if (distinct := pc.count_distinct(ids).as_py()) < len(ids):
        counts = pc.value_counts(ids)
        twice = counts.filter(pc.greater(counts.field("counts"), 1))[0].as_py()
        raise LastingError(
            f"Dataset {dataset.name!r}: {len(ids) - distinct} rows repeat a record_id, such as "
            f"{dataset.record_id}={twice['values']} in {twice['counts']} rows.",
            "Name a column that is different in every row, or remove the repeated rows.",
        )


def _with_target(dataset: Dataset, rows: pa.Table) -> pa.Table:
    """The rows that have a target: from the others nothing can be learned, and nothing be tested on them."""
    import pyarrow.compute as pc
    import pyarrow.types as types

    column = rows[dataset.target]
    numeric = types.is_integer(column.type) or types.is_floating(column.type) or types.is_decimal(column.type)
    if dataset.kind == "regression" and not numeric:
        raise LastingError(
            f"Dataset {dataset.name!r}: a regression needs a numeric target, and {dataset.target!r} is {column.type}.",
            "Name another target, or set kind='classification'.",
        )
    if column.null_count:
        log.warning("%d rows have no %s and are left out.", column.null_count, dataset.target)
        rows = rows.filter(pc.is_valid(column))
    return rows


def _sample(dataset: Dataset, rows: pa.Table, most: int, seed: int) -> pa.Table:
    import numpy as np

    from include.datasets.hashing import hash64

    drawn = hash64(rows[dataset.record_id], f"sample {seed}")
    return rows.take(np.sort(np.argsort(drawn, kind="stable")[:most]))


def _classes(dataset: Dataset, rows: pa.Table) -> list[Any]:
    import pyarrow.compute as pc

    return sorted(pc.unique(rows[dataset.target]).to_pylist()) if dataset.kind == "classification" else []


def _content(dataset: Dataset, schema: pa.Schema, rule: dict[str, Any], batches: list[Batch]) -> str:
    """A digest of everything that a model could notice, and of nothing else."""
    facts = [
        dataset.kind,
        dataset.record_id,
        dataset.event_time,
        dataset.target,
        dataset.feature_names(schema.names),
        rule,
    ]
    rows = [(batch.split, batch.number, batch.sha256) for batch in batches]
    return hashlib.sha256(msgspec.json.encode([*facts, str(schema), rows])).hexdigest()


def _utc(moment: datetime) -> Any:
    import numpy as np

    return np.datetime64(moment.replace(tzinfo=None), "us")


def _of(interval: Interval) -> str:
    if interval.end is None:
        return ""
    return f" from {interval.start:%Y-%m-%d %H:%M} to {interval.end:%Y-%m-%d %H:%M}" if interval.start else ""
