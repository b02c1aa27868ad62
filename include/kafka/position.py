"""The durable position: how far a reader has read each partition, kept in Postgres beside what it wrote.

A reader claims its partitions, which raises their epoch. Each of its transactions moves the positions by
compare-and-set on (offset, epoch) before it writes anything else; a process that was overtaken finds its epoch
outdated, writes nothing, and learns so by ``Fenced``. Kafka's own group offsets play no part.
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
    """A position as it stands in Postgres, with who owns it and since when it stands there (UTC)."""

    position: Position
    topic_id: str
    owner: str
    updated_at: datetime


def claim(
    connection: Connection, reader: str, topic: Topic, partitions: Iterable[int], owner: str
) -> dict[int, Position]:
    """Makes the caller the only one who may move these positions, and commits.

    A former owner that still holds the rows' locks after ``TAKEOVER_AFTER_MS`` (a stopped process, say) has its
    Postgres backend ended.

    Args:
        connection: Not inside a transaction with uncommitted work; its backend becomes the owner.
        owner: Shown to people, such as the Airflow task instance.

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
    """Locks positions until the transaction's end, so that nobody moves them; waits as ``claim`` does."""
    _lock(connection, reader, topic, sorted(partitions))


def resume(connection: Connection, reader: str, topic: str, claim: Mapping[int, Position]) -> dict[int, Position]:
    """Continues a claim over a new connection, and commits: the positions as they stand, whatever the old one reached.

    Waits for the end of a transaction that the old connection may have left, as ``claim`` does.

    Raises:
        Fenced: Somebody else has claimed one of them meanwhile.
    """
    rows = _lock(connection, reader, topic, sorted(claim))
    found = {partition: Position(partition, offset, leader, epoch) for partition, _, offset, leader, epoch in rows}
    overtaken = [p for p, mine in claim.items() if p not in found or found[p].epoch != mine.epoch]
    if overtaken:
        connection.rollback()
        raise _fenced(reader, topic, overtaken)
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
    """Moves positions inside the caller's transaction, before it writes what lies below them.

    Args:
        positions: The caller's claim, as last returned by ``claim`` or ``advance``.
        reached: For each partition to move, its new next offset and the leader epoch of the last record below it.

    Returns:
        All of ``positions``, those in ``reached`` moved. They count once the caller has committed.

    Raises:
        Fenced: Somebody else has claimed or moved one of them. The caller must roll back.
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
    overtaken = set(moving) - {partition for (partition,) in moved}
    if overtaken:
        raise _fenced(reader, topic, overtaken)
    return dict(positions) | {
        partition: replace(
            positions[partition],
            next_offset=offset,
            leader_epoch=positions[partition].leader_epoch if leader_epoch is None else leader_epoch,
        )
        for partition, (offset, leader_epoch) in reached.items()
    }


def read_positions(connection: Connection, reader: str, topic: str) -> dict[int, StoredPosition]:
    """The positions of a reader on a topic as they stand now; empty when it never read it."""
    rows = queries.load("position").read_positions(connection, reader=reader, topic=topic)
    return {
        partition: StoredPosition(Position(partition, next_offset, leader_epoch, epoch), topic_id, owner, updated_at)
        for partition, topic_id, next_offset, leader_epoch, epoch, owner, updated_at in rows
    }


def read_all_positions(
    connection: Connection, keys: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], dict[int, StoredPosition]]:
    """``read_positions`` for several readers and topics at once; those that were never read are left out."""
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
    """The rows, locked; who holds their locks for longer than ``TAKEOVER_AFTER_MS`` is ended.

    Args:
        create_for: Topic id and owner of the rows that do not exist yet.
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


def _fenced(reader: str, topic: str, partitions: Iterable[int]) -> Fenced:
    return Fenced(f"{reader} on {topic!r}: partitions {sorted(partitions)} were taken over by another process.")
