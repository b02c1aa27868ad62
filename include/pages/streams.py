"""The pages on streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from functools import cached_property
from typing import TYPE_CHECKING

from include.pages.charts import Chart, Series
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

    from include.warehouse.queries.signatures.pages import (
        FailuresRow,
        GapsRow,
        HistoryRow,
        LettersRow,
        PartitionsRow,
        ReasonsRow,
        ReconciliationRow,
        ReplaysRow,
        StreamsRow,
    )

MAX_ROWS = 25
MAX_PARTITIONS = 60
HOURS = 24


@dataclass(frozen=True)
class Waiting:
    """What waits in Kafka for a stream, as far as it is known.

    Attributes:
        lag: Offsets past the position; None if it is unknown.
        behind_s: Age of the oldest record that waits, in seconds; None if it is unknown.
        reason: Why the lag is unknown; empty otherwise.
        is_stopped: Whether the stream cannot continue, because its topic and its position do not fit.
    """

    lag: int | None
    behind_s: float | None
    reason: str = ""
    is_stopped: bool = False


UNKNOWN = Waiting(None, None, "Kafka did not answer in time.")


@dataclass(frozen=True)
class StreamLine:
    """One line of the list of streams: its row, and what waits in Kafka now."""

    row: StreamsRow
    waiting: Waiting

    @property
    def is_stopped(self) -> bool:
        """Whether the stream cannot continue without a person."""
        return self.row.is_final or self.waiting.is_stopped

    @property
    def is_failing(self) -> bool:
        """Whether a task of the stream has failed and not succeeded since."""
        return self.row.stopped_error is not None


def overview(connection: Connection, waiting: Mapping[str, Waiting]) -> list[StreamLine]:
    """One line for each stream.

    Args:
        connection: To the warehouse.
        waiting: What waits, by stream.
    """
    return [StreamLine(row, waiting.get(row.stream, UNKNOWN)) for row in queries.load("pages").streams(connection)]


def topics(connection: Connection) -> dict[str, str]:
    """The topic of each stream whose topic is known."""
    rows = queries.load("pages").streams(connection)
    return {row.stream: row.topic for row in rows if row.topic is not None}


@dataclass(frozen=True)
class StreamFacts:
    """One stream.

    Attributes:
        line: Its line of the list.
        failures: Its failing tasks, with the remedy.
        history: Samples of the last day, minute by minute.
        partitions: The newest partitions of its table.
        partition_count: How many it has.
        reasons: Dead letters by reason.
        letters: The newest dead letters.
        gaps, replays: The newest of each.
        reconciliation: Offsets and their dispositions, by partition of the topic.
    """

    line: StreamLine
    failures: list[FailuresRow]
    history: list[HistoryRow]
    partitions: list[PartitionsRow]
    partition_count: int
    reasons: list[ReasonsRow]
    letters: list[LettersRow]
    gaps: list[GapsRow]
    replays: list[ReplaysRow]
    reconciliation: list[ReconciliationRow]

    @cached_property
    def charts(self) -> list[Chart]:
        """Lag, freshness and rate over the last day."""
        places = [f"{row.sampled_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" for row in self.history]
        if not places:
            return []
        lines: list[tuple[str, str, str, Sequence[float | None]]] = [
            ("lag", "Lag in records", "records", [row.lag for row in self.history]),
            ("behind", "Age of the oldest record that waits", "seconds", [row.behind_s for row in self.history]),
            ("rate", "Rows landed a second", "rows/s", [row.rate for row in self.history]),
        ]
        return [
            Chart(key, title, places, [Series(unit, values)], "", unit, is_time=True)
            for key, title, unit, values in lines
        ]

    @property
    def is_reconciled(self) -> bool:
        """Whether every offset below the positions has exactly one disposition, by the ledger."""
        return all(row.unaccounted == 0 for row in self.reconciliation)


def stream(connection: Connection, name: str, waiting: Waiting) -> StreamFacts | None:
    """One stream; None if nothing is known of it."""
    sql = queries.load("pages")
    line = next((row for row in overview(connection, {name: waiting}) if row.row.stream == name), None)
    if line is None:
        return None
    return StreamFacts(
        line,
        list(sql.failures(connection, stream=name)),
        list(sql.history(connection, stream=name, hours=HOURS)),
        list(sql.partitions(connection, stream=name, most=MAX_PARTITIONS)),
        sql.count_partitions(connection, stream=name),
        list(sql.reasons(connection, stream=name, most=MAX_ROWS)),
        list(sql.letters(connection, stream=name, most=MAX_ROWS)),
        list(sql.gaps(connection, stream=name, most=MAX_ROWS)),
        list(sql.replays(connection, stream=name, most=MAX_ROWS)),
        list(sql.reconciliation(connection, stream=name)),
    )
