"""Durations as people write them: ``365d``, ``2 weeks``, ``6 hours``."""

from __future__ import annotations

import re
from datetime import timedelta

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(r"(\d+)\s*(s|m|h|d|w|seconds?|minutes?|hours?|days?|weeks?)")


def duration(text: str) -> timedelta:
    """The duration that ``text`` names.

    Raises:
        ValueError: It names none, or one that is not positive.
    """
    match = _DURATION.fullmatch(str(text).strip())
    if match is None or int(match[1]) == 0:
        raise ValueError(f"{text!r} is no duration")
    return timedelta(**{_UNITS[match[2][0]]: int(match[1])})
