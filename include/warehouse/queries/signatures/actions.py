"""The parameters and rows of the queries of ``actions.sql``; written by ``.ci/signatures``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


class ActionOfRow(NamedTuple):
    outcome: str
    detail: str


class LastActionRow(NamedTuple):
    number: int
    acted_at: datetime
    username: str
    action: str
    detail: str


class VersionsToTrainRow(NamedTuple):
    version: str
    number: int
    interval_end: datetime | None
    sealed_at: datetime
    rows: int


class Actions(Protocol):
    def lock_subject(self, connection: Connection, *, subject: str) -> None: ...
    def action_of(self, connection: Connection, *, token: str) -> ActionOfRow | None: ...
    def last_action(self, connection: Connection, *, subject: str, actions: Sequence[str]) -> LastActionRow | None: ...
    def add_action(
        self,
        connection: Connection,
        *,
        token: str,
        username: str,
        action: str,
        subject: str,
        parameters: str,
        outcome: str,
        detail: str,
    ) -> int: ...
    def versions_to_train(self, connection: Connection, *, dataset: str) -> Iterator[VersionsToTrainRow]: ...


ROWS: dict[str, Any] = {
    "action_of": ActionOfRow,
    "last_action": LastActionRow,
    "versions_to_train": VersionsToTrainRow,
}
