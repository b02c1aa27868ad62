"""Durations as every definition writes them: a number and a unit, such as ``7 days``, ``1 hour`` or ``90 seconds``."""

from __future__ import annotations

import re
from datetime import timedelta

from include.definitions import InvalidDefinition

UNITS = ("second", "minute", "hour", "day", "week")
NOTATION = f'Write a number and one of {", ".join(UNITS)}, such as "7 days".'
_DURATION = re.compile(rf"(\d+)\s*({'|'.join(f'{unit[0]}|{unit}s?' for unit in UNITS)})")
_PLURALS = {unit[0]: f"{unit}s" for unit in UNITS}


def duration(text: str) -> timedelta:
    """Parses a duration. A unit may be shortened to its first letter.

    Raises:
        ValueError: The text is not a duration, or not a positive one.
    """
    match = _DURATION.fullmatch(text.strip()) if isinstance(text, str) else None
    try:
        parsed = timedelta(**{_PLURALS[match[2][0]]: int(match[1])}) if match else timedelta()
    except OverflowError:
        parsed = timedelta()
    if not parsed:
        raise ValueError(f"{text!r} is not a duration")
    return parsed


def duration_field(field: str, text: str, remedy: str = NOTATION) -> timedelta:
    """Parses the duration in a field of a definition.

    Args:
        field: The field's name, for the error.
        remedy: What to write instead.

    Raises:
        InvalidDefinition: The text is not a duration, or not a positive one.
    """
    try:
        return duration(text)
    except ValueError as error:
        raise InvalidDefinition(field, f"{error}.", remedy) from error
