"""The topic that every peer lands: bus positions as JSON of about 180 bytes, evenly over four partitions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from operator import attrgetter
from random import Random
from uuid import uuid4

from include.error_codes import Code
from include.errors import UserError
from include.kafka import client, topics
from include.schemas.schema import Format
from include.streams import encoding, produce, vehicle_positions
from include.streams.definition import Stream

# The simulation takes 20 µs for an event, so the topic repeats this many events at other offsets. Each is a key of its
# own, always in the same partition.
DISTINCT = 100_000
KEY = ("vehicle", "ts")
PARTITIONS = 4
# Without these librdkafka pauses for a second whenever its queue has been full.
FETCH = {
    "fetch.queue.backoff.ms": 1,
    "fetch.wait.max.ms": 50,
    "queued.min.messages": 100_000,
    "queued.max.messages.kbytes": 32_768,
}
_QUEUE = {"queue_buffering_max_messages": 200_000, "queue_buffering_max_kbytes": 262_144, "batch_size": 1_000_000}


def stream_of(name: str, topic: str, format: str = Format.JSON) -> Stream:
    """The shipped stream of bus positions under another name, with a window that outlasts any run here."""
    return replace(
        vehicle_positions.stream,
        name=name,
        topic=topic,
        format=format,
        registry="",
        kafka_partitions=PARTITIONS,
        window="1 hour",
        quiet="1 second",
    )


@contextmanager
def filled(events: int, format: str = Format.JSON) -> Iterator[str]:
    """A new topic with that many events, a multiple of the partitions' number; deleted at the end.

    Raises:
        UserError: Kafka is unavailable, or did not store every event.
    """
    topic = f"bench-{uuid4().hex[:8]}"
    stream = stream_of("bench", topic, format)
    produce.make_topic(stream)
    try:
        _fill(stream, events)
        yield topic
    finally:
        delete(topic)


def delete(topic: str) -> None:
    """Deletes a topic."""
    brokers = client.admin()
    brokers.delete_topics([topic])[topic].result(client.REQUEST_TIMEOUT_S)


def forget(topic: str) -> None:
    """Deletes a topic if it exists."""
    from confluent_kafka import KafkaError, KafkaException

    try:
        delete(topic)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise


def leave(group: str) -> None:
    """Deletes a consumer group if it exists."""
    from confluent_kafka import KafkaError, KafkaException

    brokers = client.admin()
    try:
        brokers.delete_consumer_groups([group])[group].result(client.REQUEST_TIMEOUT_S)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.GROUP_ID_NOT_FOUND:
            raise


def _distinct() -> Iterator[vehicle_positions.VehiclePosition]:
    """Simulated events, without those whose key another one has."""
    seen = set()
    for event in vehicle_positions.drive(Random(1)):
        key = attrgetter(*KEY)(event)
        if key not in seen:
            seen.add(key)
            yield event


def _fill(stream: Stream, events: int) -> None:
    topic = stream.topic
    messages = [{"value": value} for value in map(encoding.encoder(stream), islice(_distinct(), DISTINCT))]
    parts = [messages[partition::PARTITIONS] for partition in range(PARTITIONS)]
    producer = client.producer(**_QUEUE)
    for sent in range(0, events, DISTINCT):
        count = min(DISTINCT, events - sent) // PARTITIONS
        while len(producer) + DISTINCT > _QUEUE["queue_buffering_max_messages"]:
            producer.poll(0.01)
        for partition, part in enumerate(parts):
            producer.produce_batch(topic, part[:count], partition)
    producer.flush()
    stored = sum(extent.end for extent in topics.extents(topic, range(PARTITIONS)).values())
    if stored != events:
        raise UserError(
            f"Kafka has {stored} of the {events} events sent to {topic!r}.",
            "See ./millrace logs kafka.",
            code=Code.BENCHMARK_FAILED,
        )
