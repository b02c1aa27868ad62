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
        every_s: The least seconds between two attempts. A condition that takes long is checked less often, so that it
            does not keep a core from what it waits for: a request to Airflow's API takes 50 ms of one.
        why: Called on failure, for more information.
    """
    began = time.monotonic()
    end = began + within_s
    while not (value := condition()):
        now = time.monotonic()
        assert now < end, f"not within {within_s:g} s: {what}{why()}"
        time.sleep(max(every_s, min(4 * (now - began), 1.0)))
        began = time.monotonic()
    return value
