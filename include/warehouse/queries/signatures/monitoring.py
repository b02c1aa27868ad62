"""The parameters and rows of the queries of ``monitoring.sql``; written by ``.ci/signatures``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


class StreamsRow(NamedTuple):
    stream: str
    topic: str | None
    newest_event: datetime | None
    landed: int
    dead_letters: int
    quarantined: int
    filtered: int
    oldest_dead_letter_at: datetime | None


class FailingTasksRow(NamedTuple):
    stream: str
    task: str
    code: str | None


class PartitionedUntilRow(NamedTuple):
    stream: str
    until: datetime


class DatasetsRow(NamedTuple):
    dataset: str
    newest_sealed_at: datetime
    live_model: str | None
    live_since: datetime | None
    metric: str | None
    live_value: float | None
    last_success_at: datetime | None
    verdict_model: str | None
    e_value: float | None
    threshold: float | None


class FailedExpectationsRow(NamedTuple):
    subject: str
    expectation: str
    failed_at: datetime


class Monitoring(Protocol):
    def keep_settings(
        self,
        connection: Connection,
        *,
        streams: Sequence[str],
        topics: Sequence[str],
        widths: Sequence[timedelta | str],
        kept: Sequence[timedelta | str | None],
    ) -> int: ...
    def drop_settings(self, connection: Connection, *, streams: Sequence[str]) -> int: ...
    def add_samples(
        self,
        connection: Connection,
        *,
        streams: Sequence[str],
        lags: Sequence[int | None],
        behind: Sequence[float | None],
        stopped: Sequence[str | None],
    ) -> int: ...
    def drop_samples(self, connection: Connection, *, age: timedelta | str) -> int: ...
    def streams(self, connection: Connection) -> Iterator[StreamsRow]: ...
    def failing_tasks(self, connection: Connection) -> Iterator[FailingTasksRow]: ...
    def partitioned_until(self, connection: Connection) -> Iterator[PartitionedUntilRow]: ...
    def datasets(self, connection: Connection) -> Iterator[DatasetsRow]: ...
    def failed_expectations(self, connection: Connection) -> Iterator[FailedExpectationsRow]: ...


ROWS: dict[str, Any] = {
    "streams": StreamsRow,
    "failing_tasks": FailingTasksRow,
    "partitioned_until": PartitionedUntilRow,
    "datasets": DatasetsRow,
    "failed_expectations": FailedExpectationsRow,
}
