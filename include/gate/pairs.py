"""Pairs: counts of the records on which one of two models was better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

from include.gate.evalue import log_e_margin, log_e_value
from include.gate.figures import Figures


@dataclass(frozen=True, slots=True)
class Pairs:
    """Counts of records. Counts of different records can be added; a decision needs nothing else.

    The first digit is the champion, the second the challenger: ``n01`` is "champion wrong, challenger right".

    Attributes:
        n01: Records only the challenger got right, or on which its error was strictly smaller.
        n10: The same of the champion.
        n: All records.
        right: Records both got right; None if the smaller error wins a record.
    """

    n01: int
    n10: int
    n: int
    right: int | None = None

    def __post_init__(self) -> None:
        both = self.right or 0
        if min(self.n01, self.n10, both) < 0 or self.n01 + self.n10 + both > self.n:
            raise ValueError(f"{self} is invalid: no count may be below 0, and their sum must not exceed n.")

    @classmethod
    def from_labels(cls, truth: ArrayLike, champion: ArrayLike, challenger: ArrayLike) -> Pairs:
        """Count predicted classes against the true ones; all of shape (records,)."""
        labels, old, new = _aligned(truth, champion, challenger)
        old_right, new_right = old == labels, new == labels
        return cls(
            n01=int(np.count_nonzero(new_right & ~old_right)),
            n10=int(np.count_nonzero(old_right & ~new_right)),
            n=len(labels),
            right=int(np.count_nonzero(old_right & new_right)),
        )

    @classmethod
    def from_errors(cls, champion: ArrayLike, challenger: ArrayLike) -> Pairs:
        """Count which model had the strictly smaller absolute error; both of shape (records,), in the target's unit.

        Raises:
            ValueError: An error is NaN, so that no model wins its record.
        """
        old, new = (np.abs(errors) for errors in _aligned(champion, challenger))
        if np.isnan(old).any() or np.isnan(new).any():
            raise ValueError("An error is NaN. Check the target and the predictions for missing values.")
        return cls(n01=int(np.count_nonzero(new < old)), n10=int(np.count_nonzero(old < new)), n=len(old))

    def __add__(self, other: Pairs) -> Pairs:
        if not self.n or not other.n:
            return self if self.n else other
        if (self.right is None) != (other.right is None):
            raise ValueError("Counts of right predictions and counts of smaller errors cannot be added.")
        both = None if self.right is None or other.right is None else self.right + other.right
        return Pairs(self.n01 + other.n01, self.n10 + other.n10, self.n + other.n, both)

    @property
    def lead(self) -> float:
        """Share of records won minus share lost; for classes this is the gain in accuracy. 0 without records."""
        return (self.n01 - self.n10) / self.n if self.n else 0.0

    @property
    def discordance(self) -> float | None:
        """Share of records that one of the two won; None without records."""
        return (self.n01 + self.n10) / self.n if self.n else None

    @property
    def champion_accuracy(self) -> float | None:
        """Share of records the champion got right; None for a regression."""
        return None if self.right is None or not self.n else (self.right + self.n10) / self.n

    @property
    def challenger_accuracy(self) -> float | None:
        """Share of records the challenger got right; None for a regression."""
        return None if self.right is None or not self.n else (self.right + self.n01) / self.n

    @property
    def mcnemar_p(self) -> float | None:
        """Two-sided exact p-value of McNemar's test (1947), a binomial test of n01. None if no record was won.

        It is valid for one look at one pair of models. It is shown because it is well known; it decides nothing.
        """
        won = self.n01 + self.n10
        return float(binomtest(self.n01, won, 0.5).pvalue) if won else None

    @property
    def log_e(self) -> float:
        """Evidence that the challenger is better: `evalue.log_e_value`."""
        return float(log_e_value(self.n01, self.n10))

    @property
    def log_e_reverse(self) -> float:
        """Evidence that the champion is better."""
        return float(log_e_value(self.n10, self.n01))

    def log_e_margin(self, margin: float) -> float:
        """Evidence that the challenger is not behind by ``margin`` of the records: `evalue.log_e_margin`."""
        return float(log_e_margin(self.n01, self.n10, self.n, margin))

    def figures(self) -> Figures:
        """The counts and the numbers that follow from them."""
        return Figures(
            metric="smaller error" if self.right is None else "accuracy",
            gain=self.lead,
            n=self.n,
            n01=self.n01,
            n10=self.n10,
            discordance=self.discordance,
            champion_accuracy=self.champion_accuracy,
            challenger_accuracy=self.challenger_accuracy,
            mcnemar_p=self.mcnemar_p,
        )

    def account(self, champion: str) -> str:
        """The counts as a clause; ``champion`` is its name in the sentence, such as "the champion"."""
        if not self.n:
            return "no fresh test records"
        records = f"on {self.n:,} fresh test records"
        old, new = self.champion_accuracy, self.challenger_accuracy
        if old is None or new is None:
            return f"{records} its error was smaller on {self.n01:,}, that of {champion} on {self.n10:,}"
        sides = f"only it was right on {self.n01:,}, only {champion} on {self.n10:,}"
        return f"{records} {sides} (accuracy {new:.2%} against {old:.2%})"


def _aligned(*columns: ArrayLike) -> tuple[NDArray[Any], ...]:
    arrays = tuple(np.asarray(column) for column in columns)
    if any(array.ndim != 1 for array in arrays) or len({len(array) for array in arrays}) != 1:
        shapes = ", ".join(str(array.shape) for array in arrays)
        raise ValueError(f"The models were not given the same records with one value each: shapes are {shapes}.")
    return arrays
