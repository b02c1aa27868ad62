"""Partition arithmetic: the spans of time that a stream's table is partitioned by, and the names of the partitions.

A span is half-open and in UTC. Its length is the period that the stream's definition gives. A span of hours or days
begins at a multiple of its length since 1970. A span of months or years begins with a month, at a multiple of its
length since the year 0, so that a span of ten years is a decade.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from include.streams.definition import CALENDAR, Stream
from include.streams.period import MONTHS_OF_YEAR

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
_UNIX_MONTH = UNIX_EPOCH.year * MONTHS_OF_YEAR
FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
"""The bounds of a partition without bounds."""
CALENDAR_US = tuple((end - UNIX_EPOCH) // MICROSECOND for end in CALENDAR)
"""The first and the last moment that clients can read, in microseconds since 1970."""


@dataclass(frozen=True, order=True)
class Span:
    """Time from ``start`` to ``end``, the end excluded; both UTC."""

    start: datetime
    end: datetime

    def __contains__(self, moment: datetime) -> bool:
        return self.start <= moment < self.end


def moment_of(microseconds: int) -> datetime:
    """The moment a number of microseconds after the beginning of 1970."""
    return UNIX_EPOCH + microseconds * MICROSECOND


def span_from(stream: Stream, start: datetime) -> Span:
    """The span that begins at ``start``; it ends where the stream's spans of months do."""
    duration = stream.period.duration
    if duration is not None:
        return Span(start, start + duration)
    return Span(start, _month(_number(stream, start) + stream.period.months))


def span_of(stream: Stream, moment: datetime) -> Span:
    """The span that holds a moment."""
    duration = stream.period.duration
    if duration is not None:
        return span_from(stream, UNIX_EPOCH + (moment - UNIX_EPOCH) // duration * duration)
    return span_from(stream, _month(_number(stream, moment)))


def spans_of(stream: Stream, times: NDArray[np.int64]) -> list[Span]:
    """The spans that hold some moments, in order, each once.

    Args:
        times: Microseconds since 1970, int64[n].
    """
    import numpy as np

    duration = stream.period.duration
    if duration is None:
        months = np.unique(times.view("datetime64[us]").astype("datetime64[M]").astype(np.int64)) + _UNIX_MONTH
        numbers = np.unique(months // stream.period.months * stream.period.months)
        return [span_from(stream, _month(int(number))) for number in numbers]
    width = duration // MICROSECOND
    starts = (moment_of(int(number) * width) for number in np.unique(times // width))
    return [Span(start, start + duration) for start in starts]


def next_spans(stream: Stream, now: datetime, count: int) -> list[Span]:
    """The span that holds ``now`` and the ``count`` after it."""
    found = [span_of(stream, now)]
    while len(found) <= count:
        found.append(span_from(stream, found[-1].end))
    return found


def partitionable(stream: Stream) -> tuple[int, int]:
    """Between which moments, the end excluded, the calendar holds whole partitions; in microseconds since 1970."""
    duration, months = stream.period.duration, stream.period.months
    if duration is not None:
        width = duration // MICROSECOND
        return -(-CALENDAR_US[0] // width) * width, CALENDAR_US[1] // width * width
    # The first month of the calendar is not whole.
    first = _month(-(-(_number_of_month(CALENDAR[0]) + 1) // months) * months)
    end = _month(_number(stream, CALENDAR[1]))
    return (first - UNIX_EPOCH) // MICROSECOND, (end - UNIX_EPOCH) // MICROSECOND


def _number(stream: Stream, moment: datetime) -> int:
    """The number of the month with which the stream's span that holds a moment begins."""
    return _number_of_month(moment) // stream.period.months * stream.period.months


def _number_of_month(moment: datetime) -> int:
    """The number of months from the beginning of the year 0."""
    return moment.year * MONTHS_OF_YEAR + moment.month - 1


def _month(number: int) -> datetime:
    """The beginning of a month."""
    year, month = divmod(number, MONTHS_OF_YEAR)
    return datetime(year, month + 1, 1, tzinfo=UTC)


def gaps(span: Span, known: Iterable[Span]) -> Iterator[Span]:
    """The parts of a span that no known span covers, in order; several only after the partitions' width has changed."""
    start = span.start
    for other in sorted(known):
        if other.end <= start or other.start >= span.end:
            continue
        if other.start > start:
            yield Span(start, other.start)
        start = max(start, other.end)
    if start < span.end:
        yield Span(start, span.end)


def joined(spans: Iterable[Span]) -> list[Span]:
    """The spans in order, with those that touch joined into one."""
    found: list[Span] = []
    for span in sorted(spans):
        if found and span.start <= found[-1].end:
            found[-1] = Span(found[-1].start, max(found[-1].end, span.end))
        else:
            found.append(span)
    return found


def name_of(stream: Stream, span: Span) -> str:
    """The name of a partition's table: the stream's name and the span's start, with its time unless spans are days."""
    by_day, by_minute = possible_names(stream.name, span.start)
    whole_days = span.start.time() == datetime.min.time() and span.end - span.start >= timedelta(days=1)
    return by_day if whole_days else by_minute


def possible_names(stream: str, start: datetime) -> tuple[str, str]:
    """The names that the partition that begins at ``start`` can have: by day, and by minute."""
    # strftime writes a year before 1000 with fewer digits.
    by_day = f"{stream}_{start.year:04}{start:%m%d}"
    return by_day, f"{by_day}_{start:%H%M}"


def start_of(stream: Stream, name: str) -> datetime:
    """The start of the span of a partition, from its name."""
    suffix = name.removeprefix(f"{stream.name}_")
    return datetime.strptime(f"{suffix}+0000", "%Y%m%d_%H%M%z" if "_" in suffix else "%Y%m%d%z")


def cut_off(stream: Stream, now: datetime) -> datetime:
    """The moment before which partitions are past their retention at ``now``; ``FIRST`` if they are kept forever."""
    return FIRST if stream.kept is None else stream.kept.before(now)


def kept(stream: Stream) -> int:
    """How many partitions end within ``keep``, at most; 0 if they are kept forever, so that the number has no limit."""
    return 0 if stream.retention is None else -(-stream.retention // stream.period.shortest)


def droppable_until(stream: Stream, now: datetime) -> datetime:
    """The landing time before which a row's partition may be past its retention at ``now``.

    No event that landed later is old enough, because it was at most ``late`` older than its record. If partitions are
    kept forever, it is ``FIRST``.
    """
    # A stream without a limit of lateness keeps its partitions forever.
    return FIRST if stream.lateness is None or stream.retention is None else cut_off(stream, now) + stream.lateness
