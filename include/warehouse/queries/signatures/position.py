"""The parameters and rows of the queries of ``position.sql``; written by ``.ci/signatures``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


class LockPositionsRow(NamedTuple):
    partition: int
    topic_id: str
    next_offset: int
    leader_epoch: int | None
    epoch: int


class EndOwnersRow(NamedTuple):
    pid: int
    ended: bool


class AdvancePositionsRow(NamedTuple):
    partition: int


class ReadPositionsRow(NamedTuple):
    partition: int
    topic_id: str
    next_offset: int
    leader_epoch: int | None
    epoch: int
    owner: str
    updated_at: datetime


class ReadTopicsRow(NamedTuple):
    topic: str


class ReadAllPositionsRow(NamedTuple):
    reader: str
    topic: str
    partition: int
    topic_id: str
    next_offset: int
    leader_epoch: int | None
    epoch: int
    owner: str
    updated_at: datetime


class Position(Protocol):
    def create_positions(
        self, connection: Connection, *, reader: str, topic: str, topic_id: str, owner: str, partitions: Sequence[int]
    ) -> int: ...
    def lock_positions(
        self, connection: Connection, *, reader: str, topic: str, partitions: Sequence[int]
    ) -> Iterator[LockPositionsRow]: ...
    def claim_positions(
        self, connection: Connection, *, owner: str, reader: str, topic: str, partitions: Sequence[int]
    ) -> int: ...
    def own_positions(self, connection: Connection, *, reader: str, topic: str, partitions: Sequence[int]) -> int: ...
    def end_owners(
        self, connection: Connection, *, reader: str, topic: str, partitions: Sequence[int]
    ) -> Iterator[EndOwnersRow]: ...
    def advance_positions(
        self,
        connection: Connection,
        *,
        partitions: Sequence[int],
        epochs: Sequence[int],
        expected: Sequence[int],
        next: Sequence[int],
        leader_epochs: Sequence[int | None],
        reader: str,
        topic: str,
    ) -> Iterator[AdvancePositionsRow]: ...
    def read_positions(self, connection: Connection, *, reader: str, topic: str) -> Iterator[ReadPositionsRow]: ...
    def read_topics(self, connection: Connection, *, reader: str) -> Iterator[ReadTopicsRow]: ...
    def set_position(
        self, connection: Connection, *, topic_id: str, next: int, reader: str, topic: str, partition: int
    ) -> int: ...
    def drop_positions(self, connection: Connection, *, reader: str, topic: str, partitions: Sequence[int]) -> int: ...
    def read_all_positions(
        self, connection: Connection, *, readers: Sequence[str], topics: Sequence[str]
    ) -> Iterator[ReadAllPositionsRow]: ...
    def fence_positions(self, connection: Connection, *, reader: str) -> int: ...


ROWS: dict[str, Any] = {
    "lock_positions": LockPositionsRow,
    "end_owners": EndOwnersRow,
    "advance_positions": AdvancePositionsRow,
    "read_positions": ReadPositionsRow,
    "read_topics": ReadTopicsRow,
    "read_all_positions": ReadAllPositionsRow,
}
