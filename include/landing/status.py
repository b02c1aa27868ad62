"""The status of a stream: what waits in Kafka, for how long, and the dispositions of the records before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from include.kafka import backlog, client
from include.kafka.backlog import Backlog, Place
from include.kafka.position_errors import OffsetsGone
from include.landing.dead_letters import NO_STAMP, STAMPS, appended_at
from include.streams.definition import Stream
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


@dataclass(frozen=True)
class Totals:
    """The dispositions of a stream's records so far, from the warehouse alone.

    Attributes:
        newest_event: The newest event time that landed.
        landed, dead_letters, quarantined, filtered: Numbers of records by their disposition.
    """

    newest_event: datetime | None
    landed: int
    dead_letters: int
    quarantined: int
    filtered: int


@dataclass(frozen=True)
class Status(Totals):
    """The status of one stream.

    Attributes:
        lag: Offsets past the stored position that can be read now.
        topics: ``lag`` by topic, if there are several.
        behind_s: Age in seconds of the oldest record that waits, by its timestamp in Kafka; 0 if none waits.
        blocked_since: Since when an open transaction holds back all records that wait; None if none does.
    """

    lag: int
    behind_s: float
    blocked_since: datetime | None
    topics: Mapping[str, int] | None = None


def totals(stream: Stream, connection: Connection) -> Totals:
    """The dispositions of the stream's records so far, without reading Kafka."""
    landed, dead_letters, quarantined, filtered, _, _, newest, _ = queries.load("landing").read_totals(
        connection, stream=stream.name
    )
    connection.rollback()
    return Totals(newest, int(landed), int(dead_letters), int(quarantined), int(filtered))


def of(stream: Stream, connection: Connection) -> Status:
    """The stream's status, from Kafka's ends and the durable position, never from a group's offsets.

    Raises:
        TopicMissing: The stream has no topic yet.
        OffsetsGone: Retention removed records before they were read.
        UserError: Kafka does not answer.
    """
    measured = backlog.measure(client.admin(), connection, stream.reader, stream.topic)
    for place, offset in measured.positions.items():
        if 0 < offset < (first := measured.extents[place].first):
            raise OffsetsGone(*place, offset, first)
    oldest = _oldest_waiting(measured)
    return Status(
        **vars(totals(stream, connection)),
        lag=measured.lag,
        behind_s=max(0.0, (datetime.now(UTC) - oldest).total_seconds()) if oldest else 0.0,
        blocked_since=_blocked_since(measured) if measured.blocked else None,
        topics=None if stream.topics is None else measured.lags,
    )


def _oldest_waiting(measured: Backlog) -> datetime | None:
    starts = {
        place: max(offset, measured.extents[place].first)
        for place, offset in measured.positions.items()
        if measured.extents[place].stable_end > offset
    }
    return _first_append_time(starts, "read_committed")


def _blocked_since(measured: Backlog) -> datetime | None:
    starts = {place: extent.stable_end for place, extent in measured.extents.items() if extent.end > extent.stable_end}
    return _first_append_time(starts, "read_uncommitted")


def _first_append_time(starts: Mapping[Place, int], isolation: str) -> datetime | None:
    """The time of the oldest among the first records of the partitions; None if none has a time within the calendar."""
    from include.kafka import reader

    found = [reader.first_at(*place, start, isolation) for place, start in starts.items()]
    stamps = [message.timestamp()[1] for message in found if message is not None]
    times = [stamp for stamp in stamps if stamp != NO_STAMP and STAMPS[0] <= stamp <= STAMPS[1]]
    return appended_at(min(times)) if times else None
