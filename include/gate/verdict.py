"""Verdict: promote, reject or inconclusive, with the numbers behind it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from include.gate.evalue import leader, ruling, threshold
from include.gate.figures import Figures
from include.gate.gain import Gain
from include.gate.pairs import Pairs
from include.gate.policy import Policy, PolicyName, evidence


class Outcome(StrEnum):
    """The column ``outcome`` of ``millrace.verdict``."""

    PROMOTE = "promote"
    REJECT = "reject"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Guard:
    """A limit that holds whatever the evidence: on the recall of a class, the score on a slice, the mean error.

    Attributes:
        name: The name to show, such as "recall of snow".
        value: The value of this version of the challenger; NaN fails.
        limit: The lowest or highest value allowed.
        at_most: Whether the limit is a maximum instead of a minimum.
    """

    name: str
    value: float
    limit: float
    at_most: bool = False

    @property
    def holds(self) -> bool:
        """Whether the value is within the limit."""
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def __str__(self) -> str:
        side = "most" if self.at_most else "least"
        return f"{self.name} is {self.value:.4g} and must be at {side} {self.limit:.4g}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's decision about one challenger, and the numbers behind it.

    Attributes:
        outcome: Whether it may be promoted; `choose` picks one of several.
        challenger: The model line.
        sentence: The verdict in words.
        policy: The name of the policy; under ``manual`` the outcome is advice.
        challengers: Model lines compared with this champion in its tenure.
        threshold: The e-value that decides.
        log_e: Natural logarithm of the e-value that the challenger is better.
        log_e_reverse: The same, that the champion is better.
        log_e_margin: The same, that the challenger is not worse by the policy's margin, if it has one.
        failed_guards: The guards that failed, in words.
        figures: The numbers of the comparison, over the records of the tenure.
    """

    outcome: Outcome
    challenger: str
    sentence: str
    policy: PolicyName
    challengers: int
    threshold: float
    log_e: float
    log_e_reverse: float
    log_e_margin: float | None
    failed_guards: tuple[str, ...]
    figures: Figures

    @property
    def e_value(self) -> float:
        """exp(log_e), limited to 1e304 so that every program can read it."""
        return math.exp(min(self.log_e, 700.0))

    @property
    def e_value_reverse(self) -> float:
        """exp(log_e_reverse), limited to 1e304."""
        return math.exp(min(self.log_e_reverse, 700.0))


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
    """Compare one challenger with the champion.

    Args:
        challenger: The model line.
        past: Its evidence against this champion from earlier versions; None at the start of a tenure.
        fresh: Its evidence from this version, over records that no gate of this tenure has counted.
        challengers: Model lines compared with this champion in its tenure, including removed ones.
        champion_age: How long the champion has been in use; None for the baseline.
        policy: The policy of the definition; None for `policy.evidence`.
        guards: Limits for this version.
        faults: Other reasons to reject the challenger, in words.

    Raises:
        ValueError: The evidence is of two kinds, or ``challengers`` is below 1.
    """
    policy = policy or evidence()
    total = fresh if past is None else _sum(past, fresh)
    case = _Case(total, fresh, challengers, champion_age, policy)
    outcome, grounds = case.judge()
    failed = (*faults, *(str(guard) for guard in guards if not guard.holds))
    if failed:
        outcome, grounds = Outcome.REJECT, f"{' and '.join(failed)}; but for that, {outcome}: {grounds}"
    verb = "Inconclusive on" if outcome is Outcome.INCONCLUSIVE else outcome.capitalize()
    advice = " A person decides." if policy.name is PolicyName.MANUAL else ""
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
        figures=total.figures(),
    )


def choose(verdicts: Iterable[Verdict]) -> Verdict | None:
    """The promotable challenger with the largest e-value, of equal ones the first by name; None without one."""
    ordered = sorted(verdicts, key=lambda verdict: verdict.challenger)
    if not ordered:
        return None
    first = int(leader([v.log_e for v in ordered], [v.outcome is Outcome.PROMOTE for v in ordered]))
    return ordered[first] if first >= 0 else None


@dataclass(frozen=True, slots=True)
class _Case:
    """One decision and its grounds, in numbers and in words."""

    total: Pairs | Gain
    fresh: Pairs | Gain
    challengers: int
    champion_age: timedelta | None
    policy: Policy

    def judge(self) -> tuple[Outcome, str]:
        """The outcome, and its grounds as a clause."""
        rule = int(ruling(self.total.log_e, self.total.log_e_reverse, self.fresh.lead, self.challengers))
        better, worse = _e(self.total.log_e), _e(self.total.log_e_reverse)
        if rule > 0:
            return Outcome.PROMOTE, f"the evidence that it is better, e = {better}, reaches {self.needed}"
        if self.passes_for_freshness():
            return Outcome.PROMOTE, self.freshness()
        if rule < 0:
            return (
                Outcome.REJECT,
                f"the evidence that {self.champion} is better, e = {worse}, reaches {self.needed}",
            )
        if self.total.log_e >= math.log(threshold(self.challengers)):
            behind = f"this version does not lead on its own {self.fresh.n:,} records"
            return (
                Outcome.INCONCLUSIVE,
                f"the evidence for its line, e = {better}, reaches {self.needed}, but {behind}",
            )
        sides = f"e = {better} that it is better and e = {worse} that {self.champion} is"
        return Outcome.INCONCLUSIVE, f"{sides}, short of {self.needed}"

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
        """Whether the champion is old enough and the challenger is shown not to be worse by the margin."""
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
    raise ValueError("The metric changed within a champion's tenure: evidence of two kinds cannot be added.")


def _e(log_e: float) -> str:
    """An e-value in three digits, rounded down, so that one below the threshold never shows as the threshold."""
    exponent = math.floor(log_e / math.log(10))
    if exponent >= 6:
        return f"10^{exponent}"
    if exponent < -3:
        return "under 0.001"
    places = max(2 - exponent, 0)
    return f"{math.floor(math.exp(log_e) * 10**places) / 10**places:,.{places}f}"


def _days(age: timedelta | None) -> str:
    return f"{(age or timedelta(0)) / timedelta(days=1):.4g} days"
