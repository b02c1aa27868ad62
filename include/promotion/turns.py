"""Promotion: the finished runs of a dataset come before the gate one at a time, in the order of their versions."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from include.datasets import Dataset
from include.errors import LastingError
from include.promotion import evidence
from include.promotion.comparison import CHAMPION, FIRST, Compared, Reigning, Turn, compare, leading
from include.promotion.gate.gain import Gain
from include.promotion.gate.pairs import Pairs
from include.promotion.gate.verdict import Verdict, choose
from include.registry import reign
from include.registry.artifact import Rejected
from include.registry.model import Unfit, trusted
from include.registry.probe import Drifted
from include.registry.reign import Overtaken
from include.training.journal import journal
from include.versions.manifest import Manifest, decode
from include.versions.reading import Refused
from include.warehouse import queries
from include.warehouse.connection import connected

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from psycopg2.extensions import connection as Connection

PATIENCE = timedelta(hours=6)
"""How long a version that was landed, or a run that began, holds back the gate of later versions."""

log = logging.getLogger(__name__)


def judge(dataset: Dataset) -> list[int]:
    """Lets every finished run of the dataset whose turn it is come before the gate. Returns those compared.

    A run waits for nobody: where an earlier version is still being trained, the later ones are left to the gate of
    that version's run. So gates cannot wait for each other, in whatever order the runs end.

    Raises:
        UserError: Kafka or Postgres does not answer. What was not judged is left to the next try.
    """
    compared: list[int] = []
    while True:
        try:
            turn = _judge_next(dataset)
        except Overtaken as error:
            log.info("The champion changed while it was compared, so the run is judged again. %s", error)
            continue
        if turn is None:
            return compared
        run, state = turn
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
    """Registers a run's model and makes it the champion that follows reign ``after``, in the caller's transaction.

    Args:
        sha256: Of the model that the decision was about.
        loaded: Whether the caller has loaded it from its stored bytes; it is loaded now otherwise.
        trained_on: Hashes of the ids of its training records.

    Raises:
        Overtaken: The champion is not that of reign ``after`` any more.
        LastingError: The model was trained again since, or cannot be loaded.
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
        raise LastingError(f"The model {model} of run {run} was trained again since its verdict.", "Start a new run.")
    if not loaded and (fault := evidence.fault(connection, run, model, trusted(manifest.dataset))):
        raise LastingError(f"The model {model} of run {run} cannot be the champion: {fault}.", "Start a new run.")
    reign.crown(
        connection,
        manifest.dataset,
        after=after,
        artifact=artifact,
        former=sql.rollback_target(connection, dataset=manifest.dataset, after=after),
        cause=cause,
        decider=decider,
        reason=reason,
    )
    log.info("%s of version %s is the champion of %s.", model, manifest.short, manifest.dataset)


def _judge_next(dataset: Dataset) -> tuple[int, str] | None:
    """Judges the run whose turn it is. Returns its number and what became of it."""
    sql = queries.load("registry")
    with connected(f"millrace gate {dataset.name}") as connection:
        sql.lock_gate(connection, dataset=dataset.name)
        row = sql.next_to_judge(connection, dataset=dataset.name, patience=PATIENCE)
        if row is None:
            return None
        run, seed, manifest, until, place = row
        with journal(run):
            state = _judge(connection, dataset, Turn(run, seed, decode(bytes(manifest)), until, place))
        connection.commit()
    return run, state


