"""Metric: a score of all records together, for what is not won record by record, such as F1, AUC or RMSE."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Metric:
    """What a definition names when neither accuracy nor the smaller error is what counts.

    Attributes:
        name: As it is shown, such as "f1".
        score: ``score(truth, prediction) -> float`` on arrays whose first axis is the records.
        worth: The gain worth having, in the unit of the score, set before any result is seen. It places the
            bets and is no limit: a wrong one costs time, not validity.
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
            raise ValueError(f"Metric {self.name}: worth is {self.worth}; state the gain worth having, above 0.")
