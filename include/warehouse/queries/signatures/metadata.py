"""The parameters and rows of the queries of ``metadata.sql``; written by ``.ci/signatures``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


class StuckDeferralsRow(NamedTuple):
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    seconds: int


class StuckQueueRow(NamedTuple):
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    seconds: int


class PausedDagsRow(NamedTuple):
    dag_id: str


class PausedByFailuresRow(NamedTuple):
    dag_id: str
    run_id: str
    runs: int


class ImportErrorsRow(NamedTuple):
    filename: str | None
    stacktrace: str | None


class LastRunsRow(NamedTuple):
    dag_id: str
    run_id: str
    state: str | None
    start_date: datetime | None
    end_date: datetime | None


class UnfinishedDagsRow(NamedTuple):
    dag_id: str


class LastSuccessesRow(NamedTuple):
    dag_id: str
    ended: datetime


class Metadata(Protocol):
    def stuck_deferrals(self, connection: Connection, *, silent_s: float) -> Iterator[StuckDeferralsRow]: ...
    def stuck_queue(self, connection: Connection, *, queued_s: float) -> Iterator[StuckQueueRow]: ...
    def paused_dags(self, connection: Connection) -> Iterator[PausedDagsRow]: ...
    def paused_by_failures(self, connection: Connection) -> Iterator[PausedByFailuresRow]: ...
    def import_errors(self, connection: Connection) -> Iterator[ImportErrorsRow]: ...
    def last_runs(self, connection: Connection) -> Iterator[LastRunsRow]: ...
    def unfinished_dags(self, connection: Connection, *, before: datetime) -> Iterator[UnfinishedDagsRow]: ...
    def last_successes(self, connection: Connection) -> Iterator[LastSuccessesRow]: ...


ROWS: dict[str, Any] = {
    "stuck_deferrals": StuckDeferralsRow,
    "stuck_queue": StuckQueueRow,
    "paused_dags": PausedDagsRow,
    "paused_by_failures": PausedByFailuresRow,
    "import_errors": ImportErrorsRow,
    "last_runs": LastRunsRow,
    "unfinished_dags": UnfinishedDagsRow,
    "last_successes": LastSuccessesRow,
}
