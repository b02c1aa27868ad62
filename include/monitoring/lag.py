"""The lag of all streams now, from Kafka's ends and the durable positions, with one set of requests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from include.errors import UserError
from include.kafka import backlog, position, reader, topics
from include.kafka.backlog import Backlog, Place
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
        topics: The offsets by topic.
    """

    records: int
    seconds: float | None
    topics: Mapping[str, int] = field(default_factory=dict)


def measure(
    connection: Connection, streams: Mapping[str, str], timeout_s: float = TIMEOUT_S
) -> dict[str, Lag | UserError]:
    """The lag of each stream, or the error for which it is unknown: Kafka does not answer, or the stream must stop.

    Args:
        connection: A connection to the warehouse.
        streams: The topic of each stream by its name, or the text of its ``TopicChoice``.
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
    stamps = _stamps(backlogs.values(), timeout_s)
    now = datetime.now(UTC)
    return {
        stream: each if isinstance(each, UserError) else Lag(each.lag, _age(each, stamps, now), each.lags)
        for stream, each in found.items()
    }


def _checked(connection: Connection, reader: str, topic: str, measured: Backlog | UserError) -> Backlog | UserError:
    """The error with which the stream's next drain will stop, if retention has removed records that were not read.

    Nothing waits in a topic that does not exist yet.
    """
    if isinstance(measured, TopicMissing):
        # The topic that is missing may be one of several.
        never_read = not position.read_positions(connection, reader, measured.topic)
        connection.rollback()
        return Backlog({}, {}) if never_read else measured
    if isinstance(measured, UserError):
        return measured
    for place, offset in measured.positions.items():
        if 0 < offset < (first := measured.extents[place].first):
            return OffsetsGone(*place, offset, first)
    return measured


def _stamps(backlogs: Iterable[Backlog], timeout_s: float) -> dict[tuple[Place, int], int]:
    """The timestamp of the first record that waits, by its place and the position there.

    Several streams may read one partition, each at its own position; one consumer reads a partition once at a time.
    """
    todo = {item for each in backlogs for item in _waiting(each).items()}
    found: dict[tuple[Place, int], int] = {}
    while todo:
        starts = dict(todo)
        todo -= starts.items()
        stamps = reader.first_stamps(starts, timeout_s)
        found |= {(place, starts[place]): stamp for place, stamp in stamps.items()}
    return found


def _waiting(measured: Backlog) -> dict[Place, int]:
    """The partitions with records that wait, and the offset of the first."""
    starts = {p: max(offset, measured.extents[p].first) for p, offset in measured.positions.items()}
    return {p: start for p, start in starts.items() if start < measured.extents[p].stable_end}


def _age(measured: Backlog, stamps: Mapping[tuple[Place, int], int], now: datetime) -> float | None:
    waiting = _waiting(measured)
    known = [stamps[item] for item in waiting.items() if item in stamps]
    if not waiting:
        return 0.0
    times = [appended_at(stamp) for stamp in known if stamp != NO_STAMP and STAMPS[0] <= stamp <= STAMPS[1]]
    if len(known) < len(waiting) or not times:
        return None
    return max(0.0, (now - min(times)).total_seconds())
