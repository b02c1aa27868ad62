"""Known defects of training on Kafka, each tried on a real broker. docs/retraining.md lists them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from confluent_kafka import TopicPartition
from msgspec import structs

from include.datasets import HashSplit
from include.error_codes import Code
from include.kafka import client, topics
from include.training import dispatch
from include.training import run as runs
from include.versions import catalog, publication
from include.versions.manifest import CONTROL_TOPIC, PUBLICATION_HEADER, Interval
from include.versions.publication import publish
from include.versions.reading import read
from tests.errors import raises
from tests.integration import foreign
from tests.integration.registry import ask, given, seal, signal, train

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

BY_HAND = {"kind": "by hand"}


def labelled(rows: int, labels: int, first: int = 0) -> pa.Table:
    """Records with whole numbers as labels, all equally frequent."""
    numbers = np.arange(rows)
    noise = np.random.default_rng(0).normal(size=rows)
    return pa.table({"id": numbers, "x": noise, "noise": -noise, "target": first + numbers % labels})


def test_overlapping_publications_are_separate_versions(warehouse: Connection, topic: Callable[..., str]) -> None:
    """The messages of two transactions are interleaved in the same partitions, but not their versions."""
    dataset = given(topic, signal(300))
    topics.create(dataset.topic, partitions=publication.PARTITIONS, config=publication.TOPIC_CONFIG)
    other = client.producer(transactional_id=f"other {dataset.name}")
    other.init_transactions(30)
    other.begin_transaction()
    for number in range(30):
        headers: dict[str, str | bytes | None] = {PUBLICATION_HEADER: b"another"}
        other.produce(dataset.topic, b"another's", partition=number % 3, headers=headers)
        other.flush(30)
        if number == 15:
            publish(dataset, Interval())
    other.commit_transaction(30)
    dispatch.land("test")
    rows = read(catalog.find(dataset.name))
    assert pa.concat_tables([rows.train, rows.test]).sort_by("id").equals(signal(300))


def test_messages_without_a_manifest_are_not_a_version(warehouse: Connection, topic: Callable[..., str]) -> None:
    dataset = given(topic, signal(300))
    manifest_ = foreign.seal(
        dataset.name, {"train": signal(9), "test": signal(9, first=9)}, BY_HAND, dataset=topic("another")
    )
    with raises(Code.UNKNOWN_VERSION, f"'{dataset.name}'", "./millrace publish"):
        runs.begin(dataset, "run", {}, "test")
    with raises(Code.UNKNOWN_VERSION, f"'{manifest_.version}'"):
        runs.begin(dataset, "run", {"version": manifest_.version}, "test")
    assert ask(warehouse, "SELECT * FROM millrace.training_run") == []


def test_a_failed_publication_publishes_no_manifest(warehouse: Connection, topic: Callable[..., str]) -> None:
    dataset = given(topic, signal(3000))
    topics.create(CONTROL_TOPIC, partitions=1, config=publication.TOPIC_CONFIG)
    topics.create(dataset.topic, partitions=3, config=publication.TOPIC_CONFIG | {"max.message.bytes": "1000"})
    # Manifests of other tests are on the same topic.
    dispatch.land("test")
    with raises(Code.SEND_FAILED, "Message size too large", "Nothing was published"):
        publish(dataset, Interval())
    assert dispatch.land("test") == 0
    with raises(Code.UNKNOWN_VERSION, dataset.name):
        catalog.find(dataset.name)


@pytest.mark.parametrize(
    ("parts", "changes", "reason"),
    [
        ((20, 0), {}, "no test rows"),
        ((0, 20), {}, "no train rows"),
        ((20, 10), {"rows": {"train": 21, "test": 10}}, "21 train rows, but its messages have 20."),
        ((20, 10), {"version": "0" * 64}, "SHA-256 of its messages"),
        ((20, 10), {"features": ["x", "colour"]}, "no column colour"),
        ((20, 10), {"features": ["x", "target"]}, "target 'target' is also among its features"),
        ((20, 10), {"messages": []}, "is not a manifest: Expected `array` of length >= 1"),
    ],
)
def test_an_inconsistent_manifest_is_refused(
    warehouse: Connection, topic: Callable[..., str], parts: tuple[int, int], changes: dict[str, Any], reason: str
) -> None:
    name = topic("inconsistent")
    rows = {"train": signal(parts[0]), "test": signal(parts[1], first=parts[0])}
    foreign.seal(name, {split: part for split, part in rows.items() if part.num_rows}, BY_HAND, **changes)
    (refused,) = ask(warehouse, "SELECT * FROM millrace.refused_manifest ORDER BY manifest_offset DESC LIMIT 1")
    assert reason in refused.reason and "[invalid-manifest]" in refused.reason
    assert name in bytes(refused.value).decode()
    assert ask(warehouse, "SELECT * FROM millrace.dataset_version WHERE dataset = %s", name) == []


def test_a_manifest_that_differs_from_its_messages_is_refused(warehouse: Connection, topic: Callable[..., str]) -> None:
    name = topic("inconsistent").replace("-", "_")
    correct = foreign.seal(name, {"train": signal(20), "test": signal(10, first=20)}, BY_HAND)
    more = [structs.replace(m, rows=m.rows + 1) for m in correct.messages]
    with raises(Code.VERSION_ALTERED, "20 rows, not 21"):
        read(structs.replace(correct, messages=more))


def test_labels_and_runs_beyond_one_byte(warehouse: Connection, topic: Callable[..., str]) -> None:
    """In Kafka-ML, ``bytes([id])`` ends with "ValueError: bytes must be in range(0, 256)"."""
    dataset = given(topic, labelled(2000, 40, first=240), split=HashSplit(0.2))
    with warehouse.cursor() as cursor:
        cursor.execute("ALTER TABLE millrace.training_run ALTER run RESTART WITH 256")
    warehouse.commit()
    number = train(dataset, seal(dataset))
    assert number == 256
    manifest = catalog.find(dataset.name)
    assert manifest.classes == list(range(240, 280))
    rows = read(manifest)
    assert set(rows.train["target"].to_pylist()) == set(range(240, 280))


@pytest.mark.parametrize("partitions", [1, 2, 3, 6])
def test_every_class_is_tested_with_any_number_of_partitions(
    warehouse: Connection, topic: Callable[..., str], partitions: int
) -> None:
    name, rows_ = topic("labelled"), labelled(1000, 10)
    tests = HashSplit(0.2).tests(rows_, given(topic, rows_), None)
    topics.create(name, partitions=partitions, config=publication.TOPIC_CONFIG)
    parts = {"train": rows_.filter(~tests), "test": rows_.filter(tests)}
    rows = read(foreign.seal(name, parts, BY_HAND, classes=list(range(10))))
    counts = np.bincount(rows.test["target"].to_numpy(), minlength=10)
    assert counts.min() >= 10 and counts.sum() == rows.test.num_rows
    assert np.bincount(rows.train["target"].to_numpy(), minlength=10).min() >= 60


@pytest.mark.altered("records")
def test_removed_records_are_never_replaced_by_others(warehouse: Connection, topic: Callable[..., str]) -> None:
    """Kafka-ML silently starts at the log's new beginning or end, and trains on the records that it finds there."""
    dataset = given(topic, signal(300))
    seal(dataset)
    manifest = catalog.find(dataset.name)
    brokers = client.admin()
    end: dict[int, int] = {}
    for m in manifest.messages:
        end[m.partition] = max(end.get(m.partition, 0), m.offset + 1)
    for future in brokers.delete_records([TopicPartition(dataset.topic, p, o) for p, o in end.items()]).values():
        future.result(30)
    foreign_ = client.producer()
    for partition in end:
        foreign_.produce(dataset.topic, b"another's", partition=partition)
    assert foreign_.flush(30) == 0
    with raises(Code.VERSION_TRIMMED, dataset.topic):
        read(manifest)


def test_an_abandoned_transaction_is_not_part_of_a_version(warehouse: Connection, topic: Callable[..., str]) -> None:
    """Aborted messages are within the range of the next version, and a marker is after its last message."""
    dataset = given(topic, signal(300))
    topics.create(dataset.topic, partitions=publication.PARTITIONS, config=publication.TOPIC_CONFIG)
    for number in range(3):
        left = client.producer(transactional_id=f"left {number} {dataset.name}")
        left.init_transactions(30)
        left.begin_transaction()
        for partition in range(3):
            left.produce(dataset.topic, b"half", partition=partition)
        left.flush(30)
        left.abort_transaction(30)
    seal(dataset)
    rows = read(catalog.find(dataset.name))
    assert (rows.train.num_rows + rows.test.num_rows, rows.foreign) == (300, 0)
