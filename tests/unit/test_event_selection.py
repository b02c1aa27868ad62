"""Which events ``where`` lets land, and what becomes of those that it cannot decide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from include.definitions import InvalidDefinition
from include.landing import selection
from include.streams.definition import Instant, Stream


class Order(msgspec.Struct):
    """An event."""

    ts: Instant
    country: str = ""


def orders(where: Any) -> Stream:
    return Stream(name="orders", event=Order, event_time="ts", where=where)


def select(where: Callable[[Any], Any], events: list[Any]) -> tuple[list[bool], dict[int, str]]:
    found = selection.of(orders(where))
    assert found is not None
    return found.select(events)


def fail(event: Any) -> bool:
    """Raises what the event says; an event that is a bool is the answer."""
    if isinstance(event, bool):
        return event
    raise event


def test_events_land_as_the_function_says() -> None:
    assert select(lambda event: event > 2, [1, 3, 2, 4]) == ([False, True, False, True], {})
    assert select(lambda event: event > 2, []) == ([], {})
    assert selection.of(orders(None)) is None


def test_an_event_that_cannot_be_decided_has_a_reason() -> None:
    events = [ValueError("a"), True, StopIteration(), StopIteration(), False, True, KeyError("b")]
    selected, undecided = select(fail, events)
    assert selected == [False, True, False, False, False, True, False]
    assert undecided == {
        0: "where: ValueError: a",
        2: "where: StopIteration: ",
        3: "where: StopIteration: ",
        6: "where: KeyError: 'b'",
    }


def test_each_event_is_decided_once() -> None:
    asked: list[int] = []

    def where(event: int) -> bool:
        asked.append(event)
        return 10 // event > 1

    assert select(where, [0, 1, 0, 20]) == (
        [False, True, False, False],
        dict.fromkeys((0, 2), "where: ZeroDivisionError: integer division or modulo by zero"),
    )
    assert asked == [0, 1, 0, 20]


def test_only_true_and_false_are_answers() -> None:
    """A function without a return statement returns None for every event, and must not drop them all."""
    selected, undecided = select(lambda event: event, [None, True, 1, "DE"])
    assert selected == [False, True, False, False]
    assert undecided == {
        0: "where: it returned NoneType, not True or False",
        2: "where: it returned int, not True or False",
        3: "where: it returned str, not True or False",
    }


def test_an_interrupt_ends_the_selection() -> None:
    with pytest.raises(KeyboardInterrupt):
        select(fail, [True, KeyboardInterrupt()])


@pytest.mark.parametrize("where", [True, "country", 5])
def test_where_must_be_a_function(where: Any) -> None:
    with pytest.raises(InvalidDefinition, match=r"where: .* is not a function\. Write a function of an event"):
        orders(where)
