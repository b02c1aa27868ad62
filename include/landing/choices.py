"""What a person can choose where a stream stopped because going on would lose or repeat records."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from include.errors import UserError
from include.kafka import position, reader, topics
from include.kafka.position import Standing
from include.kafka.stops import LogTruncated, OffsetsGone, Stop, TopicMissing, TopicRecreated
from include.kafka.topics import Topic
from include.streams import produce
from include.streams.definition import Stream
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

LOST, RECREATED, TRUNCATED, BAD = "lost", "recreated", "truncated", "bad"


class BatchRefused(Stop):
    """A batch is bad through and through: more likely the definition is wrong than every record."""

    def __init__(self, stream: str, count: int, partition: int, offset: int, reason: str) -> None:
        super().__init__(
            f"None of {count:,} records of stream {stream!r} can be landed, and nothing of them is marked as done. "
            f"The first, partition {partition}, offset {offset}: {reason}."
        )


def advised(stop: Stop, stream: Stream) -> Stop:
    """The stop with the one command that chooses to go on."""
    remedies: dict[type[Stop], tuple[str, str]] = {
        OffsetsGone: (LOST, "To go on after them, recorded as lost"),
        TopicMissing: (RECREATED, "To go on with a new topic from offset 0"),
        TopicRecreated: (RECREATED, "To go on with the new topic from offset 0"),
        LogTruncated: (TRUNCATED, "To keep the rows and go on where the log was cut"),
        BatchRefused: (BAD, "Mend the definition; or, to keep them all as dead letters and go on"),
    }
    if type(stop) not in remedies:
        return stop
    choice, purpose = remedies[type(stop)]
    return stop.advised(f"{purpose}: ./millrace accept {stream.name} {choice}")


def accept(connection: Connection, stream: Stream, choice: str, who: str) -> list[str]:
    """Carries out a choice in one transaction, records it in ``millrace.landing_gap``, and fences any drain at work.

    Returns:
        What was done, a line for each partition.

    Raises:
        UserError: The stream does not stand where this choice would help.
    """
    read = position.standings(connection, stream.reader, stream.topic)
    if choice == RECREATED and read:
        produce.make_topic(stream)
    try:
        topic = topics.describe(stream.topic)
    except Stop as stop:
        # Of what was never read nothing is to be chosen.
        raise advised(stop, stream) if read else stop from None
    standings = {}
    if read:
        position.hold(connection, stream.reader, stream.topic, sorted(read))
        standings = position.standings(connection, stream.reader, stream.topic)
    done = _CHOICES[choice](_Decision(connection, stream, topic, standings, who))
    if not done:
        connection.rollback()
        raise UserError(
            f"Nothing of stream {stream.name!r} is {choice}.", f"Its DAG land__{stream.name} says why it stopped."
        )
    queries.load("landing").forget_failures(connection, stream=stream.name)
    connection.commit()
    return done


class _Decision:
    """One choice being carried out, the positions locked."""

    def __init__(
        self, connection: Connection, stream: Stream, topic: Topic, standings: Mapping[int, Standing], who: str
    ) -> None:
        self.connection, self.stream, self.topic, self.standings, self.who = connection, stream, topic, standings, who
        self.same = {p: s for p, s in standings.items() if s.topic_id == topic.id and p in topic.partitions}

    def incarnation(self, topic_id: str) -> int:
        sql = queries.load("landing")
        sql.meet_incarnation(self.connection, topic=self.stream.topic, topic_id=topic_id)
        found: int = sql.read_incarnation(self.connection, topic=self.stream.topic, topic_id=topic_id)
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

    def place(self, partition: int, offset: int) -> None:
        queries.load("position").place_position(
            self.connection,
            reader=self.stream.reader,
            topic=self.stream.topic,
            partition=partition,
            topic_id=self.topic.id,
            next=offset,
        )


def _lose(decision: _Decision) -> list[str]:
    """Goes on at the first offset that still exists."""
    done = []
    for partition, extent in topics.extents(decision.topic.name, decision.same).items():
        at = decision.same[partition].position.next_offset
        if at < extent.first:
            decision.record(decision.incarnation(decision.topic.id), partition, at, extent.first, LOST)
            decision.place(partition, extent.first)
            done.append(f"partition {partition}: offsets {at} to {extent.first - 1} are lost; next {extent.first}")
    return done


def _begin_anew(decision: _Decision) -> list[str]:
    """Goes on with the new topic from offset 0 of each partition."""
    done = []
    for partition, standing in decision.standings.items():
        if standing.topic_id != decision.topic.id:
            at = standing.position.next_offset
            decision.record(decision.incarnation(standing.topic_id), partition, at, None, RECREATED)
            decision.place(partition, 0)
            done.append(
                f"partition {partition}: what the old topic held from offset {at} on is lost; next 0 of the new"
            )
    queries.load("position").drop_positions(
        decision.connection,
        reader=decision.stream.reader,
        topic=decision.stream.topic,
        partitions=list(decision.topic.partitions),
    )
    return done


def _cut(decision: _Decision) -> list[str]:
    """Goes on where the log was cut, under a new incarnation: its offsets are given a second time."""
    extents = topics.extents(decision.topic.name, decision.same)
    ends = {
        partition: _common_end(decision.topic.name, standing, extents[partition].first, extents[partition].end)
        for partition, standing in decision.same.items()
    }
    if all(ends[partition] == standing.position.next_offset for partition, standing in decision.same.items()):
        return []
    decision.incarnation(decision.topic.id)
    number = queries.load("landing").begin_incarnation(
        decision.connection, topic=decision.topic.name, topic_id=decision.topic.id
    )
    done = []
    for partition, standing in decision.same.items():
        at = standing.position.next_offset
        decision.record(number - 1, partition, ends[partition], at, TRUNCATED)
        decision.place(partition, ends[partition])
        if ends[partition] < at:
            done.append(f"partition {partition}: rows of offsets {ends[partition]} to {at - 1} stay; next as many anew")
    return done


def _common_end(topic: str, standing: Standing, first: int, end: int) -> int:
    """Up to where the log still holds what was read."""
    at, epoch = standing.position.next_offset, standing.position.leader_epoch
    if epoch is None:
        return min(at, end)
    return reader.agrees_until(topic, standing.position.partition, (first, min(at, end)), epoch)


def _take_as_bad(decision: _Decision) -> list[str]:
    """Lets everything that the topic holds now become dead letters, if it must."""
    done = []
    for partition, extent in topics.extents(decision.topic.name, decision.same).items():
        at = decision.same[partition].position.next_offset
        if at < extent.end:
            decision.record(decision.incarnation(decision.topic.id), partition, at, extent.end, BAD)
            done.append(f"partition {partition}: offsets {at} to {extent.end - 1} may all become dead letters")
    return done


_CHOICES: dict[str, Callable[[_Decision], list[str]]] = {
    LOST: _lose,
    RECREATED: _begin_anew,
    TRUNCATED: _cut,
    BAD: _take_as_bad,
}
