"""How the values of one schema become events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
from msgspec import inspect

from include.landing import moments

Decoded = tuple[list[Any], dict[int, BaseException | str]]
"""For each value its event, or None; and for those without one the error or the reason, by index."""


MIN_BATCH = 64
"""A batch costs as much as this many values one by one."""


class Unreadable(ValueError):
    """Bytes that do not fit a schema."""


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


def completed(events: list[Any], unread: Sequence[int], alone: Decoded) -> Decoded:
    """The events of a batch, with those that were decoded in another way.

    Args:
        unread: Their indices.
        alone: What became of them.
    """
    others, errors = alone
    for at, event in zip(unread, others, strict=True):
        events[at] = event
    return events, {unread[at]: error for at, error in errors.items()}


def converted(record: Any, event: type[msgspec.Struct], declared: inspect.Type) -> Any:
    """The event of a record, also of one with times that only ISO 8601 allows.

    Args:
        declared: The type of the event, as msgspec describes it.

    Raises:
        msgspec.ValidationError: The record is not an event.
    """
    try:
        return msgspec.convert(record, event)
    except msgspec.ValidationError as error:
        if not moments.are_refused(error):
            raise
        rewritten = moments.rewritten(msgspec.json.encode(record), declared)
        if rewritten is None:
            raise
        return msgspec.json.decode(rewritten, type=event)


def guarded(error: BaseException) -> BaseException:
    """An error of a record; raises one that is not: an interrupt, or no memory for the decoder itself."""
    from include.landing.decoder import is_of_record

    if isinstance(error, KeyboardInterrupt) or not is_of_record(error):
        raise error
    return error
