"""Approval: a person decides on a promotion, with the evidence on the form; the champion must still be the same."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from include.errors import NonRetryableError

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

APPROVE, DECLINE = "Approve", "Reject"

log = logging.getLogger(__name__)


def form(run: int) -> tuple[str, str]:
    """Headline and text (Markdown) with the evidence on a run's models."""
    from include.registry import champion_history
    from include.versions.manifest import decode
    from include.warehouse import queries
    from include.warehouse.connection import connected

    sql = queries.load("registry")
    with connected("millrace approval") as connection:
        dataset, _, _, reason, manifest = _judged(connection, run)
        champion = champion_history.current(connection, dataset)
        verdicts = list(sql.verdicts_of(connection, run=run))
        recommended = _recommended(connection, run)
    version = decode(bytes(manifest)).short
    lines = [f"Champion: **{champion or 'none yet; the baseline plays it'}**", ""]
    lines += [f"The models could not be compared with it. {reason}", ""] if reason else []
    lines += [f"* {sentence}" for _, _, sentence, *_ in verdicts]
    lines += [
        "",
        f"Recommended: **{recommended}**." if recommended else "None is recommended: name a model to approve.",
    ]
    lines += ["", "If the champion changes before you answer, an approval is refused."]
    return f"Promote a model of {dataset}, version {version}?", "\n".join(lines)


def apply(run: int, answered: Mapping[str, Any]) -> None:
    """Does what was answered on the form; see ``answer``.

    Args:
        answered: The result of ``ApprovalOperator``.
    """
    person = answered["responded_by_user"]
    answer(
        run,
        approved=APPROVE in answered["chosen_options"],
        model=(answered["params_input"] or {}).get("model") or None,
        decider=person["name"] if person else "nobody in time",
    )


def answer(run: int, approved: bool, model: str | None, decider: str) -> None:
    """Writes down what a person decided, and does it.

    Args:
        run: The run that was judged.
        model: Which of its models; None for the one recommended.
        decider: Who decided.

    Raises:
        ChampionChanged: The champion has changed since the evidence was gathered; this is written down, too.
        NonRetryableError: It was answered before, or there is no such model.
    """
    from include.promotion import comparison, evaluation_queue
    from include.registry.champion_history import ChampionChanged
    from include.versions.manifest import decode
    from include.warehouse import queries
    from include.warehouse.connection import connected

    sql = queries.load("registry")
    with connected("millrace approval") as connection:
        dataset, against, _, _, value = _judged(connection, run)
        manifest = decode(bytes(value))
        if not approved:
            _add(connection, run, "declined", model, decider, "")
            connection.commit()
            log.info("%s declined; the champion stays.", decider)
            return
        model = model or _recommended(connection, run)
        again = f"Trigger promote__{dataset} with run {run} to be asked again, and name one."
        digests = dict(sql.digests_of(connection, run=run))
        if model is None:
            raise NonRetryableError(f"None of the models of run {run} is recommended, and none was named.", again)
        if model not in digests:
            raise NonRetryableError(f"Run {run} has no model {model!r}; it has {', '.join(sorted(digests))}.", again)
        verdicts = {name: (sentence, digest) for name, _, sentence, *_, digest in sql.verdicts_of(connection, run=run)}
        sentence, judged = verdicts.get(model, ("It was not compared.", digests[model]))
        trained_on = comparison.read_trained_on(manifest)
        _add(connection, run, "approved", model, decider, sentence)
        try:
            evaluation_queue.promote(
                connection,
                run,
                manifest,
                model,
                sha256=judged,
                trained_on=trained_on,
                after=against,
                cause="approval",
                decider=decider,
                reason=sentence,
                loaded=False,
            )
        except ChampionChanged as error:
            connection.rollback()
            _add(connection, run, "refused", model, decider, str(error))
            connection.commit()
            raise
        connection.commit()


def _judged(connection: Connection, run: int) -> tuple[Any, ...]:
    """What is known of a run that has been before the gate; ``judged`` of queries/registry.sql says what that is."""
    from include.warehouse import queries

    found: tuple[Any, ...] | None = queries.load("registry").judged(connection, run=run)
    if found is None:
        raise NonRetryableError(f"Run {run} has not been before the gate.", "Name a training run that has ended well.")
    return found


def _recommended(connection: Connection, run: int) -> str | None:
    """The model with the strongest evidence among those that the gate would promote."""
    from include.warehouse import queries

    verdicts = queries.load("registry").verdicts_of(connection, run=run)
    return next((model for model, outcome, *_ in verdicts if outcome == "promote"), None)


def _add(connection: Connection, run: int, kind: str, model: str | None, decider: str, reason: str) -> None:
    from include.warehouse import queries

    sql = queries.load("registry")
    if not sql.add_approval(connection, run=run, answer=kind, model=model, decider=decider, reason=reason):
        before, who, when, _ = sql.approval_of(connection, run=run)
        raise NonRetryableError(f"Run {run} was {before} already, by {who} at {when:%Y-%m-%d %H:%M:%S} UTC.")
