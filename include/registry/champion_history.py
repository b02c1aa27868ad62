"""The history of a dataset's champions: promotion, rollback, retirement. Each change names the one it follows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from include.error_codes import Code
from include.errors import NonRetryableError, UserError
from include.warehouse import queries
from include.warehouse.connection import connected

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

    from include.warehouse.queries.signatures.registry import ChampionNumberedRow


class Cause(StrEnum):
    """The column ``cause`` of ``millrace.champion_change``."""

    EVIDENCE = "evidence"
    APPROVAL = "approval"
    ROLLBACK = "rollback"
    RETIREMENT = "retirement"


class ChampionChanged(NonRetryableError):
    """The champion changed after the decision to replace it was made."""

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what, remedy, code=Code.CHAMPION_CHANGED)


@dataclass(frozen=True)
class Champion:
    """A row of the champion history.

    Attributes:
        number: The number of the change that made it champion, from 1.
        artifact: The number of the registered model.
        model: Its model line.
        version: The first digits of the id of the version that it was trained on.
        interval_end: The end of that version's interval.
        since: When it became champion.
        cause: What made it champion.
        decider: The gate, or the name of a person.
        reason: The evidence, or the reason that the person gave.
        rollback_to: The number of the change whose champion a rollback restores.
        run: Its training run.
        sha256: The digest of its bytes.
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
    """The champion; None while the baseline takes its place."""
    row = queries.load("registry").champion_of(connection, dataset=dataset)
    return Champion(*row) if row else None


def record_change(
    connection: Connection,
    dataset: str,
    *,
    after: int,
    artifact: int | None,
    rollback_to: int | None,
    cause: Cause,
    decider: str,
    reason: str,
) -> int:
    """Adds the change that follows number ``after``, in the caller's transaction. Returns its number.

    Args:
        artifact: The new champion; None for a retirement.
        rollback_to: The number of the change whose champion a rollback restores.

    Raises:
        ChampionChanged: Another change came first. Nothing was changed, and the transaction can continue.
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
        raise _changed(connection, dataset)
    return new


def roll_back(dataset: str, decider: str, expected: int | None = None) -> Champion:
    """Makes the previous champion the champion again; after a retirement, the retired one.

    Args:
        decider: The name of the person.
        expected: The number of the change to undo; the last by default.

    Returns:
        The new champion.

    Raises:
        ChampionChanged: Another change came first.
        UserError: The dataset has no champion, or no earlier one.
    """
    with connected(f"millrace rollback {dataset}") as connection:
        last = queries.load("registry").last_change(connection, dataset=dataset)
        if last is None:
            raise _no_champion(dataset, "roll back")
        number, retired, rollback_to, *_ = last
        if expected is not None and expected != number:
            raise _changed(connection, dataset)
        ending = f"the retirement of the champion of {dataset!r}"
        if not retired:
            present = _numbered(connection, dataset, number)
            rollback_to = present.rollback_to
            ending = f"{present.model} of version {present.version}"
        if rollback_to is None:
            raise UserError(
                f"{ending} is the first champion of {dataset!r}; there is no earlier one to restore.",
                f"To end it without a successor: ./millrace champion {dataset} --retire.",
                code=Code.NO_PREVIOUS_CHAMPION,
            )
        back = _numbered(connection, dataset, rollback_to)
        record_change(
            connection,
            dataset,
            after=number,
            artifact=back.artifact,
            rollback_to=back.rollback_to,
            cause=Cause.ROLLBACK,
            decider=decider,
            reason=f"Rolled back from {ending}.",
        )
        connection.commit()
        new = current(connection, dataset)
        assert new is not None
        return new


def retire(dataset: str, decider: str, reason: str, expected: int | None = None) -> Champion:
    """Ends the champion's tenure without a successor: the next model that beats the baseline becomes champion.

    Args:
        decider: The name of the person.
        reason: Stored with the change.
        expected: The number of the change that made it champion; the last by default.

    Returns:
        The retired champion.

    Raises:
        ChampionChanged: Another change came first.
        UserError: The dataset has no champion.
    """
    with connected(f"millrace retire {dataset}") as connection:
        present = current(connection, dataset)
        if expected is not None and (present is None or present.number != expected):
            raise _changed(connection, dataset)
        if present is None:
            raise _no_champion(dataset, "retire")
        record_change(
            connection,
            dataset,
            after=present.number,
            artifact=None,
            rollback_to=present.number,
            cause=Cause.RETIREMENT,
            decider=decider,
            reason=reason,
        )
        connection.commit()
        return present


def _changed(connection: Connection, dataset: str) -> ChampionChanged:
    present, last = current(connection, dataset), queries.load("registry").last_change(connection, dataset=dataset)
    now = str(present)
    if present is None:
        since = f", since {last.since:%Y-%m-%d %H:%M:%S} UTC by {Cause.RETIREMENT} ({last.decider})" if last else ""
        now = f"no champion{since}"
    return ChampionChanged(
        f"Nothing was changed: the champion of {dataset!r} has changed since this decision was prepared. It is now "
        f"{now}.",
        f"Look at it with ./millrace champion {dataset} and decide again.",
    )


def _numbered(connection: Connection, dataset: str, number: int) -> ChampionNumberedRow:
    row = queries.load("registry").champion_numbered(connection, dataset=dataset, number=number)
    if row is None:
        raise UserError(
            f"Dataset {dataset!r} never had a champion number {number}.",
            "See the view millrace.champion_history.",
            code=Code.UNKNOWN_CHAMPION,
        )
    return row


def _no_champion(dataset: str, action: str) -> UserError:
    return UserError(
        f"Dataset {dataset!r} has no champion to {action}.",
        f"See why: ./millrace champion {dataset}.",
        code=Code.CHAMPION_MISSING,
    )
