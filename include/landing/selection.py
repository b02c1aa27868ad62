"""The selection of a stream: the events that its ``where`` lets land."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from include.landing.decoder import extend, reason_of
from include.streams.definition import Stream


class EventSelection:
    """Applies ``where`` to the events of one stream. Drain, replay, retry and proof share it.

    Args:
        where: The function of the definition.
    """

    def __init__(self, where: Callable[[Any], bool]) -> None:
        self._where = where

    def select(self, events: Sequence[Any]) -> tuple[list[bool], dict[int, str]]:
        """Whether each event lands, and for each event that the function cannot decide the reason, by its index.

        Undecided events do not land.
        """
        found: list[Any] = []
        undecided: dict[int, str] = {}
        remaining = map(self._where, events)
        while len(found) < len(events):
            error = extend(found, remaining)
            if len(found) < len(events):
                undecided[len(found)] = reason_of(error, "where: ")
                found.append(False)
        # None is what a function without a return statement returns, which would drop every record.
        if not set(map(type, found)) <= {bool}:
            for index, value in enumerate(found):
                if type(value) is not bool:
                    undecided[index] = f"where: it returned {type(value).__name__}, not True or False"
                    found[index] = False
        return found, undecided


def of(stream: Stream) -> EventSelection | None:
    """The selection of a stream; None if all of its events land."""
    return None if stream.where is None else EventSelection(stream.where)
