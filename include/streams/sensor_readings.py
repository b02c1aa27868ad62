"""Temperatures of two cities, sent as the readings of two sensors.

The temperatures are real: hourly values of Seattle and San Francisco in 2010, from the package vega_datasets. The
sensors, and the time of sending, are simulated.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Annotated

import msgspec
from msgspec import Meta

from include.streams.definition import Instant, Stream


class SensorReading(msgspec.Struct):
    """One reading of one sensor."""

    sensor: Annotated[str, Meta(description="The city of the sensor: seattle or san_francisco")]
    ts: Annotated[Instant, Meta(description="When the reading was sent")]
    temperature_f: Annotated[float, Meta(description="Degrees Fahrenheit")]
    measured: Annotated[Instant, Meta(description="The hour of the measurement in 2010: local time, stored as UTC")]


def readings(random: Random) -> Iterator[SensorReading]:
    """Yields the hours of 2010 in order, for both cities, and starts again at the end."""
    from vega_datasets import local_data

    cities = {"seattle": local_data.seattle_temps, "san_francisco": local_data.sf_temps}
    series = []
    for city, data in cities.items():
        lines = Path(data.filepath).read_text().splitlines()
        series.append([(city, float(row["temp"]), _hour(row["date"])) for row in csv.DictReader(lines)])
    for hour in cycle(zip(*series, strict=False)):
        for city, temperature, measured in hour:
            yield SensorReading(city, datetime.now(UTC), temperature, measured)


def _hour(text: str) -> datetime:
    # Only one of the two files has seconds.
    return datetime.strptime(text[:16], "%Y/%m/%d %H:%M").replace(tzinfo=UTC)


stream = Stream(
    name="sensor_readings",
    event=SensorReading,
    event_time="ts",
    partition="1 day",
    keep="90 days",
    late="7 days",
    early="1 hour",
    key="sensor",
    simulate=readings,
)
