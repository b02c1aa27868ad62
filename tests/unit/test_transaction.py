"""What a transaction does with its producer's delivery reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from confluent_kafka import Producer

from include.error_codes import Code
from include.kafka.publisher import Transaction
from tests.errors import raises


@dataclass
class Stored:
    """A stored message, whose offset the brokers may not have reported."""

    reported: int | None

    def partition(self) -> int:
        return 0

    def offset(self) -> int | None:
        return self.reported


class Reporting:
    """A producer whose messages are stored immediately, at the given offsets."""

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


def test_offsets_are_returned_in_sending_order() -> None:
    assert sent(7, 9, 8).delivered() == [(0, 7), (0, 9), (0, 8)]


def test_a_message_without_an_offset_cannot_be_listed() -> None:
    with raises(Code.SEND_FAILED, "1 of 3 messages"):
        sent(7, None, 8).delivered()
