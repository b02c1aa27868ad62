"""A bus position as a hand-written loop decodes it: plain types, no validation."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from confluent_kafka import Message

COLUMNS = "kafka_partition, kafka_offset, vehicle, trip, ts, lat, lon, bearing, speed, stop_sequence, status"


class Position(msgspec.Struct):
    """One event."""

    vehicle: str
    trip: str
    ts: datetime
    lat: float
    lon: float
    bearing: float | None
    speed: float
    stop_sequence: int
    status: str


# The stubs allow for messages without a value; these have one.
decode: Any = msgspec.json.Decoder(Position).decode


def line(message: Message) -> str:
    """A record as a line of a text COPY into ``COLUMNS``."""
    event = decode(message.value())
    bearing = r"\N" if event.bearing is None else event.bearing
    return (
        f"{message.partition()}\t{message.offset()}\t{escaped(event.vehicle)}\t{escaped(event.trip)}\t{event.ts}\t"
        f"{event.lat}\t{event.lon}\t{bearing}\t{event.speed}\t{event.stop_sequence}\t{escaped(event.status)}\n"
    )


def escaped(text: str) -> str:
    """A text as a field of a text COPY."""
    if "\\" in text or "\t" in text or "\n" in text or "\r" in text:
        return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
    return text
