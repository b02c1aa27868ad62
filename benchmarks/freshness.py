"""From an event to its visible row, through the real DAG in the running Airflow.

Events go to a shipped stream at a steady rate, each with the time at which it was passed to the producer. Every 10 ms
an observer queries up to which offset rows are visible: the transaction that writes rows moves the position. At the end
the time of each row is compared with the time at which its offset was first visible.

The slowest periods of the run are listed, and whether they coincide with a window change: the time from the last
transaction of one drain to the first of the next.
"""

from __future__ import annotations

import io
import multiprocessing
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import cycle, islice, pairwise
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

import aiosql
import numpy as np

from benchmarks import figures
from embedded.airflow_api import AirflowApi, ApiError
from embedded.platform import Platform
from include.error_codes import Code
from include.errors import UserError
from include.kafka import client, topics
from include.streams import definitions, produce
from include.streams.definition import Stream
from include.warehouse.connection import connected

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

STREAM = "vehicle_positions"
WINDOW = "75 seconds"
SAMPLE_S, PACE_S = 0.01, 0.002
STARTED_S, LANDED_S = 60.0, 60.0
DISTINCT = 20_000
# The age from which an event is slow, the gap between two slow periods, and how many periods are shown.
SLOW_S, APART_S, SHOWN = 0.3, 0.5, 5


class Sample(NamedTuple):
    """The visible rows at one time.

    Attributes:
        moment: Seconds since 1970.
        seen: For each partition, the offset up to which rows are visible.
        claim: A number that grows each time a drain claims the partitions.
    """

    moment: float
    seen: Mapping[int, int]
    claim: int


@dataclass(frozen=True)
class Change:
    """A window change, in seconds since 1970: the last transaction of one drain, and the first of the next."""

    left: float
    taken: float

    @property
    def gap_s(self) -> float:
        """The time without any transaction."""
        return self.taken - self.left


@dataclass(frozen=True)
class Stretch:
    """A period in which events became visible late.

    Attributes:
        at_s: When its first event was sent, in seconds since the run's first event.
        lasted_s: The seconds from its first to its last event.
        oldest_s: The age of its oldest event when the row became visible.
        at_change: Whether the drains changed meanwhile.
    """

    at_s: float
    lasted_s: float
    oldest_s: float
    at_change: bool


def main(rate: int = 5_000, seconds: int = 300, json_path: str | None = None) -> None:
    """Send ``rate`` events a second for ``seconds``, print the age of their rows, and write it to ``json_path``.

    Raises:
        UserError: The DAG does not land the events, or not all of them.
    """
    stream = definitions.get(STREAM)
    produce.make_topic(stream)
    with _landing(stream), connected("bench observer") as connection:
        connection.autocommit = True
        _until_caught_up(connection, stream)
        # Start with a running drain: the first event of an idle stream takes longer and is not measured here.
        produce.produce(stream, 1)
        ends = _until_caught_up(connection, stream)
        figures.progress.print(f"  sending {rate:,} events a second for {seconds} s …")
        sender = multiprocessing.get_context("spawn").Process(target=send, args=(rate, seconds), daemon=True)
        sender.start()
        samples = list(_observe(connection, stream, sender))
        if sender.exitcode:
            raise UserError(
                "The producer of the events failed.", "See ./millrace logs kafka.", code=Code.BENCHMARK_FAILED
            )
        offsets, times, partitions = _rows(connection, stream, ends)
    if len(times) != rate * seconds:
        raise UserError(
            f"The table landing.{stream.name} has {len(times)} rows for {rate * seconds} events.",
            code=Code.BENCHMARK_FAILED,
        )
    ages = ages_of(samples, offsets, times, partitions)
    changes = changes_of(samples)
    worst = stretches_of(ages, times, changes)[:SHOWN]
    _report(ages, times.min(), rate, seconds, changes, worst, json_path)


