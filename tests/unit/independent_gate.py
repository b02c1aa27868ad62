"""The gate once more, from predictions to verdicts, by numerical integration; it shares no code with the gate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import beta, norm


def log_integral(log_f: Any, low: float, high: float, peak: float, width: float) -> float:
    """Log of the integral of exp(log_f) over (low, high), by Gauss-Legendre on panels that crowd at peak and low."""
    around = peak + width * np.linspace(-15, 15, 121)
    above = low + np.geomspace(1e-10, 1, 160) * (high - low)
    edges = np.unique(np.clip(np.concatenate([[low, high], around, above]), low, high))
    nodes, weights = np.polynomial.legendre.leggauss(24)
    half, middle = np.diff(edges)[:, None] / 2, (edges[1:] + edges[:-1])[:, None] / 2
    values = log_f(middle + half * nodes)
    top = values.max()
    return float(top + math.log((np.exp(values - top) * half * weights).sum()))


def log_e_value(n01: int, n10: int) -> float:
    """Likelihood ratio against 1/2, integrated over twice the upper half of Beta(10, 10)."""
    wins, losses = 9 + n01, 9 + n10
    peak = wins / (wins + losses)
    width = math.sqrt(0.25 / (wins + losses))

    def log_f(theta: Any) -> Any:
        prior = math.log(2) + beta.logpdf(theta, 10, 10)
        return prior + n01 * np.log(2 * theta) + n10 * np.log(2 * (1 - theta))

    return log_integral(log_f, 0.5, 1.0, peak, width)


def log_e_margin(n01: int, n10: int, n: int, margin: float) -> float:
    """Money from betting a share of it on every record, over the same prior in 2 theta - 1."""

    def log_f(stake: Any) -> Any:
        money = n01 * np.log(1 + stake * (1 + margin)) + n10 * np.log(1 - stake * (1 - margin))
        return beta.logpdf((1 + stake) / 2, 10, 10) + money + (n - n01 - n10) * np.log(1 + stake * margin)

    return log_integral(log_f, 0.0, 1.0, 0.0, 0.01)


def log_e_gain(gains: ArrayLike, errors: ArrayLike, worth: float) -> float:
    """Normal likelihood ratio of a gain against none, over the half-normal of scale ``worth``."""
    d, s = np.asarray(gains, float), np.asarray(errors, float)

    def log_f(gain: Any) -> Any:
        g = np.asarray(gain)[..., None]
        ratio = (norm.logpdf(d, g, s) - norm.logpdf(d, 0, s)).sum(axis=-1)
        return math.log(2) + norm.logpdf(gain, 0, worth) + ratio

    precision = np.sum(1 / s**2)
    return log_integral(log_f, 0.0, 30 * worth, float(np.sum(d / s**2) / precision), float(precision**-0.5))


def mcnemar(n01: int, n10: int) -> float:
    """Two-sided exact p-value from the binomial coefficients."""
    n, fewer = n01 + n10, min(n01, n10)
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n)


def verdict(versions: Sequence[tuple[Any, Any, Any]], challengers: int) -> tuple[str, float, int, int]:
    """Outcome, log e-value, n01 and n10 from (truth, champion's labels, challenger's labels) of a reign's versions."""
    won = [sum(c == t != o for t, o, c in zip(*version, strict=True)) for version in versions]
    lost = [sum(o == t != c for t, o, c in zip(*version, strict=True)) for version in versions]
    better, worse = log_e_value(sum(won), sum(lost)), log_e_value(sum(lost), sum(won))
    needed = math.log(challengers / 0.05)
    if better >= needed and won[-1] > lost[-1]:
        outcome = "promote"
    elif worse >= needed:
        outcome = "reject"
    else:
        outcome = "inconclusive"
    return outcome, better, sum(won), sum(lost)
