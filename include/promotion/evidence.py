"""Evidence: what each model line has gathered against a champion in its tenure, and the verdicts that follow."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from include.datasets.definition import BASELINE, ERRORS, RECORD_BY_RECORD
from include.gate.gain import Gain
from include.gate.pairs import Pairs
from include.gate.verdict import Guard, Outcome, Verdict, decide
from include.promotion.comparison import CHAMPION, FIRST, Candidate, Compared, CurrentChampion, leading
from include.registry import artifact, probe
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

    from include.datasets import Dataset


def judge(
    connection: Connection, dataset: Dataset, candidate: Candidate, current: CurrentChampion, compared: Compared
) -> dict[Verdict, Pairs | Gain]:
    """A verdict on each challenger of a run, with the evidence that the run's version adds for its model line."""
    known, past = _past(connection, dataset, candidate, current)
    lines = sorted(compared.outcomes.keys() - {BASELINE, CHAMPION, FIRST})
    age = None if current.until is None else candidate.until - current.until
    limits = _limits(connection, dataset, candidate)
    found = {}
    for line in lines:
        fresh = _fresh(dataset, candidate, compared, line)
        decided = partial(
            decide,
            line,
            past.get(line),
            fresh,
            challengers=len(known | set(lines)),
            champion_age=age,
            policy=dataset.promotion,
            guards=[*limits.get(line, ()), *_error_guard(dataset, candidate, compared, line)],
        )
        verdict = decided()
        known_fault = compared.faults.get(line)
        if verdict.outcome is Outcome.PROMOTE and line not in compared.faults:
            known_fault = fault(connection, candidate.run, line, dataset.trusted)
        found[decided(faults=[known_fault]) if known_fault else verdict] = fresh
    return found


def fault(connection: Connection, run: int, model: str, trusted: Collection[str]) -> str | None:
    """Why a model of a run cannot be loaded, or does not predict its probe as before; None if it can and does."""
    content, sha256, probed = queries.load("registry").fitted(connection, run=run, model=model)
    try:
        probe.recheck(artifact.loads(bytes(content), sha256, trusted), bytes(probed or b""))
    except (artifact.UntrustedArtifact, probe.PredictionMismatch) as error:
        return error.what.rstrip(".")
    return None


def _past(
    connection: Connection, dataset: Dataset, candidate: Candidate, current: CurrentChampion
) -> tuple[set[str], dict[str, Pairs | Gain]]:
    """The lines that were ever compared with this champion, and their evidence by the present metric."""
    compared = RECORD_BY_RECORD[candidate.manifest.kind] if dataset.metric is None else dataset.metric.name
    known: set[str] = set()
    found: dict[str, Pairs | Gain] = {}
    rows = queries.load("registry").evidence_against_champion(
        connection, dataset=dataset.name, champion_number=current.number
    )
    for row in rows:
        known.add(row.model)
        if row.metric != compared:
            continue
        if dataset.metric is None:
            found[row.model] = Pairs(row.n01 or 0, row.n10 or 0, row.n, row.n_right)
        else:
            worth, weighted, information = dataset.metric.worth, row.weighted or 0.0, row.information or 0.0
            found[row.model] = Gain(row.metric, worth, row.n, weighted, information)
    return known, found


def _fresh(dataset: Dataset, candidate: Candidate, compared: Compared, line: str) -> Pairs | Gain:
    fresh = compared.fresh
    if dataset.metric is not None:
        if compared.faults.get(line):
            # A model that cannot be loaded predicts nothing, so it adds no evidence for its line.
            return Gain(dataset.metric.name, dataset.metric.worth, 0)
        champion, challenger = (compared.predictions[name][fresh] for name in (CHAMPION, line))
        return Gain.from_bootstrap(dataset.metric, compared.truth[fresh], champion, challenger, seed=candidate.seed)
    champion, challenger = (compared.outcomes[name][fresh] for name in (CHAMPION, line))
    if candidate.manifest.kind == "regression":
        return Pairs.from_errors(champion, challenger)
    return Pairs.from_labels(np.ones(len(champion), bool), champion, challenger)


def _limits(connection: Connection, dataset: Dataset, candidate: Candidate) -> Mapping[str, Iterable[Guard]]:
    """The definition's guards for each line, with the values that training measured; a missing value fails."""
    values: dict[str, dict[str, float]] = {}
    for line, name, value in queries.load("registry").guarded_metrics(connection, run=candidate.run):
        values.setdefault(line, {})[name] = value
    return {
        line: [
            Guard(name, measured.get(name.removesuffix(".0"), float("nan")), limit, name.partition(" of ")[0] in ERRORS)
            for name, limit in dataset.guards.items()
        ]
        for line, measured in values.items()
    }


def _error_guard(dataset: Dataset, candidate: Candidate, compared: Compared, line: str) -> Iterable[Guard]:
    """A guard for regressions won record by record: a model closer on most records must not be far off on a few."""
    if candidate.manifest.kind != "regression" or dataset.metric is not None or not compared.fresh.any():
        return
    _, limit = leading("regression", compared.outcomes[CHAMPION][compared.fresh])
    name, value = leading("regression", compared.outcomes[line][compared.fresh])
    yield Guard(name, value, limit, at_most=True)
