"""E-values: how strongly paired outcomes speak against "the challenger is not better".

An e-value is the amount that a stake of 1 has grown to by betting against a hypothesis. If the hypothesis is true, it
stays below 1/alpha forever with probability 1 - alpha (Ville 1939), so it can be checked after every version. All
functions work elementwise on arrays and in natural logarithms; docs/promotion.md has the proofs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc, betaincc, betaln, hyp2f1, log_ndtr, logsumexp

Floats = NDArray[np.float64]

E_PER_CHALLENGER = 20.0
"""1/alpha for an error probability of 5 % in one tenure; multiplied by the number of challengers."""

PRIOR = 10.0
"""A of the Beta(A, A) that spreads the bets; an integer, which makes the series in `log_e_value` finite."""

_LOG2 = np.log(2.0)


def threshold(challengers: int) -> float:
    """The e-value that decides: 1/alpha, with the 5 % of a tenure shared equally by the challengers.

    Args:
        challengers: Model lines compared with the champion in its tenure, at least 1.

    Raises:
        ValueError: ``challengers`` is below 1.
    """
    if challengers < 1:
        raise ValueError(f"challengers is {challengers} and must be at least 1.")
    return E_PER_CHALLENGER * challengers


def log_e_value(n01: ArrayLike, n10: ArrayLike) -> Floats:
    """Log e-value against "on average over these records, the challenger is not more accurate".

    Where only one of the two is right, let theta be the chance that it is the challenger. The e-value is the
    likelihood ratio of theta against 1/2, mixed over theta ~ Beta(A, A) restricted to theta > 1/2 (Robbins
    1970). With a = A + n01, b = A + n10 and I the regularised incomplete beta function it is

        E = 2^(n01 + n10 + 1) B(a, b) I_1/2(b, a) / B(A, A)

    The evidence that the champion is better is ``log_e_value(n10, n01)``.

    Args:
        n01: Records only the challenger got right.
        n10: Records only the champion got right.

    Returns:
        Logarithms, right to 1e-5 for up to 1e7 pairs; at most 0 where n01 <= n10.
    """
    n01, n10 = np.asarray(n01, np.float64), np.asarray(n10, np.float64)
    low, high = PRIOR + np.minimum(n01, n10), PRIOR + np.maximum(n01, n10)
    ahead = (n01 + n10 + 1) * _LOG2 + betaln(low, high) + np.log(betainc(low, high, 0.5))
    # For the model that is behind, I underflows while 2^n B(a, b) overflows. Written as a hypergeometric series, I
    # cancels both, and Pfaff's transformation leaves only positive terms (DLMF 8.17.8 and 15.8.1).
    behind = (2 - 2 * PRIOR) * _LOG2 - np.log(high) + np.log(hyp2f1(1.0, 1.0 - low, high + 1.0, -1.0))
    return np.asarray(np.where(n01 > n10, ahead, behind) - betaln(PRIOR, PRIOR))


def _bets() -> tuple[Floats, Floats]:
    """Stakes in (0, 1) and their log prior mass: 2 theta - 1 of `log_e_value`, in cells."""
    edges = np.concatenate([[0.0], np.geomspace(1e-4, 1.0, 200)])
    mass = -np.diff(2 * betaincc(PRIOR, PRIOR, (1 + edges) / 2))
    return (edges[1:] + edges[:-1]) / 2, np.log(mass)


_STAKES, _LOG_MASS = _bets()


def log_e_margin(n01: ArrayLike, n10: ArrayLike, n: ArrayLike, margin: float) -> Floats:
    """Log e-value against "on average over these records, the challenger is less accurate by ``margin`` or more".

    A record gives D = +1, -1 or 0: the challenger alone is right, the champion alone, neither alone. The bet
    multiplies the money by 1 + stake (D + margin), which is positive, and on average at most 1 as long as D is on
    average at most -margin (Waudby-Smith & Ramdas, arXiv 2010.09686). The stakes are spread as in
    `log_e_value`, but over 200 cells, which is equally valid; with margin 0 the e-values agree to 1 % around 100.

    Args:
        n01: Records only the challenger got right.
        n10: Records only the champion got right.
        n: All records.
        margin: Loss of accuracy that is accepted, as a share in [0, 1).
    """
    n01, n10, n = np.broadcast_arrays(*(np.asarray(count, np.float64) for count in (n01, n10, n)))
    counts = np.stack([n01, n10, n - n01 - n10], axis=-1)
    log_factors = np.log1p([_STAKES * (1 + margin), _STAKES * (margin - 1), _STAKES * margin])
    return np.asarray(logsumexp(counts @ log_factors + _LOG_MASS, axis=-1))


def log_e_gain(weighted: ArrayLike, information: ArrayLike, worth: float) -> Floats:
    """Log e-value against "on average, the challenger's metric is not better", for normal estimates of the gain.

    Each version estimates the gain as d with standard error s. The likelihood ratio of a gain g against 0 is
    exp(g d / s^2 - g^2 / (2 s^2)). Mixed over g ~ |N(0, worth^2)| (Robbins 1970), with W = sum d / s^2,
    P = sum 1 / s^2 and v = 1 + worth^2 P, it is

        E = 2 v^(-1/2) exp(worth^2 W^2 / (2 v)) Phi(worth W / v^(1/2))

    It is valid if d is normal and s is known, which holds approximately for large samples.

    Args:
        weighted: W, in 1 / the unit of the metric.
        information: P, in 1 / the unit squared.
        worth: The gain worth having, in the unit.
    """
    weighted, information = np.asarray(weighted, np.float64), np.asarray(information, np.float64)
    v = 1 + worth**2 * information
    score = worth * weighted / np.sqrt(v)
    return np.asarray(_LOG2 - 0.5 * np.log(v) + 0.5 * score**2 + log_ndtr(score))


def ruling(log_e: ArrayLike, log_e_reverse: ArrayLike, lead: ArrayLike, challengers: int) -> NDArray[np.int8]:
    """The rule: +1 promote, -1 reject, 0 inconclusive.

    Promote if the evidence reaches the threshold and the present version, which would become champion, leads on its
    own records. Reject if the reverse evidence reaches the threshold.

    Args:
        log_e: Log e-values that the challenger is better, over the tenure.
        log_e_reverse: Log e-values that the champion is better.
        lead: The lead of this version on its own records, in any unit.
        challengers: See `threshold`.
    """
    bar = np.log(threshold(challengers))
    promote = (np.asarray(log_e) >= bar) & (np.asarray(lead) > 0)
    reject = np.asarray(log_e_reverse) >= bar
    return np.where(promote, 1, np.where(reject, -1, 0)).astype(np.int8)


def leader(log_e: ArrayLike, promotable: ArrayLike) -> NDArray[np.intp]:
    """Index along the last axis of the largest e-value among the promotable; first of equals; -1 for none."""
    promotable = np.asarray(promotable, np.bool_)
    best = np.argmax(np.where(promotable, log_e, -np.inf), axis=-1)
    return np.where(promotable.any(axis=-1), best, -1)
