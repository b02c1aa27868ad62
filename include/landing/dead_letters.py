"""Records that are kept aside: those that could not be landed, and those outside the time window (quarantined)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, cast

import msgspec

from include.streams.definition import CALENDAR, Instant
from include.streams.field import fields_of, storable

if TYPE_CHECKING:
    from confluent_kafka import Message
    from psycopg2.extensions import connection as Connection

    from include.landing.copy import Column

DEAD_LETTER = "dead letter"
QUARANTINED = "quarantined"
_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
NO_STAMP = -1
"""The time in milliseconds of a record that has none."""
STAMPS = tuple((end - _UNIX_EPOCH) // _MILLISECOND for end in CALENDAR)
"""The first and the last time of a record, in milliseconds since 1970, that clients can read."""


class DeadLetter(msgspec.Struct, frozen=True):
    """A record kept aside, as it was, with the reason; a row of ``millrace.dead_letter`` but for its coordinates."""

    stream: str
    disposition: str
    reason: str
    sqlstate: str | None
    appended_at: Instant
    event_time: Instant | None
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]] | None


def of(
    message: Message,
    stream: str,
    disposition: str,
    reason: str,
    *,
    sqlstate: str | None = None,
    event_time: datetime | None = None,
) -> DeadLetter:
    """The dead letter of a Kafka record."""
    _, appended_ms = message.timestamp()
    headers = cast("list[tuple[str, str | bytes | None]]", message.headers() or [])
    return DeadLetter(
        stream=stream,
        disposition=disposition,
        reason=storable(reason),
        sqlstate=sqlstate,
        appended_at=appended_at(appended_ms),
        event_time=event_time,
        key=_bytes(message.key()),
        value=_bytes(message.value()),
        headers=[(storable(name), _bytes(value)) for name, value in headers] or None,
    )


def appended_at(stamp_ms: int) -> datetime:
    """A record's time in Kafka, or the calendar's end before or behind which it is."""
    return _UNIX_EPOCH + min(max(stamp_ms, STAMPS[0]), STAMPS[1]) * _MILLISECOND


def keep(
    connection: Connection,
    incarnation: int,
    partitions: Sequence[int],
    offsets: Sequence[int],
    letters: Sequence[DeadLetter],
) -> None:
    """Stores dead letters with their coordinates, inside the caller's transaction."""
    from include.landing import copy

    if not letters:
        return
    names = ["kafka_incarnation", "kafka_partition", "kafka_offset", *(column.name for column in _columns())]
    rows = copy.buffer(_columns(), letters, [(">i2", incarnation), (">i4", partitions), (">i8", offsets)])
    rows.send(connection, "millrace.dead_letter", names)


@cache
def _columns() -> tuple[Column, ...]:
    from include.landing import copy

    return copy.columns_of(fields_of(DeadLetter))


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
