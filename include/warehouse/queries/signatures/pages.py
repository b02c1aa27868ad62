"""The parameters and rows of the queries of ``pages.sql``; written by ``.ci/signatures``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


class DatasetsRow(NamedTuple):
    dataset: str
    versions: int
    newest_version: str
    newest_until: datetime | None
    newest_sealed_at: datetime
    live_model: str | None
    live_version: str | None
    live_since: datetime | None
    live_age_s: float | None
    metric: str | None
    live_value: float | None
    trend: list[float] | None
    last_run: int | None
    last_run_id: str | None
    last_run_state: str | None
    judged_at: datetime | None
    judged_state: str | None
    verdict_model: str | None
    verdict: str | None
    sentence: str | None


class DatasetRow(NamedTuple):
    versions: int
    newest_version: str
    newest_until: datetime | None
    newest_sealed_at: datetime
    champion_number: int | None
    live_model: str | None
    live_version: str | None
    live_run: int | None
    live_since: datetime | None
    live_age_s: float | None
    metric: str | None
    live_value: float | None
    live_rows: int | None
    last_run: int | None
    last_run_id: str | None
    last_run_state: str | None
    last_run_started_at: datetime | None
    last_success_at: datetime | None
    judged_run: int | None
    judged_at: datetime | None
    judged_state: str | None
    verdict_model: str | None
    verdict: str | None
    sentence: str | None


class MetricsRow(NamedTuple):
    version_number: int
    version: str
    interval_end: datetime | None
    run: int
    run_id: str
    model: str
    metric: str
    value: float
    low: float | None
    high: float | None
    promoted_to: int | None


class ValuesRow(NamedTuple):
    version: str
    interval_end: datetime | None
    metric: str
    rows: int
    live_model: str
    live: float
    never_model: str | None
    never: float | None
    newest_model: str | None
    newest: float | None


class ValueRow(NamedTuple):
    trainings: int
    promotions: int
    useless: int
    versions: int | None
    metric: str | None
    live: float | None
    never: float | None
    newest: float | None
    gained: float | None


class ChampionsRow(NamedTuple):
    number: int
    model: str | None
    version: str | None
    since: datetime
    until: datetime | None
    cause: str
    decider: str
    reason: str
    rollback_to: int | None
    run: int | None
    run_id: str | None


class EvidenceRow(NamedTuple):
    champion_number: int
    version_number: int
    version: str
    interval_end: datetime | None
    run: int
    run_id: str
    model: str
    e_value: float
    threshold: float
    n: int
    gain: float
    outcome: str


class RunsRow(NamedTuple):
    run: int
    run_id: str
    version: str
    version_number: int
    interval_end: datetime | None
    state: str
    cause: str
    asked_by: str
    started_at: datetime
    finished_at: datetime | None
    best_model: str | None
    metric: str | None
    value: float | None
    low: float | None
    high: float | None
    judged_state: str | None
    verdict_model: str | None
    verdict: str | None
    sentence: str | None
    promoted: str | None
    answer: str | None
    decider: str | None


class RunOfRow(NamedTuple):
    run: int
    run_id: str
    version: str
    version_number: int
    interval_end: datetime | None
    state: str
    cause: str
    asked_by: str
    started_at: datetime
    finished_at: datetime | None
    best_model: str | None
    metric: str | None
    value: float | None
    low: float | None
    high: float | None
    judged_state: str | None
    verdict_model: str | None
    verdict: str | None
    sentence: str | None
    promoted: str | None
    answer: str | None
    decider: str | None


class RunToApproveRow(NamedTuple):
    dataset: str
    run_id: str


class RunInputRow(NamedTuple):
    dataset: str
    run_id: str
    version: str
    version_number: int
    interval_start: datetime | None
    interval_end: datetime | None
    train_rows: int
    test_rows: int
    topic: str
    messages: int | None
    offsets: str | None
    content: str
    sealed_at: datetime
    published_by: str
    published_with: str
    expired_at: datetime | None
    cause: str
    asked_by: str
    seed: int
    parameters: str
    definition: str
    code: str
    libraries: Any
    state: str
    started_at: datetime
    finished_at: datetime | None


class RunMetricsRow(NamedTuple):
    model: str
    metric: str
    value: float
    low: float | None
    high: float | None
    baseline: float | None
    fit_s: float
    peak_memory_mb: float


class RunVerdictsRow(NamedTuple):
    model: str
    outcome: str
    sentence: str
    e_value: float
    threshold: float
    n: int
    failed_guards: list[str]


class RunClassesRow(NamedTuple):
    name: str
    precision: float
    recall: float
    f1: float
    support: int
    previous_number: int | None
    previous_precision: float | None
    previous_recall: float | None
    previous_f1: float | None


class RunConfusionRow(NamedTuple):
    actual: str
    predicted: str
    records: int
    share: float | None
    previous_number: int | None
    previous_count: int | None
    previous_share: float | None


class RunSlicesRow(NamedTuple):
    slice: str
    part: str
    metric: str
    value: float
    low: float | None
    high: float | None
    rows: int
    whole: float | None


class RunLogRow(NamedTuple):
    line: int
    at: datetime
    level: str
    model: str | None
    message: str


class StreamsRow(NamedTuple):
    stream: str
    topic: str | None
    is_defined: bool
    partitions: int | None
    offsets: int | None
    moved_at: datetime | None
    newest_event: datetime | None
    newest_age_s: float | None
    landed: int
    dead_letters: int
    quarantined: int
    filtered: int
    skipped: int
    oldest_dead_letter_at: datetime | None
    lag: int | None
    behind_s: float | None
    sampled_at: datetime | None
    rate_hour: float | None
    rate_day: float | None
    stopped_task: str | None
    stopped_since: datetime | None
    stopped_code: str | None
    stopped_error: str | None
    stopped_remedy: str | None
    proved_at: datetime | None
    proof_errors: int | None
    is_final: bool


class HistoryRow(NamedTuple):
    sampled_at: datetime
    lag: int | None
    behind_s: float | None
    newest_event: datetime | None
    stopped: str | None
    newest_age_s: float | None
    rate: float | None


class PartitionsRow(NamedTuple):
    partition: str
    starts_at: datetime | None
    ends_at: datetime | None
    drops_at: datetime | None
    is_detaching: bool
    rows: int | None
    bytes: int


class ReasonsRow(NamedTuple):
    disposition: str
    sqlstate: str | None
    reason: str
    records: int
    bytes: int
    oldest_at: datetime
    newest_at: datetime


class LettersRow(NamedTuple):
    kafka_incarnation: int
    kafka_partition: int
    kafka_offset: int
    disposition: str
    reason: str
    appended_at: datetime
    key: memoryview | None
    value: memoryview | None
    bytes: int | None


class GapsRow(NamedTuple):
    kafka_incarnation: int
    kafka_partition: int
    first_offset: int
    next_offset: int | None
    choice: str
    accepted_by: str
    accepted_at: datetime


class ReplaysRow(NamedTuple):
    kafka_incarnation: int
    kafka_partition: int
    first_offset: int
    next_offset: int
    landed: int
    dead_letters: int
    quarantined: int
    filtered: int
    more_landed: int
    more_dead_letters: int
    more_quarantined: int
    more_filtered: int
    replayed_by: str
    replayed_at: datetime


class FailuresRow(NamedTuple):
    task: str
    since: datetime
    last_at: datetime
    failures: int
    error: str
    code: str | None
    remedy: str | None
    is_final: bool


class ReconciliationRow(NamedTuple):
    topic: str
    kafka_incarnation: int | None
    kafka_partition: int
    first_offset: int
    next_offset: int
    landed: int
    dead_letters: int
    quarantined: int
    filtered: int
    skipped: int
    no_records: int
    lost: int
    unaccounted: int


class Pages(Protocol):
    def datasets(self, connection: Connection) -> Iterator[DatasetsRow]: ...
    def dataset(self, connection: Connection, *, dataset: str) -> DatasetRow | None: ...
    def metrics(self, connection: Connection, *, dataset: str, most: int) -> Iterator[MetricsRow]: ...
    def values(self, connection: Connection, *, dataset: str, most: int) -> Iterator[ValuesRow]: ...
    def value(self, connection: Connection, *, dataset: str) -> ValueRow | None: ...
    def champions(self, connection: Connection, *, dataset: str, most: int) -> Iterator[ChampionsRow]: ...
    def evidence(
        self, connection: Connection, *, dataset: str, champion_number: int, most: int
    ) -> Iterator[EvidenceRow]: ...
    def runs(self, connection: Connection, *, dataset: str, most: int) -> Iterator[RunsRow]: ...
    def run_of(self, connection: Connection, *, dataset: str, run_id: str) -> RunOfRow | None: ...
    def run_to_approve(self, connection: Connection, *, run: int) -> RunToApproveRow | None: ...
    def run_input(self, connection: Connection, *, run: int) -> RunInputRow | None: ...
    def run_metrics(self, connection: Connection, *, run: int) -> Iterator[RunMetricsRow]: ...
    def run_verdicts(self, connection: Connection, *, run: int) -> Iterator[RunVerdictsRow]: ...
    def run_classes(self, connection: Connection, *, run: int, model: str) -> Iterator[RunClassesRow]: ...
    def run_confusion(self, connection: Connection, *, run: int, model: str) -> Iterator[RunConfusionRow]: ...
    def run_slices(self, connection: Connection, *, run: int, model: str, most: int) -> Iterator[RunSlicesRow]: ...
    def run_log(self, connection: Connection, *, run: int, most: int) -> Iterator[RunLogRow]: ...
    def streams(self, connection: Connection) -> Iterator[StreamsRow]: ...
    def history(self, connection: Connection, *, stream: str, hours: int) -> Iterator[HistoryRow]: ...
    def partitions(self, connection: Connection, *, stream: str, most: int) -> Iterator[PartitionsRow]: ...
    def count_partitions(self, connection: Connection, *, stream: str) -> int: ...
    def reasons(self, connection: Connection, *, stream: str, most: int) -> Iterator[ReasonsRow]: ...
    def letters(self, connection: Connection, *, stream: str, most: int) -> Iterator[LettersRow]: ...
    def gaps(self, connection: Connection, *, stream: str, most: int) -> Iterator[GapsRow]: ...
    def replays(self, connection: Connection, *, stream: str, most: int) -> Iterator[ReplaysRow]: ...
    def failures(self, connection: Connection, *, stream: str) -> Iterator[FailuresRow]: ...
    def reconciliation(self, connection: Connection, *, stream: str) -> Iterator[ReconciliationRow]: ...


ROWS: dict[str, Any] = {
    "datasets": DatasetsRow,
    "dataset": DatasetRow,
    "metrics": MetricsRow,
    "values": ValuesRow,
    "value": ValueRow,
    "champions": ChampionsRow,
    "evidence": EvidenceRow,
    "runs": RunsRow,
    "run_of": RunOfRow,
    "run_to_approve": RunToApproveRow,
    "run_input": RunInputRow,
    "run_metrics": RunMetricsRow,
    "run_verdicts": RunVerdictsRow,
    "run_classes": RunClassesRow,
    "run_confusion": RunConfusionRow,
    "run_slices": RunSlicesRow,
    "run_log": RunLogRow,
    "streams": StreamsRow,
    "history": HistoryRow,
    "partitions": PartitionsRow,
    "reasons": ReasonsRow,
    "letters": LettersRow,
    "gaps": GapsRow,
    "replays": ReplaysRow,
    "failures": FailuresRow,
    "reconciliation": ReconciliationRow,
}
