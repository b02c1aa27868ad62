"""Temperatures of two cities as the readings of two sensors.

The temperatures are real: hourly ones of Seattle and San Francisco in 2010, from the package vega_datasets. That they
are sent now, by sensors, is made up.
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

    sensor: Annotated[str, Meta(description="Where the sensor stands: seattle or san_francisco")]
    ts: Annotated[Instant, Meta(description="When it was sent")]
    temperature_f: Annotated[float, Meta(description="Degrees Fahrenheit")]
    measured: Annotated[Instant, Meta(description="The hour of 2010 in which it was measured; local time, as if UTC")]


def readings(random: Random) -> Iterator[SensorReading]:
    """The hours of 2010 in their order, both cities in turn, again and again; each sent now."""
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
    # One file has seconds, the other has not.
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
