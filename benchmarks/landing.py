"""From a topic to a table: Millrace with every guarantee, the bare loop without any, and the peers.

Each runs in its own processes, on the same topic, into a new table, one after the other, and all of them again in each
repetition. One observer times them all: every 20 ms it queries how many rows are visible. The rate is measured from the
first rows that it sees to the last, so that the start does not count.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import aiosql
import psutil

from benchmarks import figures
from benchmarks.figures import Spread
from benchmarks.peers import debezium, ours
from benchmarks.peers import topic as topics
from embedded.home import Home
from include import connections
from include.error_codes import Code
from include.errors import UserError
from include.project import ROOT
from include.schemas.schema import Format
from include.streams import vehicle_positions
from include.warehouse.connection import connected

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

OURS, BARE = "ours", "bare"
SAMPLE_S = 0.02
STALLED_AFTER_S, END_S = 120.0, 30.0
MODULE = [sys.executable, "-m"]


@dataclass(frozen=True)
class Task:
    """The work of a peer: land ``events`` events of a topic; ``work`` is a directory for its files."""

    topic: str
    events: int
    work: Path
    format: str = Format.JSON

    @property
    def group(self) -> str:
        """The name of its consumer group."""
        return f"{self.topic}-{self.work.name}"


@dataclass(frozen=True)
class Peer:
    """One way from the topic to the table.

    Attributes:
        table: The table of landing.sql that it fills, with one row for each event unless it is ``state``.
        commands: The command lines of its processes.
        ends: Whether the processes end by themselves.
        most: The most events that it lands, for slow peers; the result is a rate.
        group: The consumer group that it leaves behind, if any.
        state: The name of the table with one row for each key, if it fills one.
        sample_s: The time between two queries of the observer, in seconds.
    """

    table: str
    commands: Callable[[Task], list[list[str]]]
    ends: bool = True
    most: int = 1_000_000
    group: Callable[[Task], str] | None = None
    state: str = ""
    sample_s: float = SAMPLE_S


@dataclass(frozen=True)
class Landed:
    """One run.

    Attributes:
        samples: Times in seconds, and the number of rows visible then.
        peak_rss: The peak memory of all its processes together, in bytes.
        cpu_s: CPU time of its processes between the first sample and the last, in seconds.
    """

    samples: Sequence[tuple[float, int]]
    peak_rss: int
    cpu_s: float

    @property
    def cpu_us(self) -> float:
        """CPU time of its processes for one row, in microseconds; without the server's and the broker's."""
        return self.cpu_s / (self.samples[-1][1] - self.samples[0][1]) * 1e6

    @property
    def rows_per_s(self) -> float:
        """The rate between the first rows seen and the last.

        Raises:
            UserError: All rows were visible in the first sample.
        """
        (start, first), (end, last) = self.samples[0], self.samples[-1]
        if first == last:
            raise UserError(
                f"{last} events are too few to measure a rate.", "Use more with --events.", code=Code.BENCHMARK_FAILED
            )
        return (last - first) / (end - start)


class _Usage:
    """CPU time in seconds and memory in bytes of one process at the last reading; an ended process keeps its time."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.cpu_s, self.rss = 0.0, 0

    def read(self) -> None:
        """Read both from the operating system."""
        try:
            times = self._process.cpu_times()
            self.cpu_s, self.rss = times.user + times.system, self._process.memory_info().rss
        except psutil.Error:
            self.rss = 0


def _ours(drains: int = 1, *options: str) -> Peer:
    def commands(task: Task) -> list[list[str]]:
        command = [*MODULE, ours.__name__, task.topic, task.format, str(drains)]
        return [[*command, str(shard), *options] for shard in range(drains)]

    return Peer(OURS, commands, most=sys.maxsize, group=lambda task: topics.stream_of(ours.NAME, task.topic).reader)