def _judge(connection: Connection, dataset: Dataset, turn: Turn) -> str:
    row = queries.load("registry").current_reign(connection, dataset=dataset.name)
    reigning = Reigning(*row) if row else Reigning()
    if turn.place < reigning.place:
        return _pass_over(connection, turn, reigning, "superseded", "It is older than the champion's version.")
    champion = "the baseline" if reigning.artifact is None else f"champion number {reigning.number}"
    log.info("Version %s, which ends on %s, against %s:", turn.manifest.short, f"{turn.until:%Y-%m-%d}", champion)
    try:
        compared = compare(connection, dataset, turn, reigning)
    except Refused as error:
        return _pass_over(connection, turn, reigning, "incomparable", str(error))
    except (Unfit, Rejected, Drifted) as error:
        forward = f"Or retire the champion and start again: ./millrace champion {dataset.name} --retire"
        return _pass_over(connection, turn, reigning, "incomparable", f"{error} {forward}")
    verdicts = evidence.weigh(connection, dataset, turn, reigning, compared)
    chosen = choose(verdicts) if dataset.promotion.name != "manual" else None
    _write(connection, turn, reigning, compared, verdicts)
    _tell(verdicts, chosen)
    _score(connection, turn, reigning, compared, chosen)
    if chosen is not None:
        promote(
            connection,
            turn.run,
            turn.manifest,
            chosen.challenger,
            sha256=compared.digests[chosen.challenger],
            trained_on=compared.trained_on,
            after=reigning.number,
            cause="evidence",
            decider="the gate",
            reason=chosen.sentence,
            loaded=True,
        )
    _require_unchanged(connection, dataset, reigning.number + (chosen is not None))
    return "judged"


def _pass_over(connection: Connection, turn: Turn, reigning: Reigning, state: str, reason: str) -> str:
    log.warning("Version %s of %s is %s. %s", turn.manifest.short, turn.manifest.dataset, state, reason)
    _add_gate(connection, turn, reigning, state=state, reason=reason)
    return state


def _write(
    connection: Connection,
    turn: Turn,
    reigning: Reigning,
    compared: Compared,
    verdicts: Mapping[Verdict, Pairs | Gain],
) -> None:
    sql = queries.load("registry")
    _add_gate(
        connection,
        turn,
        reigning,
        test_rows=len(compared.ids),
        trained=int(np.count_nonzero(~compared.untrained)),
        repeated=int(np.count_nonzero(compared.untrained & ~compared.fresh)),
        counted=compared.ids[compared.fresh].astype("<u8").tobytes(),
    )
    for verdict, fresh in verdicts.items():
        log.info("%s", verdict.sentence)
        row = verdict.as_row() | evidence.as_row(fresh)
        row |= {"run": turn.run, "model": verdict.challenger, "fitted_sha256": compared.digests[verdict.challenger]}
        sql.add_verdict(connection, verdict=msgspec.json.encode(row).decode())


def _tell(verdicts: Iterable[Verdict], chosen: Verdict | None) -> None:
    able = [verdict.challenger for verdict in verdicts if verdict.outcome == "promote"]
    if chosen is None:
        log.info("The champion stays." if not able else f"A person may promote {', '.join(able)}.")
    elif len(able) > 1:
        log.info("Of %s, %s has the strongest evidence.", ", ".join(able), chosen.challenger)


def _score(connection: Connection, turn: Turn, reigning: Reigning, compared: Compared, chosen: Verdict | None) -> None:
    """Writes what the dataset is worth on this version when it is gated, never retrained, or always the newest."""
    line = compared.lines[CHAMPION]
    roles = {"live": CHAMPION}
    if reigning.artifact is None:
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
            metric, value = leading(turn.manifest.kind, compared.outcomes[name][compared.common])
            queries.load("registry").add_score(
                connection,
                run=turn.run,
                role=role,
                model=compared.lines.get(name, name),
                metric=metric,
                value=value,
                rows=int(np.count_nonzero(compared.common)),
            )


def _add_gate(connection: Connection, turn: Turn, reigning: Reigning, **counts: Any) -> None:
    nothing = {"state": "judged", "reason": None, "test_rows": 0, "trained": 0, "repeated": 0, "counted": b""}
    queries.load("registry").add_gate(
        connection,
        run=turn.run,
        dataset=turn.manifest.dataset,
        version=turn.manifest.version,
        reign=reigning.number,
        **nothing | counts,
    )


def _require_unchanged(connection: Connection, dataset: Dataset, number: int) -> None:
    last = queries.load("registry").last_reign(connection, dataset=dataset.name)
    if (last[0] if last else 0) != number:
        raise Overtaken(f"The champion of {dataset.name!r} is {reign.current(connection, dataset.name)}.")
