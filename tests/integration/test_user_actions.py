"""Actions of users: once each, in the state that the user saw, and recorded whether they were done or not."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from include import user_actions
from include.error_codes import Code
from include.errors import UserError
from include.user_actions import Action, Outcome, Request, Result
from tests.e2e.retraining import ask

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

STREAM = "stream:payments"


def asked(username: str, action: Action = Action.RETRY, subject: str = STREAM, seen: int = 0) -> Request:
    return Request(username, action, subject, uuid4(), seen, {"first": 1})


def recorded(connection: Connection) -> list[tuple[str, str, str]]:
    rows = ask(connection, "SELECT username, action, outcome FROM millrace.user_action ORDER BY number")
    connection.rollback()
    return [tuple(row) for row in rows]


def test_an_action_is_recorded_with_its_user_and_parameters(warehouse: Connection) -> None:
    assert user_actions.perform(asked("ann"), lambda: "Started.") == Result(Outcome.DONE, "Started.")
    assert ask(
        warehouse, "SELECT username, action, subject, parameters, outcome, detail FROM millrace.user_action"
    ) == [("ann", "retry", STREAM, {"first": 1}, "done", "Started.")]


def test_a_second_click_does_nothing_and_shows_the_first_result(warehouse: Connection) -> None:
    confirmed, done = asked("ann"), list[int]()

    def act() -> str:
        done.append(1)
        return f"Started {len(done)}."

    with ThreadPoolExecutor(4) as pool:
        results = set(pool.map(lambda _: user_actions.perform(confirmed, act), range(4)))
    assert results == {Result(Outcome.DONE, "Started 1.")} and len(done) == 1
    assert recorded(warehouse) == [("ann", "retry", "done")]


@pytest.mark.parametrize(
    ("one", "other"),
    [(Action.RETRY, Action.RETRY), (Action.ROLLBACK, Action.RETIRE), (Action.APPROVE, Action.DECLINE)],
)
def test_of_two_users_at_the_same_moment_the_second_is_told_who_was_first(
    warehouse: Connection, one: Action, other: Action
) -> None:
    together, done = threading.Barrier(2), list[str]()

    def click(request: Request) -> Result:
        def act() -> str:
            done.append(request.username)
            return "It was done."

        together.wait()
        return user_actions.perform(request, act)

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(click, (asked("ann", one), asked("bob", other))))
    assert len(done) == 1
    (refused,) = (result for result in results if result.outcome is Outcome.REFUSED)
    assert f"{done[0]} was faster" in refused.detail and f"[{Code.ACTION_OVERTAKEN}]" in refused.detail
    assert sorted(outcome for *_, outcome in recorded(warehouse)) == ["done", "refused"]
    assert {username for username, *_ in recorded(warehouse)} == {"ann", "bob"}


def test_a_user_who_has_seen_the_last_action_can_act_again(warehouse: Connection) -> None:
    user_actions.perform(asked("ann"), lambda: "Started.")
    seen = user_actions.last_seen(warehouse, Action.RETRY, STREAM)
    assert user_actions.perform(asked("bob", seen=seen), lambda: "Started.").outcome is Outcome.DONE
    assert user_actions.perform(asked("cid", seen=seen), lambda: "Started.").outcome is Outcome.REFUSED


def test_other_actions_and_subjects_do_not_contend(warehouse: Connection) -> None:
    user_actions.perform(asked("ann"), lambda: "Started.")
    for other in (asked("bob", Action.REPLAY), asked("bob", subject="stream:orders")):
        assert user_actions.perform(other, lambda: "Started.").outcome is Outcome.DONE


def test_a_refused_action_is_recorded_and_does_not_stand_in_the_way(warehouse: Connection) -> None:
    def fail() -> str:
        raise UserError("There is nothing to do.", code=Code.NOTHING_TO_REPLAY)

    first = asked("ann")
    result = user_actions.perform(first, fail)
    assert result == Result(Outcome.REFUSED, f"There is nothing to do. [{Code.NOTHING_TO_REPLAY}]")
    assert user_actions.perform(replace(first, username="ann"), lambda: "Started.") == result, "it is the same click"
    assert user_actions.perform(asked("bob"), lambda: "Started.").outcome is Outcome.DONE
    assert recorded(warehouse) == [("ann", "retry", "refused"), ("bob", "retry", "done")]


def test_a_defect_is_recorded_and_raised(warehouse: Connection) -> None:
    with pytest.raises(ZeroDivisionError):
        user_actions.perform(asked("ann"), lambda: str(1 / 0))
    assert ask(warehouse, "SELECT outcome, detail FROM millrace.user_action") == [
        ("refused", "ZeroDivisionError: division by zero")
    ]