def _bare(processes: int) -> Callable[[Task], list[list[str]]]:
    def commands(task: Task) -> list[list[str]]:
        shares = [range(topics.PARTITIONS)[number::processes] for number in range(processes)]
        return [
            [*MODULE, "benchmarks.peers.bare", task.topic, ",".join(map(str, share)), str(task.events // processes)]
            for share in shares
        ]

    return commands


def _operator(how: str) -> Peer:
    def commands(task: Task) -> list[list[str]]:
        return [[*MODULE, "benchmarks.peers.consume_operator", task.topic, task.group, str(task.events), how]]

    return Peer("position", commands, most=300_000 if how == "insert" else 1_000_000, group=lambda task: task.group)


def _debezium(version: str, mode: Mapping[str, str], table: str = "debezium") -> Peer:
    def commands(task: Task) -> list[list[str]]:
        jars = Home.current().environment / f"debezium-{version}"
        debezium.install(version, jars)
        with connected() as connection:
            postgres = {**connection.get_dsn_parameters(), "password": connection.info.password}
        schema = debezium.schema_of(vehicle_positions.stream.fields)
        worker = debezium.worker_settings(task.work, connections.kafka()["bootstrap.servers"], schema)
        sink = debezium.sink_settings(task.group, task.topic, f"bench.{table}", postgres, mode)
        return [debezium.command(jars, task.work, worker, sink)]

    return Peer(table, commands, ends=False, group=lambda task: f"connect-{task.group}")


def _debezium_state() -> Peer:
    # The observer reads the whole table, as it has no index on the offsets.
    table = "debezium_state"
    return replace(_debezium(_BEFORE, debezium.STATE, table), state=table, sample_s=0.25)


_BEFORE, _NEWEST = debezium.VERSIONS
PEERS = {
    OURS: _ours(),
    f"{ours.CURRENT}_1": replace(_ours(1, ours.CURRENT), state="ours_state"),
    f"{ours.CURRENT}_2": replace(_ours(2, ours.CURRENT), state="ours_state"),
    "bare_1": Peer("position", _bare(1), most=sys.maxsize),
    "bare_2": Peer("position", _bare(2), most=sys.maxsize),
    "operator_insert": _operator("insert"),
    "operator_copy": _operator("copy"),
    "debezium_insert": _debezium(_BEFORE, debezium.INSERT),
    "debezium_upsert": _debezium(_BEFORE, debezium.UPSERT),
    "debezium_unnest": _debezium(_NEWEST, debezium.UNNEST),
    "debezium_state": _debezium_state(),
}
# Each runs in one process and in two; the faster of both counts.
_FAMILIES = (BARE, ours.CURRENT)


def _family(name: str) -> str:
    """The name of a peer without the number of its processes."""
    return next((family for family in _FAMILIES if name.startswith(family)), name)


NAMES = tuple(dict.fromkeys(map(_family, PEERS)))


def main(
    events: int = 1_000_000,
    repetitions: int = 3,
    json_path: str | None = None,
    names: Sequence[str] = NAMES,
    format: str = Format.JSON,
) -> None:
    """Run the peers ``repetitions`` times, print the table, and write ``results`` and ``ratios`` to ``json_path``.

    Args:
        format: The format of the events. The peers read JSON only.

    Raises:
        UserError: A peer is unknown, failed, stalled, or did not land every event exactly once.
    """
    if unknown := set(names) - set(NAMES):
        raise UserError(
            f"Unknown peer: {', '.join(sorted(unknown))}.", f"Use some of {', '.join(NAMES)}.", code=Code.INVALID_USAGE
        )
    if format != Format.JSON and set(names) != {OURS}:
        raise UserError(f"The peers read JSON, and not {format}.", f"Add --peers {OURS}.", code=Code.INVALID_USAGE)
    events -= events % topics.PARTITIONS
    chosen = {name: peer for name, peer in PEERS.items() if _family(name) in names}
    runs: dict[str, list[Landed]] = {name: [] for name in chosen}
    with ExitStack() as stack:
        filled = {}
        for size in sorted({min(events, peer.most) for peer in chosen.values()}):
            figures.progress.print(f"  sending {size:,} events …")
            filled[size] = stack.enter_context(topics.filled(size, format))
        connection = stack.enter_context(observing())
        for repetition in range(repetitions):
            # In reverse order every other time, so that not always the same peer runs after a heavy one.
            for name in list(chosen)[:: -1 if repetition % 2 else 1]:
                size = min(events, chosen[name].most)
                landed = land(chosen[name], filled[size], size, connection, format)
                figures.progress.print(f"  {repetition + 1}. {name}: {landed.rows_per_s:,.0f} rows/s")
                runs[name].append(landed)
    _report(runs, events, repetitions, json_path)


def land(peer: Peer, topic: str, events: int, connection: Connection, format: str = Format.JSON) -> Landed:
    """Run one peer until the last row is visible, and check that every event is in its table exactly once.

    Raises:
        UserError: It failed, stalled, or did not land every event exactly once.
    """
    with TemporaryDirectory(prefix="bench-") as work, _table(peer, connection) as sql:
        task = Task(topic, events, Path(work), format)
        commands = peer.commands(task)
        with open(task.work / "log", "w+") as log, _started(commands, log) as processes:
            landed = _observe(peer, task, processes, connection, sql)
            if not peer.ends:
                processes[0].terminate()
            if any(process.wait(END_S) for process in processes) and peer.ends:
                raise _failure(peer, log.name)
        expected = {peer.table: events} | ({peer.state: min(events, topics.DISTINCT)} if peer.state else {})
        for table, rows in expected.items():
            if (found := getattr(sql, f"count_{table}")(connection)) != rows:
                raise UserError(
                    f"The table {table!r} has {found} rows for {events} events, and not {rows}.",
                    code=Code.BENCHMARK_FAILED,
                )
        if peer.group:
            topics.leave(peer.group(task))
    return landed


@contextmanager
def observing() -> Iterator[Connection]:
    """A connection of the observer, with the peers' schema, which is dropped at the end.

    Raises:
        UserError: Another benchmark of landing is running.
    """
    with connected("bench observer") as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            # A new table has no statistics yet; the newest offset is at the end of the index.
            cursor.execute("SET enable_seqscan = off")
        if not _sql().hold_benchmark(connection):
            raise UserError(
                "Another benchmark of landing is running.", "Wait for its end.", code=Code.BENCHMARK_RUNNING
            )
        _sql().make_schema(connection)
        _sql().forget_ours(connection)
        try:
            yield connection
        finally:
            _sql().drop_schema(connection)


@contextmanager
def _table(peer: Peer, connection: Connection) -> Iterator[Any]:
    sql = _sql()
    if peer.table != OURS:
        getattr(sql, f"make_{peer.table}")(connection)
    try:
        yield sql
    finally:
        sql.forget_ours(connection) if peer.table == OURS else getattr(sql, f"drop_{peer.table}")(connection)


@contextmanager
def _started(commands: Sequence[Sequence[str]], log: Any) -> Iterator[list[subprocess.Popen[bytes]]]:
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            processes.append(subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT))
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _observe(
    peer: Peer, task: Task, processes: Sequence[subprocess.Popen[bytes]], connection: Connection, sql: Any
) -> Landed:
    samples: list[tuple[float, int]] = []
    usage = [_Usage(process.pid) for process in processes]
    peak, moved_at, cpu_before = 0, time.perf_counter(), 0.0
    while not samples or samples[-1][1] < task.events:
        now = time.perf_counter()
        seen = _seen(peer, task, connection, sql)
        for each in usage:
            each.read()
        if seen > (samples[-1][1] if samples else 0):
            cpu_before = cpu_before if samples else sum(each.cpu_s for each in usage)
            samples.append((now, seen))
            moved_at = now
        peak = max(peak, sum(each.rss for each in usage))
        if any(process.poll() for process in processes) or now - moved_at > STALLED_AFTER_S:
            raise _failure(peer, str(task.work / "log"))
        time.sleep(peer.sample_s)
    return Landed(samples, peak, sum(each.cpu_s for each in usage) - cpu_before)


def _seen(peer: Peer, task: Task, connection: Connection, sql: Any) -> int:
    if peer.table == OURS and not sql.ours_exists(connection):
        return 0
    return int(getattr(sql, f"seen_{peer.table}")(connection, topic=task.topic))


def _failure(peer: Peer, log: str) -> UserError:
    lines = Path(log).read_text(errors="replace").strip().splitlines() or ["no output"]
    name = next(name for name, known in PEERS.items() if known is peer)
    # The last line of Java is a stack frame; its last "Caused by" has the reason.
    reasons = [line for line in lines if line.startswith("Caused by: ")]
    return UserError(f"The peer {name} failed or stalled: {(reasons or lines)[-1]}.", code=Code.BENCHMARK_FAILED)


def _sql() -> Any:
    return aiosql.from_path(Path(__file__).with_suffix(".sql"), "psycopg2", mandatory_parameters=False)


def _compared(name: str) -> str:
    """Which of ours a peer is compared with."""
    keeps_state = name in PEERS and PEERS[name].state and _family(name) != ours.CURRENT
    return ours.CURRENT if keeps_state else OURS


def _report(runs: dict[str, list[Landed]], events: int, repetitions: int, json_path: str | None) -> None:
    rates = {name: Spread.of([landed.rows_per_s for landed in landeds]) for name, landeds in runs.items()}
    memory = {name: max(landed.peak_rss for landed in landeds) / 1e6 for name, landeds in runs.items()}
    results: dict[str, dict[str, float]] = {
        name: {
            "rows_per_s": rate.median,
            "min": rate.min,
            "max": rate.max,
            "cpu_us_per_row": median(landed.cpu_us for landed in runs[name]),
            "peak_rss_mb": memory[name],
            "events": min(events, PEERS[name].most),
        }
        for name, rate in rates.items()
    }
    for family in _FAMILIES:
        if of_it := [name for name in results if _family(name) == family]:
            results[family] = results[max(of_it, key=lambda name: results[name]["rows_per_s"])]
    ratios = {
        name: results[base]["rows_per_s"] / found["rows_per_s"]
        for name, found in results.items()
        if (base := _compared(name)) in results and base != name
    }
    rows = [
        [
            name,
            f"{found['events']:,}",
            f"{found['rows_per_s']:,.0f}",
            f"{found['min']:,.0f}",
            f"{found['max']:,.0f}",
            f"{ratios[name]:.2f}" if name in ratios else "",
            f"{found['cpu_us_per_row']:.1f}",
            f"{found['peak_rss_mb']:.0f}",
        ]
        for name, found in results.items()
        if name not in _FAMILIES
    ]
    figures.show(
        f"Landing {events:,} JSON events of about 180 bytes, 4 partitions; {repetitions} repetitions, interleaved",
        ["", "events", "rows/s", "min", "max", "ours / it", "CPU µs per row", "peak MB"],
        rows,
        [
            "Medians; a rate is measured from the first visible rows to the last, without the start.",
            "CPU and memory are those of the peer's own processes, without the broker and the server.",
            *(
                f"{family} is the faster of {family}_1 and {family}_2: one process and two."
                for family in _FAMILIES
                if family in results
            ),
        ],
    )
    figures.write(json_path, results, ratios, events=events, repetitions=repetitions, cpus=os.cpu_count())
