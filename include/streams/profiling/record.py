"""A record of a sample, without Kafka's client."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from confluent_kafka import Message


@dataclass(frozen=True)
class Record:
    """A record of a topic.

    Attributes:
        partition, offset: Its place.
        stamp: Its timestamp in Kafka, in milliseconds since 1970; None if it has none.
        key: Its key; None if it has none.
        value: Its value; None for a tombstone.
        headers: The names of its headers.
    """

    partition: int
    offset: int
    stamp: int | None
    key: bytes | None
    value: bytes | None
    headers: frozenset[str] = field(default_factory=frozenset)


def of(message: Message) -> Record:
    """The record of a message that a consumer has delivered."""
    stamp = message.timestamp()[1]
    return Record(
        cast(int, message.partition()),
        cast(int, message.offset()),
        stamp if stamp >= 0 else None,
        message.key(),
        message.value(),
        frozenset(header[0] for header in message.headers() or ()),
    )