def send(rate: int, seconds: int) -> None:
    """Send events at a steady rate, each with the time of its own sending."""
    import msgspec

    stream = definitions.get(STREAM)
    assert stream.simulate and isinstance(stream.key, str)
    encode, producer = msgspec.json.Encoder().encode, client.producer()
    events = cycle(list(islice(stream.simulate(Random(1)), DISTINCT)))
    started, sent = time.monotonic(), 0
    while sent < rate * seconds:
        due = min(int((time.monotonic() - started) * rate), rate * seconds)
        for event in islice(events, due - sent):
            setattr(event, stream.event_time, datetime.now(UTC))
            producer.produce(stream.topic, encode(event), getattr(event, stream.key))
        sent = due
        producer.poll(0)
        time.sleep(PACE_S)
    producer.flush()


@contextmanager
def _landing(stream: Stream) -> Iterator[None]:
    """Unpauses the stream's DAG with short windows, and restores the settings at the end."""
    api, dag, variable = AirflowApi.of(Platform()), _dag(stream), f"window__{stream.name}"
    api.wait_for_dags([dag])
    paused = api.is_paused(dag)
    with suppress(ApiError):
        api.call("DELETE", f"variables/{variable}")
    api.call("POST", "variables", json={"key": variable, "value": WINDOW})
    api.unpause(dag)
    try:
        yield
    finally:
        api.call("DELETE", f"variables/{variable}")
        if paused:
            api.pause(dag)


def _dag(stream: Stream) -> str:
    return f"land__{stream.name}"


def _visible(connection: Connection, stream: Stream) -> Sample:
    rows = list(_sql().read_positions(connection, reader=stream.reader, topic=stream.topic))
    return Sample(time.time(), {partition: offset for partition, offset, _ in rows}, sum(epoch for *_, epoch in rows))


def _until_caught_up(connection: Connection, stream: Stream) -> dict[int, int]:
    """Waits until every record that the topic has now is landed, and returns the end of each partition."""
    found = topics.describe(stream.topic)
    ends = {partition: extent.end for partition, extent in topics.extents(stream.topic, found.partitions).items()}
    deadline = time.monotonic() + STARTED_S
    while any(_visible(connection, stream).seen.get(partition, 0) < end for partition, end in ends.items()):
        if time.monotonic() > deadline:
            raise UserError(
                f"The DAG {_dag(stream)} has not caught up with its topic after {STARTED_S:.0f} s.",
                "Read its logs in the Airflow UI.",
                code=Code.BENCHMARK_FAILED,
            )
        time.sleep(0.2)
    return ends


def _observe(connection: Connection, stream: Stream, sender: Any) -> Iterator[Sample]:
    """The visible rows over time, until every event that was sent is visible."""
    last = Sample(0.0, {}, 0)
    ends: dict[int, int] | None = None
    deadline = float("inf")
    while ends is None or any(last.seen.get(partition, 0) < end for partition, end in ends.items()):
        if (sample := _visible(connection, stream))[1:] != last[1:]:
            last = sample
            yield sample
        if ends is None and not sender.is_alive():
            extents = topics.extents(stream.topic, topics.describe(stream.topic).partitions)
            ends = {partition: extent.end for partition, extent in extents.items() if extent.end}
            deadline = time.monotonic() + LANDED_S
        if time.monotonic() > deadline:
            raise UserError(
                f"Some events have not landed {LANDED_S:.0f} s after the last was sent.",
                "See ./millrace doctor.",
                code=Code.BENCHMARK_FAILED,
            )
        time.sleep(SAMPLE_S)


