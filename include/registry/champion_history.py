"""The champions of a dataset, one after another. A change of champion names the one that it replaces."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from include.errors import NonRetryableError, UserError
from include.warehouse import queries
from include.warehouse.connection import connected

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


class ChampionChanged(NonRetryableError):
    """The champion changed after the decision to replace it was taken."""


@dataclass(frozen=True)
class Champion:
    """A row of the champion history.

    Attributes:
        number: Of the change that made it champion, from 1.
        artifact: The number of the registered model.
        model: The model's line.
        version: The beginning of the id of the version that it trained on.
        interval_end: Where that version's interval ends.
        since: When it became champion.
        cause: What made it champion.
        decider: The gate, or the name of a person.
        reason: The evidence, or what the person said.
        rollback_to: The number of the change whose champion a rollback restores.
        run: The model's training run.
        sha256: Of the model's bytes.
    """

    number: int
    artifact: int
    model: str
    version: str
    interval_end: datetime | None
    since: datetime
    cause: str
    decider: str
    reason: str
    rollback_to: int | None
    run: int
    sha256: str

    def __str__(self) -> str:
        since = f"{self.since:%Y-%m-%d %H:%M:%S} UTC"
        return f"{self.model} of version {self.version}, since {since} by {self.cause} ({self.decider})"


def current(connection: Connection, dataset: str) -> Champion | None:
    """The present champion; None while the baseline takes its place."""
    row = queries.load("registry").champion_of(connection, dataset=dataset)
    return Champion(*row) if row else None


def record_change(
    connection: Connection,
    dataset: str,
    *,
    after: int,
    artifact: int | None,
    rollback_to: int | None,
    cause: Literal["evidence", "approval", "rollback", "retirement"],
    decider: str,
    reason: str,
) -> int:
    """Adds the change that follows change number ``after``, in the caller's transaction. Returns its number.

    Args:
        artifact: The new champion; None for a retirement.
        rollback_to: The number of the change whose champion a rollback restores.

    Raises:
        ChampionChanged: Another change came first. Nothing was changed, and the transaction can go on.
    """
    new: int | None = queries.load("registry").add_champion_change(
        connection,
        dataset=dataset,
        after=after,
        artifact=artifact,
        rollback_to=rollback_to,
        cause=cause,
        decider=decider,
        reason=reason,
    )
    if new is None:
        raise ChampionChanged(
            f"The champion of {dataset!r} has changed: it is now {current(connection, dataset)}.",
            "Look at it and decide again.",
        )
    return new


def roll_back(dataset: str, decider: str, expected: int | None = None) -> Champion:
    """Makes the previous champion the champion again; after a retirement, the one that was retired.

    Args:
        decider: Who asks for it.
        expected: The number of the change to undo; the last one by default.

    Returns:
        The new champion.

    Raises:
        ChampionChanged: Another change came first.
        UserError: There is no champion, or none before it.
    """
    with connected(f"millrace rollback {dataset}") as connection:
        last = queries.load("registry").last_change(connection, dataset=dataset)
        if last is None:
            raise UserError(f"Dataset {dataset!r} has no champion, so there is nothing to roll back.")
        number, retired, rollback_to, *_ = last
        ending = f"the retirement of the champion of {dataset!r}"
        if not retired:
            present = _numbered(connection, dataset, number if expected is None else expected)
            number, rollback_to = present.number, present.rollback_to
            ending = f"{present.model} of version {present.version}"
        if rollback_to is None:
            raise UserError(f"{ending} is the first champion of {dataset!r}; there is none to go back to.")
        back = _numbered(connection, dataset, rollback_to)
        record_change(
            connection,
            dataset,
            after=number,
            artifact=back.artifact,
            rollback_to=back.rollback_to,
            cause="rollback",
            decider=decider,
            reason=f"Rolled back from {ending}.",
        )
        connection.commit()
        new = current(connection, dataset)
        assert new is not None
        return new


def retire(dataset: str, decider: str, reason: str) -> Champion:
    """Retires the champion without a successor: the next model that beats the baseline becomes champion.

    Args:
        decider: Who asks for it.
        reason: Why; kept with the change.

    Returns:
        The champion that was retired.

    Raises:
        ChampionChanged: Another change came first.
        UserError: There is no champion.
    """
    with connected(f"millrace retire {dataset}") as connection:
        present = current(connection, dataset)
        if present is None:
            raise UserError(f"Dataset {dataset!r} has no champion, so there is nothing to retire.")
        record_change(
            connection,
            dataset,
            after=present.number,
            artifact=None,
            rollback_to=present.number,
            cause="retirement",
            decider=decider,
            reason=reason,
        )
        connection.commit()
        return present


def _numbered(connection: Connection, dataset: str, number: int) -> Champion:
    row = queries.load("registry").champion_numbered(connection, dataset=dataset, number=number)
    if row is None:
        raise UserError(f"Dataset {dataset!r} never had a champion number {number}.")
    assert row.artifact is not None and row.model and row.version and row.run is not None and row.sha256
    return Champion(**row._asdict())
