"""Simulated years of weekly gates: how often a model that is not better is promoted, and how fast a better one.

The e-values, the rule and the choice among challengers are the ones used in production. The outcomes of the six
challengers are drawn independently. Real outcomes are correlated, because they share the champion, which makes errors
rarer.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.stats import binom

from include.gate.evalue import leader, log_e_gain, log_e_margin, log_e_value, ruling

WEEKS, ROWS, CHALLENGERS = 52, 2000, 6
DISCORDANCES = (0.04, 0.06, 0.12)
MARGIN = WORTH = 0.01

Array = NDArray[Any]


@dataclass(frozen=True)
class Rule:
    """A way to promote.

    Attributes:
        count: (n01, n10) of one week to the values summed over the tenure, each of shape (years, challengers).
        judge: (sums, n01, n10) to a score for choosing, and whether a challenger may be promoted.
    """

    count: Callable[[Array, Array], tuple[Array, ...]]
    judge: Callable[[Array, Array, Array], tuple[Array, Array]]


def _by_evidence(sums: Array, n01: Array, n10: Array) -> tuple[Array, Array]:
    log_e = log_e_value(*sums)
    return log_e, ruling(log_e, log_e_value(*sums[::-1]), n01 - n10, CHALLENGERS) > 0


def _by_margin(sums: Array, n01: Array, n10: Array) -> tuple[Array, Array]:
    log_e = log_e_margin(sums[0], sums[1], sums[2], MARGIN)
    return log_e, ruling(log_e, np.full_like(log_e, -np.inf), (n01 - n10) / ROWS + MARGIN, CHALLENGERS) > 0


def _gain_and_information(n01: Array, n10: Array) -> tuple[Array, ...]:
    """The gain in accuracy over its variance, the limit of the bootstrap for many resamples."""
    gain = (n01 - n10) / ROWS
    variance = ((n01 + n10) / ROWS - gain**2) / ROWS
    return gain / variance, 1 / variance


def _by_bootstrap(sums: Array, n01: Array, n10: Array) -> tuple[Array, Array]:
    weighted, information = sums
    log_e = log_e_gain(weighted, information, WORTH)
    return log_e, ruling(log_e, log_e_gain(-weighted, information, WORTH), n01 - n10, CHALLENGERS) > 0


def _by_mcnemar(sums: Array, n01: Array, n10: Array) -> tuple[Array, Array]:
    p = 2 * binom.sf(n01 - 1, n01 + n10, 0.5)
    return n01 - n10, np.asarray(p <= 0.05 / CHALLENGERS)


EVIDENCE = Rule(lambda n01, n10: (n01, n10), _by_evidence)
NOT_WORSE = Rule(lambda n01, n10: (n01, n10, np.full_like(n01, ROWS)), _by_margin)
BOOTSTRAP = Rule(_gain_and_information, _by_bootstrap)
MCNEMAR = Rule(lambda n01, n10: (n01, n10), _by_mcnemar)
HIGHEST_SCORE = Rule(lambda n01, n10: (n01, n10), lambda sums, n01, n10: (n01 - n10, n01 > n10))


@dataclass(frozen=True)
class Years:
    """The promotions of the simulated years.

    Attributes:
        gains: True gains of the promotions, of shape (weeks, years); NaN for weeks without one.
    """

    gains: Array

    def share_at_most(self, gain: float) -> float:
        """Share of years with a promotion whose true gain was at most ``gain``."""
        return float((self.gains <= gain).any(axis=0).mean())

    def median_weeks_above(self, gain: float) -> float | None:
        """Median week of the first promotion whose true gain was above ``gain``; None if half the years have none."""
        happened = self.gains > gain
        median = float(np.median(np.where(happened.any(axis=0), happened.argmax(axis=0) + 1, np.inf)))
        return median if np.isfinite(median) else None


def simulate(rule: Rule, discordance: float, accuracies: Array, years: int, rng: np.random.Generator) -> Years:
    """Compare model lines with a champion of accuracy 0 week by week; a promotion begins a new tenure.

    Args:
        rule: The rule of promotion.
        discordance: Share of records on which champion and challenger differ in being right.
        accuracies: True accuracy of each line minus that of the first champion, of shape (challengers,).
        years: The number of years.
        rng: The random generator.
    """
    live = np.zeros(years)
    sums: Array = np.zeros(())
    gains = np.full((WEEKS, years), np.nan)
    for week in range(WEEKS):
        lead = accuracies - live[:, None]
        shares = np.stack([(discordance + lead) / 2, (discordance - lead) / 2, np.full_like(lead, 1 - discordance)], -1)
        n01, n10, _ = np.moveaxis(rng.multinomial(ROWS, shares).astype(np.float64), -1, 0)
        sums = sums + np.array(rule.count(n01, n10))
        winner = leader(*rule.judge(sums, n01, n10))
        promoted = winner >= 0
        gains[week, promoted] = (accuracies[winner] - live)[promoted]
        live[promoted] = accuracies[winner[promoted]]
        sums[..., promoted, :] = 0
    return Years(gains)


def figures(discordance: float, years: int, rng: np.random.Generator) -> dict[str, float | None]:
    """Shares of years and median weeks at one discordance; docs/promotion.md explains each."""
    equal = np.zeros(CHALLENGERS)

    def one_better_by(gain: float) -> Array:
        return np.where(np.arange(CHALLENGERS) == 0, gain, 0.0)

    def years_of(rule: Rule, accuracies: Array) -> Years:
        return simulate(rule, discordance, accuracies, years, rng)

    plus_1, plus_2 = (years_of(EVIDENCE, one_better_by(gain)) for gain in (0.01, 0.02))
    return {
        "false_promotion_share": years_of(EVIDENCE, equal).share_at_most(0.0),
        "median_weeks_plus_1": plus_1.median_weeks_above(0.0),
        "median_weeks_plus_2": plus_2.median_weeks_above(0.0),
        "false_promotion_share_plus_1": plus_1.share_at_most(0.0),
        "false_promotion_share_plus_2": plus_2.share_at_most(0.0),
        "bootstrap_false_promotion_share": years_of(BOOTSTRAP, equal).share_at_most(0.0),
        "bootstrap_median_weeks_plus_1": years_of(BOOTSTRAP, one_better_by(0.01)).median_weeks_above(0.0),
        "bootstrap_median_weeks_plus_2": years_of(BOOTSTRAP, one_better_by(0.02)).median_weeks_above(0.0),
        "not_worse_false_promotion_share": years_of(NOT_WORSE, equal - MARGIN).share_at_most(-MARGIN),
        "not_worse_median_weeks_equal": years_of(NOT_WORSE, equal).median_weeks_above(-MARGIN),
        "mcnemar_false_promotion_share": years_of(MCNEMAR, equal).share_at_most(0.0),
        "highest_score_false_promotion_share": years_of(HIGHEST_SCORE, equal).share_at_most(0.0),
    }


def run(years: int = 1000, seed: int = 20260101) -> dict[str, Any]:
    """Simulate ``years`` of 52 weekly gates with 2,000 fresh test records and six challengers.

    Returns:
        ``results`` by discordance, such as "discordance_0.04"; ``seconds``, the duration; ``ratios``, empty because
        there is no peer.
    """
    started = time.perf_counter()
    rngs = np.random.default_rng(seed).spawn(len(DISCORDANCES))
    results = {f"discordance_{d}": figures(d, years, rng) for d, rng in zip(DISCORDANCES, rngs, strict=True)}
    return {"results": results, "ratios": {}, "seconds": round(time.perf_counter() - started, 1)}


def main(json_path: str | None = None) -> None:
    """Print the table, and write what `run` returns to ``json_path``."""
    report = run()
    table = Table(title=f"{WEEKS} weekly gates, {ROWS:,} fresh test records, {CHALLENGERS} challengers, 1,000 years")
    table.add_column("figure")
    for column in report["results"]:
        table.add_column(column.replace("_", " "), justify="right")
    for figure in next(iter(report["results"].values())):
        values = [column[figure] for column in report["results"].values()]
        table.add_row(figure.replace("_", " "), *(_shown(figure, value) for value in values))
    Console().print(table, f"Took {report['seconds']} s.", sep="\n")
    if json_path:
        Path(json_path).write_text(json.dumps(report, indent=2) + "\n")


def _shown(figure: str, value: float | None) -> str:
    if value is None:
        return "never"
    return f"{value:.1%}" if "share" in figure else f"{value:g}"
