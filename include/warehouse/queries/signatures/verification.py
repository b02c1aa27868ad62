"""The parameters and rows of the queries of ``verification.sql``; written by ``.ci/signatures``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


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


ROWS: dict[str, Any] = {
    "run_to_verify": RunToVerifyRow,
    "models_of": ModelsOfRow,
    "result_to_verify": ResultToVerifyRow,
}
