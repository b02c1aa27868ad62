"""The parameters and rows of every query; written by ``./millrace python .ci/signatures``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

    Bytes = bytes | bytearray | memoryview


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
    skipped: Decimal
    no_records: Decimal


class ReadIncarnationsRow(NamedTuple):
    number: int
    topic_id: str


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


class ReadDetachedRow(NamedTuple):
    name: str


class ReadTotalsRow(NamedTuple):
    landed: int
    dead_letters: int
    quarantined: int
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
    value: memoryview | None


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


class ReadClaimsRow(NamedTuple):
    kafka_partition: int
    first_offset: int
    epoch: int


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


class NextToJudgeRow(NamedTuple):
    run: int
    seed: int
    manifest: memoryview
    until: datetime
    rank: int


class CurrentChampionRow(NamedTuple):
    number: int
    artifact: int | None
    rank: int
    until: datetime | None


class ArtifactByIdRow(NamedTuple):
    model: str
    manifest: memoryview
    sha256: str
    content: memoryview
    probe: memoryview
    trained_on: memoryview


class ResultsToJudgeRow(NamedTuple):
    model: str
    outcomes: memoryview
    fitted_sha256: str


class FittedRow(NamedTuple):
    fitted: memoryview
    fitted_sha256: str
    probe: memoryview | None


class DigestsOfRow(NamedTuple):
    model: str
    fitted_sha256: str


class GuardedMetricsRow(NamedTuple):
    model: str
    name: str
    value: float


class RecordsCountedRow(NamedTuple):
    counted: memoryview


class EvidenceAgainstChampionRow(NamedTuple):
    model: str
    metric: str
    n: int
    n01: int | None
    n10: int | None
    n_right: int | None
    weighted: float | None
    information: float | None


class ChampionOfRow(NamedTuple):
    number: int
    artifact: int
    model: str
    version: str
    interval_end: datetime | None
    since: datetime
    cause: str
    decider: str
    reason: str
    rollback_to: int | None
    run: int
    sha256: str


class ChampionNumberedRow(NamedTuple):
    number: int
    artifact: int | None
    model: str | None
    version: str | None
    interval_end: datetime | None
    since: datetime
    cause: str
    decider: str
    reason: str
    rollback_to: int | None
    run: int | None
    sha256: str | None


class LastChangeRow(NamedTuple):
    number: int
    retired: bool
    rollback_to: int | None
    since: datetime
    decider: str
    reason: str


class JudgedRow(NamedTuple):
    dataset: str
    champion_number: int
    state: str
    reason: str | None
    manifest: memoryview


class VerdictsOfRow(NamedTuple):
    model: str
    outcome: str
    sentence: str
    e_value: float
    fitted_sha256: str


class ApprovalOfRow(NamedTuple):
    answer: str
    decider: str
    answered_at: datetime
    reason: str


class ValueByVersionRow(NamedTuple):
    version: str
    interval_end: datetime | None
    metric: str
    rows: int
    champion_number: int
    live_model: str
    live: float
    never_model: str | None
    never: float | None
    newest_model: str | None
    newest: float | None


class ValueOfRetrainingRow(NamedTuple):
    trainings: int
    promotions: int
    useless: int
    versions: int | None
    metric: str | None
    live: float | None
    never: float | None
    newest: float | None
    gained: float | None


class LatestJudgementRow(NamedTuple):
    version: str
    state: str
    reason: str | None
    sentences: list[str]
    promoted: str | None


class LockVersionsRow(NamedTuple):
    version: str


class VersionsOnRow(NamedTuple):
    version: str
    sealed_at: datetime
    manifest: memoryview
    expired_at: datetime | None
    needed: str | None


class DocumentedRow(NamedTuple):
    kind: str
    relation: str
    about: str | None
    name: str
    type: str
    comment: str | None


class VersionsToStartRow(NamedTuple):
    dataset: str
    version: str


class VersionsAlikeRow(NamedTuple):
    content: str
    version: str


class FindVersionsRow(NamedTuple):
    manifest: memoryview
    expired_at: datetime | None


class RunPlanRow(NamedTuple):
    version: str
    seed: int
    manifest: memoryview
    parameters: Any


class ResultsOfRow(NamedTuple):
    model: str
    value: float
    low: float | None
    high: float | None
    metric: str


class RunOfRow(NamedTuple):
    run: int
    version: str
    state: str


class CheckpointOfRow(NamedTuple):
    step: int
    epoch: int
    batch: int
    estimator: memoryview
    sha256: str


class LastTrainingRow(NamedTuple):
    id: str
    is_started: bool
    run: int | None
    state: str | None
    model: str | None
    message: str | None


class RunToVerifyRow(NamedTuple):
    run: int
    dataset: str
    state: str
    libraries: Any
    manifest: memoryview
    expired_at: datetime | None


class ModelsOfRow(NamedTuple):
    model: str


class ResultToVerifyRow(NamedTuple):
    unfitted: memoryview
    passes: int | None
    outcomes: memoryview
    predictions_sha256: str | None
    metrics: Any | None


class Demo(Protocol):
    def count_trained(self, connection: Connection) -> Iterator[CountTrainedRow]: ...
    def list_results(self, connection: Connection) -> Iterator[ListResultsRow]: ...
    def list_failed_runs(self, connection: Connection) -> Iterator[ListFailedRunsRow]: ...
    def list_reconciliation(self, connection: Connection) -> Iterator[ListReconciliationRow]: ...


class Landing(Protocol):
    def meet_incarnation(self, connection: Connection, *, topic: str, topic_id: str) -> int: ...
    def begin_incarnation(self, connection: Connection, *, topic: str, topic_id: str) -> int: ...
    def read_incarnation(self, connection: Connection, *, topic: str, topic_id: str) -> int: ...
    def read_incarnations(self, connection: Connection, *, topic: str) -> Iterator[ReadIncarnationsRow]: ...
    def lock_stream(self, connection: Connection, *, stream: str) -> int: ...
    def read_kind(self, connection: Connection, *, stream: str) -> str | None: ...
    def read_columns(self, connection: Connection, *, stream: str) -> Iterator[ReadColumnsRow]: ...
    def note_columns(
        self, connection: Connection, *, stream: str, names: Sequence[str], required: Sequence[bool]
    ) -> int: ...
    def forget_columns(self, connection: Connection, *, stream: str) -> int: ...
    def read_renamed(self, connection: Connection, *, stream: str) -> Iterator[ReadRenamedRow]: ...
    def read_triggers(self, connection: Connection, *, table: str) -> Iterator[ReadTriggersRow]: ...
    def read_holders(self, connection: Connection, *, stream: str, any_reader: bool) -> Iterator[ReadHoldersRow]: ...
    def read_dependents(self, connection: Connection, *, table: str) -> Iterator[ReadDependentsRow]: ...
    def read_constraints(self, connection: Connection, *, stream: str) -> Iterator[ReadConstraintsRow]: ...
    def read_partition_key(self, connection: Connection, *, stream: str) -> str | None: ...
    def read_partitions(self, connection: Connection, *, mark: str, stream: str) -> Iterator[ReadPartitionsRow]: ...
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
        more_landed: int,
        more_dead_letters: int,
        more_quarantined: int,
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
    def forget_unfilled(self, connection: Connection, *, stream: str, incarnation: int) -> int: ...
    def note_failure(self, connection: Connection, *, stream: str, task: str, error: str) -> int: ...
    def forget_failure(self, connection: Connection, *, stream: str, task: str) -> int: ...
    def read_failures(self, connection: Connection, *, stream: str) -> Iterator[ReadFailuresRow]: ...
    def hold_ledger(self, connection: Connection, *, stream: str) -> int: ...
    def lock_ledger(self, connection: Connection, *, stream: str) -> int: ...
    def merge_ledger(
        self, connection: Connection, *, before: datetime, droppable_until: datetime, stream: str
    ) -> int: ...
    def forget_failures(self, connection: Connection, *, stream: str) -> int: ...


class Metadata(Protocol):
    def stuck_deferrals(self, connection: Connection, *, silent_s: float) -> Iterator[StuckDeferralsRow]: ...
    def stuck_queue(self, connection: Connection, *, queued_s: float) -> Iterator[StuckQueueRow]: ...
    def paused_dags(self, connection: Connection) -> Iterator[PausedDagsRow]: ...
    def paused_by_failures(self, connection: Connection) -> Iterator[PausedByFailuresRow]: ...
    def import_errors(self, connection: Connection) -> Iterator[ImportErrorsRow]: ...
    def last_runs(self, connection: Connection) -> Iterator[LastRunsRow]: ...
    def unfinished_dags(self, connection: Connection, *, before: datetime) -> Iterator[UnfinishedDagsRow]: ...


class Orphans(Protocol):
    def orphaned_streams(self, connection: Connection, *, named: Sequence[str]) -> Iterator[OrphanedStreamsRow]: ...
    def orphaned_datasets(self, connection: Connection, *, named: Sequence[str]) -> Iterator[OrphanedDatasetsRow]: ...


class Platform(Protocol):
    def open_transactions(
        self, connection: Connection, *, idle_s: float, open_s: float
    ) -> Iterator[OpenTransactionsRow]: ...
    def connections(self, connection: Connection) -> ConnectionsRow: ...
    def connection_holders(self, connection: Connection, *, most: int) -> Iterator[ConnectionHoldersRow]: ...
    def is_migrated(self, connection: Connection) -> bool: ...
    def readers(self, connection: Connection) -> Iterator[ReadersRow]: ...


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
    def set_position(
        self, connection: Connection, *, topic_id: str, next: int, reader: str, topic: str, partition: int
    ) -> int: ...
    def drop_positions(self, connection: Connection, *, reader: str, topic: str, partitions: Sequence[int]) -> int: ...
    def read_all_positions(
        self, connection: Connection, *, readers: Sequence[str], topics: Sequence[str]
    ) -> Iterator[ReadAllPositionsRow]: ...


class Registry(Protocol):
    def lock_gate(self, connection: Connection, *, dataset: str) -> None: ...
    def next_to_judge(
        self, connection: Connection, *, dataset: str, patience: timedelta | str
    ) -> NextToJudgeRow | None: ...
    def current_champion(self, connection: Connection, *, dataset: str) -> CurrentChampionRow | None: ...
    def first_artifact(self, connection: Connection, *, dataset: str) -> int | None: ...
    def artifact_by_id(self, connection: Connection, *, artifact: int) -> ArtifactByIdRow: ...
    def results_to_judge(self, connection: Connection, *, run: int) -> Iterator[ResultsToJudgeRow]: ...
    def fitted(self, connection: Connection, *, run: int, model: str) -> FittedRow: ...
    def digests_of(self, connection: Connection, *, run: int) -> Iterator[DigestsOfRow]: ...
    def guarded_metrics(self, connection: Connection, *, run: int) -> Iterator[GuardedMetricsRow]: ...
    def records_counted(
        self, connection: Connection, *, dataset: str, champion_number: int
    ) -> Iterator[RecordsCountedRow]: ...
    def evidence_against_champion(
        self, connection: Connection, *, dataset: str, champion_number: int
    ) -> Iterator[EvidenceAgainstChampionRow]: ...
    def add_gate(
        self,
        connection: Connection,
        *,
        run: int,
        dataset: str,
        version: str,
        champion_number: int,
        state: str,
        reason: str | None,
        test_rows: int,
        trained: int,
        repeated: int,
        counted: Bytes,
    ) -> int: ...
    def add_verdict(self, connection: Connection, *, verdict: str) -> int: ...
    def add_score(
        self, connection: Connection, *, run: int, role: str, model: str, metric: str, value: float, rows: int
    ) -> int: ...
    def register_artifact(
        self, connection: Connection, *, dataset: str, trained_on: Bytes, run: int, model: str, sha256: str
    ) -> int | None: ...
    def add_champion_change(
        self,
        connection: Connection,
        *,
        dataset: str,
        after: int,
        artifact: int | None,
        rollback_to: int | None,
        cause: str,
        decider: str,
        reason: str,
    ) -> int | None: ...
    def champion_of(self, connection: Connection, *, dataset: str) -> ChampionOfRow | None: ...
    def champion_numbered(self, connection: Connection, *, dataset: str, number: int) -> ChampionNumberedRow | None: ...
    def last_change(self, connection: Connection, *, dataset: str) -> LastChangeRow | None: ...
    def rollback_target(self, connection: Connection, *, dataset: str, after: int) -> int | None: ...
    def judged(self, connection: Connection, *, run: int) -> JudgedRow | None: ...
    def verdicts_of(self, connection: Connection, *, run: int) -> Iterator[VerdictsOfRow]: ...
    def add_approval(
        self, connection: Connection, *, run: int, answer: str, model: str | None, decider: str, reason: str
    ) -> int: ...
    def approval_of(self, connection: Connection, *, run: int) -> ApprovalOfRow: ...
    def value_by_version(self, connection: Connection, *, dataset: str) -> Iterator[ValueByVersionRow]: ...
    def value_of_retraining(self, connection: Connection, *, dataset: str) -> ValueOfRetrainingRow | None: ...
    def latest_judgement(self, connection: Connection, *, dataset: str) -> LatestJudgementRow | None: ...


class Retention(Protocol):
    def lock_versions(self, connection: Connection, *, topic: str) -> Iterator[LockVersionsRow]: ...
    def versions_on(
        self, connection: Connection, *, dataset: str, keep: int | None, patience: timedelta | str, topic: str
    ) -> Iterator[VersionsOnRow]: ...
    def mark_expired(self, connection: Connection, *, versions: Sequence[str]) -> int: ...
    def expired_at(self, connection: Connection, *, version: str) -> datetime | None: ...
    def drop_run_logs(self, connection: Connection, *, before: datetime) -> int: ...
    def empty_models(self, connection: Connection, *, before: datetime) -> int: ...


class Schema(Protocol):
    def documented(self, connection: Connection) -> Iterator[DocumentedRow]: ...


class Training(Protocol):
    def land_version(
        self,
        connection: Connection,
        *,
        version: str,
        dataset: str,
        topic: str,
        kind: str,
        interval_start: datetime | None,
        interval_end: datetime | None,
        train_rows: int,
        test_rows: int,
        split: str,
        content: str,
        asked_by: str,
        code: str,
        manifest: Bytes,
        manifest_offset: int,
        sealed_at: float,
    ) -> int: ...
    def refuse_manifest(
        self, connection: Connection, *, manifest_offset: int, reason: str, value: Bytes | None
    ) -> int: ...
    def versions_to_start(
        self, connection: Connection, *, datasets: Sequence[str], most: int
    ) -> Iterator[VersionsToStartRow]: ...
    def mark_started(self, connection: Connection, *, versions: Sequence[str]) -> int: ...
    def versions_alike(
        self, connection: Connection, *, dataset: str, train_rows: int, test_rows: int, split: str
    ) -> Iterator[VersionsAlikeRow]: ...
    def find_versions(
        self, connection: Connection, *, dataset: str, prefix: str, until: datetime | None
    ) -> Iterator[FindVersionsRow]: ...
    def begin_run(
        self,
        connection: Connection,
        *,
        dataset: str,
        run_id: str,
        version: str,
        seed: int,
        parameters: str,
        cause: str,
        asked_by: str,
        definition: str,
        code: str,
        libraries: str,
    ) -> int: ...
    def fail_run(
        self,
        connection: Connection,
        *,
        dataset: str,
        run_id: str,
        version: str,
        seed: int,
        parameters: str,
        cause: str,
        asked_by: str,
        definition: str,
        code: str,
        libraries: str,
        kept: Sequence[str],
    ) -> int | None: ...
    def end_run(self, connection: Connection, *, state: str, run: int) -> int: ...
    def run_plan(self, connection: Connection, *, run: int) -> RunPlanRow: ...
    def drop_result(self, connection: Connection, *, run: int, model: str) -> int: ...
    def add_result(
        self,
        connection: Connection,
        *,
        run: int,
        model: str,
        parameters: str,
        train_rows: int,
        test_rows: int,
        read_s: float,
        fit_s: float,
        evaluate_s: float,
        peak_memory_mb: float,
        unfitted: Bytes,
        fitted: Bytes,
        fitted_sha256: str,
        outcomes: Bytes,
        predictions_sha256: str | None,
        probe: Bytes | None,
        passes: int | None,
    ) -> int: ...
    def append_outcomes(self, connection: Connection, *, piece: Bytes, result: int) -> int: ...
    def add_metrics(
        self,
        connection: Connection,
        *,
        result: int,
        names: Sequence[str],
        values: Sequence[float],
        lows: Sequence[float | None],
        highs: Sequence[float | None],
    ) -> int: ...
    def add_class_metrics(
        self,
        connection: Connection,
        *,
        result: int,
        classes: Sequence[str],
        precisions: Sequence[float],
        recalls: Sequence[float],
        f1s: Sequence[float],
        supports: Sequence[int],
    ) -> int: ...
    def add_slice_metrics(
        self,
        connection: Connection,
        *,
        result: int,
        slices: Sequence[str],
        parts: Sequence[str],
        rows: Sequence[int],
        names: Sequence[str],
        values: Sequence[float],
        lows: Sequence[float | None],
        highs: Sequence[float | None],
    ) -> int: ...
    def add_confusion(
        self,
        connection: Connection,
        *,
        result: int,
        actual: Sequence[str],
        predicted: Sequence[str],
        counts: Sequence[int],
    ) -> int: ...
    def add_repeats(self, connection: Connection, *, version: str, train: int, test: int, shared: int) -> int: ...
    def results_of(self, connection: Connection, *, run: int) -> Iterator[ResultsOfRow]: ...
    def run_of(self, connection: Connection, *, dataset: str, run_id: str) -> RunOfRow | None: ...
    def log_lines(
        self,
        connection: Connection,
        *,
        run: int,
        model: str | None,
        ats: Sequence[float],
        levels: Sequence[str],
        loggers: Sequence[str],
        messages: Sequence[str],
    ) -> int: ...
    def checkpoint_of(self, connection: Connection, *, run: int, model: str, plan: str) -> CheckpointOfRow | None: ...
    def save_checkpoint(
        self,
        connection: Connection,
        *,
        run: int,
        model: str,
        plan: str,
        step: int,
        epoch: int,
        batch: int,
        estimator: Bytes,
        sha256: str,
    ) -> int: ...
    def drop_checkpoint(self, connection: Connection, *, run: int, model: str) -> int: ...
    def last_training(self, connection: Connection, *, dataset: str, version: str | None) -> LastTrainingRow | None: ...


class Verification(Protocol):
    def begin_verification(
        self, connection: Connection, *, dataset: str, version: str, run: int | None, asked_by: str
    ) -> int: ...
    def end_verification(
        self, connection: Connection, *, outcome: str, findings: Sequence[str], libraries: str, verification: int
    ) -> int: ...
    def run_to_verify(self, connection: Connection, *, run: str) -> RunToVerifyRow | None: ...
    def models_of(self, connection: Connection, *, run: int) -> Iterator[ModelsOfRow]: ...
    def result_to_verify(self, connection: Connection, *, run: int, model: str) -> ResultToVerifyRow: ...
    def run_to_sample(self, connection: Connection) -> int | None: ...


ROWS: dict[tuple[str, str], Any] = {
    ("demo", "count_trained"): CountTrainedRow,
    ("demo", "list_results"): ListResultsRow,
    ("demo", "list_failed_runs"): ListFailedRunsRow,
    ("demo", "list_reconciliation"): ListReconciliationRow,
    ("landing", "read_incarnations"): ReadIncarnationsRow,
    ("landing", "read_columns"): ReadColumnsRow,
    ("landing", "read_renamed"): ReadRenamedRow,
    ("landing", "read_triggers"): ReadTriggersRow,
    ("landing", "read_holders"): ReadHoldersRow,
    ("landing", "read_dependents"): ReadDependentsRow,
    ("landing", "read_constraints"): ReadConstraintsRow,
    ("landing", "read_partitions"): ReadPartitionsRow,
    ("landing", "read_detached"): ReadDetachedRow,
    ("landing", "read_totals"): ReadTotalsRow,
    ("landing", "read_gaps"): ReadGapsRow,
    ("landing", "read_accepted_bad"): ReadAcceptedBadRow,
    ("landing", "read_ledger"): ReadLedgerRow,
    ("landing", "read_kept"): ReadKeptRow,
    ("landing", "lock_dead_letters"): LockDeadLettersRow,
    ("landing", "read_dead_letters"): ReadDeadLettersRow,
    ("landing", "hold_dead_letters"): HoldDeadLettersRow,
    ("landing", "list_dead_letters"): ListDeadLettersRow,
    ("landing", "count_dead_letters"): CountDeadLettersRow,
    ("landing", "read_dead_letter"): ReadDeadLetterRow,
    ("landing", "read_claims"): ReadClaimsRow,
    ("landing", "hold_kept"): HoldKeptRow,
    ("landing", "read_unfilled"): ReadUnfilledRow,
    ("landing", "read_failures"): ReadFailuresRow,
    ("metadata", "stuck_deferrals"): StuckDeferralsRow,
    ("metadata", "stuck_queue"): StuckQueueRow,
    ("metadata", "paused_dags"): PausedDagsRow,
    ("metadata", "paused_by_failures"): PausedByFailuresRow,
    ("metadata", "import_errors"): ImportErrorsRow,
    ("metadata", "last_runs"): LastRunsRow,
    ("metadata", "unfinished_dags"): UnfinishedDagsRow,
    ("orphans", "orphaned_streams"): OrphanedStreamsRow,
    ("orphans", "orphaned_datasets"): OrphanedDatasetsRow,
    ("platform", "open_transactions"): OpenTransactionsRow,
    ("platform", "connections"): ConnectionsRow,
    ("platform", "connection_holders"): ConnectionHoldersRow,
    ("platform", "readers"): ReadersRow,
    ("position", "lock_positions"): LockPositionsRow,
    ("position", "end_owners"): EndOwnersRow,
    ("position", "advance_positions"): AdvancePositionsRow,
    ("position", "read_positions"): ReadPositionsRow,
    ("position", "read_all_positions"): ReadAllPositionsRow,
    ("registry", "next_to_judge"): NextToJudgeRow,
    ("registry", "current_champion"): CurrentChampionRow,
    ("registry", "artifact_by_id"): ArtifactByIdRow,
    ("registry", "results_to_judge"): ResultsToJudgeRow,
    ("registry", "fitted"): FittedRow,
    ("registry", "digests_of"): DigestsOfRow,
    ("registry", "guarded_metrics"): GuardedMetricsRow,
    ("registry", "records_counted"): RecordsCountedRow,
    ("registry", "evidence_against_champion"): EvidenceAgainstChampionRow,
    ("registry", "champion_of"): ChampionOfRow,
    ("registry", "champion_numbered"): ChampionNumberedRow,
    ("registry", "last_change"): LastChangeRow,
    ("registry", "judged"): JudgedRow,
    ("registry", "verdicts_of"): VerdictsOfRow,
    ("registry", "approval_of"): ApprovalOfRow,
    ("registry", "value_by_version"): ValueByVersionRow,
    ("registry", "value_of_retraining"): ValueOfRetrainingRow,
    ("registry", "latest_judgement"): LatestJudgementRow,
    ("retention", "lock_versions"): LockVersionsRow,
    ("retention", "versions_on"): VersionsOnRow,
    ("schema", "documented"): DocumentedRow,
    ("training", "versions_to_start"): VersionsToStartRow,
    ("training", "versions_alike"): VersionsAlikeRow,
    ("training", "find_versions"): FindVersionsRow,
    ("training", "run_plan"): RunPlanRow,
    ("training", "results_of"): ResultsOfRow,
    ("training", "run_of"): RunOfRow,
    ("training", "checkpoint_of"): CheckpointOfRow,
    ("training", "last_training"): LastTrainingRow,
    ("verification", "run_to_verify"): RunToVerifyRow,
    ("verification", "models_of"): ModelsOfRow,
    ("verification", "result_to_verify"): ResultToVerifyRow,
}
