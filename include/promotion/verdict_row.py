"""VerdictRow: a verdict as it is stored."""

from __future__ import annotations

from typing import TypedDict

from include.gate.gain import Gain
from include.gate.pairs import Pairs
from include.gate.verdict import Outcome, Verdict


class VerdictRow(TypedDict):
    """A row of ``millrace.verdict``; the keys are its columns."""

    run: int
    model: str
    outcome: Outcome
    sentence: str
    policy: str
    challengers: int
    threshold: float
    e_value: float
    e_value_reverse: float
    log_e: float
    log_e_reverse: float
    log_e_margin: float | None
    failed_guards: list[str]
    metric: str
    gain: float
    gain_se: float | None
    n: int
    n01: int | None
    n10: int | None
    discordance: float | None
    champion_accuracy: float | None
    challenger_accuracy: float | None
    mcnemar_p: float | None
    fresh_n: int
    fresh_n01: int | None
    fresh_n10: int | None
    fresh_right: int | None
    fresh_weighted: float | None
    fresh_information: float | None
    fitted_sha256: str


def verdict_row(run: int, verdict: Verdict, fresh: Pairs | Gain, fitted_sha256: str) -> VerdictRow:
    """The row of a verdict.

    Args:
        fresh: The evidence that the run's version added.
        fitted_sha256: The digest of the model that was judged.
    """
    figures = verdict.figures
    pairs = fresh if isinstance(fresh, Pairs) else None
    gain = fresh if isinstance(fresh, Gain) else None
    return VerdictRow(
        run=run,
        model=verdict.challenger,
        outcome=verdict.outcome,
        sentence=verdict.sentence,
        policy=verdict.policy,
        challengers=verdict.challengers,
        threshold=verdict.threshold,
        e_value=verdict.e_value,
        e_value_reverse=verdict.e_value_reverse,
        log_e=verdict.log_e,
        log_e_reverse=verdict.log_e_reverse,
        log_e_margin=verdict.log_e_margin,
        failed_guards=list(verdict.failed_guards),
        metric=figures.metric,
        gain=figures.gain,
        gain_se=figures.gain_se,
        n=figures.n,
        n01=figures.n01,
        n10=figures.n10,
        discordance=figures.discordance,
        champion_accuracy=figures.champion_accuracy,
        challenger_accuracy=figures.challenger_accuracy,
        mcnemar_p=figures.mcnemar_p,
        fresh_n=fresh.n,
        fresh_n01=pairs.n01 if pairs else None,
        fresh_n10=pairs.n10 if pairs else None,
        fresh_right=pairs.right if pairs else None,
        fresh_weighted=gain.weighted if gain else None,
        fresh_information=gain.information if gain else None,
        fitted_sha256=fitted_sha256,
    )
