"""Policy: what a data set asks of a challenger before it becomes the champion."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal


@dataclass(frozen=True, slots=True)
class Policy:
    """Made by one of the functions below; a plain value, so that the digest of a definition can cover it.

    Attributes:
        name: As it is stored and shown.
        margin: Loss that is accepted, as a share of the records or in the unit of the metric.
        older_than: Age of the champion from which it is accepted.
    """

    name: Literal["evidence", "not_worse_and_fresher", "manual"]
    margin: float | None = None
    older_than: timedelta | None = None


def evidence() -> Policy:
    """Promote what is shown to be better; the default."""
    return Policy("evidence")


def not_worse_and_fresher(margin: float, older_than: timedelta) -> Policy:
    """Promote also what is shown not to be worse by ``margin``, once the champion is older than ``older_than``.

    For data that drift, where age is itself a risk. A first champion must beat the baseline all the same.

    Args:
        margin: Loss that is accepted, above 0; of accuracy as a share (0.01 is a point), or in the metric's unit.
        older_than: Age of the champion, above 0.

    Raises:
        ValueError: One of them is not above 0.
    """
    if not margin > 0:
        raise ValueError(f"margin is {margin}; the loss that is accepted is above 0, and 0.01 is one point.")
    if older_than <= timedelta(0):
        raise ValueError(f"older_than is {older_than}; the age of a champion is above 0.")
    return Policy("not_worse_and_fresher", margin, older_than)


def manual() -> Policy:
    """Let a person decide, with the evidence as advice."""
    return Policy("manual")
