"""Kafka clients made from the connection ``millrace_kafka``, with the settings that correctness needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from include import connections

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Producer
    from confluent_kafka.admin import AdminClient

T = TypeVar("T")

REQUEST_TIMEOUT_S = 15.0


def admin() -> AdminClient:
    """An admin client. Keep a reference until its futures are done: a client that is garbage-collected answers none."""
    from confluent_kafka.admin import AdminClient

    # Brokers that create topics automatically would create the topic that a request names.
    return _create(AdminClient, _without_log(connections.kafka()) | {"allow.auto.create.topics": False})


def consumer(**overrides: Any) -> Consumer:
    """A consumer for ``assign``: it reads committed records only, joins no group and never skips lost offsets.

    Args:
        **overrides: librdkafka settings with ``_`` for ``.``, such as ``fetch_max_bytes=…``; they take precedence.
    """
    from confluent_kafka import Consumer

    return _create(
        Consumer,
        _without_log(connections.kafka())
        | {
            # librdkafka requires a name, although nothing is subscribed or committed.
            "group.id": "millrace",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "check.crcs": True,
        }
        | _dotted(overrides),
    )


def producer(**overrides: Any) -> Producer:
    """An idempotent producer that waits for all in-sync replicas; transactional when given ``transactional_id``."""
    from confluent_kafka import Producer

    return _create(
        Producer,
        _without_log(connections.kafka())
        | {
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 5,
            "compression.type": "lz4",
            # librdkafka drops the bootstrap connection once it has the list of brokers, and opens the next one after
            # this delay. The delay doubles with each failure.
            "reconnect.backoff.ms": 5,
        }
        | _dotted(overrides),
    )


def _create(kind: Callable[[dict[str, Any]], T], config: dict[str, Any]) -> T:
    """Creates a client with these settings. Raises UserError when librdkafka rejects one of them."""
    from confluent_kafka import KafkaException

    try:
        return kind(config)
    except KafkaException as error:
        raise connections.invalid(
            connections.KAFKA,
            f"{error.args[0].str()}.",
            "Correct its extra. ./millrace reads it from MILLRACE_CONN_KAFKA, if that is set.",
        ) from error


def _dotted(overrides: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("_", "."): value for name, value in overrides.items()}


def _without_log(config: dict[str, Any]) -> dict[str, Any]:
    # librdkafka prints every reconnect to stderr. Callers get errors from the calls that fail.
    return {"log_level": 2, **{k: v for k, v in config.items() if k != "group.id"}}
