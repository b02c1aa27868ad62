"""The choices that a user can accept for a stream that stopped."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from include.error_codes import Code


class Choice(StrEnum):
    """What ``./millrace accept`` does; each answers one kind of error."""

    LOST = "lost"
    RECREATED = "recreated"
    TRUNCATED = "truncated"
    BAD = "bad"


CHOICES: Mapping[Code, Choice] = {
    Code.OFFSETS_REMOVED: Choice.LOST,
    Code.TOPIC_MISSING: Choice.RECREATED,
    Code.TOPIC_RECREATED: Choice.RECREATED,
    Code.LOG_TRUNCATED: Choice.TRUNCATED,
    Code.ALL_RECORDS_REJECTED: Choice.BAD,
    Code.SCHEMA_UNKNOWN: Choice.BAD,
    Code.SCHEMA_INCOMPATIBLE: Choice.BAD,
    Code.SOURCE_TRUNCATED: Choice.BAD,
}
"""The choice that lets a stream continue after an error."""
