"""Events with known dispositions: a header of each record names the one it must get, unless it must land."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import msgspec
from confluent_kafka import IsolationLevel, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
)

from include.streams.definition import Instant, Stream

Expected = Literal["landed", "dead letter", "quarantined", "filtered", "skipped"]
EXPECT = "expect"
WAIT_S = 30.0


class Reading(msgspec.Struct):
    """One reading of a meter."""

    id: int
    ts: Instant
    name: str | None
    amount: float | None = None


READINGS = Stream(
    name="readings",
    event=Reading,
    event_time="ts",
    partition="1 day",
    keep="90 days",
    late="7 days",
    early="1 hour",
    window="60 seconds",
    quiet="2 seconds",
    kafka_partitions=3,
)


class Anything(msgspec.Struct):
    """A column of every type."""

    id: int
    ts: Instant
    text: str | None = None
    whole: int | None = None
    real: float | None = None
    exact: Decimal | None = None
    flag: bool | None = None
    day: date | None = None
    uid: UUID | None = None
    raw: bytes | None = None
    tags: list[str] | None = None
    extra: Any = None


# The producers without transactions, by their brokers: a new one needs half a second to get its id.
_plain: dict[str, Producer] = {}


def forget_producers() -> None:
    """Drops the shared producers, with their knowledge of the brokers."""
    _plain.clear()


ANYTHING = replace(READINGS, name="anything", event=Anything, kafka_partitions=1)


def _admin(brokers: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": brokers, "log_level": 0, "allow.auto.create.topics": False})


Encode = Callable[[Mapping[str, Any]], bytes]
"""Encodes one event; its times are texts of ISO 8601."""


def as_json(event: Mapping[str, Any]) -> bytes:
    """The event as JSON."""
    return json.dumps(event).encode()


class Topic:
    """A topic on a broker: tests create, grow, trim and delete it, and send events.

    Args:
        encode: Encodes the events.

    Attributes:
        acknowledged: The records that the broker acknowledged, as (partition, offset); of transactions, once committed.
    """

    def __init__(self, brokers: str, name: str, partitions: int, encode: Encode = as_json, **config: str) -> None:
        self._encode = encode
        self.brokers, self.name, self.partitions = brokers, name, partitions
        self.acknowledged: set[tuple[int, int]] = set()
        self.next_id = 0
        self._config = {"message.timestamp.type": "LogAppendTime"} | {k.replace("_", "."): v for k, v in config.items()}
        self._admin = _admin(brokers)
        self._producers: dict[str, Producer] = {}
        self.make()

    def make(self) -> None:
        """Creates the topic."""
        topic = NewTopic(self.name, num_partitions=self.partitions, replication_factor=1, config=self._config)
        self._admin.create_topics([topic], operation_timeout=WAIT_S)[self.name].result(WAIT_S)
        # A leader that does not have the partition yet refuses the first batch of a producer.
        self.stable_ends()

    def delete(self) -> None:
        """Deletes the topic."""
        self._admin.delete_topics([self.name], operation_timeout=WAIT_S)[self.name].result(WAIT_S)
        self.acknowledged.clear()

    def grow(self, partitions: int) -> None:
        """Adds partitions, up to ``partitions``."""
        self._admin.create_partitions([NewPartitions(self.name, partitions)])[self.name].result(WAIT_S)
        self.partitions = partitions
        self.stable_ends()
        self.reconnect()

    def reconnect(self) -> None:
        """Drops the producers, with their knowledge of the topic."""
        self._producers.clear()
        forget_producers()

    def trim(self, partition: int, offset: int) -> None:
        """Removes the records below ``offset``, as retention does."""
        for future in self._admin.delete_records([TopicPartition(self.name, partition, offset)]).values():
            future.result(WAIT_S)

    def stable_ends(self) -> dict[int, int]:
        """The last stable offset of each partition (exclusive)."""
        partitions = [TopicPartition(self.name, partition) for partition in range(self.partitions)]
        patience = time.monotonic() + WAIT_S
        while True:
            asked = self._admin.list_offsets(
                dict.fromkeys(partitions, OffsetSpec.latest()), isolation_level=IsolationLevel.READ_COMMITTED
            )
            try:
                return {partition.partition: future.result(WAIT_S).offset for partition, future in asked.items()}
            except KafkaException:
                # A broker that has just started may refuse: try again with a new client.
                if time.monotonic() > patience:
                    raise
                time.sleep(0.1)
                self._admin = _admin(self.brokers)

    def configure(self, **config: str) -> None:
        """Changes the topic's settings, ``_`` for ``.``."""
        resource = ConfigResource(ConfigResource.Type.TOPIC, self.name)
        for name, value in config.items():
            entry = ConfigEntry(name.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
            resource.add_incremental_config(entry)
        self._admin.incremental_alter_configs([resource])[resource].result(WAIT_S)

    def events(self, count: int, partition: int | None = None, ts: datetime | None = None, **fields: Any) -> None:
        """Sends readings with new ids to all partitions, or to one, and waits for the broker."""
        self.send(self._values(count, ts, **fields), partition)

    def send(
        self,
        values: Iterable[bytes | None],
        partition: int | None = None,
        expect: Expected = "landed",
        key: bytes | None = b"key",
        timestamp: datetime | None = None,
    ) -> None:
        """Sends values as they are, and waits for the broker.

        Args:
            timestamp: The records' timestamp, for a topic with CreateTime.

        Raises:
            KafkaException: The broker refused one.
        """
        self._produce(self._producer(""), values, partition, expect, key, self.acknowledged, timestamp)
        self.flush()

    def send_later(self, value: bytes | None, expect: Expected, partition: int = 0) -> None:
        """Sends one value, without waiting."""
        self._produce(self._producer(""), [value], partition, expect, b"key", self.acknowledged)

    def flush(self) -> None:
        """Waits until the broker has stored all sent records."""
        assert self._producer("").flush(WAIT_S) == 0, "the broker did not acknowledge every event"

    def transaction(
        self,
        count: int,
        end: Literal["commit", "abort", "open"] = "commit",
        partition: int | None = None,
        name: str = "",
    ) -> Producer:
        """Sends readings in one transaction, and commits it, aborts it or leaves it open for the caller to end."""
        producer = self._producer(f"{self.name}-{name or 'transactions'}")
        producer.begin_transaction()
        stored: set[tuple[int, int]] = set()
        self._produce(producer, self._values(count), partition, "landed", b"key", stored)
        assert producer.flush(WAIT_S) == 0, "the broker did not acknowledge every event"
        if end == "commit":
            producer.commit_transaction(WAIT_S)
            self.acknowledged |= stored
        elif end == "abort":
            producer.abort_transaction(WAIT_S)
        return producer

    def value(self, ts: datetime | None = None, **fields: Any) -> bytes:
        """One reading with a new id."""
        self.next_id += 1
        moment = ts or datetime.now(UTC)
        event = {"id": self.next_id, "ts": moment.isoformat(), "name": f"meter {self.next_id % 97}", "amount": 0.5}
        return self._encode(event | fields)

    def _values(self, count: int, ts: datetime | None = None, **fields: Any) -> Sequence[bytes]:
        return [self.value(ts, **fields) for _ in range(count)]

    def _producer(self, transactional_id: str) -> Producer:
        producers, key = (self._producers, transactional_id) if transactional_id else (_plain, self.brokers)
        if key not in producers:
            config: dict[str, Any] = {
                "bootstrap.servers": self.brokers,
                "log_level": 0,
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 2,
                "message.max.bytes": 4_000_000,
                "allow.auto.create.topics": False,
            }
            if transactional_id:
                config |= {"transactional.id": transactional_id, "transaction.timeout.ms": 60_000}
            producers[key] = Producer(config)
            if transactional_id:
                producers[key].init_transactions(WAIT_S)
        return producers[key]

    def _produce(
        self,
        producer: Producer,
        values: Iterable[bytes | None],
        partition: int | None,
        expect: Expected,
        key: bytes | None,
        stored: set[tuple[int, int]],
        timestamp: datetime | None = None,
    ) -> None:
        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                raise KafkaException(error)
            stored.add((int(message.partition() or 0), int(message.offset() or 0)))

        at = int(timestamp.timestamp() * 1000) if timestamp else 0
        headers: Any = None if expect == "landed" else [(EXPECT, expect.encode())]
        for number, value in enumerate(values):
            where = number % self.partitions if partition is None else partition
            producer.produce(self.name, value, key, where, delivered, timestamp=at, headers=headers)
            producer.poll(0)
