"""The gate's queue: finished runs of a dataset are compared with the champion one at a time, in version order."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from include.datasets import Dataset
from include.errors import NonRetryableError
from include.gate.gain import Gain
from include.gate.pairs import Pairs
from include.gate.verdict import Verdict, choose
from include.promotion import evidence
from include.promotion.comparison import CHAMPION, FIRST, Candidate, Compared, CurrentChampion, compare, leading
from include.registry import champion_history
from include.registry.artifact import UntrustedArtifact
from include.registry.champion_history import ChampionChanged
from include.registry.model import IncompatibleModel, trusted
from include.registry.probe import PredictionMismatch
from include.training.run_log import logging_to_run
from include.versions.manifest import Manifest, decode
from include.versions.reading import VersionRefused
from include.warehouse import queries
from include.warehouse.connection import connected

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from psycopg2.extensions import connection as Connection

PATIENCE = timedelta(hours=6)
"""How long a landed version without a run, or a run that has begun, holds back the gate of later versions."""

log = logging.getLogger(__name__)


def evaluate_pending_runs(dataset: Dataset) -> list[int]:
    """Compares every pending run of the dataset with the champion. Returns the runs that were compared.

    A run never waits: while an earlier version is still being trained, later runs are left to the gate of that
    version's run. So gates cannot wait for each other, in whatever order the runs end.

    Raises:
        UserError: Kafka or Postgres does not answer. What was not judged is left to the next try.
    """
    compared: list[int] = []
    while True:
        try:
            candidate = _evaluate_next(dataset)
        except ChampionChanged as error:
            log.info("The champion changed during the comparison; the run is evaluated again. %s", error)
            continue
        if candidate is None:
            return compared
        run, state = candidate
        if state != "superseded":
            compared.append(run)


def promote(
    connection: Connection,
    run: int,
    manifest: Manifest,
    model: str,
    *,
    sha256: str,
    trained_on: NDArray[np.uint64],
    after: int,
    cause: Literal["evidence", "approval"],
    decider: str,
    reason: str,
    loaded: bool,
) -> None:
    """Registers a run's model and makes it champion, in the caller's transaction.

    Args:
        sha256: Of the model that the decision was about.
        after: The number of the change that the decision was based on.
        loaded: Whether the caller has loaded it from its stored bytes; it is loaded now otherwise.
        trained_on: Hashes of the ids of its training records.

    Raises:
        ChampionChanged: The champion is no longer that of change number ``after``.
        NonRetryableError: The model was trained again since, or cannot be loaded.
    """
    sql = queries.load("registry")
    artifact = sql.register_artifact(
        connection,
        dataset=manifest.dataset,
        run=run,
        model=model,
        sha256=sha256,
        trained_on=trained_on.astype("<u8").tobytes(),
    )
    if artifact is None:
        raise NonRetryableError(
            f"The model {model} of run {run} was trained again since its verdict.", "Start a new run."
        )
    if not loaded and (fault := evidence.fault(connection, run, model, trusted(manifest.dataset))):
        raise NonRetryableError(f"The model {model} of run {run} cannot be the champion: {fault}.", "Start a new run.")
    champion_history.record_change(
        connection,
        manifest.dataset,
        after=after,
        artifact=artifact,
        rollback_to=sql.rollback_target(connection, dataset=manifest.dataset, after=after),
        cause=cause,
        decider=decider,
        reason=reason,
    )
    log.info("%s of version %s is the champion of %s.", model, manifest.short, manifest.dataset)


def _evaluate_next(dataset: Dataset) -> tuple[int, str] | None:
    """Evaluates the next pending run. Returns its number and state; None when there is none."""
    sql = queries.load("registry")
    with connected(f"millrace gate {dataset.name}") as connection:
        sql.lock_gate(connection, dataset=dataset.name)
        row = sql.next_to_judge(connection, dataset=dataset.name, patience=PATIENCE)
        if row is None:
            return None
        run, seed, manifest, until, rank = row
        with logging_to_run(run):
            state = _evaluate(connection, dataset, Candidate(run, seed, decode(bytes(manifest)), until, rank))
        connection.commit()
    return run, state


def _evaluate(connection: Connection, dataset: Dataset, candidate: Candidate) -> str:
    row = queries.load("registry").current_champion(connection, dataset=dataset.name)
    current = CurrentChampion(*row) if row else CurrentChampion()
    if candidate.rank < current.rank:
        return _pass_over(connection, candidate, current, "superseded", "It is older than the champion's version.")
    champion = "the baseline" if current.artifact is None else f"champion number {current.number}"
    log.info(
        "Version %s, which ends on %s, against %s:", candidate.manifest.short, f"{candidate.until:%Y-%m-%d}", champion
    )
    try:
        compared = compare(connection, dataset, candidate, current)
    except VersionRefused as error:
        return _pass_over(connection, candidate, current, "incomparable", str(error))
    except (IncompatibleModel, UntrustedArtifact, PredictionMismatch) as error:
        forward = f"Or retire the champion and start again: ./millrace champion {dataset.name} --retire"
        return _pass_over(connection, candidate, current, "incomparable", f"{error} {forward}")
    verdicts = evidence.weigh(connection, dataset, candidate, current, compared)
    chosen = choose(verdicts) if dataset.promotion.name != "manual" else None
    _write(connection, candidate, current, compared, verdicts)
    _log_choice(verdicts, chosen)
    _score(connection, candidate, current, compared, chosen)
    if chosen is not None:
        promote(
            connection,
            candidate.run,
            candidate.manifest,
            chosen.challenger,
            sha256=compared.digests[chosen.challenger],
            trained_on=compared.trained_on,
            after=current.number,
            cause="evidence",
            decider="the gate",
            reason=chosen.sentence,
            loaded=True,
        )
    _require_unchanged(connection, dataset, current.number + (chosen is not None))
    return "judged"


def _pass_over(connection: Connection, candidate: Candidate, current: CurrentChampion, state: str, reason: str) -> str:
    log.warning("Version %s of %s is %s. %s", candidate.manifest.short, candidate.manifest.dataset, state, reason)
    _add_gate(connection, candidate, current, state=state, reason=reason)
    return state


def _write(
    connection: Connection,
    candidate: Candidate,
    current: CurrentChampion,
    compared: Compared,
    verdicts: Mapping[Verdict, Pairs | Gain],
) -> None:
    sql = queries.load("registry")
    _add_gate(
        connection,
        candidate,
        current,
        test_rows=len(compared.ids),
        trained=int(np.count_nonzero(~compared.untrained)),
        repeated=int(np.count_nonzero(compared.untrained & ~compared.fresh)),
        counted=compared.ids[compared.fresh].astype("<u8").tobytes(),
    )
    for verdict, fresh in verdicts.items():
        log.info("%s", verdict.sentence)
        row = verdict.as_row() | evidence.as_row(fresh)
        row |= {
            "run": candidate.run,
            "model": verdict.challenger,
            "fitted_sha256": compared.digests[verdict.challenger],
        }
        sql.add_verdict(connection, verdict=msgspec.json.encode(row).decode())


def _log_choice(verdicts: Iterable[Verdict], chosen: Verdict | None) -> None:
    able = [verdict.challenger for verdict in verdicts if verdict.outcome == "promote"]
    if chosen is None:
        log.info("The champion stays." if not able else f"A person may promote {', '.join(able)}.")
    elif len(able) > 1:
        log.info("Of %s, %s has the strongest evidence.", ", ".join(able), chosen.challenger)


def _score(
    connection: Connection, candidate: Candidate, current: CurrentChampion, compared: Compared, chosen: Verdict | None
) -> None:
    """Writes what the dataset is worth on this version when it is gated, never retrained, or always the newest."""
    line = compared.lines[CHAMPION]
    roles = {"live": CHAMPION}
    if current.artifact is None:
        roles["never"] = CHAMPION
        if chosen is not None:
            roles["newest"] = chosen.challenger
    else:
        if FIRST in compared.lines:
            roles["never"] = FIRST
        if line in compared.outcomes:
            roles["newest"] = line
    for role, name in roles.items():
        if compared.common.any():
            metric, value = leading(candidate.manifest.kind, compared.outcomes[name][compared.common])
            queries.load("registry").add_score(
                connection,
                run=candidate.run,
                role=role,
                model=compared.lines.get(name, name),
                metric=metric,
                value=value,
                rows=int(np.count_nonzero(compared.common)),
            )


def _add_gate(connection: Connection, candidate: Candidate, current: CurrentChampion, **counts: Any) -> None:
    nothing = {"state": "judged", "reason": None, "test_rows": 0, "trained": 0, "repeated": 0, "counted": b""}
    queries.load("registry").add_gate(
        connection,
        run=candidate.run,
        dataset=candidate.manifest.dataset,
        version=candidate.manifest.version,
        champion_number=current.number,
        **nothing | counts,
    )


def _require_unchanged(connection: Connection, dataset: Dataset, number: int) -> None:
    last = queries.load("registry").last_change(connection, dataset=dataset.name)
    if (last[0] if last else 0) != number:
        raise ChampionChanged(
            f"The champion of {dataset.name!r} is {champion_history.current(connection, dataset.name)}."
        )
