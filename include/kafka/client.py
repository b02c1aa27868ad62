"""Kafka clients made from the connection ``millrace_kafka``, with the settings that correctness needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from include import connections
from include.errors import UserError

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Producer
    from confluent_kafka.admin import AdminClient

T = TypeVar("T")

REQUEST_TIMEOUT_S = 15.0


def admin() -> AdminClient:
    """An admin client. Keep it until its futures are read: collected earlier, it does nothing."""
    from confluent_kafka.admin import AdminClient

    # Where brokers make topics that are asked for, a question would make one that is missing.
    return _made(AdminClient, _quiet(connections.kafka()) | {"allow.auto.create.topics": False})


def consumer(**overrides: Any) -> Consumer:
    """A consumer for ``assign``: it reads committed records only, joins no group, and never jumps over lost offsets.

    Args:
        **overrides: librdkafka settings with ``_`` for ``.``, such as ``fetch_max_bytes=…``; they win.
    """
    from confluent_kafka import Consumer

    return _made(
        Consumer,
        _quiet(connections.kafka())
        | {
            # librdkafka asks for a name even when nothing is subscribed to or committed.
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

    return _made(
        Producer,
        _quiet(connections.kafka())
        | {
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 5,
            "compression.type": "lz4",
            # The first connection is given up as soon as the brokers are known; the next is made after this, and twice
            # as long after each that fails.
            "reconnect.backoff.ms": 5,
        }
        | _dotted(overrides),
    )


def _made(kind: Callable[[dict[str, Any]], T], config: dict[str, Any]) -> T:
    """A client with these settings. Raises UserError when there is one that librdkafka does not take."""
    from confluent_kafka import KafkaException

    try:
        return kind(config)
    except KafkaException as error:
        raise UserError(
            f"The Airflow connection {connections.KAFKA!r} is not usable: {error.args[0].str()}.",
            "Fix its extra; ./millrace takes it from MILLRACE_CONN_KAFKA, if that is set.",
        ) from error


def _dotted(overrides: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("_", "."): value for name, value in overrides.items()}


def _quiet(config: dict[str, Any]) -> dict[str, Any]:
    # librdkafka prints every reconnect to stderr by itself; errors reach us through the calls that fail.
    return {"log_level": 2, **{k: v for k, v in config.items() if k != "group.id"}}
