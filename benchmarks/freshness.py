"""From an event to its visible row, through the real DAG in the running Airflow.

Events go to a shipped stream at a steady rate, each with the time at which it was handed to the producer. An observer
asks every 10 ms up to which offset rows are visible: the position is moved in the transaction that writes them. In the
end each row's own time is compared with the moment at which its offset was first seen.
"""

from __future__ import annotations

import io
import multiprocessing
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import aiosql
import numpy as np

from benchmarks import figures
from include.errors import UserError
from include.kafka import client, topics
from include.platform.airflow_api import AirflowApi, ApiError
from include.platform.platform import Platform
from include.streams import definitions, produce
from include.streams.definition import Stream
from include.warehouse.connection import connected

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

STREAM = "vehicle_positions"
WINDOW = "75 seconds"
SAMPLE_S, PACE_S = 0.01, 0.002
# The first window is found waiting; what an idle stream's first event costs is another figure.
WARM_UP_S = 5.0
STARTED_S, LANDED_S = 60.0, 60.0
DISTINCT = 20_000

Sample = tuple[float, Mapping[int, int]]


def main(rate: int = 5_000, seconds: int = 300, json_path: str | None = None) -> None:
    """Send ``rate`` events a second for ``seconds``, print how fresh their rows were, and write it to ``json_path``.

    Raises:
        UserError: The DAG does not land the events, or not all of them.
    """
    stream = definitions.get(STREAM)
    produce.make_topic(stream)
    found = topics.describe(stream.topic)
    ends = {partition: extent.end for partition, extent in topics.extents(stream.topic, found.partitions).items()}
    with _landing(stream) as api, connected("bench observer") as connection:
        connection.autocommit = True
        _until_caught_up(connection, stream, ends)
        figures.progress.print(f"  sending {rate:,} events a second for {seconds} s …")
        sender = multiprocessing.get_context("spawn").Process(target=send, args=(rate, seconds), daemon=True)
        sender.start()
        samples = list(_observe(connection, stream, sender))
        if sender.exitcode:
            raise UserError("The producer of the events failed.", "See ./millrace logs kafka.")
        (first, _), *_, (last, _) = samples
        starts = [run.started_at.timestamp() for run in api.runs(_dag(stream)) if run.started_at]
        changes = sum(first < start < last for start in starts)
        offsets, times, partitions = _rows(connection, stream, ends)
    if len(times) != rate * seconds:
        raise UserError(f"{len(times)} rows for {rate * seconds} events are in landing.{stream.name}.")
    ages = ages_of(samples, offsets, times, partitions)
    _report(ages[times > times.min() + WARM_UP_S], rate, seconds, changes, json_path)


def send(rate: int, seconds: int) -> None:
    """Send events at a steady rate, each with the time of its own sending."""
    import msgspec

    stream = definitions.get(STREAM)
    assert stream.simulate and stream.key
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
def _landing(stream: Stream) -> Iterator[AirflowApi]:
    """Airflow with the stream's DAG at work, in short windows; left as it was."""
    api, dag, variable = AirflowApi.of(Platform()), _dag(stream), f"window__{stream.name}"
    api.wait_for_dags([dag])
    paused = api.is_paused(dag)
    with suppress(ApiError):
        api.call("DELETE", f"variables/{variable}")
    api.call("POST", "variables", json={"key": variable, "value": WINDOW})
    api.unpause(dag)
    try:
        yield api
    finally:
        api.call("DELETE", f"variables/{variable}")
        if paused:
            api.pause(dag)


def _dag(stream: Stream) -> str:
    return f"land__{stream.name}"


def _visible(connection: Connection, stream: Stream) -> dict[int, int]:
    return dict(_sql().read_positions(connection, reader=stream.reader, topic=stream.topic))


def _until_caught_up(connection: Connection, stream: Stream, ends: Mapping[int, int]) -> None:
    deadline = time.monotonic() + STARTED_S
    while any(_visible(connection, stream).get(partition, 0) < end for partition, end in ends.items()):
        if time.monotonic() > deadline:
            raise UserError(f"{_dag(stream)} does not catch up with its topic.", "Look at it in the UI.")
        time.sleep(0.2)


def _observe(connection: Connection, stream: Stream, sender: Any) -> Iterator[Sample]:
    """What was visible when, until all that was sent has been seen."""
    seen: dict[int, int] = {}
    ends: dict[int, int] | None = None
    deadline = float("inf")
    while ends is None or any(seen.get(partition, 0) < end for partition, end in ends.items()):
        if (visible := _visible(connection, stream)) != seen:
            seen = visible
            yield time.time(), visible
        if ends is None and not sender.is_alive():
            extents = topics.extents(stream.topic, topics.describe(stream.topic).partitions)
            ends = {partition: extent.end for partition, extent in extents.items() if extent.end}
            deadline = time.monotonic() + LANDED_S
        if time.monotonic() > deadline:
            raise UserError(f"Not all events have landed {LANDED_S:.0f} s after the last.", "See ./millrace doctor.")
        time.sleep(SAMPLE_S)


def _rows(connection: Connection, stream: Stream, ends: Mapping[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Offsets, event times in seconds and partitions of the rows that came after ``ends``."""
    incarnation = _sql().read_incarnation(connection, topic=stream.topic)
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
    """How old each event was, in seconds, when its row was first seen."""
    moments = np.array([moment for moment, _ in samples])
    ages = np.empty(len(times))
    for partition in np.unique(partitions).astype(int):
        visible = np.array([seen.get(partition, 0) for _, seen in samples])
        mine = partitions == partition
        ages[mine] = moments[np.searchsorted(visible, offsets[mine], side="right")] - times[mine]
    return ages


def _sql() -> Any:
    return aiosql.from_path(Path(__file__).with_suffix(".sql"), "psycopg2", mandatory_parameters=False)


def _report(ages: np.ndarray, rate: int, seconds: int, changes: int, json_path: str | None) -> None:
    p50, p95, p99 = np.percentile(ages, (50, 95, 99)).tolist()
    result = {"p50_s": p50, "p95_s": p95, "p99_s": p99, "worst_s": float(ages.max()), "events": len(ages)}
    figures.show(
        f"From event to visible row, {rate:,} events a second for {seconds} s, {changes} window changes",
        ["", "p50", "p95", "p99", "worst"],
        [["ours", *(f"{value:.3f} s" for value in (p50, p95, p99, ages.max()))]],
        [f"The events stay in landing.{STREAM}."],
    )
    figures.write(json_path, {"ours": {**result, "window_changes": changes}}, {}, rate=rate, seconds=seconds)
