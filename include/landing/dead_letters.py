"""Dead letters: records that could not be landed, and quarantined ones, whose event time is outside of the limits."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, cast

import msgspec

from include.landing.disposition import Disposition
from include.landing.spans import UNIX_EPOCH
from include.schemas.framing import Headers
from include.streams.definition import CALENDAR, Instant
from include.streams.field import fields_of, storable

if TYPE_CHECKING:
    from confluent_kafka import Message
    from psycopg2.extensions import connection as Connection

    from include.landing.copy import Column

MILLISECOND = timedelta(milliseconds=1)
MASKED = "masked"
"""Why the bytes of a dead letter are not stored: the stream has masked fields."""

OLD = "old"
"""Why they are not stored any more: it is older than ``keep_dead_letters``."""

NO_STAMP = -1
"""The timestamp of a record that has none."""
STAMPS = tuple((end - UNIX_EPOCH) // MILLISECOND for end in CALENDAR)
"""The first and the last timestamp, in milliseconds since 1970, that clients can read."""


class DeadLetter(msgspec.Struct, frozen=True):
    """A record that did not land, with the reason: a row of ``millrace.dead_letter`` without its coordinates.

    Attributes:
        withheld: Why key, value and headers are not stored: ``masked`` or ``old``; None if they are stored.
    """

    stream: str
    disposition: Disposition
    reason: str
    sqlstate: str | None
    appended_at: Instant
    event_time: Instant | None
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]] | None
    withheld: str | None = None


def withheld(letter: DeadLetter) -> DeadLetter:
    """A dead letter without the bytes of its record, which Kafka has."""
    return msgspec.structs.replace(letter, key=None, value=None, headers=None, withheld=MASKED)


def of(
    message: Message,
    stream: str,
    disposition: Disposition,
    reason: str,
    *,
    sqlstate: str | None = None,
    event_time: datetime | None = None,
) -> DeadLetter:
    """The dead letter for a Kafka record."""
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


def headers_of(stored: Sequence[tuple[str, str | None]] | None) -> Headers | None:
    """The headers of a record, as ``millrace.dead_letter`` has them: pairs of name and value, the value base64."""
    if not stored:
        return None
    return [(name, None if value is None else b64decode(value)) for name, value in stored]


def appended_at(stamp_ms: int) -> datetime:
    """A record's timestamp in Kafka as a moment, moved to the calendar's nearest end if it is outside."""
    return UNIX_EPOCH + min(max(stamp_ms, STAMPS[0]), STAMPS[1]) * MILLISECOND


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
