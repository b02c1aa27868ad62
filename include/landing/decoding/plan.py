"""How the values of one schema become events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

Decoded = tuple[list[Any], dict[int, BaseException | str]]
"""For each value its event, or None; and for those without one the error or the reason, by index."""


class Plan(Protocol):
    """Decodes values of one schema to events of one stream."""

    def events(self, values: Sequence[bytes], start: int, after_key: Sequence[bytes]) -> Decoded:
        """Decodes values. Returns the event of each, or None, and for those without one the error, by index.

        Args:
            start: Where the data begin in each value.
            after_key: For each value, what its header has after the name of the schema; empty without a header.
        """


def one_by_one(values: Sequence[bytes], decode: Callable[[bytes], Any]) -> Decoded:
    """Decodes values one after the other."""
    events: list[Any] = [None] * len(values)
    errors: dict[int, BaseException | str] = {}
    for at, value in enumerate(values):
        try:
            events[at] = decode(value)
        except BaseException as error:
            errors[at] = guarded(error)
    return events, errors


def guarded(error: BaseException) -> BaseException:
    """An error of a record; raises one that is not: an interrupt, or no memory for the decoder itself."""
    from include.landing.decoder import is_of_record

    if isinstance(error, KeyboardInterrupt) or not is_of_record(error):
        raise error
    return error
