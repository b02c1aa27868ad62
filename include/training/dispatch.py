"""Dispatch: every sealed version on the control topic becomes one training run, whatever crashes in between."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from include.error_codes import Code
from include.errors import NonRetryableError, UserError
from include.versions import catalog
from include.versions.manifest import CONTROL_TOPIC, Manifest, decode
from include.warehouse import queries

if TYPE_CHECKING:
    from confluent_kafka import Message
    from psycopg2.extensions import connection as Connection

READER = catalog.DISPATCH
MAX_STARTS = 100
"""Runs that one run of the dispatch starts, which take some minutes; the next run starts more. Airflow's limit is
1,024 for each task."""

MAX_TIMESTAMP_MS = 253_402_300_800_000
"""The year 10000."""

log = logging.getLogger(__name__)


def land(owner: str) -> int:
    """Lands every manifest past the stored position, and moves the position in the same transaction.

    Returns:
        The number of records read.

    Raises:
        PositionError: The control topic was recreated or truncated, or has lost records.
        Fenced: Another dispatch has claimed the position.
    """
    from include.kafka import position, reader, topics
    from include.kafka.position_errors import PositionError
    from include.warehouse.connection import connected

    topic = topics.describe(CONTROL_TOPIC)
    landed = 0
    with connected("millrace dispatch") as connection:
        try:
            positions = position.claim(connection, READER, topic, topic.partitions, owner)
            with reader.Reader(
                topic.name,
                {partition: found.next_offset for partition, found in positions.items()},
                leader_epochs={partition: found.leader_epoch for partition, found in positions.items()},
                consumer=reader.connected(fetch_wait_max_ms=50),
            ) as manifests:
                unread = set(positions)
                while unread:
                    batch = manifests.batch(500, 0.2)
                    reached = {p: (offset, batch.leader_epochs.get(p)) for p, offset in batch.next_offsets.items()}
                    if any(offset != positions[p].next_offset for p, (offset, _) in reached.items()):
                        positions = position.advance(connection, READER, topic.name, positions, reached)
                        for message in batch.messages:
                            _land(connection, message)
                        connection.commit()
                    landed += len(batch.messages)
                    unread -= batch.at_end
        except PositionError as error:
            raise error.with_remedy(
                "The landed versions are kept. To read the topic again from its beginning: "
                f"./millrace psql -c \"DELETE FROM millrace.position WHERE reader = '{READER}'\"."
            ) from error
    return landed


def to_start(datasets: list[str]) -> list[tuple[str, str]]:
    """Versions (dataset, id) of these datasets that have no run yet, ``MAX_STARTS`` at most.

    Each dataset's oldest version comes first, then each dataset's second, and so on.
    """
    from include.warehouse.connection import connected

    with connected("millrace dispatch") as connection:
        return [
            (row.dataset, row.version)
            for row in queries.load("training").versions_to_start(connection, datasets=datasets, most=MAX_STARTS)
        ]


def mark_started(started: list[str]) -> None:
    """Stores that each of these versions has its run."""
    from include.warehouse.connection import connected

    with connected("millrace dispatch") as connection:
        queries.load("training").mark_started(connection, versions=started)
        connection.commit()


def note(planned: Sequence[Mapping[str, Any]] | None, states: Mapping[str, str | None]) -> None:
    """Marks the versions whose run was started, or existed already.

    Args:
        planned: The arguments of each mapped task ``start``; None when there is no plan.
        states: The states of the mapped task ``start``, by ``start_0``, ``start_1`` and so on.

    Raises:
        NonRetryableError: There is no plan, or a run could not be started; the next run of the dispatch tries again.
    """
    if planned is None:
        raise NonRetryableError(
            "The task land failed, so no training run was started.",
            "Read its log. The next run of the dispatch tries again.",
            code=Code.DISPATCH_INCOMPLETE,
        )
    begun = [states.get(f"start_{number}") in ("success", "skipped") for number in range(len(planned))]
    mark_started([run["conf"]["version"] for run, done in zip(planned, begun, strict=True) if done])
    waiting = Counter(run["trigger_dag_id"] for run, done in zip(planned, begun, strict=True) if not done)
    if waiting:
        missing = ", ".join(f"{count} of {dag_id}" for dag_id, count in sorted(waiting.items()))
        raise NonRetryableError(
            f"Some training runs could not be started: {missing}. The next run of the dispatch tries them again.",
            "Read the logs of the task start, and run ./millrace check.",
            code=Code.DISPATCH_INCOMPLETE,
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
            # One record that PostgreSQL cannot store, such as a name with a zero byte, must not block all others.
            cursor.execute("ROLLBACK TO SAVEPOINT manifest")
            _refuse(connection, message, f"PostgreSQL cannot store the manifest: {str(error).strip()}")
        else:
            log.info("Landed the manifest of version %s of %s.", manifest.short, manifest.dataset)


def _refuse(connection: Connection, message: Message, reason: str) -> None:
    offset = message.offset()
    assert offset is not None
    log.warning("Refused the record at offset %d of %s: %s", offset, CONTROL_TOPIC, reason)
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
        # A producer may set any number as a record's timestamp, and datetime ends with the year 9999.
        sealed_at=sealed_ms / 1000 if 0 <= sealed_ms < MAX_TIMESTAMP_MS else time.time(),
    )
