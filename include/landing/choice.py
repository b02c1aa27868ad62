"""The choices that a user can accept for a stream that stopped."""

from __future__ import annotations

from enum import StrEnum


class Choice(StrEnum):
    """What ``./millrace accept`` does; each answers one kind of error."""

    LOST = "lost"
    RECREATED = "recreated"
    TRUNCATED = "truncated"
    BAD = "bad"
