"""Versions that another program publishes: any rows in any split, with their manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, cast

import pyarrow as pa

from include.kafka import publisher, topics
from include.training import dispatch
from include.versions.manifest import (
    CONTROL_TOPIC,
    PUBLICATION_HEADER,
    Column,
    Manifest,
    Message,
    Role,
    encode,
    version_id,
)
from include.versions.packing import stream
from include.versions.publication import TOPIC_CONFIG

BATCH = 200


def seal(name: str, parts: Mapping[str, pa.Table], split: Mapping[str, Any], **changes: Any) -> Manifest:
    """Publishes the rows of a dataset, lands the manifest with some of its fields changed, and returns it."""
    for topic in (name, CONTROL_TOPIC):
        topics.create(topic, partitions=1, config=TOPIC_CONFIG)
    partitions = len(topics.describe(name).partitions)
    batches = [
        (cast(Role, role), number, batch)
        for role, rows in parts.items()
        for number, batch in enumerate(rows.combine_chunks().to_batches(max_chunksize=BATCH))
    ]
    values = [stream(batch) for _, _, batch in batches]
    with publisher.transaction(f"foreign {name}") as opened:
        for number, value in enumerate(values):
            opened.send(name, value, partition=number % partitions, headers=[(PUBLICATION_HEADER, name.encode())])
        messages = [
            Message(partition, offset, role, number, batch.num_rows, hashlib.sha256(value).hexdigest())
            for (partition, offset), (role, number, batch), value in zip(
                opened.delivered(), batches, values, strict=True
            )
        ]
        schema = next(iter(parts.values())).schema
        fields = {
            "dataset": name,
            "version": version_id(name, messages),
            "publication": name,
            "topic": name,
            "kind": "classification",
            "record_id": "id",
            "target": "target",
            "features": ["x", "noise"],
            "columns": [Column(field.name, str(field.type)) for field in schema],
            "split": dict(split),
            "classes": ["no", "yes"],
            "rows": {role: rows.num_rows for role, rows in parts.items()},
            "messages": messages,
        }
        manifest = Manifest(**fields | changes)
        opened.send(CONTROL_TOPIC, encode(manifest))
    dispatch.land("test")
    return manifest
