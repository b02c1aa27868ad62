"""The gate once more, from predictions to champions, by numerical integration; it shares no code with the gate."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
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
    return float(min(1.0, 2 * sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n))


def right(truth: Any, old: Any, new: Any) -> tuple[Any, Any]:
    """Which records the challenger wins and which the champion, for classes."""
    return (new == truth) & (old != truth), (old == truth) & (new != truth)


def closer(truth: Any, old: Any, new: Any) -> tuple[Any, Any]:
    """Which records the challenger wins and which the champion, for numbers."""
    return abs(new - truth) < abs(old - truth), abs(old - truth) < abs(new - truth)


def far_off(truth: Any, old: Any, new: Any) -> bool:
    """Whether the challenger has the larger mean squared error."""
    return bool(np.mean((new - truth) ** 2) > np.mean((old - truth) ** 2))


def verdict(
    versions: Sequence[tuple[Any, Any, Any]], challengers: int, wins: Callable[[Any, Any, Any], tuple[Any, Any]] = right
) -> tuple[str, float, int, int]:
    """Outcome, log e-value, n01 and n10 from (truth, champion's predictions, challenger's) of a tenure's versions."""
    won, lost = ([int(side.sum()) for side in sides] for sides in zip(*(wins(*v) for v in versions), strict=True))
    better, worse = log_e_value(sum(won), sum(lost)), log_e_value(sum(lost), sum(won))
    needed = math.log(challengers / 0.05)
    if wins is closer and len(versions[-1][0]) and far_off(*versions[-1]):
        outcome = "reject"
    elif better >= needed and won[-1] > lost[-1]:
        outcome = "promote"
    elif worse >= needed:
        outcome = "reject"
    else:
        outcome = "inconclusive"
    return outcome, better, sum(won), sum(lost)


@dataclass(frozen=True)
class Version:
    """A version with its trained models.

    Attributes:
        train: The ids of its training records.
        test: The ids of its test records, in their order.
        truth: Their target.
        rows: Their features.
        models: How each model of its run predicts such rows; the baseline is one of them.
    """

    train: Collection[Any]
    test: Sequence[Any]
    truth: Any
    rows: Any
    models: Mapping[str, Callable[[Any], Any]]


@dataclass(frozen=True)
class Judged:
    """The verdict on a model, and whether it became champion."""

    outcome: str
    log_e: float
    n01: int
    n10: int
    n: int
    promoted: bool


def judge(
    versions: Iterable[Version], wins: Callable[[Any, Any, Any], tuple[Any, Any]] = right
) -> list[dict[str, Judged]]:
    """The verdicts on the models of each version, one version after the other."""
    champion: Callable[[Any], Any] | None = None
    trained: set[Any] = set()
    counted: set[Any] = set()
    tenure: dict[str, list[tuple[Any, Any, Any]]] = {}
    found = []
    for version in versions:
        left_out = trained | counted | set(version.train)
        fresh = np.array([record not in left_out for record in version.test])
        counted |= {record for record, taken in zip(version.test, fresh, strict=True) if taken}
        old = (champion or version.models["baseline"])(version.rows)[fresh]
        challengers = sorted(set(version.models) - {"baseline"})
        verdicts = {}
        for model in challengers:
            line = tenure.setdefault(model, [])
            line.append((version.truth[fresh], old, version.models[model](version.rows)[fresh]))
        for model in challengers:
            verdicts[model] = verdict(tenure[model], len(tenure), wins)
        winners = [model for model in challengers if verdicts[model][0] == "promote"]
        best = max(winners, key=lambda model: verdicts[model][1], default=None)
        found.append(
            {
                model: Judged(*verdicts[model], n=sum(len(v[0]) for v in tenure[model]), promoted=model == best)
                for model in challengers
            }
        )
        if best is not None:
            champion, trained, counted, tenure = version.models[best], set(version.train), set(), {}
    return found