def _rows(connection: Connection, stream: Stream, ends: Mapping[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Offsets, event times in seconds and partitions of the rows that came after ``ends``."""
    incarnation = _sql().read_incarnation(connection, stream=stream.name, topic=stream.topic)
    after = " OR ".join(f"(kafka_partition = {partition} AND kafka_offset >= {end})" for partition, end in ends.items())
    text = io.StringIO()
    with connection.cursor() as cursor:
        cursor.copy_expert(
            f"COPY (SELECT kafka_offset, extract(epoch FROM {stream.event_time}), kafka_partition "
            f"FROM landing.{stream.name} WHERE kafka_incarnation = {incarnation} AND ({after})) TO STDOUT (FORMAT csv)",
            text,
        )
    rows = np.fromstring(text.getvalue().replace("\n", ","), sep=",").reshape(-1, 3)
    return rows[:, 0], rows[:, 1], rows[:, 2]


def ages_of(samples: Sequence[Sample], offsets: np.ndarray, times: np.ndarray, partitions: np.ndarray) -> np.ndarray:
    """The age of each event, in seconds, when its row was first visible."""
    moments = np.array([sample.moment for sample in samples])
    ages = np.empty(len(times))
    for partition in np.unique(partitions).astype(int):
        visible = np.array([sample.seen.get(partition, 0) for sample in samples])
        mine = partitions == partition
        ages[mine] = moments[np.searchsorted(visible, offsets[mine], side="right")] - times[mine]
    return ages


def changes_of(samples: Sequence[Sample]) -> list[Change]:
    """The window changes: from the last new rows of one claim to the first of the next."""
    changes, left, claim = [], samples[0].moment, samples[0].claim
    for before, after in pairwise(samples):
        if after.seen != before.seen:
            if after.claim != claim:
                changes.append(Change(left, after.moment))
            left, claim = after.moment, after.claim
    return changes


def stretches_of(ages: np.ndarray, times: np.ndarray, changes: Sequence[Change]) -> list[Stretch]:
    """The periods in which events were slow, the worst first."""
    order = np.argsort(times)
    slow = order[ages[order] > SLOW_S]
    stretches = []
    for part in np.split(slow, np.flatnonzero(np.diff(times[slow]) > APART_S) + 1) if len(slow) else ():
        sent, seen = times[part], times[part] + ages[part]
        at_change = any(change.taken > sent[0] and change.left < seen.max() for change in changes)
        lasted, oldest = float(sent[-1] - sent[0]), float(ages[part].max())
        stretches.append(Stretch(float(sent[0] - times.min()), lasted, oldest, at_change))
    return sorted(stretches, key=lambda stretch: -stretch.oldest_s)


def _sql() -> Any:
    return aiosql.from_path(Path(__file__).with_suffix(".sql"), "psycopg2", mandatory_parameters=False)


def _report(
    ages: np.ndarray,
    started: float,
    rate: int,
    seconds: int,
    changes: Sequence[Change],
    worst: Sequence[Stretch],
    json_path: str | None,
) -> None:
    p50, p95, p99 = np.percentile(ages, (50, 95, 99)).tolist()
    result = {"p50_s": p50, "p95_s": p95, "p99_s": p99, "worst_s": float(ages.max()), "events": len(ages)}
    figures.show(
        f"From event to visible row, {rate:,} events a second for {seconds} s, {len(changes)} window changes",
        ["", "p50", "p95", "p99", "worst"],
        [["ours", *(f"{value:.3f} s" for value in (p50, p95, p99, ages.max()))]],
        [
            *(
                f"Window change after {each.left - started:.1f} s: no transaction for {each.gap_s:.2f} s."
                for each in changes
            ),
            *(
                f"Slow for {each.lasted_s:.2f} s after {each.at_s:.1f} s: events up to {each.oldest_s:.2f} s old"
                f"{', at a window change' if each.at_change else ''}."
                for each in worst
            ),
        ],
    )
    figure_values = {
        "window_changes": [{"at_s": each.left - started, "gap_s": each.gap_s} for each in changes],
        "worst": [asdict(each) for each in worst],
    }
    figures.write(json_path, {"ours": {**result, **figure_values}}, {}, rate=rate, seconds=seconds)
