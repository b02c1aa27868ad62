"""The parameters and rows of the queries of ``training.sql``; written by ``.ci/signatures``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

    Bytes = bytes | bytearray | memoryview


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


ROWS: dict[str, Any] = {
    "versions_to_start": VersionsToStartRow,
    "versions_alike": VersionsAlikeRow,
    "find_versions": FindVersionsRow,
    "run_plan": RunPlanRow,
    "results_of": ResultsOfRow,
    "run_of": RunOfRow,
    "checkpoint_of": CheckpointOfRow,
    "last_training": LastTrainingRow,
}
