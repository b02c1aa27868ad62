"""Approval: a person decides about a promotion, with the evidence on the form; the champion must not have changed."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from include.error_codes import Code
from include.errors import NonRetryableError

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

    from include.warehouse.queries.signatures.registry import JudgedRow

APPROVE, DECLINE = "Approve", "Reject"
"""The buttons of the form."""
OUTDATED = (
    "The champion has changed since the models were compared with it, so an approval is refused. Decline, and train "
    "the version again to compare its models with the present champion."
)

log = logging.getLogger(__name__)


class Answer(StrEnum):
    """The column ``answer`` of ``millrace.approval``."""

    APPROVED = "approved"
    DECLINED = "declined"
    REFUSED = "refused"


@dataclass(frozen=True)
class Form:
    """What the form shows.

    Attributes:
        title: The question.
        text: Everything below, in Markdown.
        champion: The present champion.
        evidence: A sentence on each model of the run, or why the models could not be compared.
        models: The names of the models that can be approved, the recommended one first.
        recommended: The model that is approved when the answer names none; None if none is recommended.
        warning: When an approval is refused, or why it would be refused now.
        is_outdated: The champion has changed since the models were compared with it, so an approval is refused.
    """

    title: str
    text: str
    champion: str
    evidence: Sequence[str]
    models: Sequence[str]
    recommended: str | None
    warning: str
    is_outdated: bool


def form(run: int) -> Form:
    """The form that asks whether a model of a run becomes the champion."""
    from include.datasets.definition import BASELINE
    from include.registry import champion_history
    from include.versions.manifest import decode
    from include.warehouse import queries
    from include.warehouse.connection import connected

    sql = queries.load("registry")
    with connected("millrace approval") as connection:
        gate = _judged(connection, run)
        champion = champion_history.current(connection, gate.dataset)
        last = sql.last_change(connection, dataset=gate.dataset)
        verdicts = list(sql.verdicts_of(connection, run=run))
        recommended = _recommended(connection, run)
        models = [model for model, _ in sql.digests_of(connection, run=run) if model != BASELINE]
    version = decode(bytes(gate.manifest)).short
    present = str(champion or "none; the baseline takes its place")
    evidence = [f"The models could not be compared with the champion. {gate.reason}"] if gate.reason else []
    evidence += [verdict.sentence for verdict in verdicts]
    lines = [f"Champion: **{present}**", "", *(f"* {sentence}" for sentence in evidence)]
    advice = (
        f"Recommended: **{recommended}**." if recommended else "No model is recommended. To approve one, choose it."
    )
    is_outdated = (last.number if last else 0) != gate.champion_number
    warning = OUTDATED if is_outdated else "If the champion changes before you answer, the approval is refused."
    lines += ["", advice, "", warning]
    return Form(
        title=f"Promote a model of {gate.dataset}, version {version}?",
        text="\n".join(lines),
        champion=present,
        evidence=evidence,
        models=sorted(models, key=lambda model: (model != recommended, model)),
        recommended=recommended,
        warning=warning,
        is_outdated=is_outdated,
    )


def apply(run: int, answered: Mapping[str, Any]) -> str:
    """Applies the answer on the form; see ``answer``. Returns what the person decided, with the name.

    Args:
        answered: The result of ``ApprovalOperator``.
    """
    person, approved = answered["responded_by_user"], APPROVE in answered["chosen_options"]
    decider = person["name"] if person else "no answer in time"
    answer(run, approved=approved, model=(answered["params_input"] or {}).get("model") or None, decider=decider)
    return f"{'approved' if approved else 'declined'} by {decider}"


def answer(run: int, approved: bool, model: str | None, decider: str) -> None:
    """Stores an answer and applies it.

    Args:
        run: The run that was judged.
        model: The name of one of its models; None for the recommended one.
        decider: The name of the person.

    Raises:
        ChampionChanged: The champion has changed since the evidence was gathered; the answer is stored as refused.
        NonRetryableError: The question was answered before, or the model does not exist.
    """
    from include.datasets.definition import BASELINE
    from include.promotion import comparison, evaluation_queue
    from include.registry.champion_history import Cause, ChampionChanged
    from include.versions.manifest import decode
    from include.warehouse import queries
    from include.warehouse.connection import connected

    sql = queries.load("registry")
    with connected("millrace approval") as connection:
        gate = _judged(connection, run)
        manifest = decode(bytes(gate.manifest))
        if not approved:
            _add(connection, run, Answer.DECLINED, model, decider, "")
            connection.commit()
            log.info("%s declined; the champion stays.", decider)
            return
        model = model or _recommended(connection, run)
        again = f"Trigger promote__{gate.dataset} again with run {run}, and name a model."
        # Without a champion the baseline takes its place, so it is never one itself.
        digests = {name: digest for name, digest in sql.digests_of(connection, run=run) if name != BASELINE}
        if model is None:
            what = f"The approval of run {run} names no model, and none is recommended."
            raise NonRetryableError(what, again, code=Code.MODEL_NOT_NAMED)
        if model not in digests:
            what = f"Run {run} has no model {model!r}; it has {', '.join(sorted(digests))}."
            raise NonRetryableError(what, again, code=Code.UNKNOWN_MODEL)
        verdict = next((found for found in sql.verdicts_of(connection, run=run) if found.model == model), None)
        sentence = verdict.sentence if verdict else "It was not compared with the champion."
        trained_on = comparison.read_trained_on(manifest)
        _add(connection, run, Answer.APPROVED, model, decider, sentence)
        try:
            evaluation_queue.promote(
                connection,
                run,
                manifest,
                model,
                sha256=verdict.fitted_sha256 if verdict else digests[model],
                trained_on=trained_on,
                after=gate.champion_number,
                decision=evaluation_queue.Decision(Cause.APPROVAL, decider, sentence),
                loaded=False,
            )
        except ChampionChanged as error:
            connection.rollback()
            _add(connection, run, Answer.REFUSED, model, decider, str(error))
            connection.commit()
            raise
        connection.commit()


def _judged(connection: Connection, run: int) -> JudgedRow:
    """The gate's row of a run."""
    from include.warehouse import queries

    found = queries.load("registry").judged(connection, run=run)
    if found is None:
        raise NonRetryableError(
            f"The gate has not compared run {run} with the champion.",
            "Name a run that ended with success, and wait for its task gate.",
            code=Code.RUN_NOT_JUDGED,
        )
    return found


def _recommended(connection: Connection, run: int) -> str | None:
    """The model with the strongest evidence of those that the gate would promote."""
    from include.gate.verdict import Outcome
    from include.warehouse import queries

    verdicts = queries.load("registry").verdicts_of(connection, run=run)
    return next((verdict.model for verdict in verdicts if verdict.outcome == Outcome.PROMOTE), None)


def _add(connection: Connection, run: int, kind: Answer, model: str | None, decider: str, reason: str) -> None:
    from include.warehouse import queries

    sql = queries.load("registry")
    if not sql.add_approval(connection, run=run, answer=kind, model=model, decider=decider, reason=reason):
        first = sql.approval_of(connection, run=run)
        raise NonRetryableError(
            f"The promotion of run {run} was already {first.answer} by {first.decider} on "
            f"{first.answered_at:%Y-%m-%d %H:%M:%S} UTC.",
            "To promote a model all the same, start a new training run.",
            code=Code.ALREADY_ANSWERED,
        )
