"""Dispatch: every sealed version on the control topic becomes one training run, whatever dies in between."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from include.errors import NonRetryableError, UserError
from include.versions import catalog
from include.versions.manifest import CONTROL_TOPIC, Manifest, decode
from include.warehouse import queries

if TYPE_CHECKING:
    from confluent_kafka import Message
    from psycopg2.extensions import connection as Connection

READER = catalog.DISPATCH
MAX_STARTS = 100
"""Runs that one run of the dispatch starts, some minutes of work; the next goes on. Airflow's limit is 1,024 a task."""

MAX_TIMESTAMP_MS = 253_402_300_800_000
"""The year 10000."""

log = logging.getLogger(__name__)


def land(owner: str) -> int:
    """Lands every manifest past the durable position, together with the position. Returns how many records there were.

    Raises:
        PositionError: The control topic was recreated or has lost records.
        Fenced: Another dispatch has taken over.
    """
    from include.kafka import position, reader, topics
    from include.warehouse.connection import connected

    topic = topics.describe(CONTROL_TOPIC)
    landed = 0
    with connected("millrace dispatch") as connection:
        positions = position.claim(connection, READER, topic, topic.partitions, owner)
        starts = {p: position.next_offset for p, position in positions.items()}
        with reader.Reader(topic.name, starts, consumer=reader.connected(fetch_wait_max_ms=50)) as manifests:
            unread = set(positions)
            while unread:
                batch = manifests.batch(500, 0.2)
                reached = {p: (offset, None) for p, offset in batch.next_offsets.items()}
                if any(offset != positions[p].next_offset for p, (offset, _) in reached.items()):
                    positions = position.advance(connection, READER, topic.name, positions, reached)
                    for message in batch.messages:
                        _land(connection, message)
                    connection.commit()
                landed += len(batch.messages)
                unread -= batch.at_end
    return landed


def to_start(datasets: list[str]) -> list[tuple[str, str]]:
    """Versions (dataset, id) of these datasets that no run was started for yet, ``MAX_STARTS`` or fewer.

    Each dataset's oldest come first, and the datasets take turns.
    """
    from include.warehouse.connection import connected

    with connected("millrace dispatch") as connection:
        return [
            (row.dataset, row.version)
            for row in queries.load("training").versions_to_start(connection, datasets=datasets, most=MAX_STARTS)
        ]


def mark_started(started: list[str]) -> None:
    """Notes that each of these versions has its run."""
    from include.warehouse.connection import connected

    with connected("millrace dispatch") as connection:
        queries.load("training").mark_started(connection, versions=started)
        connection.commit()


def note(planned: Sequence[Mapping[str, Any]] | None, states: Mapping[str, str | None]) -> None:
    """Marks the versions whose run was started, or was there already.

    Args:
        planned: What each ``start`` was given; None when there is no plan.
        states: The states of the mapped task ``start``, by ``start_0``, ``start_1`` and so on.

    Raises:
        NonRetryableError: There is no plan, or a run could not be started; the next run of the dispatch tries again.
    """
    if planned is None:
        raise NonRetryableError("The task land has not ended well.", "See its log.")
    begun = [states.get(f"start_{number}") in ("success", "skipped") for number in range(len(planned))]
    mark_started([run["conf"]["version"] for run, done in zip(planned, begun, strict=True) if done])
    waiting = Counter(run["trigger_dag_id"] for run, done in zip(planned, begun, strict=True) if not done)
    if waiting:
        missing = ", ".join(f"{count} of {dag_id}" for dag_id, count in sorted(waiting.items()))
        raise NonRetryableError(
            f"Runs that could not be started: {missing}. All others were, and the next dispatch tries these again.",
            "See the logs of the task start, and ./millrace check.",
        )


def _land(connection: Connection, message: Message) -> None:
    import psycopg2

    try:
        manifest = decode(message.value())
    except UserError as error:
        _refuse(connection, message, str(error))
        return
    with connection.cursor() as cursor:
        cursor.execute("SAVEPOINT manifest")
        try:
            _insert(connection, manifest, message)
        except (psycopg2.DataError, psycopg2.IntegrityError, ValueError) as error:
            # One record that PostgreSQL cannot hold, such as a name with a zero byte, must not hold up all others.
            cursor.execute("ROLLBACK TO SAVEPOINT manifest")
            _refuse(connection, message, f"The manifest cannot be kept: {str(error).strip()}")
        else:
            log.info("Version %s of %s is sealed.", manifest.short, manifest.dataset)


def _refuse(connection: Connection, message: Message, reason: str) -> None:
    offset = message.offset()
    assert offset is not None
    log.warning("The record at offset %d of %s is refused: %s", message.offset(), CONTROL_TOPIC, reason)
    queries.load("training").refuse_manifest(
        connection, manifest_offset=offset, reason=reason.replace("\0", "\\0"), value=message.value()
    )


def _insert(connection: Connection, manifest: Manifest, message: Message) -> None:
    sealed_ms, offset, value = message.timestamp()[1], message.offset(), message.value()
    assert offset is not None and value is not None
    queries.load("training").land_version(
        connection,
        version=manifest.version,
        dataset=manifest.dataset,
        topic=manifest.topic,
        kind=manifest.kind,
        interval_start=manifest.interval.start,
        interval_end=manifest.interval.end,
        train_rows=manifest.rows["train"],
        test_rows=manifest.rows["test"],
        split=msgspec.json.encode(manifest.split).decode(),
        content=manifest.content,
        asked_by=manifest.asked_by,
        code=manifest.code,
        manifest=value,
        manifest_offset=offset,
        # A producer may write any number as a record's timestamp; no later clock can read a year beyond 9999.
        sealed_at=sealed_ms / 1000 if 0 <= sealed_ms < MAX_TIMESTAMP_MS else time.time(),
    )
