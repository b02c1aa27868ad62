"""The gate's queue: the successful runs of a dataset are compared with the champion one by one, in version order."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import numpy as np

from include.datasets import Dataset
from include.error_codes import Code
from include.errors import NonRetryableError
from include.gate.gain import Gain
from include.gate.pairs import Pairs
from include.gate.policy import PolicyName
from include.gate.verdict import Outcome, Verdict, choose
from include.promotion import evidence
from include.promotion.comparison import CHAMPION, FIRST, Candidate, Compared, CurrentChampion, compare, leading
from include.promotion.verdict_row import verdict_row
from include.registry import champion_history
from include.registry.artifact import UntrustedArtifact
from include.registry.champion_history import Cause, ChampionChanged
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
"""How long a landed version without a run, or a running run, delays the gate of later versions."""

log = logging.getLogger(__name__)


class GateState(StrEnum):
    """The column ``state`` of ``millrace.gate``."""

    JUDGED = "judged"
    SUPERSEDED = "superseded"
    INCOMPARABLE = "incomparable"


class Role(StrEnum):
    """The column ``role`` of ``millrace.score``: three ways to run a dataset."""

    LIVE = "live"
    NEVER = "never"
    NEWEST = "newest"


class Decision(NamedTuple):
    """Why a model becomes champion: the cause, who decided, and the reason."""

    cause: Cause
    decider: str
    reason: str


class GateRow(TypedDict):
    """A row of ``millrace.gate``; the keys are its columns."""

    run: int
    dataset: str
    version: str
    champion_number: int
    state: GateState
    reason: str | None
    test_rows: int
    trained: int
    repeated: int
    counted: bytes


def evaluate_pending_runs(dataset: Dataset) -> list[int]:
    """Compares every pending run of the dataset with the champion. Returns the runs that were compared.

    No gate waits: while an earlier version is in training, later runs are left to the gate of that version's run. So
    gates cannot wait for each other, in whatever order the runs end.

    Raises:
        UserError: Kafka or PostgreSQL is unavailable. The remaining runs are left to the next try.
    """
    compared: list[int] = []
    while True:
        try:
            evaluated = _evaluate_next(dataset)
        except ChampionChanged as error:
            log.info("The champion changed during the comparison, so the run is compared again. %s", error)
            continue
        if evaluated is None:
            return compared
        run, state = evaluated
        if state is not GateState.SUPERSEDED:
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
    decision: Decision,
    loaded: bool,
) -> None:
    """Registers a run's model and makes it champion, in the caller's transaction.

    Args:
        sha256: The digest of the model that the decision was about.
        trained_on: The hashes of the ids of its training records.
        after: The number of the change that the decision was based on.
        decision: The cause, who decided, and the reason.
        loaded: Whether the caller has loaded the model from its stored bytes; otherwise it is loaded now.

    Raises:
        ChampionChanged: The champion is no longer that of change number ``after``.
        NonRetryableError: The model was trained again meanwhile, or cannot be loaded.
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
            f"The model {model} of run {run} was trained again after its verdict.",
            f"Start a new run: ./millrace train {manifest.dataset}.",
            code=Code.MODEL_REPLACED,
        )
    if not loaded and (fault := evidence.fault(connection, run, model, trusted(manifest.dataset))):
        raise NonRetryableError(
            f"The model {model} of run {run} cannot become champion: {fault}.",
            f"Start a new run: ./millrace train {manifest.dataset}.",
            code=Code.MODEL_UNUSABLE,
        )
    champion_history.record_change(
        connection,
        manifest.dataset,
        after=after,
        artifact=artifact,
        rollback_to=sql.rollback_target(connection, dataset=manifest.dataset, after=after),
        cause=decision.cause,
        decider=decision.decider,
        reason=decision.reason,
    )
    log.info("%s of version %s is now the champion of %s.", model, manifest.short, manifest.dataset)


def _evaluate_next(dataset: Dataset) -> tuple[int, GateState] | None:
    """Evaluates the next pending run. Returns its number and state; None when there is none."""
    sql = queries.load("registry")
    with connected(f"millrace gate {dataset.name}") as connection:
        sql.lock_gate(connection, dataset=dataset.name)
        row = sql.next_to_judge(connection, dataset=dataset.name, patience=PATIENCE)
        if row is None:
            return None
        candidate = Candidate(row.run, row.seed, decode(bytes(row.manifest)), row.until, row.rank)
        with logging_to_run(row.run):
            state = _evaluate(connection, dataset, candidate)
        connection.commit()
    return row.run, state


