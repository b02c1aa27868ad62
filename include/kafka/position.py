"""The stored position: how far a reader has read each partition, kept in PostgreSQL together with what it wrote.

A reader claims its partitions, which raises their epoch. Each of its transactions moves the positions by
compare-and-set on (offset, epoch) before it writes anything else. A process whose claim is no longer the newest fails
this comparison: it raises ``Fenced`` and writes nothing. Kafka's consumer group offsets are never read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from include.kafka.position_errors import Fenced, TopicRecreated
from include.kafka.topics import Topic
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

    from include.warehouse.queries.signatures.position import LockPositionsRow

TAKEOVER_AFTER_MS = 5_000


@dataclass(frozen=True)
class Position:
    """How far one partition is read.

    Attributes:
        partition: The partition's number.
        next_offset: Every offset below has its disposition.
        leader_epoch: Leader epoch of the last record below, or None before the first.
        epoch: The claim's number; positions move only with the newest.
    """

    partition: int
    next_offset: int
    leader_epoch: int | None
    epoch: int


@dataclass(frozen=True)
class StoredPosition:
    """A row of ``millrace.position``: the position, the topic's id, its owner, and when it was written (UTC)."""

    position: Position
    topic_id: str
    owner: str
    updated_at: datetime


def claim(
    connection: Connection, reader: str, topic: Topic, partitions: Iterable[int], owner: str
) -> dict[int, Position]:
    """Makes the caller the only process that may move these positions, and commits.

    If a former owner, such as a stopped process, still holds the rows' locks after ``TAKEOVER_AFTER_MS``, its
    PostgreSQL backend is terminated.

    Args:
        connection: Not inside a transaction with uncommitted work; its backend becomes the owner.
        owner: Who claims, for display, such as the Airflow task instance.

    Raises:
        TopicRecreated: The positions belong to an earlier incarnation of the topic.
    """
    rows = _lock(connection, reader, topic.name, sorted(partitions), create_for=(topic.id, owner))
    positions = {}
    for partition, topic_id, next_offset, leader_epoch, epoch in rows:
        if topic_id != topic.id:
            connection.rollback()
            raise TopicRecreated(reader, topic.name, topic_id, topic.id)
        positions[partition] = Position(partition, next_offset, leader_epoch, epoch + 1)
    queries.load("position").claim_positions(
        connection, reader=reader, topic=topic.name, partitions=sorted(positions), owner=owner
    )
    connection.commit()
    return positions


def lock_positions(connection: Connection, reader: str, topic: str, partitions: Iterable[int]) -> None:
    """Locks positions until the transaction ends, so that no other process moves them; waits as ``claim`` does."""
    _lock(connection, reader, topic, sorted(partitions))


def resume(connection: Connection, reader: str, topic: str, claim: Mapping[int, Position]) -> dict[int, Position]:
    """Continues a claim over a new connection, and commits. Returns the positions that are stored now.

    Waits for the end of a transaction that the old connection may have left open, as ``claim`` does.

    Raises:
        Fenced: Another process has claimed one of them in the meantime.
    """
    rows = _lock(connection, reader, topic, sorted(claim))
    found = {partition: Position(partition, offset, leader, epoch) for partition, _, offset, leader, epoch in rows}
    lost = [p for p, mine in claim.items() if p not in found or found[p].epoch != mine.epoch]
    if lost:
        connection.rollback()
        raise Fenced(reader, topic, sorted(lost))
    queries.load("position").own_positions(connection, reader=reader, topic=topic, partitions=sorted(claim))
    connection.commit()
    return found


def advance(
    connection: Connection,
    reader: str,
    topic: str,
    positions: Mapping[int, Position],
    reached: Mapping[int, tuple[int, int | None]],
) -> dict[int, Position]:
    """Moves positions inside the caller's transaction, before the caller writes the records below them.

    Args:
        positions: The caller's claim, as last returned by ``claim`` or ``advance``.
        reached: For each partition to move, its new next offset and the leader epoch of the last record below it.

    Returns:
        All of ``positions``, with those in ``reached`` moved. They are valid once the caller has committed.

    Raises:
        Fenced: Another process has claimed or moved one of them. The caller must roll back.
    """
    moving = sorted(reached)
    moved = queries.load("position").advance_positions(
        connection,
        reader=reader,
        topic=topic,
        partitions=moving,
        epochs=[positions[partition].epoch for partition in moving],
        expected=[positions[partition].next_offset for partition in moving],
        next=[reached[partition][0] for partition in moving],
        leader_epochs=[reached[partition][1] for partition in moving],
    )
    lost = set(moving) - {partition for (partition,) in moved}
    if lost:
        raise Fenced(reader, topic, sorted(lost))
    return dict(positions) | {
        partition: replace(
            positions[partition],
            next_offset=offset,
            leader_epoch=positions[partition].leader_epoch if leader_epoch is None else leader_epoch,
        )
        for partition, (offset, leader_epoch) in reached.items()
    }


def read_positions(connection: Connection, reader: str, topic: str) -> dict[int, StoredPosition]:
    """The stored positions of a reader in a topic; empty when it has never read the topic."""
    rows = queries.load("position").read_positions(connection, reader=reader, topic=topic)
    return {
        partition: StoredPosition(Position(partition, next_offset, leader_epoch, epoch), topic_id, owner, updated_at)
        for partition, topic_id, next_offset, leader_epoch, epoch, owner, updated_at in rows
    }


def read_topics(connection: Connection, reader: str) -> list[str]:
    """The topics in which a reader has positions, sorted."""
    return [topic for (topic,) in queries.load("position").read_topics(connection, reader=reader)]


def read_all_positions(
    connection: Connection, keys: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], dict[int, StoredPosition]]:
    """``read_positions`` for several readers and topics in one query; a topic that was never read has no entry."""
    readers, topics = zip(*keys, strict=True)
    found: dict[tuple[str, str], dict[int, StoredPosition]] = {}
    for reader, topic, partition, topic_id, next_offset, leader_epoch, epoch, owner, updated_at in queries.load(
        "position"
    ).read_all_positions(connection, readers=list(readers), topics=list(topics)):
        stored = StoredPosition(Position(partition, next_offset, leader_epoch, epoch), topic_id, owner, updated_at)
        found.setdefault((reader, topic), {})[partition] = stored
    return found


def _lock(
    connection: Connection,
    reader: str,
    topic: str,
    partitions: list[int],
    create_for: tuple[str, str] | None = None,
) -> list[LockPositionsRow]:
    """Locks the rows and returns them; a session that holds a lock for longer than ``TAKEOVER_AFTER_MS`` is terminated.

    Args:
        create_for: Topic id and owner for rows that do not exist yet.
    """
    from psycopg2 import errors

    sql = queries.load("position")

    def lock() -> list[LockPositionsRow]:
        with connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = {TAKEOVER_AFTER_MS}")
        if create_for is not None:
            topic_id, owner = create_for
            sql.create_positions(
                connection, reader=reader, topic=topic, partitions=partitions, topic_id=topic_id, owner=owner
            )
        return list(sql.lock_positions(connection, reader=reader, topic=topic, partitions=partitions))

    try:
        return lock()
    except errors.LockNotAvailable:
        connection.rollback()
        list(sql.end_owners(connection, reader=reader, topic=topic, partitions=partitions))
        connection.commit()
        return lock()
