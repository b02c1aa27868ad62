"""Ways to publish and to read back, each in a process: called with its name, it prints its figures as JSON.

All of them read the rows of the same Parquet file.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

from benchmarks.peers import process
from include import connections
from include.airflow.patches import preload
from include.datasets import Dataset, File, HashSplit
from include.kafka import client, publisher, topics
from include.versions import catalog, packing, publication
from include.versions.manifest import Interval, Manifest, decode

if TYPE_CHECKING:
    from pyarrow import parquet

CONNECTION_ID = "bench_kafka"
# Without these librdkafka pauses for a second whenever its queue has been full.
FETCH = {"fetch_queue_backoff_ms": 1, "fetch_wait_max_ms": 10}


def dataset(name: str, file: str) -> Dataset:
    """The definition of the file's rows, a quarter of them for testing."""
    return Dataset(
        name=name,
        source=File(file),
        record_id="id",
        target="target",
        split=HashSplit(test=0.25),
        models=lambda: {},
    )


def isolate(name: str, *modules: ModuleType) -> str:
    """Sends manifests to another control topic, so that no dispatch reads them; returns its name.

    Args:
        modules: More modules that import the topic's name.
    """
    control = f"{name}.manifests"
    for module in (publication, catalog, *modules):
        vars(module)["CONTROL_TOPIC"] = control
    return control


def publish(name: str, file: str) -> dict[str, float]:
    """Publishes like the task of the DAG."""
    _make_topics(isolate(name), dataset(name, file).topic)
    return _timed(lambda: publication.publish(dataset(name, file), Interval()), preload.warm_up)


def publish_bare(name: str, file: str) -> dict[str, float]:
    """Sends record batches of a megabyte from the file in one transaction, and does nothing else."""
    from pyarrow import parquet

    _make_topics(f"{name}.bare")

    def work() -> None:
        with (
            parquet.ParquetFile(file, pre_buffer=False) as rows,
            publisher.transaction(name, compression_type="none") as opened,
        ):
            for number, value in enumerate(_streams(rows)):
                opened.send(f"{name}.bare", value, partition=number % publication.PARTITIONS)

    return _timed(work, preload.warm_up)


def publish_bare_defaults(name: str, file: str) -> dict[str, float]:
    """The same with the default settings of the libraries."""
    from confluent_kafka import Producer
    from pyarrow import parquet

    _make_topics(f"{name}.bare")

    def work() -> None:
        producer = Producer({**connections.kafka(), "transactional.id": name})
        producer.init_transactions()
        producer.begin_transaction()
        with parquet.ParquetFile(file) as rows:
            for number, value in enumerate(_streams(rows)):
                producer.produce(f"{name}.bare", value, partition=number % publication.PARTITIONS)
                producer.poll(0)
        producer.commit_transaction()

    return _timed(work, preload.warm_up)


def publish_operator(name: str, file: str, rows: str) -> dict[str, float]:
    """The Kafka provider's ProduceToTopicOperator with ``synchronous=False``: one message for each row."""
    from airflow.providers.apache.kafka.operators.produce import ProduceToTopicOperator

    _make_topics(f"{name}.operator")
    # Its queue must hold all messages, otherwise produce() raises BufferError.
    extra = {**connections.kafka(), "queue.buffering.max.messages": 1_000_000}
    os.environ[f"AIRFLOW_CONN_{CONNECTION_ID.upper()}"] = json.dumps({"conn_type": "kafka", "extra": extra})
    operator = ProduceToTopicOperator(
        task_id="produce",
        kafka_config_id=CONNECTION_ID,
        topic=f"{name}.operator",
        producer_function=_messages,
        producer_function_args=(file, int(rows)),
        synchronous=False,
    )
    return _timed(lambda: operator.execute({}), preload.warm_up)


