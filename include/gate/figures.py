"""Figures: what a comparison measured, for the verdict and for display."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figures:
    """The numbers of a comparison of challenger and champion.

    Attributes:
        metric: "accuracy", "smaller error" or the name of a `metric.Metric`.
        gain: Difference in accuracy, in the share of records won, or in the metric; above 0 is better.
        n: Records compared.
        n01: Records only the challenger won. From here to ``mcnemar_p`` None under a `metric.Metric`.
        n10: Records only the champion won.
        discordance: (n01 + n10) / n.
        champion_accuracy: Share of records the champion got right; None also for the smaller error.
        challenger_accuracy: The same of the challenger.
        mcnemar_p: Exact two-sided p-value of McNemar's test; for display only.
        gain_se: Standard error of the gain; only under a `metric.Metric`.
    """

    metric: str
    gain: float
    n: int
    n01: int | None = None
    n10: int | None = None
    discordance: float | None = None
    champion_accuracy: float | None = None
    challenger_accuracy: float | None = None
    mcnemar_p: float | None = None
    gain_se: float | None = None
