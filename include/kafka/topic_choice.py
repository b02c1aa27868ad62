"""The topics of a reader: one, several, or all whose names match a pattern."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache

_SEPARATOR = ", "
# Kafka's own topics, such as __consumer_offsets.
_INTERNAL = "__"


@dataclass(frozen=True)
class Pattern:
    """All topics whose whole name matches a regular expression, also those that are created later.

    Args:
        expression: The regular expression, such as ``orders\\..*``.
    """

    expression: str


@dataclass(frozen=True)
class TopicChoice:
    """The topics that a reader reads.

    Its text is a topic's name, several names with commas between them, or a pattern between slashes; a name has neither
    commas nor slashes.

    Attributes:
        names: The names of the topics; empty for a pattern.
        pattern: The regular expression that names must match; None for names.
    """

    names: tuple[str, ...]
    pattern: str | None = None

    def __str__(self) -> str:
        return _SEPARATOR.join(self.names) if self.pattern is None else f"/{self.pattern}/"

    @property
    def is_one(self) -> bool:
        """Whether it is one topic."""
        return len(self.names) == 1

    def includes(self, topic: str) -> bool:
        """Whether a topic of this name belongs to it. A pattern never includes Kafka's internal topics."""
        if self.pattern is None:
            return topic in self.names
        return not topic.startswith(_INTERNAL) and self._compiled.fullmatch(topic) is not None

    def of(self, topics: Iterable[str]) -> list[str]:
        """Those of some topics that belong to it, sorted."""
        return sorted(topic for topic in set(topics) if self.includes(topic))

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self.pattern or "")


@lru_cache(maxsize=1_000)
def parse(text: str) -> TopicChoice:
    """The choice that has this text."""
    if len(text) > 1 and text.startswith("/") and text.endswith("/"):
        return TopicChoice((), text[1:-1])
    return TopicChoice(tuple(text.split(_SEPARATOR)))
