"""How tests wait: they poll a condition, with a generous limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(
    what: str,
    condition: Callable[[], T | None],
    within_s: float = 60.0,
    *,
    every_s: float = 0.05,
    why: Callable[[], str] = lambda: "",
) -> T:
    """Waits until a condition returns a true value, and returns it.

    Args:
        what: The condition in words, such as "all rows have landed".
        within_s: Seconds after which the test fails.
        every_s: Seconds between two attempts.
        why: Called on failure, for more information.
    """
    end = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {within_s:g} s: {what}{why()}"
        time.sleep(every_s)
    return value
