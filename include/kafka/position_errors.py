"""Errors of a stored position: reading on would lose or repeat records, so a user decides how the stream continues."""

from __future__ import annotations

from include.error_codes import Code
from include.errors import UserError


class PositionError(UserError):
    """Reading cannot continue until a user decides how. A retry does not help."""


class TopicMissing(PositionError):
    """The topic does not exist."""

    def __init__(self, topic: str) -> None:
        super().__init__(
            f"The topic {topic!r} does not exist.", "Create it, or start its producer.", code=Code.TOPIC_MISSING
        )
        self.topic = topic


class TopicRecreated(PositionError):
    """The topic was deleted and created again: its offsets now name other records."""

    def __init__(self, reader: str, topic: str, known: str, found: str) -> None:
        super().__init__(
            f"The topic {topic!r} was deleted and created again, so the stored positions of {reader!r} do not fit it, "
            f"and reading has stopped. Records of the old topic that were not read are lost (topic id {found}, before "
            f"{known}).",
            code=Code.TOPIC_RECREATED,
        )
        self.reader, self.topic, self.known, self.found = reader, topic, known, found


class OffsetsGone(PositionError):
    """Retention removed records before they were read."""

    def __init__(self, topic: str, partition: int, wanted: int, first: int) -> None:
        super().__init__(
            f"Topic {topic!r}, partition {partition}: Kafka's retention removed offsets {wanted} to {first - 1} before "
            "they were read, and reading has stopped.",
            code=Code.OFFSETS_REMOVED,
        )
        self.topic, self.partition, self.wanted, self.first = topic, partition, wanted, first


class LogTruncated(PositionError):
    """The log ends before the position, or was rewritten there: Kafka lost records that were read."""

    def __init__(self, topic: str, partition: int, position: int, end: int) -> None:
        super().__init__(
            f"Topic {topic!r}, partition {partition}: the log was truncated below the position {position} and ends at "
            f"offset {end}. Kafka lost records that were read.",
            code=Code.LOG_TRUNCATED,
        )
        self.topic, self.partition, self.position, self.end = topic, partition, position, end


class Fenced(UserError):
    """Another process claimed these partitions; this one must not write what it was about to write."""

    def __init__(self, reader: str, topic: str, partitions: list[int]) -> None:
        super().__init__(
            f"Another process took over partitions {partitions} of topic {topic!r} as {reader!r}, so this one "
            "stopped. What it had not committed is rolled back.",
            "After a restart or a retry this is normal. If it repeats, two processes read for this reader: end one.",
            code=Code.POSITIONS_TAKEN_OVER,
        )
        self.reader, self.topic, self.partitions = reader, topic, partitions
