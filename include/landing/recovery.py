"""Recovery: how a stream continues after an error that would lose or repeat records, once a user has accepted it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from include.error_codes import Code
from include.errors import UserError
from include.kafka import position, reader, topics
from include.kafka.position import StoredPosition
from include.kafka.position_errors import PositionError, TopicMissing
from include.kafka.topics import Topic
from include.landing import incarnation
from include.landing.choice import CHOICES, Choice
from include.landing.decoder import StopReason
from include.streams import produce
from include.streams.definition import Stream
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

# If none of at least this many records can be landed, the definition is more likely to be wrong than every record.
MIN_REJECTED = 100


class AllRecordsRejected(PositionError):
    """None of the records of a batch can be landed."""

    def __init__(self, stream: str, count: int, partition: int, offset: int, reason: str) -> None:
        super().__init__(
            f"None of the {count:,} records read from stream {stream!r} can be landed, so the stream has stopped; no "
            f"record was skipped. The first one, partition {partition}, offset {offset}: {reason}.",
            code=Code.ALL_RECORDS_REJECTED,
        )


class SchemaStops(PositionError):
    """A record names a schema that is unknown or fits no event, or truncates the source table."""

    def __init__(self, stream: str, partition: int, offset: int, reason: StopReason) -> None:
        super().__init__(
            f"Stream {stream!r} has stopped at partition {partition}, offset {offset}: {str(reason).rstrip('.')}. No "
            "record was skipped.",
            code=reason.code,
        )


def with_remedy(error: PositionError, stream: Stream) -> PositionError:
    """The error with the command that lets the stream continue."""
    purposes = {
        Code.OFFSETS_REMOVED: "To record them as lost and continue after them",
        Code.TOPIC_MISSING: "To create it and continue from offset 0"
        if stream.topics is None
        else "To continue without it",
        Code.TOPIC_RECREATED: "To continue with the new topic from offset 0",
        Code.LOG_TRUNCATED: "To keep their rows and continue where the log was cut",
        Code.SCHEMA_UNKNOWN: "Register the schema under this id again, or correct the connection to the registry. Or, "
        "to keep the records that the topic has now as dead letters and continue",
        Code.SCHEMA_INCOMPATIBLE: f"Correct the definition; ./millrace check {stream.name} compares it with all "
        "schemas. Or, to keep the records that the topic has now as dead letters and continue",
        Code.SOURCE_TRUNCATED: "To keep the record as a dead letter, and in the current state the rows that the source "
        "no longer has, and continue",
        Code.ALL_RECORDS_REJECTED: "Correct the definition or the producer. Or, to keep these records as dead letters "
        "and continue",
    }
    if error.code not in CHOICES:
        return error
    return error.with_remedy(f"{purposes[error.code]}: ./millrace accept {stream.name} {CHOICES[error.code]}")


def accept(connection: Connection, stream: Stream, choice: Choice, who: str) -> list[str]:
    """Applies a choice in one transaction, records it as a gap, and fences a drain that is running.

    Returns:
        A line for each partition that was changed.

    Raises:
        UserError: The stream did not stop for this reason.
    """
    if stream.topics is None:
        done = _accept_one(connection, stream, stream.topic, choice, who)
    else:
        wanted = stream.topic_choice.of(position.read_topics(connection, stream.reader))
        done = [
            f"{name}, {line}"
            for name in wanted
            for line in _accept_one_of_several(connection, stream, name, choice, who)
        ]
    if not done:
        connection.rollback()
        raise UserError(
            f"There is nothing to accept as {choice.value!r} for stream {stream.name!r}, which did not stop for this "
            "reason.",
            f"Read why it stopped with ./millrace doctor, or in the log of the DAG land__{stream.name}.",
            code=Code.NOTHING_TO_ACCEPT,
        )
    queries.load("landing").forget_failures(connection, stream=stream.name)
    connection.commit()
    return done


def _accept_one(connection: Connection, stream: Stream, name: str, choice: Choice, who: str) -> list[str]:
    read = position.read_positions(connection, stream.reader, name)
    if choice is Choice.RECREATED and read and stream.topics is None:
        produce.make_topic(stream)
    try:
        topic = topics.describe(name)
    except PositionError as error:
        # A topic that was never read has no position to recover.
        raise with_remedy(error, stream) if read else error from None
    stored_positions = {}
    if read:
        position.lock_positions(connection, stream.reader, name, sorted(read))
        stored_positions = position.read_positions(connection, stream.reader, name)
    return _ACCEPT[choice](_Recovery(connection, stream, topic, stored_positions, who))


def _accept_one_of_several(connection: Connection, stream: Stream, name: str, choice: Choice, who: str) -> list[str]:
    """Applies a choice to one of the topics of a stream. The stream continues without a topic that is missing."""
    try:
        return _accept_one(connection, stream, name, choice, who)
    except TopicMissing:
        if choice is not Choice.RECREATED:
            return []
    position.lock_positions(connection, stream.reader, name, position.read_positions(connection, stream.reader, name))
    done = []
    for partition, stored in position.read_positions(connection, stream.reader, name).items():
        recovery = _Recovery(connection, stream, Topic(name, stored.topic_id, ()), {}, who)
        at = stored.position.next_offset
        recovery.record(recovery.incarnation(stored.topic_id), partition, at, None, choice)
        done.append(
            f"partition {partition}: records of the topic from offset {at} on are lost; continues without the topic, "
            "and reads it from offset 0 if it is created again"
        )
    queries.load("position").drop_positions(connection, reader=stream.reader, topic=name, partitions=[])
    return done


class _Recovery:
    """One recovery, with its positions locked."""

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
        return incarnation.meet(self.connection, self.stream.name, self.topic.name, topic_id)

    def record(self, incarnation: int, partition: int, first: int, end: int | None, choice: Choice) -> None:
        queries.load("landing").add_gap(
            self.connection,
            stream=self.stream.name,
            incarnation=incarnation,
            partition=partition,
            first=first,
            next=end,
            choice=choice.value,
            accepted_by=self.who,
        )

    def set_position(self, partition: int, offset: int) -> None:
        queries.load("position").set_position(
            self.connection,
            reader=self.stream.reader,
            topic=self.topic.name,
            partition=partition,
            topic_id=self.topic.id,
            next=offset,
        )


def _accept_lost(recovery: _Recovery) -> list[str]:
    """Continues at the first offset that still exists."""
    done = []
    for partition, extent in topics.extents(recovery.topic.name, recovery.same).items():
        at = recovery.same[partition].position.next_offset
        if at < extent.first:
            recovery.record(recovery.incarnation(recovery.topic.id), partition, at, extent.first, Choice.LOST)
            recovery.set_position(partition, extent.first)
            done.append(
                f"partition {partition}: offsets {at} to {extent.first - 1} are lost; continues at {extent.first}"
            )
    return done


def _accept_recreated(recovery: _Recovery) -> list[str]:
    """Continues with the new topic from offset 0 of each partition."""
    done = []
    for partition, stored in recovery.stored_positions.items():
        if stored.topic_id != recovery.topic.id:
            at = stored.position.next_offset
            recovery.record(recovery.incarnation(stored.topic_id), partition, at, None, Choice.RECREATED)
            recovery.set_position(partition, 0)
            done.append(
                f"partition {partition}: records of the old topic from offset {at} on are lost; continues at "
                "offset 0 of the new topic"
            )
    queries.load("position").drop_positions(
        recovery.connection,
        reader=recovery.stream.reader,
        topic=recovery.topic.name,
        partitions=list(recovery.topic.partitions),
    )
    return done


def _accept_truncated(recovery: _Recovery) -> list[str]:
    """Continues where the log was truncated, as a new incarnation, because its offsets are used a second time."""
    extents = topics.extents(recovery.topic.name, recovery.same)
    ends = {
        partition: _common_end(recovery.topic.name, stored, extents[partition].first, extents[partition].end)
        for partition, stored in recovery.same.items()
    }
    if all(ends[partition] == stored.position.next_offset for partition, stored in recovery.same.items()):
        return []
    former = recovery.incarnation(recovery.topic.id)
    queries.load("landing").begin_incarnation(
        recovery.connection, stream=recovery.stream.name, topic=recovery.topic.name, topic_id=recovery.topic.id
    )
    done = []
    for partition, stored in recovery.same.items():
        at = stored.position.next_offset
        recovery.record(former, partition, ends[partition], at, Choice.TRUNCATED)
        recovery.set_position(partition, ends[partition])
        if ends[partition] < at:
            done.append(
                f"partition {partition}: keeps the rows of offsets {ends[partition]} to {at - 1}; records that are "
                "sent again at these offsets belong to a new incarnation"
            )
    return done


def _common_end(topic: str, stored: StoredPosition, first: int, end: int) -> int:
    """The offset up to which the log still holds the records that were read."""
    at, epoch = stored.position.next_offset, stored.position.leader_epoch
    if epoch is None:
        return min(at, end)
    return reader.agrees_until(topic, stored.position.partition, (first, min(at, end)), epoch)


def _accept_bad(recovery: _Recovery) -> list[str]:
    """Allows every record that the topic holds now to become a dead letter."""
    done = []
    for partition, extent in topics.extents(recovery.topic.name, recovery.same).items():
        at = recovery.same[partition].position.next_offset
        if at < extent.end:
            recovery.record(recovery.incarnation(recovery.topic.id), partition, at, extent.end, Choice.BAD)
            done.append(f"partition {partition}: offsets {at} to {extent.end - 1} may all become dead letters")
    return done


_ACCEPT: dict[Choice, Callable[[_Recovery], list[str]]] = {
    Choice.LOST: _accept_lost,
    Choice.RECREATED: _accept_recreated,
    Choice.TRUNCATED: _accept_truncated,
    Choice.BAD: _accept_bad,
}
