"""Charts as data: what a chart shows, for the script that draws it and for the table behind it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        name: Its name in the legend.
        values: One value for each of the chart's places; None where there is none.
        low, high: The bounds of the values' intervals; empty for none.
        is_step: Whether a value holds until the next.
        is_quiet: Whether it only serves comparison, such as a baseline or a threshold.
    """

    name: str
    values: Sequence[float | None]
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()
    is_step: bool = False
    is_quiet: bool = False

    def __post_init__(self) -> None:
        for name in ("values", "low", "high"):
            object.__setattr__(self, name, [_finite(value) for value in getattr(self, name)])


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        key: Its id on the page.
        title: What it shows, also the caption of its table.
        places: The values of the horizontal axis.
        series: Its lines.
        x_title, y_title: The axes' titles.
        marks: Texts for places of the horizontal axis.
        is_time: Whether the places are moments in ISO format.
        is_logarithmic: Whether the vertical axis is.
    """

    key: str
    title: str
    places: Sequence[str]
    series: Sequence[Series]
    x_title: str = ""
    y_title: str = ""
    marks: Mapping[str, str] = field(default_factory=dict)
    is_time: bool = False
    is_logarithmic: bool = False

    @property
    def json(self) -> str:
        """The chart for the script."""
        content: dict[str, Any] = {
            "places": list(self.places),
            "series": [vars(each) for each in self.series],
            "x": self.x_title,
            "y": self.y_title,
            "marks": dict(self.marks),
            "time": self.is_time,
            "log": self.is_logarithmic,
        }
        return json.dumps(content, allow_nan=False, separators=(",", ":"))


def sparkline(values: Sequence[float], width: int = 96, height: int = 20) -> str:
    """The points of an SVG polyline through these values, from left to right."""
    if not values:
        return ""
    low, high = min(values), max(values)
    step = width / max(1, len(values) - 1)
    spread = high - low or 1.0
    points = (
        (place * step, height / 2 if high == low else 2 + (height - 4) * (high - value) / spread)
        for place, value in enumerate(values)
    )
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _finite(value: float | None) -> float | None:
    return value if value is None or math.isfinite(value) else None
