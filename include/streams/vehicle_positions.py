"""Simulated positions of buses, with the fields of a GTFS-Realtime feed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from enum import Enum
from math import cos, radians, sin
from random import Random
from typing import Annotated

import msgspec
from msgspec import Meta

from include.streams.definition import Instant, Stream

VEHICLES = 200


class Status(Enum):
    """Where a vehicle is relative to its next stop."""

    INCOMING_AT = "INCOMING_AT"
    STOPPED_AT = "STOPPED_AT"
    IN_TRANSIT_TO = "IN_TRANSIT_TO"


class VehiclePosition(msgspec.Struct):
    """The position of a vehicle at one time."""

    vehicle: Annotated[str, Meta(description="The vehicle's number")]
    trip: Annotated[str, Meta(description="The trip that it makes")]
    ts: Annotated[Instant, Meta(description="When the position was taken")]
    lat: Annotated[float, Meta(description="Degrees north", ge=-90, le=90)]
    lon: Annotated[float, Meta(description="Degrees east", ge=-180, le=180)]
    bearing: Annotated[float | None, Meta(description="Degrees clockwise from north; null if it stands still")]
    speed: Annotated[float, Meta(description="Metres per second", ge=0)]
    stop_sequence: Annotated[int, Meta(description="The number of the next stop of the trip")]
    status: Annotated[Status, Meta(description="Where it is relative to that stop")]


def drive(random: Random) -> Iterator[VehiclePosition]:
    """Yields positions of buses in Seattle. An event is sent up to some seconds after its position was taken."""
    places = [(47.6 + random.uniform(-0.1, 0.1), -122.33 + random.uniform(-0.1, 0.1)) for _ in range(VEHICLES)]
    bearings = [random.uniform(0, 360) for _ in range(VEHICLES)]
    while True:
        for number in range(VEHICLES):
            status = random.choices(list(Status), (1, 2, 7))[0]
            speed = 0.0 if status is Status.STOPPED_AT else round(random.uniform(2, 18), 2)
            bearings[number] = (bearings[number] + random.gauss(0, 10)) % 360
            north, east = cos(radians(bearings[number])), sin(radians(bearings[number]))
            lat, lon = places[number]
            lat, lon = places[number] = lat + north * speed / 111_000, lon + east * speed / 75_000
            yield VehiclePosition(
                vehicle=f"bus-{number:04d}",
                trip=f"trip-{number * 7 % 1000:03d}",
                ts=datetime.now(UTC) - timedelta(seconds=random.expovariate(1)),
                lat=round(lat, 6),
                lon=round(lon, 6),
                bearing=round(bearings[number], 1) if speed else None,
                speed=speed,
                stop_sequence=random.randrange(40),
                status=status,
            )


stream = Stream(
    name="vehicle_positions",
    event=VehiclePosition,
    event_time="ts",
    partition="1 day",
    keep="90 days",
    late="7 days",
    early="1 hour",
    key="vehicle",
    simulate=drive,
)