def _evaluate(connection: Connection, dataset: Dataset, candidate: Candidate) -> GateState:
    row = queries.load("registry").current_champion(connection, dataset=dataset.name)
    current = CurrentChampion(*row) if row else CurrentChampion()
    if candidate.rank < current.rank:
        reason = "It is older than the champion's version."
        return _skip(connection, candidate, current, GateState.SUPERSEDED, reason)
    champion = "the baseline" if current.artifact is None else f"champion number {current.number}"
    log.info("Comparing version %s (until %s) with %s.", candidate.manifest.short, candidate.until.date(), champion)
    try:
        compared = compare(connection, dataset, candidate, current)
    except VersionRefused as error:
        return _skip(connection, candidate, current, GateState.INCOMPARABLE, str(error))
    except (IncompatibleModel, UntrustedArtifact, PredictionMismatch) as error:
        remedy = f"{error.remedy} Or retire the champion: ./millrace champion {dataset.name} --retire.".lstrip()
        return _skip(connection, candidate, current, GateState.INCOMPARABLE, str(error.with_remedy(remedy)))
    verdicts = evidence.judge(connection, dataset, candidate, current, compared)
    chosen = choose(verdicts) if dataset.promotion.name is not PolicyName.MANUAL else None
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
            decision=Decision(Cause.EVIDENCE, "the gate", chosen.sentence),
            loaded=True,
        )
    _require_unchanged(connection, dataset, current.number + (chosen is not None))
    return GateState.JUDGED


def _skip(
    connection: Connection, candidate: Candidate, current: CurrentChampion, state: GateState, reason: str
) -> GateState:
    log.warning("Version %s of %s is %s. %s", candidate.manifest.short, candidate.manifest.dataset, state, reason)
    row = _gate_row(candidate, current)
    row["state"], row["reason"] = state, reason
    queries.load("registry").add_gate(connection, **row)
    return state


def _write(
    connection: Connection,
    candidate: Candidate,
    current: CurrentChampion,
    compared: Compared,
    verdicts: Mapping[Verdict, Pairs | Gain],
) -> None:
    sql = queries.load("registry")
    row = _gate_row(candidate, current)
    row["test_rows"] = len(compared.ids)
    row["trained"] = int(np.count_nonzero(~compared.untrained))
    row["repeated"] = int(np.count_nonzero(compared.untrained & ~compared.fresh))
    row["counted"] = compared.ids[compared.fresh].astype("<u8").tobytes()
    sql.add_gate(connection, **row)
    for verdict, fresh in verdicts.items():
        log.info("%s", verdict.sentence)
        judged = verdict_row(candidate.run, verdict, fresh, compared.digests[verdict.challenger])
        sql.add_verdict(connection, **judged)


def _gate_row(candidate: Candidate, current: CurrentChampion) -> GateRow:
    """The row of a run that was judged, without any test record."""
    return GateRow(
        run=candidate.run,
        dataset=candidate.manifest.dataset,
        version=candidate.manifest.version,
        champion_number=current.number,
        state=GateState.JUDGED,
        reason=None,
        test_rows=0,
        trained=0,
        repeated=0,
        counted=b"",
    )


def _log_choice(verdicts: Iterable[Verdict], chosen: Verdict | None) -> None:
    able = [verdict.challenger for verdict in verdicts if verdict.outcome is Outcome.PROMOTE]
    if chosen is None:
        log.info("The champion stays." if not able else f"An approval may promote {', '.join(able)}.")
    elif len(able) > 1:
        log.info("Of %s, %s has the strongest evidence.", ", ".join(able), chosen.challenger)


def _score(
    connection: Connection, candidate: Candidate, current: CurrentChampion, compared: Compared, chosen: Verdict | None
) -> None:
    """Stores the metric of three ways to run the dataset: with the gate, never retrained, always the newest model."""
    line = compared.lines[CHAMPION]
    roles = {Role.LIVE: CHAMPION}
    if current.artifact is None:
        roles[Role.NEVER] = CHAMPION
        if chosen is not None:
            roles[Role.NEWEST] = chosen.challenger
    else:
        if FIRST in compared.lines:
            roles[Role.NEVER] = FIRST
        if line in compared.outcomes:
            roles[Role.NEWEST] = line
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


def _require_unchanged(connection: Connection, dataset: Dataset, number: int) -> None:
    last = queries.load("registry").last_change(connection, dataset=dataset.name)
    if (last.number if last else 0) != number:
        raise ChampionChanged(
            f"The champion of {dataset.name!r} is {champion_history.current(connection, dataset.name)}."
        )
