"""The pages on a large installation, and each of their queries, timed until the last byte or row has arrived.

The data are made with SQL: 1,000 versions with 100 models each, 10 million landed rows in 2,000 partitions, 100,000
dead letters, and eight days of samples of ten streams.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

import httpx
import msgspec

from benchmarks import figures, open_pages
from include.landing import partitions, spans, table
from include.pages import datasets, streams
from include.streams.definition import Instant, Stream
from include.warehouse import queries
from include.warehouse.connection import connected

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

REPETITIONS = 40
LIMIT_S, PAGE_LIMIT_S = 0.2, 1.0
DATASET, STREAM = "churn", "stream_1"


class Event(msgspec.Struct):
    """An event of the stream."""

    ts: Instant
    text: str
    number: int


def main(json_path: str | None, amounts: Mapping[str, int]) -> None:
    """Fills the warehouse, times every query, and prints the figures.

    Args:
        json_path: Where to write the figures as JSON.
        amounts: ``versions``, ``models`` of each version, landed ``rows``, ``partitions`` and dead ``letters``.
    """
    with connected("millrace bench pages") as connection:
        began = time.monotonic()
        fill(connection, amounts)
        figures.progress.print(f"The data took {time.monotonic() - began:.0f} s.")
        found = {name: measure(call, connection) for name, call in calls().items()}
        run_id = queries.load("pages").runs(connection, dataset=DATASET, most=1)
        addresses = ["models", f"models/{DATASET}", f"models/{DATASET}?run={next(run_id).run_id}"]
    with open_pages.session() as client:
        pages = {each: measure_page(client, each) for each in (*addresses, "streams", f"streams/{STREAM}")}
    show(found, amounts)
    show_pages(pages)
    figures.write(
        json_path,
        {name: {"median_ms": 1000 * middle, "p95_ms": 1000 * p95} for name, (middle, p95) in (found | pages).items()},
        {},
        amounts=dict(amounts),
        repetitions=REPETITIONS,
    )


def fill(connection: Connection, amounts: Mapping[str, int]) -> None:
    """Fills an empty, migrated warehouse; commits."""
    stream = Stream(name=STREAM, event=Event, event_time="ts", partition="1 hour", keep="90 days")
    wanted = _spans(stream, amounts["partitions"])
    table.bring_up_to_date(connection, stream)
    connection.commit()
    partitions.create(connection, stream, wanted)
    parameters = {**amounts, "begins": wanted[0].start, "ends": wanted[-1].end}
    with connection.cursor() as cursor:
        for name, statement in _statements():
            figures.progress.print(f"  {name} …")
            cursor.execute(statement, parameters)
            connection.commit()
        connection.autocommit = True
        # As autovacuum does after a while; index-only scans need it.
        cursor.execute("VACUUM ANALYZE")
        connection.autocommit = False


def calls() -> dict[str, Callable[[Connection], object]]:
    """The queries of the pages with their arguments, by the page that sends them."""
    sql = queries.load("pages")
    dataset: dict[str, Any] = {"dataset": DATASET}
    stream: dict[str, Any] = {"stream": STREAM}
    versions: dict[str, Any] = {"most": datasets.MAX_VERSIONS}
    rows: dict[str, Any] = {"most": datasets.MAX_ROWS}

    def of_run(query: Callable[..., Any], **more: object) -> Callable[[Connection], object]:
        return lambda connection: _all(query(connection, run=_last_run(connection), **more))

    found: dict[str, Callable[[Connection], object]] = {
        "models: datasets": lambda c: _all(sql.datasets(c)),
        "model: dataset": lambda c: sql.dataset(c, **dataset),
        "model: value": lambda c: sql.value(c, **dataset),
        "model: values": lambda c: _all(sql.values(c, **dataset, **versions)),
        "model: metrics": lambda c: _all(sql.metrics(c, **dataset, **versions)),
        "model: champions": lambda c: _all(sql.champions(c, **dataset, **rows)),
        "model: evidence": lambda c: _all(sql.evidence(c, **dataset, champion_number=50, **versions)),
        "model: runs": lambda c: _all(sql.runs(c, **dataset, **rows)),
        "run: input": lambda c: sql.run_input(c, run=_last_run(c)),
        "run: metrics": of_run(sql.run_metrics),
        "run: verdicts": of_run(sql.run_verdicts),
        "run: classes": of_run(sql.run_classes, model="model_07"),
        "run: confusion": of_run(sql.run_confusion, model="model_07"),
        "run: slices": of_run(sql.run_slices, model="model_07", most=datasets.MAX_SLICES),
        "run: log": of_run(sql.run_log, most=datasets.MAX_LOG_LINES),
        "streams: streams": lambda c: _all(sql.streams(c)),
        "stream: history": lambda c: _all(sql.history(c, **stream, hours=streams.HOURS)),
        "stream: partitions": lambda c: _all(sql.partitions(c, **stream, most=streams.MAX_PARTITIONS)),
        "stream: count of partitions": lambda c: sql.count_partitions(c, **stream),
        "stream: reasons": lambda c: _all(sql.reasons(c, **stream, most=streams.MAX_ROWS)),
        "stream: letters": lambda c: _all(sql.letters(c, **stream, most=streams.MAX_ROWS)),
        "stream: gaps": lambda c: _all(sql.gaps(c, **stream, most=streams.MAX_ROWS)),
        "stream: replays": lambda c: _all(sql.replays(c, **stream, most=streams.MAX_ROWS)),
        "stream: reconciliation": lambda c: _all(sql.reconciliation(c, **stream)),
    }
    own = queries.load("monitoring")
    return found | {
        "metrics: streams": lambda c: _all(own.streams(c)),
        "metrics: datasets": lambda c: _all(own.datasets(c)),
        "metrics: partitions": lambda c: _all(own.partitioned_until(c)),
    }


def measure_page(client: httpx.Client, address: str) -> tuple[float, float]:
    """Median and 95th percentile of the seconds until a page has arrived. The charts are drawn after that."""

    def fetch() -> None:
        client.get(f"/millrace/{address}").raise_for_status()

    return _spread(fetch)


def measure(call: Callable[[Connection], object], connection: Connection) -> tuple[float, float]:
    """Median and 95th percentile of the seconds that a query takes."""

    def query() -> None:
        call(connection)
        connection.rollback()

    return _spread(query)


def _spread(call: Callable[[], None]) -> tuple[float, float]:
    taken = []
    for _ in range(REPETITIONS + 1):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    # The first one fills the cache.
    return median(taken[1:]), quantiles(taken[1:], n=20, method="inclusive")[-1]


def show(found: Mapping[str, tuple[float, float]], amounts: Mapping[str, int]) -> None:
    """Prints the figures."""
    figures.show(
        f"Queries of the pages: {amounts['versions'] * amounts['models']:,} evaluations of {amounts['versions']:,} "
        f"versions, {amounts['rows']:,} landed rows, {amounts['partitions']:,} partitions",
        ["query", "median", "p95"],
        [(name, f"{1000 * middle:.1f} ms", f"{1000 * p95:.1f} ms") for name, (middle, p95) in found.items()],
        [f"{REPETITIONS} repetitions. Over {1000 * LIMIT_S:.0f} ms: {', '.join(_slow(found)) or 'none'}."],
    )


def show_pages(found: Mapping[str, tuple[float, float]]) -> None:
    """Prints the figures of the pages."""
    slow = [name for name, (_, p95) in found.items() if p95 > PAGE_LIMIT_S]
    figures.show(
        "The same pages from the api-server",
        ["page", "median", "p95"],
        [(name.partition("=")[0], f"{1000 * m:.0f} ms", f"{1000 * p95:.0f} ms") for name, (m, p95) in found.items()],
        [f"{REPETITIONS} repetitions. Over {PAGE_LIMIT_S:.0f} s: {', '.join(slow) or 'none'}."],
    )


def _slow(found: Mapping[str, tuple[float, float]]) -> list[str]:
    return [name for name, (_, p95) in found.items() if p95 > LIMIT_S]


def _spans(stream: Stream, count: int) -> list[spans.Span]:
    first = spans.span_of(stream, datetime.now(UTC)).start - count * timedelta(hours=1)
    return [spans.span_from(stream, first + number * timedelta(hours=1)) for number in range(count)]


def _statements() -> Iterator[tuple[str, str]]:
    text = Path(__file__).with_suffix(".sql").read_text()
    yield from re.findall(r"^-- name: (\w+)\n(.*?);$", text, re.MULTILINE | re.DOTALL)


def _all(rows: Iterator[Any]) -> list[Any]:
    return list(rows)


def _last_run(connection: Connection) -> int:
    (row, *_) = queries.load("pages").runs(connection, dataset=DATASET, most=1)
    return int(row.run)
