"""The lateness rule of drain, replay and retry: whether an event is too late, too early or outside of the calendar."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from include.landing import spans
from include.landing.dead_letters import NO_STAMP, STAMPS
from include.streams.definition import Stream

if TYPE_CHECKING:
    from numpy.typing import NDArray


NO_RECORD_TIME = "the record has no timestamp in Kafka, which is the event time of this stream"
_NO_LIMIT = 2**63 - 1


class TimeLimits:
    """Compares an event's time with the timestamp of its record in Kafka.

    An event is quarantined if it is older than its record by more than ``late``, newer by more than ``early``, or in no
    partition that the calendar holds, or if its record has no usable timestamp.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._early = stream.earliness // spans.MICROSECOND
        self._late = _NO_LIMIT if stream.lateness is None else stream.lateness // spans.MICROSECOND
        self._first, self._end = spans.partitionable(stream)

    def exceeded(self, times: NDArray[np.int64], stamps: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which events are outside of the limits.

        Args:
            times: Event times in microseconds since 1970, int64[n].
            stamps: The records' timestamps in milliseconds since 1970, int64[n].
        """
        first, last = STAMPS
        # A timestamp outside of the calendar, such as one of a producer that counts in another unit, would overflow.
        age = np.clip(stamps, first, last) * 1000 - times
        exceeded: NDArray[np.bool_] = (age > self._late) | (age < -self._early)
        exceeded |= (stamps < first) | (stamps > last) | (stamps == NO_STAMP)
        exceeded |= (times < self._first) | (times >= self._end)
        return exceeded

    def reason(self, time: int, stamp: int) -> str:
        """Why one event is outside of the limits; it goes into ``millrace.dead_letter``."""
        name = self._stream.event_time
        first, last = STAMPS
        if stamp == NO_STAMP:
            return f"the record has no timestamp in Kafka to compare {name} with"
        if not first <= stamp <= last:
            useless = "" if self._stream.has_record_time else f", so {name} cannot be compared with it"
            return (
                f"the record's timestamp in Kafka, {stamp} ms since 1970, is outside of the years 1 to 9999{useless}; "
                "its producer may count in another unit"
            )
        age = stamp * 1000 - time
        if age > self._late or age < -self._early:
            limit = f"late={self._stream.late!r}" if age > 0 else f"early={self._stream.early!r}"
            return (
                f"{name} is {abs(age) * spans.MICROSECOND} {'older' if age > 0 else 'newer'} than the record; {limit}"
            )
        return f"{name} is too close to the calendar's end for a partition of {self._stream.partition}"


def record_times(stamps: NDArray[np.int64]) -> NDArray[np.int64]:
    """The event times of records whose timestamp is their event time, in microseconds since 1970.

    A timestamp outside of the calendar, which ``TimeLimits`` rejects, becomes the calendar's nearest end.
    """
    first, last = STAMPS
    return np.clip(stamps, first, last) * 1000
