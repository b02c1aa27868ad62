"""The parameters and rows of the queries of ``platform.sql``; written by ``.ci/signatures``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


class OpenTransactionsRow(NamedTuple):
    pid: int
    datname: str | None
    application_name: str
    state: str | None
    seconds: int
    query: str


class ConnectionsRow(NamedTuple):
    taken: int
    of: int


class ConnectionHoldersRow(NamedTuple):
    application_name: str
    state: str
    connections: int


class ReadersRow(NamedTuple):
    reader: str
    topic: str


class Platform(Protocol):
    def open_transactions(
        self, connection: Connection, *, idle_s: float, open_s: float
    ) -> Iterator[OpenTransactionsRow]: ...
    def connections(self, connection: Connection) -> ConnectionsRow: ...
    def connection_holders(self, connection: Connection, *, most: int) -> Iterator[ConnectionHoldersRow]: ...
    def is_migrated(self, connection: Connection) -> bool: ...
    def readers(self, connection: Connection) -> Iterator[ReadersRow]: ...


ROWS: dict[str, Any] = {
    "open_transactions": OpenTransactionsRow,
    "connections": ConnectionsRow,
    "connection_holders": ConnectionHoldersRow,
    "readers": ReadersRow,
}
