"""The parameters and rows of the queries of ``registry.sql``; written by ``.ci/signatures``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

    Bytes = bytes | bytearray | memoryview


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


class RunSummaryRow(NamedTuple):
    version: str
    model: str | None
    metric: str | None
    value: float | None
    gate: str | None
    outcome: str | None
    judged: str | None
    promoted: str | None


class PromotionsOfRow(NamedTuple):
    dataset: str
    number: int
    model: str
    version: str
    run: int
    sha256: str
    cause: str
    decider: str


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
    def add_verdict(
        self,
        connection: Connection,
        *,
        run: int,
        model: str,
        outcome: str,
        sentence: str,
        policy: str,
        challengers: int,
        threshold: float,
        e_value: float,
        e_value_reverse: float,
        log_e: float,
        log_e_reverse: float,
        log_e_margin: float | None,
        failed_guards: Sequence[str],
        metric: str,
        gain: float,
        gain_se: float | None,
        n: int,
        n01: int | None,
        n10: int | None,
        discordance: float | None,
        champion_accuracy: float | None,
        challenger_accuracy: float | None,
        mcnemar_p: float | None,
        fresh_n: int,
        fresh_n01: int | None,
        fresh_n10: int | None,
        fresh_right: int | None,
        fresh_weighted: float | None,
        fresh_information: float | None,
        fitted_sha256: str,
    ) -> int: ...
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
    def run_summary(self, connection: Connection, *, run: int) -> RunSummaryRow | None: ...
    def promotions_of(self, connection: Connection, *, runs: Sequence[int]) -> Iterator[PromotionsOfRow]: ...
    def verdicts_of(self, connection: Connection, *, run: int) -> Iterator[VerdictsOfRow]: ...
    def add_approval(
        self, connection: Connection, *, run: int, answer: str, model: str | None, decider: str, reason: str
    ) -> int: ...
    def approval_of(self, connection: Connection, *, run: int) -> ApprovalOfRow: ...
    def value_by_version(self, connection: Connection, *, dataset: str) -> Iterator[ValueByVersionRow]: ...
    def value_of_retraining(self, connection: Connection, *, dataset: str) -> ValueOfRetrainingRow | None: ...
    def latest_judgement(self, connection: Connection, *, dataset: str) -> LatestJudgementRow | None: ...


ROWS: dict[str, Any] = {
    "next_to_judge": NextToJudgeRow,
    "current_champion": CurrentChampionRow,
    "artifact_by_id": ArtifactByIdRow,
    "results_to_judge": ResultsToJudgeRow,
    "fitted": FittedRow,
    "digests_of": DigestsOfRow,
    "guarded_metrics": GuardedMetricsRow,
    "records_counted": RecordsCountedRow,
    "evidence_against_champion": EvidenceAgainstChampionRow,
    "champion_of": ChampionOfRow,
    "champion_numbered": ChampionNumberedRow,
    "last_change": LastChangeRow,
    "judged": JudgedRow,
    "run_summary": RunSummaryRow,
    "promotions_of": PromotionsOfRow,
    "verdicts_of": VerdictsOfRow,
    "approval_of": ApprovalOfRow,
    "value_by_version": ValueByVersionRow,
    "value_of_retraining": ValueOfRetrainingRow,
    "latest_judgement": LatestJudgementRow,
}
