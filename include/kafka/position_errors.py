"""Errors of a stored position: going on would lose or repeat records, so a person decides how to go on."""

from __future__ import annotations

from include.errors import UserError


class PositionError(UserError):
    """Reading cannot go on without a decision of a person. Retrying does not help."""


class TopicMissing(PositionError):
    """The topic does not exist."""

    def __init__(self, topic: str) -> None:
        super().__init__(f"The topic {topic!r} does not exist.", "Create it, or start its producer once.")
        self.topic = topic


class TopicRecreated(PositionError):
    """The topic was deleted and made again: its offsets now name other records."""

    def __init__(self, reader: str, topic: str, known: str, found: str) -> None:
        super().__init__(
            f"The topic {topic!r} was recreated (id {found}, read so far: {known}), so {reader!r} cannot go on "
            "from its old offsets."
        )
        self.reader, self.topic, self.known, self.found = reader, topic, known, found


class OffsetsGone(PositionError):
    """Records that were not read yet were removed by retention."""

    def __init__(self, topic: str, partition: int, wanted: int, first: int) -> None:
        super().__init__(
            f"Topic {topic!r}, partition {partition}: offsets {wanted} to {first - 1} were removed before they were "
            "read (retention)."
        )
        self.topic, self.partition, self.wanted, self.first = topic, partition, wanted, first


class LogTruncated(PositionError):
    """The log ends before the position: records that were read no longer exist in Kafka."""

    def __init__(self, topic: str, partition: int, position: int, end: int) -> None:
        super().__init__(
            f"Topic {topic!r}, partition {partition}: the log was truncated below the position {position}; it ends at "
            f"offset {end}. Records that were read no longer exist in Kafka."
        )
        self.topic, self.partition, self.position, self.end = topic, partition, position, end


class Fenced(Exception):
    """Another process has taken over these partitions; what this one was about to write must not be written."""
