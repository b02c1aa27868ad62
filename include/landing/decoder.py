"""The decoder of events from JSON, and what decoders of all formats have in common."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np
from msgspec import inspect

from include.error_codes import Code
from include.landing import moments
from include.schemas.framing import Headers

MAX_DEPTH = 500
"""The most levels of lists and objects that JSON may nest. A decoder's own limit depends on its caller's stack."""

_MAX_REASON = 1_000
_JSON_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
# msgspec's messages.
_NUMBER_FOR_TIME = re.compile(r"Expected `datetime( \| null)?`, got `(int|float)`")
_WITHOUT_ZONE = "Expected `datetime` with a timezone component"
_TOO_DEEP = f"ValidationError: nested deeper than {MAX_DEPTH} levels"


class StopReason(str):
    """The reason why a record cannot be decoded, if the stream stops for it, unless a user accepts such records.

    Args:
        text: The reason.
        code: The kind of error.
    """

    code: Code

    def __new__(cls, text: str, code: Code) -> StopReason:
        """A reason from its text and its code."""
        reason = super().__new__(cls, text)
        reason.code = code
        return reason


class SkipReason(str):
    """The reason why a record is skipped, as a tombstone is: it is not meant to be an event."""


Reason = str | StopReason | SkipReason
"""Why a record is not an event."""


class Others(NamedTuple):
    """What records have besides their values and headers.

    Attributes:
        keys: Their Kafka keys.
        stamps: Their timestamps in milliseconds since 1970.
    """

    keys: Sequence[bytes | None]
    stamps: Sequence[int]


class EventDecoder(Protocol):
    """Decodes the records of one stream. Drain, replay, retry and proof share it.

    Attributes:
        reads_headers: Whether ``events`` needs the headers of the records.
        reads_others: Whether it needs their Kafka keys and timestamps.
    """

    reads_headers: bool
    reads_others: bool

    def events(
        self, values: Sequence[bytes], headers: Sequence[Headers | None] | None = None, others: Others | None = None
    ) -> tuple[list[Any], dict[int, Reason]]:
        """Decodes values. Returns the events in order, and for each value that is not one the reason, by its index.

        Args:
            headers: The headers of each record, if ``reads_headers``.
            others: If ``reads_others``.
        """


class Decoder:
    """Decodes the records of one stream from JSON.

    Args:
        event: The struct that a record is decoded to.
    """

    reads_headers = False
    reads_others = False

    def __init__(self, event: type[msgspec.Struct]) -> None:
        self._decode = msgspec.json.Decoder(event).decode
        self._event = event

    def events(
        self, values: Sequence[bytes], headers: Sequence[Headers | None] | None = None, others: Others | None = None
    ) -> tuple[list[Any], dict[int, Reason]]:
        """See ``EventDecoder``.

        If the definition's own code raises an exception, that is the value's reason.
        """
        events: list[Any] = []
        bad: dict[int, Reason] = {}
        deep: set[int] = set()
        if max(map(len, values), default=0) > MAX_DEPTH:
            deep = {index for index, value in enumerate(values) if is_too_deep(value)}
            values = [b"" if index in deep else value for index, value in enumerate(values)] if deep else values
        remaining = map(self._decode, values)
        while True:
            error = extend(events, remaining)
            at = len(events) + len(bad)
            if at == len(values):
                return events, bad | dict.fromkeys(deep, _TOO_DEEP)
            try:
                events.append(self._with_other_times(values[at], error))
            except KeyboardInterrupt:
                raise
            except BaseException as raised:
                bad[at] = reason_of(raised)

    @cached_property
    def _types(self) -> inspect.Type:
        return inspect.type_info(self._event)

    def _with_other_times(self, value: bytes, error: BaseException) -> Any:
        """The event of a value with times that only ISO 8601 allows; raises ``error`` if it has no such times."""
        if not moments.are_refused(error):
            raise error
        rewritten = moments.rewritten(value, self._types)
        if rewritten is None:
            raise error
        return self._decode(rewritten)


def is_too_deep(text: bytes) -> bool:
    """Whether JSON nests deeper than ``MAX_DEPTH``."""
    return len(text) > MAX_DEPTH and text.count(b"[") + text.count(b"{") > MAX_DEPTH and _depth(text) > MAX_DEPTH


def _depth(text: bytes) -> int:
    marks = np.frombuffer(_JSON_STRING.sub(b"", text), np.uint8)
    opened = (marks == ord("[")) | (marks == ord("{"))
    closed = (marks == ord("]")) | (marks == ord("}"))
    return int(np.cumsum(opened.astype(np.int64) - closed).max(initial=0))


def extend(items: list[Any], remaining: Iterator[Any]) -> BaseException:
    """Appends the items of an iterator until computing one of them raises an error; returns the error.

    ``list.extend`` keeps the items before, and the iterator continues after the one that raised. So a bad record costs
    one exception, and nothing is computed twice.

    Returns:
        The error of the next item. At the end, StopIteration, which the definition's own code may raise, too.

    Raises:
        BaseException: An error that no record has caused, see ``is_of_record``.
    """
    try:
        items.extend(remaining)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if not is_of_record(error):
            raise
        return error
    return StopIteration()


def is_of_record(error: BaseException) -> bool:
    """Whether a record, or the definition's code for it, raised the error, and not the decoder for lack of memory."""
    return not isinstance(error, MemoryError) or (
        error.__traceback__ is not None and error.__traceback__.tb_next is not None
    )


def reason_of(error: BaseException, prefix: str = "") -> str:
    """The reason why a record is not an event, from the error that it raised."""
    try:
        text = str(error)
    except Exception:  # the definition's own class
        text = "(its message cannot be read)"
    return f"{prefix}{type(error).__name__}: {text}{_hint(error, text)}"[:_MAX_REASON]


def _hint(error: BaseException, text: str) -> str:
    """How the definition can take a time that is not one with a time zone."""
    if not isinstance(error, msgspec.ValidationError):
        return ""
    if _NUMBER_FOR_TIME.match(text):
        return "; declare a time in numbers as EpochSeconds, EpochMillis, EpochMicros or EpochNanos"
    if text.startswith(_WITHOUT_ZONE):
        return '; if these times have no zone, name it, such as Annotated[datetime, Zone("Europe/Berlin")]'
    return ""
