"""The parameters and rows of the queries of ``landing.sql``; written by ``.ci/signatures``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


class ReadIncarnationsRow(NamedTuple):
    number: int
    topic: str
    topic_id: str


class ReadLandedTopicsRow(NamedTuple):
    topic: str


class ReadColumnsRow(NamedTuple):
    name: str
    type: str
    required: bool
    comment: str
    fills_itself: bool
    is_generated: bool
    made_required: bool | None


class ReadRenamedRow(NamedTuple):
    table_name: str
    schema_name: str
    name: str


class ReadLocksRow(NamedTuple):
    partitions: int
    indexes: int
    per_transaction: int
    transactions: int


class ReadTriggersRow(NamedTuple):
    name: str


class ReadHoldersRow(NamedTuple):
    pid: int
    application_name: str | None
    role: str | None
    backend_type: str | None
    since: datetime | None
    query: str | None


class ReadDependentsRow(NamedTuple):
    dependent: str


class ReadConstraintsRow(NamedTuple):
    sqlstate: str
    kind: str
    name: str
    holds: str


class ReadPartitionsRow(NamedTuple):
    schema_name: str
    name: str
    bounds: str
    is_detaching: bool
    is_marked: bool


class ReadIndexesRow(NamedTuple):
    name: str


class ReadUnindexedRow(NamedTuple):
    schema_name: str
    name: str
    oid: int
    is_built: bool


class ReadDetachedRow(NamedTuple):
    name: str


class ReadTotalsRow(NamedTuple):
    landed: int
    dead_letters: int
    quarantined: int
    filtered: int
    skipped: int
    no_records: int
    newest_event: datetime | None
    updated_at: datetime | None


class ReadGapsRow(NamedTuple):
    kafka_incarnation: int
    kafka_partition: int
    first_offset: int
    next_offset: int | None
    choice: str
    accepted_by: str
    accepted_at: datetime


class ReadAcceptedBadRow(NamedTuple):
    kafka_partition: int
    until: int


class ReadLedgerRow(NamedTuple):
    kafka_incarnation: int
    kafka_partition: int
    first_offset: int
    next_offset: int
    landed: int
    dead_letters: int
    quarantined: int
    filtered: int
    skipped: int
    no_records: int
    checksum: Decimal
    started_at: datetime


class ReadKeptRow(NamedTuple):
    kafka_offset: int
    disposition: str


class LockDeadLettersRow(NamedTuple):
    kafka_incarnation: int
    kafka_partition: int
    kafka_offset: int
    bytes: int


class ReadDeadLettersRow(NamedTuple):
    kafka_incarnation: int
    kafka_partition: int
    kafka_offset: int
    appended_at: datetime
    key: memoryview | None
    value: memoryview | None
    headers: Any | None
    is_withheld: bool


class HoldDeadLettersRow(NamedTuple):
    kafka_incarnation: int
    kafka_partition: int
    kafka_offset: int


class ListDeadLettersRow(NamedTuple):
    kafka_incarnation: int
    kafka_partition: int
    kafka_offset: int
    disposition: str
    sqlstate: str
    reason: str
    appended_at: datetime


class CountDeadLettersRow(NamedTuple):
    disposition: str
    sqlstate: str
    reason: str
    records: int
    bytes: int


class ReadDeadLetterRow(NamedTuple):
    kafka_incarnation: int
    disposition: str
    sqlstate: str | None
    reason: str
    appended_at: datetime
    event_time: datetime | None
    kept_at: datetime
    key: memoryview | None
    value: memoryview | None
    headers: Any | None
    withheld: str | None


class ReadClaimsRow(NamedTuple):
    kafka_partition: int
    first_offset: int
    epoch: int
    filtered: int


class HoldKeptRow(NamedTuple):
    kafka_offset: int
    disposition: str


class ReadUnfilledRow(NamedTuple):
    kafka_incarnation: int
    kafka_partition: int
    first_offset: int
    next_offset: int
    columns: list[str]
    since: datetime


class ReadFailuresRow(NamedTuple):
    task: str
    since: datetime
    last_at: datetime
    failures: int
    error: str


class ReadWrongTotalsRow(NamedTuple):
    kafka_incarnation: int
    kafka_partition: int


class ReadCurrentRow(NamedTuple):
    key: list[str]
    order_by: str | None
    deletes: str | None


class Landing(Protocol):
    def lock_incarnations(self, connection: Connection, *, stream: str) -> int: ...
    def meet_incarnation(self, connection: Connection, *, stream: str, topic: str, topic_id: str) -> int: ...
    def begin_incarnation(self, connection: Connection, *, stream: str, topic: str, topic_id: str) -> int: ...
    def read_incarnation(self, connection: Connection, *, stream: str, topic: str, topic_id: str) -> int: ...
    def read_incarnations(self, connection: Connection, *, stream: str) -> Iterator[ReadIncarnationsRow]: ...
    def read_landed_topics(self, connection: Connection, *, stream: str) -> Iterator[ReadLandedTopicsRow]: ...
    def lock_stream(self, connection: Connection, *, stream: str) -> int: ...
    def read_kind(self, connection: Connection, *, stream: str) -> str | None: ...
    def read_columns(self, connection: Connection, *, stream: str) -> Iterator[ReadColumnsRow]: ...
    def note_columns(
        self, connection: Connection, *, stream: str, names: Sequence[str], required: Sequence[bool]
    ) -> int: ...
    def forget_columns(self, connection: Connection, *, stream: str) -> int: ...
    def read_renamed(self, connection: Connection, *, stream: str) -> Iterator[ReadRenamedRow]: ...
    def read_locks(self, connection: Connection, *, stream: str) -> Iterator[ReadLocksRow]: ...
    def read_triggers(self, connection: Connection, *, table: str) -> Iterator[ReadTriggersRow]: ...
    def read_holders(self, connection: Connection, *, stream: str, any_reader: bool) -> Iterator[ReadHoldersRow]: ...
    def read_dependents(self, connection: Connection, *, table: str) -> Iterator[ReadDependentsRow]: ...
    def read_constraints(self, connection: Connection, *, stream: str) -> Iterator[ReadConstraintsRow]: ...
    def read_partition_key(self, connection: Connection, *, stream: str) -> str | None: ...
    def read_partitions(self, connection: Connection, *, mark: str, stream: str) -> Iterator[ReadPartitionsRow]: ...
    def read_indexes(self, connection: Connection, *, stream: str, mark: str) -> Iterator[ReadIndexesRow]: ...
    def read_unindexed(self, connection: Connection, *, stream: str, index: str) -> Iterator[ReadUnindexedRow]: ...
    def read_detached(self, connection: Connection, *, stream: str, mark: str) -> Iterator[ReadDetachedRow]: ...
    def add_to_ledger(
        self,
        connection: Connection,
        *,
        stream: str,
        incarnation: int,
        partitions: Sequence[int],
        epochs: Sequence[int],
        first: Sequence[int],
        next: Sequence[int],
        landed: Sequence[int],
        dead_letters: Sequence[int],
        quarantined: Sequence[int],
        filtered: Sequence[int],
        skipped: Sequence[int],
        no_records: Sequence[int],
        checksums: Sequence[Decimal | int],
        newest: Sequence[datetime | None],
    ) -> int: ...
    def read_totals(self, connection: Connection, *, stream: str) -> ReadTotalsRow: ...
    def read_clock(self, connection: Connection) -> datetime: ...
    def add_gap(
        self,
        connection: Connection,
        *,
        stream: str,
        incarnation: int,
        partition: int,
        first: int,
        next: int | None,
        choice: str,
        accepted_by: str,
    ) -> int: ...
    def read_gaps(self, connection: Connection, *, stream: str) -> Iterator[ReadGapsRow]: ...
    def read_accepted_bad(
        self, connection: Connection, *, stream: str, incarnation: int
    ) -> Iterator[ReadAcceptedBadRow]: ...
    def read_ledger(self, connection: Connection, *, stream: str) -> Iterator[ReadLedgerRow]: ...
    def read_kept(
        self, connection: Connection, *, stream: str, incarnation: int, partition: int, first: int, next: int
    ) -> Iterator[ReadKeptRow]: ...
    def lock_dead_letters(
        self, connection: Connection, *, stream: str, incarnation: int, partition: int, offset: int, most: int
    ) -> Iterator[LockDeadLettersRow]: ...
    def read_dead_letters(
        self,
        connection: Connection,
        *,
        incarnations: Sequence[int],
        partitions: Sequence[int],
        offsets: Sequence[int],
        stream: str,
    ) -> Iterator[ReadDeadLettersRow]: ...
    def withhold(self, connection: Connection, *, stream: str, before: datetime, why: str, most: int) -> int: ...
    def hold_dead_letters(
        self,
        connection: Connection,
        *,
        incarnations: Sequence[int],
        partitions: Sequence[int],
        offsets: Sequence[int],
        stream: str,
    ) -> Iterator[HoldDeadLettersRow]: ...
    def close_dead_letters(
        self,
        connection: Connection,
        *,
        incarnations: Sequence[int],
        partitions: Sequence[int],
        offsets: Sequence[int],
        filtered: Sequence[bool],
        stream: str,
    ) -> int: ...
    def list_dead_letters(
        self, connection: Connection, *, stream: str, reason: str, most: int
    ) -> Iterator[ListDeadLettersRow]: ...
    def count_dead_letters(
        self, connection: Connection, *, stream: str, reason: str
    ) -> Iterator[CountDeadLettersRow]: ...
    def read_dead_letter(
        self, connection: Connection, *, stream: str, partition: int, offset: int, incarnation: int | None
    ) -> ReadDeadLetterRow | None: ...
    def read_claims(self, connection: Connection, *, stream: str, incarnation: int) -> Iterator[ReadClaimsRow]: ...
    def lock_replay(self, connection: Connection, *, stream: str) -> int: ...
    def hold_kept(
        self, connection: Connection, *, stream: str, incarnation: int, partition: int, first: int, next: int
    ) -> Iterator[HoldKeptRow]: ...
    def drop_kept(
        self,
        connection: Connection,
        *,
        stream: str,
        incarnation: int,
        partition: int,
        first: int,
        next: int,
        missing: Sequence[int],
    ) -> int: ...
    def correct_ledger(
        self,
        connection: Connection,
        *,
        newest: datetime | None,
        epochs: Sequence[int],
        landed: Sequence[int],
        dead_letters: Sequence[int],
        quarantined: Sequence[int],
        filtered: Sequence[int],
        skipped: Sequence[int],
        stream: str,
        incarnation: int,
        partition: int,
    ) -> int: ...
    def add_replay(
        self,
        connection: Connection,
        *,
        stream: str,
        incarnation: int,
        partition: int,
        first: int,
        next: int,
        landed: int,
        dead_letters: int,
        quarantined: int,
        filtered: int,
        more_landed: int,
        more_dead_letters: int,
        more_quarantined: int,
        more_filtered: int,
        more_skipped: int,
        replayed_by: str,
    ) -> int: ...
    def add_unfilled(
        self,
        connection: Connection,
        *,
        stream: str,
        incarnation: int,
        columns: Sequence[str],
        partitions: Sequence[int],
        first: Sequence[int],
        next: Sequence[int],
    ) -> int: ...
    def read_unfilled(self, connection: Connection, *, stream: str) -> Iterator[ReadUnfilledRow]: ...
    def close_unfilled(
        self, connection: Connection, *, next: int, stream: str, incarnation: int, partition: int, first: int
    ) -> int: ...
    def forget_unfilled(self, connection: Connection, *, stream: str, incarnation: int, topic: str) -> int: ...
    def note_failure(
        self,
        connection: Connection,
        *,
        stream: str,
        task: str,
        error: str,
        code: str | None,
        remedy: str | None,
        is_final: bool,
    ) -> int: ...
    def forget_failure(self, connection: Connection, *, stream: str, task: str) -> int: ...
    def read_failures(self, connection: Connection, *, stream: str) -> Iterator[ReadFailuresRow]: ...
    def hold_ledger(self, connection: Connection, *, stream: str) -> int: ...
    def lock_ledger(self, connection: Connection, *, stream: str) -> int: ...
    def merge_ledger(
        self, connection: Connection, *, before: datetime, droppable_until: datetime, stream: str
    ) -> int: ...
    def forget_failures(self, connection: Connection, *, stream: str) -> int: ...
    def read_wrong_totals(self, connection: Connection, *, stream: str) -> Iterator[ReadWrongTotalsRow]: ...
    def add_proof(
        self,
        connection: Connection,
        *,
        stream: str,
        proved_by: str,
        started_at: datetime,
        compared: int,
        dropped: int,
        unfilled: int,
        wrong: Sequence[str],
    ) -> int: ...
    def read_current(self, connection: Connection, *, stream: str) -> ReadCurrentRow | None: ...
    def note_current(
        self, connection: Connection, *, stream: str, key: Sequence[str], order_by: str | None, deletes: str | None
    ) -> int: ...
    def forget_current(self, connection: Connection, *, stream: str) -> int: ...
    def read_key(self, connection: Connection, *, stream: str) -> list[str] | None: ...


ROWS: dict[str, Any] = {
    "read_incarnations": ReadIncarnationsRow,
    "read_landed_topics": ReadLandedTopicsRow,
    "read_columns": ReadColumnsRow,
    "read_renamed": ReadRenamedRow,
    "read_locks": ReadLocksRow,
    "read_triggers": ReadTriggersRow,
    "read_holders": ReadHoldersRow,
    "read_dependents": ReadDependentsRow,
    "read_constraints": ReadConstraintsRow,
    "read_partitions": ReadPartitionsRow,
    "read_indexes": ReadIndexesRow,
    "read_unindexed": ReadUnindexedRow,
    "read_detached": ReadDetachedRow,
    "read_totals": ReadTotalsRow,
    "read_gaps": ReadGapsRow,
    "read_accepted_bad": ReadAcceptedBadRow,
    "read_ledger": ReadLedgerRow,
    "read_kept": ReadKeptRow,
    "lock_dead_letters": LockDeadLettersRow,
    "read_dead_letters": ReadDeadLettersRow,
    "hold_dead_letters": HoldDeadLettersRow,
    "list_dead_letters": ListDeadLettersRow,
    "count_dead_letters": CountDeadLettersRow,
    "read_dead_letter": ReadDeadLetterRow,
    "read_claims": ReadClaimsRow,
    "hold_kept": HoldKeptRow,
    "read_unfilled": ReadUnfilledRow,
    "read_failures": ReadFailuresRow,
    "read_wrong_totals": ReadWrongTotalsRow,
    "read_current": ReadCurrentRow,
}
