"""The parameters and rows of the queries of ``demo.sql``; written by ``.ci/signatures``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


class CountTrainedRow(NamedTuple):
    versions: int
    trained: int


class ListResultsRow(NamedTuple):
    dataset: str
    version: str
    interval_end: datetime | None
    model: str
    metric: str
    value: float
    low: float | None
    high: float | None
    baseline: float | None


class ListFailedRunsRow(NamedTuple):
    run_id: str


class ListReconciliationRow(NamedTuple):
    stream: str
    offsets: Decimal
    landed: Decimal
    dead_letters: Decimal
    quarantined: Decimal
    filtered: Decimal
    skipped: Decimal
    no_records: Decimal


class Demo(Protocol):
    def count_trained(self, connection: Connection) -> Iterator[CountTrainedRow]: ...
    def list_results(self, connection: Connection) -> Iterator[ListResultsRow]: ...
    def list_failed_runs(self, connection: Connection) -> Iterator[ListFailedRunsRow]: ...
    def list_reconciliation(self, connection: Connection) -> Iterator[ListReconciliationRow]: ...


ROWS: dict[str, Any] = {
    "count_trained": CountTrainedRow,
    "list_results": ListResultsRow,
    "list_failed_runs": ListFailedRunsRow,
    "list_reconciliation": ListReconciliationRow,
}