def read(name: str, _: str) -> dict[str, float]:
    """Reads and proves the version, like the task that fits a model."""
    from include.versions import reading

    manifest = sealed(name)
    found: list[Any] = []
    measured = _timed(lambda: found.append(reading.read(manifest)))
    rows = found[0]
    return {**measured, "frame_mb": (rows.train.nbytes + rows.test.nbytes) / 1e6}


def read_bare(name: str, _: str) -> dict[str, float]:
    """Consumes the version's messages and counts their bytes: nothing is proven or kept."""
    return _consume(name, len)


def read_bare_frame(name: str, _: str) -> dict[str, float]:
    """Consumes the version's messages and makes one frame of their rows, as ``read`` does: nothing is proven."""
    import pyarrow as pa

    batches: list[pa.RecordBatch] = []

    def keep(value: bytes) -> int:
        with pa.ipc.open_stream(value) as rows:
            batches.extend(rows)
        return len(value)

    def frame() -> None:
        whole = pa.Table.from_batches(batches)
        batches.clear()
        whole.combine_chunks()

    return _consume(name, keep, frame)


def _consume(name: str, take: Callable[[bytes], int], end: Callable[[], None] = lambda: None) -> dict[str, float]:
    from confluent_kafka import TopicPartition

    left = {(message.partition, message.offset) for message in sealed(name).messages}
    topic = dataset(name, "").topic

    def work() -> None:
        consumer = client.consumer(**FETCH)
        starts = {p: min(offset for q, offset in left if q == p) for p, _ in left}
        consumer.assign([TopicPartition(topic, p, offset) for p, offset in starts.items()])
        messages, taken = len(left), 0
        while messages:
            for message in consumer.consume(min(messages, 16), 0.5):
                if message.error() is None:
                    messages -= 1
                    taken += take(message.value() or b"")
        consumer.close()
        end()

    return _timed(work)


def sealed(name: str) -> Manifest:
    """The manifest of the version that was published last."""
    from include.kafka.reader import read_range

    control = f"{name}.manifests"
    extent = topics.extents(control, [0])[0]
    *_, last = (m for batch in read_range(control, {0: (extent.first, extent.stable_end)}) for m in batch)
    return decode(last.value())


def _streams(rows: parquet.ParquetFile) -> Iterator[bytes]:
    import pyarrow as pa

    size = packing.rows_of_a_message(rows.schema_arrow)
    for batch in rows.iter_batches(32 * size):
        for start in range(0, batch.num_rows, size):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, batch.schema) as writer:
                writer.write_batch(batch.slice(start, size))
            yield sink.getvalue().to_pybytes()


def _make_topics(*names: str) -> None:
    for name in names:
        partitions = 1 if name.endswith(".manifests") else publication.PARTITIONS
        topics.create(name, partitions=partitions, config=publication.TOPIC_CONFIG)


def _messages(file: str, most: int) -> Iterator[tuple[str, bytes]]:
    import msgspec
    from pyarrow import parquet

    left = most
    with parquet.ParquetFile(file) as rows:
        for batch in rows.iter_batches(10_000):
            for row in batch.to_pylist():
                yield str(row["id"]), msgspec.json.encode(row)
                left -= 1
                if not left:
                    return


def _timed(work: Callable[[], object], prepare: Callable[[], object] = lambda: None) -> dict[str, float]:
    import pyarrow.compute  # noqa: F401

    # Airflow's workers are forked from a process that has imported the libraries and frozen its garbage collector.
    prepare()
    gc.collect()
    gc.freeze()
    connections.kafka()
    started = time.perf_counter()
    work()
    return {"seconds": time.perf_counter() - started, "peak_rss": process.peak_rss()}


if __name__ == "__main__":
    ways: dict[str, Callable[..., dict[str, float]]] = {
        way.__name__: way
        for way in (publish, publish_bare, publish_bare_defaults, publish_operator, read, read_bare, read_bare_frame)
    }
    print(json.dumps(ways[sys.argv[1]](*sys.argv[2:])))
