"""Value: what retraining has gained, by version and in total, from the views of the same names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


@dataclass(frozen=True)
class VersionValue:
    """A row of ``millrace.value``: three ways to run a dataset, on the same test records of one version.

    Attributes:
        version: The first digits of its id.
        until: The end of its interval.
        metric: ``accuracy``, or ``rmse``, where less is better.
        rows: Test records that none of the models was trained on.
        champion_number: The champion when the version was judged, see ``millrace.champion_change``; 0 for the baseline.
        live_model: The model in use at that time, chosen on earlier versions.
        never_model: The first champion, which a dataset without retraining would still use.
        newest_model: The champion's model line, as trained by this version's run.
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
        trainings: Runs that the gate has handled.
        promotions: Runs that made a champion.
        useless: Runs that changed nothing.
        versions: Versions since the first champion, over whose records the averages are taken. This and the following
            are None without such a version.
        gained: The live model compared with never retraining; above 0 is better.
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


def by_version(connection: Connection, dataset: str) -> list[VersionValue]:
    """The metric of the three ways on each version that was judged, in the order of the versions."""
    return [VersionValue(*row) for row in queries.load("registry").value_by_version(connection, dataset=dataset)]


def summary(connection: Connection, dataset: str) -> Summary | None:
    """What retraining has gained in total; None before the first training."""
    row = queries.load("registry").value_of_retraining(connection, dataset=dataset)
    return Summary(*row) if row else None


def summary_lines(found: Summary, versions: Sequence[VersionValue]) -> list[str]:
    """The summary in sentences."""
    since = [worth for worth in versions if worth.champion_number and worth.rows]
    lines = [*_averages(found, since), _gain(found, since), *_newest(found, since)]
    trainings = "1 training" if found.trainings == 1 else f"{found.trainings} trainings"
    return [*lines, f"{trainings}: {found.promotions} made a champion, {found.useless} changed nothing."]


def _averages(found: Summary, since: Sequence[VersionValue]) -> list[str]:
    if found.live is None or found.never is None:
        return []
    numbers = [f"live {found.live:.3f}", f"never retrained {found.never:.3f}"]
    if found.newest is not None:
        numbers.append(f"newest {found.newest:.3f}")
    rows, plural = sum(worth.rows for worth in since), "s" if found.versions != 1 else ""
    on = f"on the {rows:,} test records of {found.versions} version{plural} since the first champion"
    return [f"{(found.metric or '').capitalize()} {on}: {', '.join(numbers)}."]


def _gain(found: Summary, since: Sequence[VersionValue]) -> str:
    if not found.promotions:
        return "Retraining has gained nothing yet: no model has beaten the baseline or was approved."
    if found.gained is None:
        return "The gain is not known yet: no version has followed that of the first champion."
    if found.promotions == 1:
        return "Retraining has gained nothing: no later model was better than the first champion."
    if all(worth.champion_number == 1 for worth in since):
        return (
            "Retraining has gained nothing yet: the first champion was replaced on the last version, and a champion "
            "counts from the next version on."
        )
    verb = "gained" if found.gained >= 0 else "lost"
    return f"Retraining has {verb} {_amount(found, abs(found.gained), since)}."


def _newest(found: Summary, since: Sequence[VersionValue]) -> list[str]:
    """How the newest models did on the same records; shown only if all three ways were compared on all of them."""
    if found.live is None or found.newest is None or any(worth.newest is None for worth in since):
        return []
    more = found.live - found.newest if found.metric == "rmse" else found.newest - found.live
    if not round(more, 3):
        return []
    side = "better" if more > 0 else "worse"
    return [
        f"The newest model of the same line was {side} than the live one by {_amount(found, abs(more), since)}, but it "
        "did not exist yet when these records arrived."
    ]


def _amount(found: Summary, amount: float, since: Sequence[VersionValue]) -> str:
    if found.metric != "accuracy":
        return f"{amount:.3g} of {found.metric}"
    return f"{100 * amount:.1f} points of accuracy ({amount * sum(worth.rows for worth in since):.0f} test records)"
