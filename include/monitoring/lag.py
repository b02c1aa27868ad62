"""The lag of all streams now, from Kafka's ends and the durable positions, with one set of requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from include.errors import UserError
from include.kafka import backlog, position, reader, topics
from include.kafka.backlog import Backlog
from include.kafka.position_errors import OffsetsGone, TopicMissing
from include.landing.dead_letters import NO_STAMP, STAMPS, appended_at

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

TIMEOUT_S = 2.0


@dataclass(frozen=True)
class Lag:
    """What waits in a stream's topic.

    Attributes:
        records: Offsets past the stored position that can be read now.
        seconds: Age of the oldest record that waits, by its timestamp in Kafka; 0 if none waits, None if unknown.
    """

    records: int
    seconds: float | None


def measure(
    connection: Connection, streams: Mapping[str, str], timeout_s: float = TIMEOUT_S
) -> dict[str, Lag | UserError]:
    """The lag of each stream, or the error for which it is unknown: Kafka does not answer, or the stream must stop.

    Args:
        connection: A connection to the warehouse.
        streams: The topic of each stream by its name.
        timeout_s: Seconds that each request to Kafka waits at most.

    Raises:
        UserError: Kafka does not answer.
    """
    brokers = topics.connected(timeout_s)
    if not streams:
        return {}
    keys = {stream: (f"landing:{stream}", topic) for stream, topic in streams.items()}
    measured = backlog.measure_all(brokers, connection, keys.values(), timeout_s)
    found = {stream: _checked(connection, *key, measured[key]) for stream, key in keys.items()}
    backlogs = {stream: each for stream, each in found.items() if not isinstance(each, UserError)}
    stamps = reader.first_stamps(
        {
            (streams[stream], partition): offset
            for stream, each in backlogs.items()
            for partition, offset in _waiting(each).items()
        },
        timeout_s,
    )
    now = datetime.now(UTC)
    return {
        stream: each if isinstance(each, UserError) else Lag(each.lag, _age(streams[stream], each, stamps, now))
        for stream, each in found.items()
    }


def _checked(connection: Connection, reader: str, topic: str, measured: Backlog | UserError) -> Backlog | UserError:
    """The error with which the stream's next drain will stop, if retention has removed records that were not read.

    Nothing waits in a topic that does not exist yet.
    """
    if isinstance(measured, TopicMissing):
        never_read = not position.read_positions(connection, reader, topic)
        connection.rollback()
        return Backlog({}, {}) if never_read else measured
    if isinstance(measured, UserError):
        return measured
    for partition, offset in measured.positions.items():
        if 0 < offset < (first := measured.extents[partition].first):
            return OffsetsGone(topic, partition, offset, first)
    return measured


def _waiting(measured: Backlog) -> dict[int, int]:
    """The partitions with records that wait, and the offset of the first."""
    starts = {p: max(offset, measured.extents[p].first) for p, offset in measured.positions.items()}
    return {p: start for p, start in starts.items() if start < measured.extents[p].stable_end}


def _age(topic: str, measured: Backlog, stamps: Mapping[tuple[str, int], int], now: datetime) -> float | None:
    waiting = _waiting(measured)
    known = [stamps[topic, partition] for partition in waiting if (topic, partition) in stamps]
    if not waiting:
        return 0.0
    times = [appended_at(stamp) for stamp in known if stamp != NO_STAMP and STAMPS[0] <= stamp <= STAMPS[1]]
    if len(known) < len(waiting) or not times:
        return None
    return max(0.0, (now - min(times)).total_seconds())
