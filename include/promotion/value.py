"""Value: what retraining has gained, version by version and in all, from the views of the same names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


@dataclass(frozen=True)
class Worth:
    """A row of ``millrace.value``: three ways to run a dataset, on the same test records of one version.

    Attributes:
        version: The beginning of its id.
        until: Where its interval ends.
        metric: ``accuracy``, or ``rmse``, of which less is better.
        rows: Test records that none of the models had trained on.
        champion_number: The champion when the version was judged, see ``millrace.champion_change``; 0 for the baseline.
        live_model: What was live then, chosen on earlier versions.
        never_model: The first champion, kept for ever.
        newest_model: The champion's line as this version's run trained it.
    """

    version: str
    until: datetime | None
    metric: str
    rows: int
    champion_number: int
    live_model: str
    live: float
    never_model: str | None
    never: float | None
    newest_model: str | None
    newest: float | None


@dataclass(frozen=True)
class Summary:
    """The row of ``millrace.value_of_retraining``.

    Attributes:
        trainings: Runs that came before the gate.
        promotions: Those of them that made a champion.
        useless: Those that changed nothing.
        versions: Versions since the first champion; over the records of these are the averages. From here on None
            as long as there are none.
        gained: What was live beside never having retrained; above 0 is better.
    """

    trainings: int
    promotions: int
    useless: int
    versions: int | None
    metric: str | None
    live: float | None
    never: float | None
    newest: float | None
    gained: float | None


def by_version(connection: Connection, dataset: str) -> list[Worth]:
    """What the three ways were worth on each version that was judged, in the order of the versions."""
    return [Worth(*row) for row in queries.load("registry").value_by_version(connection, dataset=dataset)]


def summary(connection: Connection, dataset: str) -> Summary | None:
    """What retraining has gained in all; None before the first training."""
    row = queries.load("registry").value_of_retraining(connection, dataset=dataset)
    return Summary(*row) if row else None


def summary_lines(found: Summary, versions: Sequence[Worth]) -> list[str]:
    """The summary in sentences for a person."""
    since = [worth for worth in versions if worth.champion_number and worth.rows]
    lines = [*_averages(found, since), _gain(found, since), *_newest(found, since)]
    trainings = "1 training" if found.trainings == 1 else f"{found.trainings} trainings"
    return [*lines, f"{trainings}: {found.promotions} made a champion, {found.useless} changed nothing."]


def _averages(found: Summary, since: Sequence[Worth]) -> list[str]:
    if found.live is None or found.never is None:
        return []
    numbers = [f"what was live {found.live:.3f}", f"never retrained {found.never:.3f}"]
    if found.newest is not None:
        numbers.append(f"the newest {found.newest:.3f}")
    rows, plural = sum(worth.rows for worth in since), "s" if found.versions != 1 else ""
    on = f"on the {rows:,} test records of {found.versions} version{plural} since the first champion"
    return [f"{(found.metric or '').capitalize()} {on}: {', '.join(numbers)}."]


def _gain(found: Summary, since: Sequence[Worth]) -> str:
    if not found.promotions:
        return (
            "There is no gain to tell: no model was shown to beat the baseline, or approved, so nothing ever went live."
        )
    if found.gained is None:
        return "There is no gain to tell yet: no version came after the first champion's."
    if found.promotions == 1:
        return "Retraining has gained nothing: no later model was shown to be better than the first champion."
    if all(worth.champion_number == 1 for worth in since):
        return (
            "Retraining has gained nothing yet: the first champion was replaced on the last version only, and a new "
            "champion is measured from the next version on."
        )
    verb = "gained" if found.gained >= 0 else "lost"
    return f"Retraining has {verb} {_amount(found, abs(found.gained), since)}."


def _newest(found: Summary, since: Sequence[Worth]) -> list[str]:
    """How the newest models did on earlier records; shown only when all three were compared on all of them."""
    if found.live is None or found.newest is None or any(worth.newest is None for worth in since):
        return []
    more = found.live - found.newest if found.metric == "rmse" else found.newest - found.live
    if not round(more, 3):
        return []
    side = "better" if more > 0 else "worse"
    return [
        f"Retrained for each version, the same line was {side} than what was live by "
        f"{_amount(found, abs(more), since)}; it did not exist yet when these records came."
    ]


def _amount(found: Summary, amount: float, since: Sequence[Worth]) -> str:
    if found.metric != "accuracy":
        return f"{amount:.3g} of {found.metric}"
    return f"{100 * amount:.1f} points of accuracy ({amount * sum(worth.rows for worth in since):.0f} test records)"
