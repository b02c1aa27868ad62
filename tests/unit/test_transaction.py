"""What a transaction makes of its producer's reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import pytest
from confluent_kafka import Producer

from include.errors import UserError
from include.kafka.publisher import Transaction


@dataclass
class Stored:
    """A message that the brokers have, at an offset that they may not have reported."""

    reported: int | None

    def partition(self) -> int:
        return 0

    def offset(self) -> int | None:
        return self.reported


class Reporting:
    """A producer whose messages are stored at once, at the given offsets."""

    def __init__(self, *offsets: int | None) -> None:
        self._offsets = iter(offsets)

    def produce(self, *_: Any, on_delivery: Callable[[None, Stored], None], headers: Any) -> None:
        on_delivery(None, Stored(next(self._offsets)))

    def poll(self, _: float) -> int:
        return 0

    flush = poll


def sent(*offsets: int | None) -> Transaction:
    transaction = Transaction(cast(Producer, Reporting(*offsets)))
    for _ in offsets:
        transaction.send("numbers", b"1")
    return transaction


def test_places_come_in_the_order_of_sending() -> None:
    assert sent(7, 9, 8).delivered() == [(0, 7), (0, 9), (0, 8)]


def test_a_message_of_which_nobody_knows_the_place_cannot_be_listed() -> None:
    with pytest.raises(UserError, match="does not say where it has stored 1 of 3 messages"):
        sent(7, None, 8).delivered()
