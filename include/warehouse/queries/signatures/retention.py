"""The parameters and rows of the queries of ``retention.sql``; written by ``.ci/signatures``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


class LockVersionsRow(NamedTuple):
    version: str


class VersionsOnRow(NamedTuple):
    version: str
    sealed_at: datetime
    manifest: memoryview
    expired_at: datetime | None
    needed: str | None


class Retention(Protocol):
    def lock_versions(self, connection: Connection, *, topic: str) -> Iterator[LockVersionsRow]: ...
    def versions_on(
        self, connection: Connection, *, dataset: str, keep: int | None, patience: timedelta | str, topic: str
    ) -> Iterator[VersionsOnRow]: ...
    def mark_expired(self, connection: Connection, *, versions: Sequence[str]) -> int: ...
    def expired_at(self, connection: Connection, *, version: str) -> datetime | None: ...
    def drop_run_logs(self, connection: Connection, *, before: datetime) -> int: ...
    def empty_models(self, connection: Connection, *, before: datetime) -> int: ...


ROWS: dict[str, Any] = {
    "lock_versions": LockVersionsRow,
    "versions_on": VersionsOnRow,
}
