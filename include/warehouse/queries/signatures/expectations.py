"""The parameters and rows of the queries of ``expectations.sql``; written by ``.ci/signatures``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


class NewestSamplesRow(NamedTuple):
    stream: str
    lag: int | None
    behind_s: float | None
    stopped: str | None


class FinalFailuresRow(NamedTuple):
    stream: str
    error: str


class LastTrainingRow(NamedTuple):
    trained_at: datetime | None
    sealed_at: datetime | None


class ChampionAccuracyRow(NamedTuple):
    model: str
    version: str
    accuracy: float | None


class OpenFailuresRow(NamedTuple):
    number: int
    subject: str
    expectation: str


class CurrentFailuresRow(NamedTuple):
    number: int
    subject: str
    expectation: str
    detail: str
    failed_at: datetime
    held_since: datetime | None
    ended_at: datetime | None


class Expectations(Protocol):
    def newest_samples(self, connection: Connection, *, within_s: float) -> Iterator[NewestSamplesRow]: ...
    def final_failures(self, connection: Connection) -> Iterator[FinalFailuresRow]: ...
    def recent_dead_letters(self, connection: Connection, *, stream: str, within_s: float, most: int) -> int: ...
    def last_training(self, connection: Connection, *, dataset: str) -> LastTrainingRow: ...
    def champion_accuracy(self, connection: Connection, *, dataset: str) -> ChampionAccuracyRow | None: ...
    def open_failures(self, connection: Connection) -> Iterator[OpenFailuresRow]: ...
    def begin_failure(
        self, connection: Connection, *, subject: str, expectation: str, detail: str, at: datetime, within_s: float
    ) -> int: ...
    def hold(self, connection: Connection, *, subject: str, expectation: str, at: datetime) -> int: ...
    def withdraw(self, connection: Connection, *, number: int, at: datetime) -> int: ...
    def current_failures(
        self, connection: Connection, *, at: datetime, within_s: float
    ) -> Iterator[CurrentFailuresRow]: ...
    def claim_message(
        self, connection: Connection, *, failure: int, message: str, notifier: str, at: datetime
    ) -> int: ...
    def note_sent(self, connection: Connection, *, failure: int, message: str, notifier: str) -> int: ...
    def note_unsent(
        self,
        connection: Connection,
        *,
        failure: int,
        message: str,
        notifier: str,
        error: str,
        at: datetime,
        base_s: float,
    ) -> int: ...


ROWS: dict[str, Any] = {
    "newest_samples": NewestSamplesRow,
    "final_failures": FinalFailuresRow,
    "last_training": LastTrainingRow,
    "champion_accuracy": ChampionAccuracyRow,
    "open_failures": OpenFailuresRow,
    "current_failures": CurrentFailuresRow,
}
