"""Whether a topic has events of several types: whether their fields depend on the value of one field."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from include.streams.profiling.envelope import Event
from include.streams.profiling.types import words_of

MAX_TYPES = 50
_WORDS = ("type", "kind", "event", "name", "action", "class", "schema", "category")


@dataclass(frozen=True)
class EventTypes:
    """The types of a topic's events.

    Attributes:
        field: The field that distinguishes the types.
        counts: The number of events of each type in the sample, the most frequent first.
    """

    field: str
    counts: dict[str, int]


def event_types(events: Sequence[Event]) -> EventTypes | None:
    """The types of the events, by a text field whose value determines which fields they have; None for one type."""
    names = [name for name in events[0].fields if set(words_of(name)) & set(_WORDS)]
    found = filter(None, (_by(name, events) for name in sorted(names, key=_rank)))
    return next(found, None)


def _rank(name: str) -> int:
    return min(_WORDS.index(word) for word in words_of(name) if word in _WORDS)


def _by(name: str, events: Sequence[Event]) -> EventTypes | None:
    fields: dict[str, set[str]] = {}
    common: dict[str, set[str]] = {}
    counts: Counter[str] = Counter()
    for event in events:
        value = event.fields.get(name)
        if not isinstance(value, str):
            return None
        counts[value] += 1
        fields.setdefault(value, set()).update(event.fields)
        common[value] = common.get(value, set(event.fields)) & event.fields.keys()
    if not 2 <= len(counts) <= MAX_TYPES:
        return None
    # Each type has a field in all of its events that another type never has.
    everywhere = set.intersection(*fields.values())
    own = sum(bool(common[value] - everywhere) for value in counts)
    return EventTypes(name, dict(counts.most_common())) if own >= len(counts) - 1 else None
