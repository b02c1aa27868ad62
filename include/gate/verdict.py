"""Verdict: promote, reject or inconclusive, with the numbers that say why."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Literal

from include.gate.evalue import leader, ruling, threshold
from include.gate.gain import Gain
from include.gate.pairs import Pairs
from include.gate.policy import Policy, evidence

Outcome = Literal["promote", "reject", "inconclusive"]


@dataclass(frozen=True, slots=True)
class Guard:
    """A limit that no evidence buys off: the recall of a class, the score on a slice, the mean error.

    Attributes:
        name: As it is shown, such as "recall of snow".
        value: What this version of the challenger has; NaN fails.
        limit: What it must have.
        at_most: Whether the limit is a ceiling instead of a floor.
    """

    name: str
    value: float
    limit: float
    at_most: bool = False

    @property
    def holds(self) -> bool:
        """Whether the value keeps to the limit."""
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def __str__(self) -> str:
        side = "most" if self.at_most else "least"
        return f"{self.name} is {self.value:.4g} and must be at {side} {self.limit:.4g}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says of one challenger, and the numbers it follows from.

    Attributes:
        outcome: "promote" says that it may be promoted; `choose` says which one is.
        challenger: The model line.
        sentence: The verdict for a person.
        policy: Name of the policy; under "manual" the outcome is advice.
        challengers: Model lines compared with this champion in its tenure.
        threshold: The e-value that decides.
        log_e: Natural logarithm of the evidence that the challenger is better.
        log_e_reverse: Of the evidence that the champion is.
        log_e_margin: Of the evidence that the challenger is not behind by the policy's margin, if it has one.
        failed_guards: The guards that do not hold, in words.
        metric: "accuracy", "smaller error" or the name of a `metric.Metric`.
        gain: Difference in accuracy, in the share of records won, or in the metric; above 0 is better.
        n: Records of the tenure.
        n01: Records only the challenger won. From here to ``mcnemar_p`` None under a `metric.Metric`.
        n10: Records only the champion won.
        discordance: (n01 + n10) / n.
        champion_accuracy: Share of records; None also for the smaller error.
        challenger_accuracy: The same.
        mcnemar_p: Exact two-sided p-value of McNemar's test; shown, never decides.
        gain_se: Standard error of the gain; only under a `metric.Metric`.
    """

    outcome: Outcome
    challenger: str
    sentence: str
    policy: str
    challengers: int
    threshold: float
    log_e: float
    log_e_reverse: float
    log_e_margin: float | None
    failed_guards: tuple[str, ...]
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

    @property
    def e_value(self) -> float:
        """exp(log_e), held below 1e305 so that it is a number everywhere."""
        return math.exp(min(self.log_e, 700.0))

    @property
    def e_value_reverse(self) -> float:
        """exp(log_e_reverse), held below 1e305."""
        return math.exp(min(self.log_e_reverse, 700.0))

    def as_row(self) -> dict[str, Any]:
        """Every field and both e-values, as JSON values; the keys are always the same."""
        e_values = {"e_value": self.e_value, "e_value_reverse": self.e_value_reverse}
        return asdict(self) | e_values | {"failed_guards": list(self.failed_guards)}


def decide(
    challenger: str,
    past: Pairs | Gain | None,
    fresh: Pairs | Gain,
    *,
    challengers: int,
    champion_age: timedelta | None,
    policy: Policy | None = None,
    guards: Sequence[Guard] = (),
    faults: Sequence[str] = (),
) -> Verdict:
    """Judge one challenger against the champion.

    Args:
        challenger: The model line.
        past: Its counts against this champion from earlier versions; None at the start of a tenure.
        fresh: Its counts in this version, over records that no gate of this tenure has counted.
        challengers: Model lines compared with this champion in its tenure, dropped ones included.
        champion_age: How long the champion has been live; None where the baseline plays the champion.
        policy: `policy.evidence` unless the definition says otherwise.
        guards: Limits for this version.
        faults: What else makes the challenger unusable, in words; any of them rejects it.

    Raises:
        ValueError: The counts are of different kinds, or there is no challenger.
    """
    policy = policy or evidence()
    total = fresh if past is None else _sum(past, fresh)
    case = _Case(total, fresh, challengers, champion_age, policy)
    outcome, grounds = case.judge()
    failed = (*faults, *(str(guard) for guard in guards if not guard.holds))
    if failed:
        outcome, grounds = "reject", f"{' and '.join(failed)}; but for that, {outcome}: {grounds}"
    verb = "Inconclusive on" if outcome == "inconclusive" else outcome.capitalize()
    advice = " A person decides." if policy.name == "manual" else ""
    return Verdict(
        outcome=outcome,
        challenger=challenger,
        sentence=f"{verb} {challenger}: {total.account(case.champion)}; {grounds}.{advice}",
        policy=policy.name,
        challengers=challengers,
        threshold=threshold(challengers),
        log_e=total.log_e,
        log_e_reverse=total.log_e_reverse,
        log_e_margin=case.log_e_margin,
        failed_guards=failed,
        **total.figures(),
    )


