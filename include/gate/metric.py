"""Metric: a score of all records together, such as F1, AUC or RMSE."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Metric:
    """What a definition sets to compare models by something other than accuracy or the smaller error.

    Attributes:
        name: The name to show, such as "f1".
        score: ``score(truth, prediction) -> float`` on arrays whose first axis is the records.
        worth: The gain worth having, in the unit of the score, chosen before any result is seen. It sets the size of
            the bets and is not a limit: a bad choice costs time, not validity.
        greater_is_better: False for an error such as RMSE.

    Raises:
        ValueError: ``worth`` is not above 0.
    """

    name: str
    score: Callable[[Any, Any], float]
    worth: float
    greater_is_better: bool = True

    def __post_init__(self) -> None:
        if not self.worth > 0:
            raise ValueError(f"The worth of metric {self.name} is {self.worth} and must be above 0.")
