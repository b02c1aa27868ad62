"""Definitions for topics of random events: all events of the sample land, and no value changes.

MILLRACE_TOPICS is the number of topics, MILLRACE_TOPICS_FROM the first seed.
"""

from __future__ import annotations

import json
import os
import random
import string
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from confluent_kafka import Message

from cli.scaffold import topic_stream
from include.kafka.sample import Sample
from include.landing.trial import trial

TOPICS = int(os.environ.get("MILLRACE_TOPICS", "100"))
FIRST = int(os.environ.get("MILLRACE_TOPICS_FROM", "0"))
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)
MAX_DEPTH = 4
NAMES = (
    *("ts", "id", "a", "b", "date", "type", "status", "price", "data", "list", "str", "Any", "None", "items", "value"),
    *("Value", "x-y", "class", "_id", "__v", "ü", "0", "$ref", "a.b", "", "msgspec", "Stream", "kafka_x", "xmin"),
)
Make = Callable[[], Any]


class Topic:
    """Events of a random schema.

    Args:
        seed: Determines the schema and the events.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        make = self._object(0)
        self.events = [
            {**make(), "when": (NOW - timedelta(seconds=number % 100)).isoformat()}
            for number in range(self._random.choice((1, 3, 30, 600)))
        ]

    def _object(self, depth: int) -> Make:
        choose = self._random
        fields = [
            (name, self._value(depth + 1), choose.choice((1, 1, 1, 0.5, 0.01)))
            for name in choose.sample(NAMES, choose.randrange(1, 8))
        ]
        return lambda: {name: make() for name, make, share in fields if choose.random() < share}

    def _value(self, depth: int) -> Make:
        choose = self._random
        kinds: list[Callable[[int], Make]] = [
            lambda depth: self._text,
            lambda depth: self._one_of([self._text() for _ in range(choose.randrange(1, 6))]),
            lambda depth: self._number,
            lambda depth: self._one_of([self._number() for _ in range(choose.randrange(1, 6))]),
            lambda depth: lambda: choose.random() < 0.5,
            lambda depth: lambda: None,
        ]
        nested: list[Callable[[int], Make]] = [self._nullable, self._list, self._names, self._mixture, self._object]
        return choose.choice(kinds if depth >= MAX_DEPTH else kinds + nested)(depth)

    def _one_of(self, values: list[Any]) -> Make:
        return lambda: self._random.choice(values)

    def _nullable(self, depth: int) -> Make:
        make = self._value(depth + 1)
        return lambda: None if self._random.random() < 0.3 else make()

    def _list(self, depth: int) -> Make:
        make = self._value(depth + 1)
        return lambda: [make() for _ in range(self._random.randrange(4))]

    def _names(self, depth: int) -> Make:
        make = self._value(depth + 1)
        return lambda: {f"name-{self._random.randrange(1000)}": make() for _ in range(self._random.randrange(3))}

    def _mixture(self, depth: int) -> Make:
        first, second = self._value(depth + 1), self._value(depth + 1)
        return lambda: first() if self._random.random() < 0.5 else second()

    def _text(self) -> str:
        choose = self._random
        kinds: tuple[Make, ...] = (
            lambda: "".join(choose.choice(string.printable) for _ in range(choose.randrange(6))),
            lambda: "2026-02-28",
            lambda: f"2026-02-28T10:00:{choose.randrange(60):02}Z",
            lambda: "2026-02-28T10:00:00",
            lambda: str(UUID(int=choose.getrandbits(128))),
            lambda: f"{choose.randrange(99)}.{choose.randrange(99)}",
            lambda: choose.choice(("open", "closed")),
            lambda: "é\u2028",
            lambda: str(choose.randrange(10**9, 2 * 10**9)),
        )
        return str(choose.choice(kinds)())

    def _number(self) -> int | float:
        choose = self._random
        kinds: tuple[Callable[[], int | float], ...] = (
            lambda: choose.randrange(-5, 5),
            lambda: choose.random() * 100,
            lambda: 2**64 + choose.randrange(9),
            lambda: NOW_MS - choose.randrange(10**6),
            lambda: 1e300,
        )
        return choose.choice(kinds)()


@pytest.mark.parametrize("seed", range(FIRST, FIRST + TOPICS))
def test_all_events_land_unchanged(seed: int, tmp_path: Path) -> None:
    events = Topic(seed).events
    messages = [
        Message(topic="topic", partition=0, offset=offset, value=json.dumps(event).encode(), timestamp=(1, NOW_MS))
        for offset, event in enumerate(events)
    ]
    written = topic_stream.write("random", Sample("topic", 1, len(messages), messages), tmp_path)
    source = (tmp_path / "random.py").read_text()
    tried = trial(written.stream, messages)
    assert (tried.landed, tried.reasons, tried.unused) == (len(events), [], []), source
    decode = msgspec.json.Decoder(written.stream.event).decode
    names = written.stream.event.__struct_encode_fields__
    for event, message in zip(events, messages, strict=True):
        assert set(event) <= set(names), source
        decoded = msgspec.structs.astuple(decode(message.value() or b""))
        for name, value in zip(names, decoded, strict=True):
            if isinstance(value, str | UUID):
                assert str(value) == event[name], source
            elif isinstance(value, int | float | Decimal) and not isinstance(value, bool):
                sent = event[name]
                # A text of decimal digits may have become a number.
                assert Decimal(str(value)) == Decimal(sent if isinstance(sent, str) else repr(sent)), (
                    f"{name}\n{source}"
                )
