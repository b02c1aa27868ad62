"""Gain: how much better a metric is, summed up over versions from paired bootstraps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import bootstrap

from include.gate.evalue import log_e_gain
from include.gate.figures import Figures
from include.gate.metric import Metric


@dataclass(frozen=True, slots=True)
class Gain:
    """Estimated gains, each weighted by its precision. Gains on different records can be added.

    Attributes:
        metric: Name of the metric.
        worth: `metric.Metric.worth`.
        n: Records.
        weighted: Sum over versions of gain / variance; above 0 if the challenger is better.
        information: Sum over versions of 1 / variance.
    """

    metric: str
    worth: float
    n: int
    weighted: float = 0.0
    information: float = 0.0

    @classmethod
    def from_bootstrap(
        cls,
        metric: Metric,
        truth: ArrayLike,
        champion: ArrayLike,
        challenger: ArrayLike,
        *,
        seed: int,
        resamples: int = 1000,
    ) -> Gain:
        """Estimate the gain on one version's records, and its variance by the paired bootstrap (Efron 1979).

        Args:
            metric: The score and its direction.
            truth: First axis (records,), as in both predictions, which are labels, values or probabilities.
            champion: The champion's predictions.
            challenger: The challenger's predictions.
            seed: The seed of the resampling, so that a verdict can be reproduced.
            resamples: 1,000 estimate the standard error to within about 2 %.

        Returns:
            The gain; without information if all resamples agree, as for equal predictions.

        Raises:
            ValueError: The columns differ in length, or the metric is undefined on a resample.
        """
        labels, old, new = (np.asarray(column) for column in (truth, champion, challenger))
        if not len(labels) == len(old) == len(new):
            lengths = f"{len(labels)} labels, {len(old)} and {len(new)} predictions"
            raise ValueError(f"The models were not given the same records: there are {lengths}.")
        sign = 1.0 if metric.greater_is_better else -1.0

        def gain(index: NDArray[Any]) -> float:
            drawn = labels[index]
            return sign * (float(metric.score(drawn, new[index])) - float(metric.score(drawn, old[index])))

        empty = cls(metric.name, metric.worth, len(labels))
        if empty.n < 2:
            return empty
        records = np.arange(empty.n)
        resampled = bootstrap(
            (records,),
            gain,
            n_resamples=resamples,
            vectorized=False,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
        variance = float(resampled.standard_error) ** 2
        if not math.isfinite(variance):
            raise ValueError(
                f"The metric {metric.name} is undefined on a resample of the {empty.n:,} test records, because a class "
                "is too rare. Use a metric that is defined without this class, or a larger test split."
            )
        if variance == 0:
            return empty
        return cls(metric.name, metric.worth, empty.n, gain(records) / variance, 1 / variance)

    def __add__(self, other: Gain) -> Gain:
        if (self.metric, self.worth) != (other.metric, other.worth):
            kinds = f"{self.metric} (worth {self.worth}) and {other.metric} (worth {other.worth})"
            raise ValueError(f"Gains in {kinds} cannot be added.")
        weighted, information = self.weighted + other.weighted, self.information + other.information
        return Gain(self.metric, self.worth, self.n + other.n, weighted, information)

    @property
    def lead(self) -> float:
        """The gain in the unit of the metric, averaged by information. 0 without information."""
        return self.weighted / self.information if self.information else 0.0

    @property
    def standard_error(self) -> float | None:
        """The standard error of `lead`; None without information."""
        return 1 / math.sqrt(self.information) if self.information else None

    @property
    def log_e(self) -> float:
        """Evidence that the challenger is better: `evalue.log_e_gain`."""
        return float(log_e_gain(self.weighted, self.information, self.worth))

    @property
    def log_e_reverse(self) -> float:
        """Evidence that the champion is better."""
        return float(log_e_gain(-self.weighted, self.information, self.worth))

    def log_e_margin(self, margin: float) -> float:
        """Evidence that the challenger is not behind by ``margin``, in the unit of the metric."""
        return float(log_e_gain(self.weighted + margin * self.information, self.information, self.worth))

    def figures(self) -> Figures:
        """The estimate."""
        return Figures(metric=self.metric, gain=self.lead, gain_se=self.standard_error, n=self.n)

    def account(self, champion: str) -> str:
        """The estimate as a clause; ``champion`` is its name in the sentence, such as "the champion"."""
        records = f"on {self.n:,} fresh test records its {self.metric}"
        if self.standard_error is None:
            return f"{records} does not differ from that of {champion}"
        side = "better" if self.lead >= 0 else "worse"
        size = f"{abs(self.lead):.3g} (standard error {self.standard_error:.2g})"
        return f"{records} was {side} than that of {champion} by {size}"
