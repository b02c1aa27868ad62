"""A definition trained in this process: its source read, its version packed and put together, its models fitted."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from include.datasets import Dataset
from include.registry import probe
from include.registry.artifact import loads, require_storable
from include.training.evaluation import Evaluation, evaluate
from include.training.fitting import _matrix
from include.training.preparation import prepared
from include.versions import packing
from include.versions.assembly import Assembly
from include.versions.manifest import SPLITS, Column, Interval, Manifest, Message, decode, encode, version_id
from include.versions.selection import select

NOWHERE = "0" * 64


@dataclass(frozen=True)
class Version:
    """A version that was never sent.

    Attributes:
        manifest: Its manifest.
        train: The rows to train on.
        test: The rows to test on.
    """

    manifest: Manifest
    train: pa.Table
    test: pa.Table


def version(dataset: Dataset, interval: Interval | None = None) -> Version:
    """The version of all rows of a dataset, or of those of an interval, as training gets it."""
    with dataset.source.scan(None, None) as scan:
        selection = select(dataset, scan, interval or Interval())
        sent = [(batch, value.to_pybytes()) for batch, value in packing.packed(selection)]
    messages = [
        Message(0, place, batch.split, batch.number, batch.rows, blake3=batch.blake3)
        for place, (batch, _) in enumerate(sent)
    ]
    manifest = Manifest(
        dataset=dataset.name,
        version=version_id(dataset.topic, messages),
        publication="none",
        topic=dataset.topic,
        kind=dataset.kind,
        record_id=dataset.record_id,
        event_time=dataset.event_time,
        target=dataset.target,
        features=list(selection.features),
        columns=[Column(field.name, str(field.type)) for field in selection.schema],
        split=selection.rule,
        classes=selection.classes,
        rows={split: sum(m.rows for m in messages if m.split == split) for split in SPLITS},
        messages=messages,
    )
    # What a manifest cannot say fails here.
    manifest = decode(encode(manifest))
    tables = []
    for split in SPLITS:
        assembly = Assembly(manifest.of(split), manifest.columns)
        for batch, value in sent:
            if batch.split == split:
                assembly.put(batch.number, pa.ipc.open_stream(value).read_next_batch())
        tables.append(assembly.table())
    return Version(manifest, *tables)


def evaluated(dataset: Dataset, found: Version, model: str, seed: int = 0) -> Evaluation:
    """A model fitted and evaluated as a run does it."""
    estimator = prepared(dataset.estimators()[model], seed)
    estimator.fit(*_matrix(found.train, found.manifest))
    return evaluate(estimator, *_matrix(found.test, found.manifest), found.manifest)


def trained(dataset: Dataset, found: Version, model: str, seed: int = 0) -> tuple[Any, Evaluation]:
    """A model fitted and evaluated as a run does it, stored and loaded."""
    estimator = prepared(dataset.estimators()[model], seed)
    require_storable(estimator, dataset.trusted)
    estimator.fit(*_matrix(found.train, found.manifest))
    evaluation = evaluate(estimator, *_matrix(found.test, found.manifest), found.manifest)
    probed = probe.record(estimator, found.test.select(found.manifest.features))
    content = require_storable(estimator, dataset.trusted)
    loaded = loads(content, hashlib.sha256(content).hexdigest(), dataset.trusted)
    probe.recheck(loaded, probed)
    return loaded, evaluation
