"""Durations as definitions write them: ``7 days``, ``1 hour``, ``90 seconds``."""

from __future__ import annotations

import re
from datetime import timedelta

from include.definitions import InvalidDefinition

UNITS = ("second", "minute", "hour", "day", "week")
_DURATION = re.compile(rf"(\d+)\s*({'|'.join(f'{unit[0]}|{unit}s?' for unit in UNITS)})")
_WORDS = {unit[0]: f"{unit}s" for unit in UNITS}


def duration(text: str) -> timedelta:
    """The duration that ``text`` names; a unit's first letter names it, too.

    Raises:
        ValueError: It names none, or one that is not positive.
    """
    match = _DURATION.fullmatch(text.strip()) if isinstance(text, str) else None
    try:
        found = timedelta(**{_WORDS[match[2][0]]: int(match[1])}) if match else timedelta()
    except OverflowError:
        found = timedelta()
    if not found:
        raise ValueError(f"{text!r} is no duration")
    return found


def of_field(field: str, text: str, remedy: str = "") -> timedelta:
    """The duration that a definition's field names.

    Args:
        remedy: What to write instead; by default what a duration is.

    Raises:
        InvalidDefinition: It names none; ``field`` is the culprit.
    """
    try:
        return duration(text)
    except ValueError as error:
        default = f'Write a number and one of {", ".join(UNITS)}, such as "7 days".'
        raise InvalidDefinition(field, f"{error}.", remedy or default) from error
