"""The gate's statistics: formulas against integration, validity by exact expectation and simulation, and verdicts."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from benchmarks import gate as benchmark
from include.error_codes import Code
from include.gate.evalue import leader, log_e_gain, log_e_margin, log_e_value, ruling, threshold
from include.gate.gain import Gain
from include.gate.metric import Metric
from include.gate.pairs import Pairs
from include.gate.policy import Policy, PolicyName, evidence, manual, not_worse_and_fresher
from include.gate.verdict import Guard, Verdict, choose, decide
from include.promotion.verdict_row import verdict_row
from tests.errors import raises
from tests.unit import independent_gate as independent

MONTH = timedelta(days=30)


def judged(fresh: Pairs | Gain, past: Pairs | Gain | None = None, **circumstances: Any) -> Verdict:
    usual: dict[str, Any] = {"challengers": 6, "champion_age": MONTH}
    return decide("boosting", past, fresh, **(usual | circumstances))


def pairs(n01: int, n10: int, n: int = 2000) -> Pairs:
    return Pairs(n01, n10, n, n - n01 - n10)


class TestFormulas:
    def test_e_value_is_the_integral(self) -> None:
        rng = np.random.default_rng(1)
        n = (10 ** rng.uniform(0, 6, 300)).astype(int)
        n01 = rng.binomial(n, np.clip(0.5 + rng.normal(0, 1, 300) * rng.choice([0.01, 0.1, 0.5], 300), 0, 1))
        ours = log_e_value(n01, n - n01)
        theirs = [independent.log_e_value(*counts) for counts in zip(n01, n - n01, strict=True)]
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-6)

    @pytest.mark.parametrize(
        ("n01", "n10"),
        [
            *[(0, 0), (1, 0), (0, 1), (50, 0), (0, 50), (300, 300)],
            *[(10**7, 0), (0, 10**7), (3, 10**7), (5 * 10**6, 5 * 10**6)],
            *[(5_003_000, 4_997_000), (4_997_000, 5_003_000)],
        ],
    )
    def test_e_value_at_the_edges(self, n01: int, n10: int) -> None:
        assert float(log_e_value(n01, n10)) == pytest.approx(independent.log_e_value(n01, n10), rel=1e-9, abs=1e-5)

    def test_without_pairs_the_e_value_is_1(self) -> None:
        assert float(log_e_value(0, 0)) == pytest.approx(0, abs=1e-12)

    def test_e_value_rises_with_wins_and_falls_with_losses(self) -> None:
        wins, losses = np.mgrid[0:300, 0:300]
        log_e = log_e_value(wins, losses)
        assert (np.diff(log_e, axis=0) > 0).all()
        assert (np.diff(log_e, axis=1) < 0).all()

    def test_the_side_that_is_behind_has_no_evidence(self) -> None:
        wins, losses = np.mgrid[0:300, 0:300]
        assert (log_e_value(wins, losses)[wins <= losses] < 1e-12).all()

    def test_margin_is_the_integral(self) -> None:
        rng = np.random.default_rng(2)
        for _ in range(60):
            n = int(10 ** rng.uniform(2, 4.5))
            n01, n10, _ = (int(count) for count in rng.multinomial(n, [0.04, 0.04, 0.92]))
            margin = float(rng.choice([0.005, 0.01, 0.03]))
            ours, theirs = log_e_margin(n01, n10, n, margin), independent.log_e_margin(n01, n10, n, margin)
            assert float(ours) == pytest.approx(theirs, rel=0.02, abs=0.02)

    def test_a_margin_of_0_is_the_same_bet(self) -> None:
        for n01, n10 in [(0, 0), (20, 10), (131, 70), (70, 131), (1100, 1000)]:
            assert float(log_e_margin(n01, n10, 4000, 0.0)) == pytest.approx(float(log_e_value(n01, n10)), abs=0.02)

    def test_gain_is_the_integral(self) -> None:
        rng = np.random.default_rng(3)
        for _ in range(60):
            errors = rng.uniform(0.002, 0.02, 5)
            gains = rng.normal(rng.choice([-0.02, 0, 0.02]), errors)
            ours = log_e_gain((gains / errors**2).sum(), (1 / errors**2).sum(), 0.01)
            assert float(ours) == pytest.approx(independent.log_e_gain(gains, errors, 0.01), rel=1e-7, abs=1e-7)

    def test_mcnemar_is_exact(self) -> None:
        for n01, n10 in [(1, 0), (7, 7), (10, 3), (3, 10), (131, 70), (500, 430)]:
            assert pairs(n01, n10).mcnemar_p == pytest.approx(independent.mcnemar(n01, n10), rel=1e-9)
        assert pairs(0, 0).mcnemar_p is None


class TestValidity:
    """The next record must not raise the expected e-value while the challenger is not better."""

    def test_pairs(self) -> None:
        wins, losses = np.mgrid[0:200, 0:200]
        now, won, lost = (np.exp(log_e_value(wins + i, losses + j)) for i, j in [(0, 0), (1, 0), (0, 1)])
        np.testing.assert_allclose(0.5 * won + 0.5 * lost, now, rtol=1e-9)
        for theta in (0.0, 0.2, 0.49):
            assert (theta * won + (1 - theta) * lost < now).all()

    @pytest.mark.parametrize("margin", [0.005, 0.02, 0.1])
    def test_margin(self, margin: float) -> None:
        wins, losses, ties = np.mgrid[0:20, 0:20, 0:400:40]
        n = wins + losses + ties

        def money(won: int, lost: int, tied: int) -> Any:
            return np.exp(log_e_margin(wins + won, losses + lost, n + won + lost + tied, margin))

        for p01 in (0.0, 0.03, 0.3):
            p10 = p01 + margin
            expected = p01 * money(1, 0, 0) + p10 * money(0, 1, 0) + (1 - p01 - p10) * money(0, 0, 1)
            np.testing.assert_allclose(expected, money(0, 0, 0), rtol=1e-9)
            worse = (p10 + 0.01) * money(0, 1, 0) + p01 * money(1, 0, 0) + (0.99 - p01 - p10) * money(0, 0, 1)
            assert (worse < money(0, 0, 0)).all()

    def test_gain(self) -> None:
        nodes, weights = np.polynomial.hermite_e.hermegauss(120)
        weights = weights / weights.sum()
        weighted, information, s = 50.0, 2e4, 0.01
        now = math.exp(log_e_gain(weighted, information, 0.01))
        for true_gain, relation in [(0.0, "equal"), (-0.01, "less")]:
            d = true_gain + s * nodes
            expected = (weights * np.exp(log_e_gain(weighted + d / s**2, information + 1 / s**2, 0.01))).sum()
            assert expected == pytest.approx(now, rel=1e-6) if relation == "equal" else expected < now

    def test_an_adversary_cannot_beat_villes_inequality(self) -> None:
        """Chances of winning that depend on the past: no promotion while their average is at most a half."""
        rng = np.random.default_rng(4)
        paths, records = 4000, 300
        wins, hoped, fooled = np.zeros(paths), np.zeros(paths), np.zeros(paths, bool)
        for record in range(1, records + 1):
            lucky = wins > (record - 1) / 2
            chance = np.where(lucky, np.clip(record / 2 - hoped, 0, 1), 0.35)
            wins += rng.random(paths) < chance
            hoped += chance
            fooled |= (log_e_value(wins, record - wins) >= math.log(20)) & (hoped <= record / 2 + 1e-9)
        print(fooled.mean())
        assert 0.001 < fooled.mean() <= 0.05

    def test_equal_challengers_for_a_year(self) -> None:
        years = benchmark.simulate(benchmark.EVIDENCE, 0.06, np.zeros(6), 300, np.random.default_rng(5))
        assert years.share_at_most(0.0) <= 0.05
        careless = benchmark.simulate(benchmark.HIGHEST_SCORE, 0.06, np.zeros(6), 300, np.random.default_rng(5))
        assert careless.share_at_most(0.0) == 1.0


class TestRule:
    def test_threshold_grows_with_the_challengers(self) -> None:
        assert [threshold(m) for m in (1, 2, 6)] == [20, 40, 120]
        with pytest.raises(ValueError, match="at least 1"):
            threshold(0)

    @pytest.mark.parametrize("challengers", [1, 2, 6, 20])
    @pytest.mark.parametrize("losses", [0, 3, 40, 700])
    def test_the_verdict_changes_at_the_threshold(self, challengers: int, losses: int) -> None:
        needed = math.log(20 * challengers)
        wins = next(w for w in range(losses, 5000) if independent.log_e_value(w, losses) >= needed)
        verdicts = [judged(pairs(w, losses, 9000), challengers=challengers).outcome for w in (wins - 1, wins)]
        assert verdicts == ["inconclusive", "promote"]
        mirrored = [judged(pairs(losses, w, 9000), challengers=challengers).outcome for w in (wins - 1, wins)]
        assert mirrored == ["inconclusive", "reject"]

    def test_fewest_records_that_can_promote(self) -> None:
        fewest = [
            next(n for n in range(100) if judged(pairs(n, 0), challengers=m).outcome == "promote") for m in (1, 3, 6)
        ]
        assert fewest == [13, 16, 18]

    def test_random_verdicts_equal_the_independent_ones(self) -> None:
        rng = np.random.default_rng(6)
        seen = set()
        for _ in range(150):
            theta, m = rng.uniform(0.3, 0.7), int(rng.integers(1, 8))
            weeks = []
            for _ in range(rng.integers(1, 4)):
                truth, draw = rng.integers(0, 2, 300), rng.random(300)
                both_wrong = draw > 0.95
                champion_wrong = both_wrong | (draw < 0.2 * theta)
                challenger_wrong = both_wrong | (draw >= 0.2 * theta) & (draw < 0.2)
                weeks.append((truth, truth ^ champion_wrong, truth ^ challenger_wrong))
            counts = [Pairs.from_labels(*week) for week in weeks]
            ours = judged(counts[-1], sum(counts[:-1], Pairs(0, 0, 0)), challengers=m)
            outcome, log_e, n01, n10 = independent.verdict(weeks, m)
            assert (ours.outcome, ours.figures.n01, ours.figures.n10) == (outcome, n01, n10)
            assert ours.log_e == pytest.approx(log_e, abs=1e-6)
            seen.add(outcome)
        assert seen == {"promote", "reject", "inconclusive"}

    def test_evidence_adds_up_over_the_tenure(self) -> None:
        week = pairs(40, 22)
        first, second, third = judged(week), judged(week, week), judged(week, week + week)
        assert [v.outcome for v in (first, second, third)] == ["inconclusive", "inconclusive", "promote"]
        assert (third.figures.n, third.figures.n01, third.figures.n10) == (6000, 120, 66)

    def test_a_version_that_does_not_lead_is_not_promoted(self) -> None:
        strong = pairs(200, 100)
        assert judged(pairs(21, 20), strong).outcome == "promote"
        for weak in (pairs(20, 20), pairs(19, 20), pairs(0, 0), Pairs(0, 0, 0)):
            verdict = judged(weak, strong)
            assert verdict.outcome == "inconclusive"
            assert "does not lead" in verdict.sentence

    def test_ruling_is_elementwise(self) -> None:
        bar = math.log(20)
        ruled = ruling([bar, bar - 1e-9, bar, -3, bar], [-5, -5, -5, bar, -5], [1, 1, 0, 5, -1], 1)
        assert ruled.tolist() == [1, 0, 0, -1, 0]

    def test_leader(self) -> None:
        assert leader([[1, 5, 5], [9, 8, 7], [1, 2, 3]], [[1, 1, 1], [0, 1, 1], [0, 0, 0]]).tolist() == [1, 1, -1]

    def test_choice_is_by_evidence_then_by_name(self) -> None:
        def named(name: str, fresh: Pairs) -> Verdict:
            return decide(name, None, fresh, challengers=4, champion_age=MONTH)

        strong, weak, none = pairs(150, 60), pairs(131, 70), pairs(80, 70)
        field = [named("d", weak), named("c", strong), named("b", strong), named("a", none)]
        for order in (field, field[::-1]):
            chosen = choose(order)
            assert chosen is not None
            assert chosen.challenger == "b"
        assert choose([named("a", none), named("z", pairs(70, 131))]) is None
        assert choose([]) is None


class TestGuards:
    def test_a_failed_guard_rejects_and_is_named(self) -> None:
        floor = Guard("recall of snow", 0.2, 0.5)
        verdict = judged(pairs(131, 70), guards=[floor, Guard("precision of rain", 0.9, 0.5)])
        assert verdict.outcome == "reject"
        assert verdict.failed_guards == ("recall of snow is 0.2 and must be at least 0.5",)
        assert "recall of snow is 0.2 and must be at least 0.5" in verdict.sentence
        assert "precision" not in verdict.sentence

    @pytest.mark.parametrize(
        ("guard", "holds"),
        [
            (Guard("floor", 0.5, 0.5), True),
            (Guard("floor", 0.49, 0.5), False),
            (Guard("ceiling", 0.5, 0.5, at_most=True), True),
            (Guard("ceiling", 0.51, 0.5, at_most=True), False),
            (Guard("floor", math.nan, 0.5), False),
            (Guard("ceiling", math.nan, 0.5, at_most=True), False),
        ],
    )
    def test_minimum_and_maximum(self, guard: Guard, holds: bool) -> None:
        assert guard.holds is holds
        assert judged(pairs(131, 70), guards=[guard]).outcome == ("promote" if holds else "reject")


class TestPolicies:
    fresher = not_worse_and_fresher(margin=0.01, older_than=timedelta(days=20))
    equal = pairs(70, 75, 9000)

    def test_fresh_and_not_worse_is_promoted(self) -> None:
        verdict = judged(self.equal, policy=self.fresher)
        assert verdict.outcome == "promote"
        assert verdict.log_e_margin == pytest.approx(float(log_e_margin(70, 75, 9000, 0.01)))
        for part in ("not worse by 0.01 of all records", "30 days old", "over 20 days", "the 120 needed"):
            assert part in verdict.sentence

    @pytest.mark.parametrize(
        ("fresh", "age"),
        [
            (equal, timedelta(days=20)),
            (equal, None),
            (pairs(70, 75, 500), MONTH),
            (pairs(70, 160, 9000), MONTH),
        ],
        ids=["young champion", "baseline", "too few records", "worse"],
    )
    def test_other_cases_are_not_promoted(self, fresh: Pairs, age: timedelta | None) -> None:
        assert judged(fresh, policy=self.fresher, champion_age=age).outcome != "promote"

    def test_a_version_behind_by_the_margin_on_its_own_records_is_not_promoted(self) -> None:
        assert judged(pairs(5, 24), self.equal, policy=self.fresher).outcome == "promote"
        assert judged(pairs(5, 25), self.equal, policy=self.fresher).outcome != "promote"
        assert judged(Pairs(0, 0, 0), self.equal, policy=self.fresher).outcome != "promote"

    def test_evidence_needs_no_age(self) -> None:
        assert judged(pairs(131, 70), policy=self.fresher, champion_age=timedelta(0)).outcome == "promote"
        assert judged(pairs(131, 70), policy=self.fresher, champion_age=None).outcome == "promote"

    def test_evidence_for_the_champion_rejects_while_it_is_young(self) -> None:
        slightly_worse = pairs(5000, 5500, 200_000)
        assert judged(slightly_worse, policy=self.fresher, champion_age=timedelta(days=1)).outcome == "reject"
        assert judged(slightly_worse, policy=self.fresher).outcome == "promote"

    def test_manual_advises(self) -> None:
        verdict = judged(pairs(131, 70), policy=manual())
        assert (verdict.outcome, verdict.policy) == ("promote", "manual")
        assert verdict.sentence.endswith("A person decides.")

    def test_evidence_is_the_default(self) -> None:
        assert judged(pairs(131, 70)) == judged(pairs(131, 70), policy=evidence())

    def test_policies_are_values(self) -> None:
        assert self.fresher == Policy(PolicyName.NOT_WORSE_AND_FRESHER, 0.01, timedelta(days=20))
        assert self.fresher == not_worse_and_fresher(margin=0.01, older_than="20 days")
        for margin in (0.0, -0.1, math.nan):
            with raises(Code.INVALID_DEFINITION, f"margin={margin}"):
                not_worse_and_fresher(margin, "30 days")
        for age in (timedelta(0), "0 days", "soon"):
            with raises(Code.INVALID_DEFINITION, age):
                not_worse_and_fresher(0.01, age)


class TestPairs:
    def test_labels(self) -> None:
        truth = ["sun", "rain", "sun", "snow", "fog"]
        counted = Pairs.from_labels(truth, ["sun", "sun", "rain", "snow", "sun"], ["sun", "rain", "sun", "sun", "rain"])
        assert counted == Pairs(n01=2, n10=1, n=5, right=1)
        assert (counted.champion_accuracy, counted.challenger_accuracy) == (0.4, 0.6)
        assert (counted.lead, counted.discordance) == (0.2, 0.6)

    def test_errors(self) -> None:
        counted = Pairs.from_errors([1.0, -2.0, 3.0, 0.5], [-0.5, 2.0, math.inf, 0.4])
        assert counted == Pairs(n01=2, n10=1, n=4)
        verdict = judged(counted)
        assert (verdict.figures.metric, verdict.figures.champion_accuracy) == ("smaller error", None)
        with pytest.raises(ValueError, match="NaN"):
            Pairs.from_errors([1.0, math.nan], [1.0, 1.0])

    def test_other_records(self) -> None:
        for predicted in (np.ones(1), np.ones((2, 2))):
            with pytest.raises(ValueError, match="same records"):
                Pairs.from_labels([1, 2], predicted, [1, 2])

    def test_sums(self) -> None:
        assert Pairs(1, 2, 10, 5) + Pairs(3, 4, 20, 6) == Pairs(4, 6, 30, 11)
        assert Pairs(0, 0, 0) + Pairs(1, 2, 10, 5) == Pairs(1, 2, 10, 5) + Pairs(0, 0, 0) == Pairs(1, 2, 10, 5)
        with pytest.raises(ValueError, match="cannot be added"):
            Pairs(1, 2, 10, 5) + Pairs(1, 2, 10)

    def test_impossible_counts(self) -> None:
        for counts in [(-1, 0, 5, 0), (3, 3, 5, 0), (1, 1, 5, 4)]:
            with pytest.raises(ValueError, match="is invalid"):
                Pairs(*counts)


def f1(truth: Any, predicted: Any) -> float:
    hits = np.count_nonzero(truth & predicted)
    found = np.count_nonzero(truth) + np.count_nonzero(predicted)
    return 2 * hits / found if found else math.nan


ACCURACY = Metric("accuracy", lambda truth, predicted: np.mean(truth == predicted), worth=0.01)
RMSE = Metric("rmse", lambda y, p: math.sqrt(np.mean((y - p) ** 2)), worth=0.1, greater_is_better=False)


class TestGain:
    rng = np.random.default_rng(7)
    truth = rng.random(2000) < 0.3
    champion = truth ^ (rng.random(2000) < 0.12)
    challenger = truth ^ (rng.random(2000) < 0.05)

    def estimate(self, metric: Metric = ACCURACY, seed: int = 1, resamples: int = 400) -> Gain:
        return Gain.from_bootstrap(metric, self.truth, self.champion, self.challenger, seed=seed, resamples=resamples)

    def test_of_accuracy_equals_the_counted_one(self) -> None:
        counted, gain = Pairs.from_labels(self.truth, self.champion, self.challenger), self.estimate()
        assert gain.lead == pytest.approx(counted.lead)
        assert counted.discordance is not None
        assert gain.standard_error == pytest.approx(
            math.sqrt((counted.discordance - counted.lead**2) / counted.n), rel=0.12
        )

    def test_is_reproduced_from_its_seed(self) -> None:
        assert self.estimate(seed=3) == self.estimate(seed=3) != self.estimate(seed=4)

    def test_changes_sides_with_the_models(self) -> None:
        back = Gain.from_bootstrap(ACCURACY, self.truth, self.challenger, self.champion, seed=1, resamples=400)
        assert back.weighted == pytest.approx(-self.estimate().weighted)
        assert back.log_e_reverse == pytest.approx(self.estimate().log_e)
        assert (judged(self.estimate()).outcome, judged(back).outcome) == ("promote", "reject")

    def test_of_an_error_is_better_if_it_is_smaller(self) -> None:
        y = self.rng.normal(0, 1, 500)
        near, far = y + self.rng.normal(0, 0.5, 500), y + self.rng.normal(0, 1.5, 500)
        gain = Gain.from_bootstrap(RMSE, y, far, near, seed=1, resamples=200)
        assert gain.lead == pytest.approx(RMSE.score(y, far) - RMSE.score(y, near))
        assert judged(gain).outcome == "promote"

    def test_margin_moves_the_estimate(self) -> None:
        behind = Gain("f1", 0.01, 2000, weighted=-0.002 / 0.004**2, information=1 / 0.004**2)
        policy = not_worse_and_fresher(0.02, timedelta(days=1))
        assert behind.log_e_margin(0.02) == pytest.approx(independent.log_e_gain([0.018], [0.004], 0.01), rel=1e-7)
        assert [judged(behind, policy=p).outcome for p in (evidence(), policy)] == ["inconclusive", "promote"]
        assert "not worse by 0.02 f1" in judged(behind, policy=policy).sentence

    def test_equal_predictions_have_no_information(self) -> None:
        same = Gain.from_bootstrap(ACCURACY, self.truth, self.champion, self.champion, seed=1, resamples=50)
        assert same == Gain("accuracy", 0.01, 2000)
        assert (same.lead, same.standard_error) == (0.0, None)
        assert same.log_e == pytest.approx(0, abs=1e-12)
        assert judged(same).outcome == "inconclusive"
        assert Gain.from_bootstrap(ACCURACY, [True], [True], [False], seed=1).information == 0

    @pytest.mark.filterwarnings("ignore::scipy.stats.DegenerateDataWarning")
    def test_a_class_that_is_too_rare_is_an_error(self) -> None:
        truth = np.arange(30) == 0
        with pytest.raises(ValueError, match=r"f1 .* 30 test records"):
            Gain.from_bootstrap(Metric("f1", f1, 0.01), truth, truth, ~truth & False, seed=1, resamples=200)

    def test_other_records(self) -> None:
        with pytest.raises(ValueError, match="3 labels, 3 and 2 predictions"):
            Gain.from_bootstrap(ACCURACY, [1, 0, 1], [1, 0, 1], [1, 0], seed=1)

    def test_sums(self) -> None:
        one, two = Gain("f1", 0.01, 10, 2.0, 3.0), Gain("f1", 0.01, 20, 4.0, 5.0)
        assert one + two == Gain("f1", 0.01, 30, 6.0, 8.0)
        assert judged(two, one).figures.n == 30
        with pytest.raises(ValueError, match="cannot be added"):
            one + Gain("f1", 0.02, 20, 4.0, 5.0)
        with pytest.raises(ValueError, match="metric changed"):
            judged(two, pairs(1, 2))

    def test_worth_must_be_above_0(self) -> None:
        with pytest.raises(ValueError, match="worth"):
            Metric("f1", f1, worth=0.0)

    def test_f1_of_equal_models_has_about_normal_errors(self) -> None:
        """Two models of the same F1 on a class of 5 %: the estimate over its standard error is near N(0, 1)."""
        rng, metric, z = np.random.default_rng(8), Metric("f1", f1, 0.01), []
        for seed in range(150):
            truth = rng.random(2000) < 0.05
            one, two = (truth & (rng.random(2000) < 0.7) | (rng.random(2000) < 0.01) for _ in range(2))
            gain = Gain.from_bootstrap(metric, truth, one, two, seed=seed, resamples=100)
            z.append(gain.weighted / math.sqrt(gain.information))
        assert abs(np.mean(z)) < 0.25
        assert 0.85 < np.std(z) < 1.15


class TestVerdict:
    cases = (
        judged(pairs(131, 70)),
        judged(Pairs(0, 0, 0)),
        judged(Pairs(131, 70, 4000)),
        judged(Pairs(9_000_000, 10, 10_000_000, 5)),
        judged(Pairs(10, 9_000_000, 10_000_000, 5), guards=[Guard("recall", math.nan, 0.5)]),
        judged(Gain("f1", 0.01, 2000, 100.0, 1e5)),
        judged(Gain("f1", 0.01, 2000)),
        judged(pairs(70, 75), policy=not_worse_and_fresher(0.01, timedelta(days=1))),
    )

    @pytest.mark.parametrize("verdict", cases)
    def test_has_finite_numbers_only(self, verdict: Verdict) -> None:
        row = verdict_row(1, verdict, Pairs(0, 0, 0), "sha256")
        assert json.loads(json.dumps(row, allow_nan=False)) == row

    def test_row_has_the_numbers(self) -> None:
        verdict, fresh = judged(pairs(131, 70, 4000)), Pairs(3, 2, 10, 4)
        row = verdict_row(7, verdict, fresh, "sha256")
        assert (row["run"], row["model"], row["outcome"]) == (7, "boosting", "promote")
        assert (row["fresh_n"], row["fresh_n01"], row["fresh_n10"], row["fresh_right"]) == (10, 3, 2, 4)
        assert row["fresh_weighted"] is row["fresh_information"] is None
        assert row["e_value"] == pytest.approx(math.exp(independent.log_e_value(131, 70)), rel=1e-6)
        assert row["e_value_reverse"] == pytest.approx(math.exp(independent.log_e_value(70, 131)), rel=1e-6)
        assert (row["threshold"], row["challengers"], row["n"], row["n01"], row["n10"]) == (120, 6, 4000, 131, 70)
        assert row["discordance"] == pytest.approx(201 / 4000)
        assert row["gain"] == pytest.approx(61 / 4000)
        assert row["challenger_accuracy"] == pytest.approx(3930 / 4000)
        assert row["champion_accuracy"] == pytest.approx(3869 / 4000)
        assert row["mcnemar_p"] == pytest.approx(independent.mcnemar(131, 70))

    @pytest.mark.parametrize(
        ("verdict", "parts"),
        [
            (judged(pairs(131, 70, 4000)), ["Promote boosting", "4,000", "131", "70", "98.25%", "96.73%", "the 120"]),
            (judged(pairs(70, 131, 4000)), ["Reject boosting", "the champion is better", "131", "the 120 needed"]),
            (judged(pairs(40, 22)), ["Inconclusive on boosting", "2,000", "40", "22", "short of the 120 needed"]),
            (judged(pairs(40, 22), champion_age=None), ["only the baseline on 22", "that the baseline is"]),
            (judged(pairs(40, 22), challengers=1), ["the 20 needed with 1 challenger."]),
            (judged(Pairs(131, 70, 4000)), ["its error was smaller on 131, that of the champion on 70"]),
            (judged(Gain("f1", 0.01, 900, 100.0, 1e4)), ["900", "f1 was better", "0.01 (standard error 0.01)"]),
            (judged(Gain("f1", 0.01, 900, -100.0, 1e4)), ["f1 was worse than that of the champion by 0.01"]),
            (judged(Pairs(0, 0, 0)), ["no fresh test records", "e = 1.00"]),
            (judged(Pairs(9_000_000, 10, 10_000_000, 5)), ["10,000,000", "9,000,000", "e = 10^27"]),
        ],
    )
    def test_sentence_has_the_numbers(self, verdict: Verdict, parts: list[str]) -> None:
        for part in parts:
            assert part in verdict.sentence

    def test_sentence_rounds_evidence_down(self) -> None:
        verdict = judged(pairs(344, 259))
        assert verdict.outcome == "inconclusive"
        assert 119.99 < verdict.e_value < 120
        assert "e = 119 that it is better" in verdict.sentence


def test_real_weather_gets_the_verdicts_of_the_independent_script() -> None:
    """Seattle, four years: baseline, first champion and successors, month by month, two model lines."""
    from sklearn.base import clone
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.tree import DecisionTreeClassifier
    from vega_datasets import data

    weather = data.seattle_weather()
    features, labels = (
        weather[["precipitation", "temp_max", "temp_min", "wind"]].to_numpy(),
        weather["weather"].to_numpy(),
    )
    lines = {
        "logistic": make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)),
        "tree": DecisionTreeClassifier(max_depth=4, random_state=0),
    }
    champion: Any = None
    past: dict[str, list[tuple[Any, Any, Any]]] = {name: [] for name in lines}
    outcomes, tenures = [], 0
    for start in range(120, len(labels) - 60, 60):
        train, test = slice(0, start), slice(start, start + 60)
        live = champion or DummyClassifier().fit(features[train], labels[train])
        fitted = {name: model.fit(features[train], labels[train]) for name, model in lines.items()}
        verdicts = []
        for name, model in fitted.items():
            version = (labels[test], live.predict(features[test]), model.predict(features[test]))
            tenure = [Pairs.from_labels(*columns) for columns in past[name]]
            fresh = Pairs.from_labels(*version)
            age = None if champion is None else MONTH
            ours = decide(name, sum(tenure, Pairs(0, 0, 0)), fresh, challengers=2, champion_age=age)
            past[name].append(version)
            outcome, log_e, n01, n10 = independent.verdict(past[name], 2)
            assert (ours.outcome, ours.figures.n01, ours.figures.n10) == (outcome, n01, n10)
            assert ours.log_e == pytest.approx(log_e, abs=1e-6)
            verdicts.append(ours)
            outcomes.append(outcome)
        chosen = choose(verdicts)
        if chosen:
            champion = clone(lines[chosen.challenger]).fit(features[train], labels[train])
            past = {name: [] for name in lines}
            tenures += 1
    assert tenures >= 1
    assert {"promote", "inconclusive"} <= set(outcomes)


def test_the_benchmark_reports_every_figure() -> None:
    report = benchmark.run(years=15, seed=1)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert list(report["results"]) == ["discordance_0.04", "discordance_0.06", "discordance_0.12"]
    for figures in report["results"].values():
        assert {"false_promotion_share", "median_weeks_plus_1", "median_weeks_plus_2"} <= figures.keys()
    assert report["ratios"] == {}


def test_a_promotion_begins_a_new_tenure() -> None:
    """Two lines are equally better: once one is champion, what the other won before does not count."""
    accuracies = np.array([0.05, 0.05, 0.0])
    years = benchmark.simulate(benchmark.EVIDENCE, 0.1, accuracies, 100, np.random.default_rng(9))
    assert years.median_weeks_above(0.0) == 1
    assert ((years.gains > 0).sum(axis=0) == 1).all()
    assert years.share_at_most(0.0) <= 0.05


def test_definitions_import_nothing_heavy() -> None:
    code = "import sys, include.gate.policy, include.gate.metric; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
