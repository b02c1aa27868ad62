"""Reigns: the champions of a dataset, one after the other. Whoever changes the champion names the one it replaces."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from include.errors import LastingError, UserError
from include.warehouse import queries
from include.warehouse.connection import connected

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


class Overtaken(LastingError):
    """The champion that a change was decided on is not the champion any more."""


@dataclass(frozen=True)
class Reign:
    """A champion's time.

    Attributes:
        reign: Its number, from 1.
        artifact: The number of the registered model.
        model: The model's line.
        version: The beginning of the id of the version that it trained on.
        interval_end: Where that version's interval ends.
        since: When it became champion.
        cause: What made it champion.
        decider: Who: the gate, or a person.
        reason: On what evidence, or why.
        former: The reign whose champion a rollback brings back.
        run: The model's training run.
        sha256: Of the model's bytes.
    """

    reign: int
    artifact: int
    model: str
    version: str
    interval_end: datetime | None
    since: datetime
    cause: Literal["evidence", "approval", "rollback"]
    decider: str
    reason: str
    former: int | None
    run: int
    sha256: str

    def __str__(self) -> str:
        since = f"{self.since:%Y-%m-%d %H:%M:%S} UTC"
        return f"{self.model} of version {self.version}, since {since} by {self.cause} ({self.decider})"


def current(connection: Connection, dataset: str) -> Reign | None:
    """The present reign; None while the baseline plays the champion."""
    row = queries.load("registry").champion_of(connection, dataset=dataset)
    return Reign(*row) if row else None


def crown(
    connection: Connection,
    dataset: str,
    *,
    after: int,
    artifact: int | None,
    former: int | None,
    cause: Literal["evidence", "approval", "rollback", "retirement"],
    decider: str,
    reason: str,
) -> int:
    """Begins the reign that follows reign ``after``, in the caller's transaction. Returns its number.

    Args:
        artifact: The new champion; None for a retirement.
        former: The reign whose champion a rollback brings back.

    Raises:
        Overtaken: Another change came first. The transaction can go on, and nothing was changed by it.
    """
    new: int | None = queries.load("registry").crown(
        connection,
        dataset=dataset,
        after=after,
        artifact=artifact,
        former=former,
        cause=cause,
        decider=decider,
        reason=reason,
    )
    if new is None:
        raise Overtaken(
            f"The champion of {dataset!r} has changed meanwhile: it is {current(connection, dataset)}.",
            "Look at it and decide again.",
        )
    return new


def roll_back(dataset: str, decider: str, expected: int | None = None) -> Reign:
    """Makes the former champion the champion again; after a retirement, the one that was retired.

    Args:
        decider: Who wants it.
        expected: The reign that is to end; by default the present one.

    Returns:
        The new reign.

    Raises:
        Overtaken: Another change came first.
        UserError: There is no champion, or none before it.
    """
    with connected(f"millrace rollback {dataset}") as connection:
        last = queries.load("registry").last_reign(connection, dataset=dataset)
        if last is None:
            raise UserError(f"Dataset {dataset!r} has no champion, so there is nothing to roll back.")
        number, retired, former, *_ = last
        ending = f"the retirement of the champion of {dataset!r}"
        if not retired:
            present = _numbered(connection, dataset, number if expected is None else expected)
            number, former, ending = present.reign, present.former, f"{present.model} of version {present.version}"
        if former is None:
            raise UserError(f"{ending} is the first champion of {dataset!r}; none was before it.")
        back = _numbered(connection, dataset, former)
        crown(
            connection,
            dataset,
            after=number,
            artifact=back.artifact,
            former=back.former,
            cause="rollback",
            decider=decider,
            reason=f"Rolled back from {ending}.",
        )
        connection.commit()
        new = current(connection, dataset)
        assert new is not None
        return new


def retire(dataset: str, decider: str, reason: str) -> Reign:
    """Ends the champion's time without a successor: the next model that beats the baseline becomes champion.

    Args:
        decider: Who wants it.
        reason: Why; kept with the change.

    Returns:
        The reign that has ended.

    Raises:
        Overtaken: Another change came first.
        UserError: There is no champion.
    """
    with connected(f"millrace retire {dataset}") as connection:
        present = current(connection, dataset)
        if present is None:
            raise UserError(f"Dataset {dataset!r} has no champion, so there is none to retire.")
        crown(
            connection,
            dataset,
            after=present.reign,
            artifact=None,
            former=present.reign,
            cause="retirement",
            decider=decider,
            reason=reason,
        )
        connection.commit()
        return present


def _numbered(connection: Connection, dataset: str, number: int) -> Reign:
    row = queries.load("registry").reign_of(connection, dataset=dataset, reign=number)
    if row is None:
        raise UserError(f"Dataset {dataset!r} never had a champion number {number}.")
    return Reign(*row)
