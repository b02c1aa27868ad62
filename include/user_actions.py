"""What users do on the pages: each action once, in the state that its user saw, recorded with the user's name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from include.error_codes import Code
from include.errors import NonRetryableError, UserError
from include.warehouse import queries
from include.warehouse.connection import connected

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

    from include.warehouse.queries.signatures.actions import LastActionRow


class Action(StrEnum):
    """The column ``action`` of ``millrace.user_action``."""

    ROLLBACK = "rollback"
    RETIRE = "retire"
    APPROVE = "approve"
    DECLINE = "decline"
    RETRY = "retry"
    REPLAY = "replay"
    ACCEPT = "accept"
    TRIGGER = "trigger"


class Outcome(StrEnum):
    """The column ``outcome`` of ``millrace.user_action``."""

    DONE = "done"
    REFUSED = "refused"


# Of two users who want one of these on the same subject, the first decides.
_CONTENDERS = ((Action.ROLLBACK, Action.RETIRE), (Action.APPROVE, Action.DECLINE))


class Overtaken(NonRetryableError):
    """Another user acted on the same subject after this user's page was made."""

    def __init__(self, first: LastActionRow) -> None:
        super().__init__(
            f"{first.username} was faster: {first.action} at {first.acted_at:%Y-%m-%d %H:%M:%S} UTC. {first.detail} "
            "Your action was not done.",
            "Look at the page again, and decide again.",
            code=Code.ACTION_OVERTAKEN,
        )


@dataclass(frozen=True)
class Request:
    """One action that a user has confirmed.

    Attributes:
        username: The name of the user.
        action: What to do.
        subject: With what: ``stream:<name>``, ``dataset:<name>`` or ``run:<DAG>/<id>``.
        token: That of the page on which the user confirmed. A second request with it does nothing.
        seen: What ``last_seen`` returned when the page was made.
        parameters: What else the user chose.
    """

    username: str
    action: Action
    subject: str
    token: UUID
    seen: int
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What became of an action, and why, in one line."""

    outcome: Outcome
    detail: str


def last_seen(connection: Connection, action: Action, subject: str) -> int:
    """The number of the last action that contends with this one on a subject; 0 if there was none."""
    last = _last(connection, action, subject)
    return last.number if last else 0


def perform(request: Request, act: Callable[[], str]) -> Result:
    """Does an action and records it, unless the same page has asked for it before or another user was faster.

    Args:
        act: Does it, commits, and returns the result in one line. It takes seconds at most, because other actions on
            the subject wait for it. A UserError refuses the action.

    Raises:
        UserError: The warehouse is unavailable.
    """
    sql = queries.load("actions")
    with connected(f"millrace {request.action}") as connection:
        sql.lock_subject(connection, subject=request.subject)
        if before := sql.action_of(connection, token=str(request.token)):
            return Result(Outcome(before.outcome), before.detail)
        try:
            last = _last(connection, request.action, request.subject)
            if last and last.number > request.seen:
                raise Overtaken(last)
            result = Result(Outcome.DONE, act())
        except UserError as error:
            result = Result(Outcome.REFUSED, str(error))
        except Exception as error:
            _record(connection, request, Result(Outcome.REFUSED, f"{type(error).__name__}: {error}"))
            raise
        _record(connection, request, result)
    return result


def _last(connection: Connection, action: Action, subject: str) -> LastActionRow | None:
    contenders = next((group for group in _CONTENDERS if action in group), (action,))
    return queries.load("actions").last_action(connection, subject=subject, actions=list(contenders))


def _record(connection: Connection, request: Request, result: Result) -> None:
    queries.load("actions").add_action(
        connection,
        token=str(request.token),
        username=request.username,
        action=request.action,
        subject=request.subject,
        parameters=json.dumps(dict(request.parameters)),
        outcome=result.outcome,
        # PostgreSQL's text has no NUL.
        detail=result.detail.replace("\0", ""),
    )
    connection.commit()
