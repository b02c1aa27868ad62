"""The parameters and rows of the queries of ``orphans.sql``; written by ``.ci/signatures``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


class OrphanedStreamsRow(NamedTuple):
    stream: str
    tables: list[str]
    landed: int
    kept_aside: int
    topics: list[str]


class OrphanedDatasetsRow(NamedTuple):
    dataset: str
    versions: int
    runs: int
    changes: int


class Orphans(Protocol):
    def orphaned_streams(self, connection: Connection, *, named: Sequence[str]) -> Iterator[OrphanedStreamsRow]: ...
    def orphaned_datasets(self, connection: Connection, *, named: Sequence[str]) -> Iterator[OrphanedDatasetsRow]: ...


ROWS: dict[str, Any] = {
    "orphaned_streams": OrphanedStreamsRow,
    "orphaned_datasets": OrphanedDatasetsRow,
}
