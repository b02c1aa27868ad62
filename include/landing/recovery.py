"""How a stream goes on after an error that would lose or repeat records: a person accepts one of four outcomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from include.errors import UserError
from include.kafka import position, reader, topics
from include.kafka.position import StoredPosition
from include.kafka.position_errors import LogTruncated, OffsetsGone, PositionError, TopicMissing, TopicRecreated
from include.kafka.topics import Topic
from include.streams import produce
from include.streams.definition import Stream
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

LOST, RECREATED, TRUNCATED, BAD = "lost", "recreated", "truncated", "bad"


class AllRecordsRejected(PositionError):
    """All records of a batch were rejected: the definition is more likely to be wrong than every record."""

    def __init__(self, stream: str, count: int, partition: int, offset: int, reason: str) -> None:
        super().__init__(
            f"None of {count:,} records of stream {stream!r} can be landed, so the position stays where it is. "
            f"The first, partition {partition}, offset {offset}: {reason}."
        )


def with_remedy(error: PositionError, stream: Stream) -> PositionError:
    """The error with the command that lets the stream go on."""
    remedies: dict[type[PositionError], tuple[str, str]] = {
        OffsetsGone: (LOST, "To go on after them, recorded as lost"),
        TopicMissing: (RECREATED, "To go on with a new topic from offset 0"),
        TopicRecreated: (RECREATED, "To go on with the new topic from offset 0"),
        LogTruncated: (TRUNCATED, "To keep the rows and go on where the log was cut"),
        AllRecordsRejected: (BAD, "Fix the definition; or, to keep them all as dead letters and go on"),
    }
    if type(error) not in remedies:
        return error
    choice, purpose = remedies[type(error)]
    return error.with_remedy(f"{purpose}: ./millrace accept {stream.name} {choice}")


def accept(connection: Connection, stream: Stream, choice: str, who: str) -> list[str]:
    """Applies what a person accepted in one transaction, records it as a gap, and fences a drain that is at work.

    Returns:
        What was done, a line for each partition.

    Raises:
        UserError: The stream did not stop for this reason.
    """
    read = position.read_positions(connection, stream.reader, stream.topic)
    if choice == RECREATED and read:
        produce.make_topic(stream)
    try:
        topic = topics.describe(stream.topic)
    except PositionError as error:
        # A topic that was never read has no position to recover.
        raise with_remedy(error, stream) if read else error from None
    stored_positions = {}
    if read:
        position.lock_positions(connection, stream.reader, stream.topic, sorted(read))
        stored_positions = position.read_positions(connection, stream.reader, stream.topic)
    done = _ACCEPT[choice](_Recovery(connection, stream, topic, stored_positions, who))
    if not done:
        connection.rollback()
        raise UserError(
            f"There is nothing to accept as {choice!r} for stream {stream.name!r}: it did not stop for this reason.",
            f"The log of its DAG land__{stream.name} says why it stopped.",
        )
    queries.load("landing").forget_failures(connection, stream=stream.name)
    connection.commit()
    return done


class _Recovery:
    """One recovery, with the positions locked."""

    def __init__(
        self,
        connection: Connection,
        stream: Stream,
        topic: Topic,
        stored_positions: Mapping[int, StoredPosition],
        who: str,
    ) -> None:
        self.connection, self.stream, self.topic, self.stored_positions, self.who = (
            connection,
            stream,
            topic,
            stored_positions,
            who,
        )
        self.same = {p: s for p, s in stored_positions.items() if s.topic_id == topic.id and p in topic.partitions}

    def incarnation(self, topic_id: str) -> int:
        sql = queries.load("landing")
        sql.meet_incarnation(self.connection, topic=self.stream.topic, topic_id=topic_id)
        found = sql.read_incarnation(self.connection, topic=self.stream.topic, topic_id=topic_id)
        return found

    def record(self, incarnation: int, partition: int, first: int, end: int | None, choice: str) -> None:
        queries.load("landing").add_gap(
            self.connection,
            stream=self.stream.name,
            incarnation=incarnation,
            partition=partition,
            first=first,
            next=end,
            choice=choice,
            accepted_by=self.who,
        )

    def set_position(self, partition: int, offset: int) -> None:
        queries.load("position").set_position(
            self.connection,
            reader=self.stream.reader,
            topic=self.stream.topic,
            partition=partition,
            topic_id=self.topic.id,
            next=offset,
        )


def _accept_lost(recovery: _Recovery) -> list[str]:
    """Goes on at the first offset that still exists."""
    done = []
    for partition, extent in topics.extents(recovery.topic.name, recovery.same).items():
        at = recovery.same[partition].position.next_offset
        if at < extent.first:
            recovery.record(recovery.incarnation(recovery.topic.id), partition, at, extent.first, LOST)
            recovery.set_position(partition, extent.first)
            done.append(f"partition {partition}: offsets {at} to {extent.first - 1} are lost; next {extent.first}")
    return done


def _accept_recreated(recovery: _Recovery) -> list[str]:
    """Goes on with the new topic from offset 0 of each partition."""
    done = []
    for partition, stored in recovery.stored_positions.items():
        if stored.topic_id != recovery.topic.id:
            at = stored.position.next_offset
            recovery.record(recovery.incarnation(stored.topic_id), partition, at, None, RECREATED)
            recovery.set_position(partition, 0)
            done.append(
                f"partition {partition}: what the old topic held from offset {at} on is lost; next 0 of the new"
            )
    queries.load("position").drop_positions(
        recovery.connection,
        reader=recovery.stream.reader,
        topic=recovery.stream.topic,
        partitions=list(recovery.topic.partitions),
    )
    return done


def _accept_truncated(recovery: _Recovery) -> list[str]:
    """Goes on where the log was truncated, under a new incarnation, since its offsets are used a second time."""
    extents = topics.extents(recovery.topic.name, recovery.same)
    ends = {
        partition: _common_end(recovery.topic.name, stored, extents[partition].first, extents[partition].end)
        for partition, stored in recovery.same.items()
    }
    if all(ends[partition] == stored.position.next_offset for partition, stored in recovery.same.items()):
        return []
    recovery.incarnation(recovery.topic.id)
    number = queries.load("landing").begin_incarnation(
        recovery.connection, topic=recovery.topic.name, topic_id=recovery.topic.id
    )
    done = []
    for partition, stored in recovery.same.items():
        at = stored.position.next_offset
        recovery.record(number - 1, partition, ends[partition], at, TRUNCATED)
        recovery.set_position(partition, ends[partition])
        if ends[partition] < at:
            done.append(
                f"partition {partition}: keeps the rows of offsets {ends[partition]} to {at - 1}; new records at these "
                "offsets are a new incarnation"
            )
    return done


def _common_end(topic: str, stored: StoredPosition, first: int, end: int) -> int:
    """The offset up to which the log still holds what was read."""
    at, epoch = stored.position.next_offset, stored.position.leader_epoch
    if epoch is None:
        return min(at, end)
    return reader.agrees_until(topic, stored.position.partition, (first, min(at, end)), epoch)


def _accept_bad(recovery: _Recovery) -> list[str]:
    """Lets every record that the topic holds now become a dead letter, if necessary."""
    done = []
    for partition, extent in topics.extents(recovery.topic.name, recovery.same).items():
        at = recovery.same[partition].position.next_offset
        if at < extent.end:
            recovery.record(recovery.incarnation(recovery.topic.id), partition, at, extent.end, BAD)
            done.append(f"partition {partition}: offsets {at} to {extent.end - 1} may all become dead letters")
    return done


_ACCEPT: dict[str, Callable[[_Recovery], list[str]]] = {
    LOST: _accept_lost,
    RECREATED: _accept_recreated,
    TRUNCATED: _accept_truncated,
    BAD: _accept_bad,
}