def choose(verdicts: Iterable[Verdict]) -> Verdict | None:
    """The promotable challenger with the largest e-value, equals by name; None where none is promotable."""
    ordered = sorted(verdicts, key=lambda verdict: verdict.challenger)
    if not ordered:
        return None
    first = int(leader([v.log_e for v in ordered], [v.outcome == "promote" for v in ordered]))
    return ordered[first] if first >= 0 else None


@dataclass(frozen=True, slots=True)
class _Case:
    """The grounds of one decision, in numbers and in words."""

    total: Pairs | Gain
    fresh: Pairs | Gain
    challengers: int
    champion_age: timedelta | None
    policy: Policy

    def judge(self) -> tuple[Outcome, str]:
        """Outcome, and its grounds as a clause."""
        rule = int(ruling(self.total.log_e, self.total.log_e_reverse, self.fresh.lead, self.challengers))
        better, worse = _e(self.total.log_e), _e(self.total.log_e_reverse)
        if rule > 0:
            return "promote", f"the evidence that it is better, e = {better}, reaches {self.needed}"
        if self.passes_for_freshness():
            return "promote", self.freshness()
        if rule < 0:
            return (
                "reject",
                f"the evidence that {self.champion} is better, e = {worse}, reaches {self.needed}",
            )
        if self.total.log_e >= math.log(threshold(self.challengers)):
            behind = f"this version does not lead on its own {self.fresh.n:,} records"
            return (
                "inconclusive",
                f"the evidence for its line, e = {better}, reaches {self.needed}, but {behind}",
            )
        sides = f"e = {better} that it is better and e = {worse} that {self.champion} is"
        return "inconclusive", f"{sides}, short of {self.needed}"

    @property
    def champion(self) -> str:
        return "the baseline" if self.champion_age is None else "the champion"

    @property
    def needed(self) -> str:
        plural = "s" if self.challengers > 1 else ""
        return f"the {threshold(self.challengers):,.0f} needed with {self.challengers} challenger{plural}"

    @property
    def log_e_margin(self) -> float | None:
        return None if self.policy.margin is None else self.total.log_e_margin(self.policy.margin)

    def passes_for_freshness(self) -> bool:
        """Whether the champion is old enough, and the challenger shown not to be worse by the margin."""
        margin, older_than = self.policy.margin, self.policy.older_than
        if margin is None or older_than is None or self.champion_age is None or self.champion_age <= older_than:
            return False
        lead = self.fresh.lead + margin if self.fresh.n else 0.0
        return int(ruling(self.total.log_e_margin(margin), -math.inf, lead, self.challengers)) > 0

    def freshness(self) -> str:
        unit = self.total.metric if isinstance(self.total, Gain) else "of all records"
        amount = f"{self.policy.margin or 0.0:.4g} {unit}"
        shown = f"the evidence that it is not worse by {amount}, e = {_e(self.log_e_margin or 0.0)}"
        ages = f"{_days(self.champion_age)} old, over {_days(self.policy.older_than)}"
        return f"{shown}, reaches {self.needed}, and {self.champion} is {ages}"


def _sum(past: Pairs | Gain, fresh: Pairs | Gain) -> Pairs | Gain:
    if isinstance(past, Pairs) and isinstance(fresh, Pairs):
        return past + fresh
    if isinstance(past, Gain) and isinstance(fresh, Gain):
        return past + fresh
    raise ValueError("The metric changed within a champion's tenure; counts of another kind start a new model line.")


def _e(log_e: float) -> str:
    """An e-value in three digits, rounded down: one short of the threshold must not look as if it reached it."""
    exponent = math.floor(log_e / math.log(10))
    if exponent >= 6:
        return f"10^{exponent}"
    if exponent < -3:
        return "under 0.001"
    places = max(2 - exponent, 0)
    return f"{math.floor(math.exp(log_e) * 10**places) / 10**places:,.{places}f}"


def _days(age: timedelta | None) -> str:
    return f"{(age or timedelta(0)) / timedelta(days=1):.4g} days"
