"""A topic into a table, by Millrace with every guarantee, by the bare loop without any, and by the peers.

Each way runs in processes of its own, on the same topic, into a fresh table, one after the other and all of them again
in each repetition. One observer times them all: it asks the table itself, every 20 ms, how far the rows have come. The
rate lies between the first rows that it saw and the last, so that no start-up counts.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
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
from include.errors import UserError
from include.project import ROOT
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
    """What a peer has to do: land that many events of a topic; ``work`` is a directory for its files."""

    topic: str
    events: int
    work: Path

    @property
    def group(self) -> str:
        """A consumer group of its own."""
        return f"{self.topic}-{self.work.name}"


@dataclass(frozen=True)
class Peer:
    """One way from the topic to the table.

    Attributes:
        table: Which of the tables of landing.sql its rows enter.
        commands: The command lines of its processes.
        ends: Whether they end by themselves.
        most: It lands no more events than so many; what counts is its rate.
        group: The consumer group that it leaves behind, if it does.
    """

    table: str
    commands: Callable[[Task], list[list[str]]]
    ends: bool = True
    most: int = 1_000_000
    group: Callable[[Task], str] | None = None


@dataclass(frozen=True)
class Landed:
    """One run.

    Attributes:
        samples: Moments in seconds, and how many rows were visible by then.
        peak_rss: The greatest memory of its processes together, in bytes.
        cpu_s: Processor time of its processes between the first sample and the last, in seconds.
    """

    samples: Sequence[tuple[float, int]]
    peak_rss: int
    cpu_s: float

    @property
    def cpu_us(self) -> float:
        """Processor time of its processes for one row, in microseconds; the server's and the broker's not counted."""
        return self.cpu_s / (self.samples[-1][1] - self.samples[0][1]) * 1e6

    @property
    def rows_per_s(self) -> float:
        """The rate between the first rows seen and the last.

        Raises:
            UserError: All were there when first seen.
        """
        (start, first), (end, last) = self.samples[0], self.samples[-1]
        if first == last:
            raise UserError("Too few events to time their landing.", "Give more with --events.")
        return (last - first) / (end - start)


class _Usage:
    """Processor time in seconds and memory in bytes of one process, as last seen: one that has ended keeps its time."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.cpu_s, self.rss = 0.0, 0

    def look(self) -> None:
        """Ask the operating system."""
        try:
            times = self._process.cpu_times()
            self.cpu_s, self.rss = times.user + times.system, self._process.memory_info().rss
        except psutil.Error:
            self.rss = 0


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


def _debezium(version: str, mode: Mapping[str, str]) -> Peer:
    def commands(task: Task) -> list[list[str]]:
        jars = Home.current().environment / f"debezium-{version}"
        debezium.install(version, jars)
        with connected() as connection:
            postgres = {**connection.get_dsn_parameters(), "password": connection.info.password}
        schema = debezium.schema_of(vehicle_positions.stream.fields)
        worker = debezium.worker_settings(task.work, connections.kafka()["bootstrap.servers"], schema)
        sink = debezium.sink_settings(task.group, task.topic, "bench.debezium", postgres, mode)
        return [debezium.command(jars, task.work, worker, sink)]

    return Peer("debezium", commands, ends=False, group=lambda task: f"connect-{task.group}")


_BEFORE, _NEWEST = debezium.VERSIONS
PEERS = {
    OURS: Peer(
        OURS,
        lambda task: [[*MODULE, ours.__name__, task.topic]],
        most=sys.maxsize,
        group=lambda task: topics.stream_of(ours.NAME, task.topic).reader,
    ),
    "bare_1": Peer("position", _bare(1), most=sys.maxsize),
    "bare_2": Peer("position", _bare(2), most=sys.maxsize),
    "operator_insert": _operator("insert"),
    "operator_copy": _operator("copy"),
    "debezium_insert": _debezium(_BEFORE, debezium.INSERT),
    "debezium_upsert": _debezium(_BEFORE, debezium.UPSERT),
    "debezium_unnest": _debezium(_NEWEST, debezium.UNNEST),
}
NAMES = tuple(dict.fromkeys(BARE if name.startswith(BARE) else name for name in PEERS))


def main(
    events: int = 1_000_000, repetitions: int = 3, json_path: str | None = None, names: Sequence[str] = NAMES
) -> None:
    """Run the peers ``repetitions`` times, print the table, and write ``results`` and ``ratios`` to ``json_path``.

    Raises:
        UserError: A peer is unknown, failed, stood still, or did not land every event once.
    """
    if unknown := set(names) - set(NAMES):
        raise UserError(f"There is no peer {', '.join(sorted(unknown))}.", f"Choose among {', '.join(NAMES)}.")
    events -= events % topics.PARTITIONS
    chosen = {name: peer for name, peer in PEERS.items() if name in names or (name.startswith(BARE) and BARE in names)}
    runs: dict[str, list[Landed]] = {name: [] for name in chosen}
    with ExitStack() as stack:
        filled = {}
        for size in sorted({min(events, peer.most) for peer in chosen.values()}):
            figures.progress.print(f"  sending {size:,} events …")
            filled[size] = stack.enter_context(topics.filled(size))
        connection = stack.enter_context(observing())
        for repetition in range(repetitions):
            # Backwards every other time: the one that runs after a heavy one is not always the same.
            for name in list(chosen)[:: -1 if repetition % 2 else 1]:
                size = min(events, chosen[name].most)
                landed = land(chosen[name], filled[size], size, connection)
                figures.progress.print(f"  {repetition + 1}. {name}: {landed.rows_per_s:,.0f} rows/s")
                runs[name].append(landed)
    _report(runs, events, repetitions, json_path)


def land(peer: Peer, topic: str, events: int, connection: Connection) -> Landed:
    """Run one peer from its start to the last row, and check that every event is in its table once.

    Raises:
        UserError: It failed, stood still, or did not land every event once.
    """
    with TemporaryDirectory(prefix="bench-") as work, _table(peer, connection) as sql:
        task = Task(topic, events, Path(work))
        commands = peer.commands(task)
        with open(task.work / "log", "w+") as log, _started(commands, log) as processes:
            landed = _observe(peer, task, processes, connection, sql)
            if not peer.ends:
                processes[0].terminate()
            if any(process.wait(END_S) for process in processes) and peer.ends:
                raise _failure(peer, log.name)
        if (found := getattr(sql, f"count_{peer.table}")(connection)) != events:
            raise UserError(f"{found} rows for {events} events are in the table of {commands[0]}.")
        if peer.group:
            topics.leave(peer.group(task))
    return landed


@contextmanager
def observing() -> Iterator[Connection]:
    """A connection for the observer, with the peers' schema, which is dropped at the end.

    Raises:
        UserError: Somebody else observes already.
    """
    with connected("bench observer") as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            # A table that was made just now has no statistics yet; the newest offset is always at the index's end.
            cursor.execute("SET enable_seqscan = off")
        if not _sql().hold_benchmark(connection):
            raise UserError("Another benchmark of landing is running.", "Wait for its end.")
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
            each.look()
        if seen > (samples[-1][1] if samples else 0):
            cpu_before = cpu_before if samples else sum(each.cpu_s for each in usage)
            samples.append((now, seen))
            moved_at = now
        peak = max(peak, sum(each.rss for each in usage))
        if any(process.poll() for process in processes) or now - moved_at > STALLED_AFTER_S:
            raise _failure(peer, str(task.work / "log"))
        time.sleep(SAMPLE_S)
    return Landed(samples, peak, sum(each.cpu_s for each in usage) - cpu_before)


def _seen(peer: Peer, task: Task, connection: Connection, sql: Any) -> int:
    if peer.table == OURS and not sql.ours_exists(connection):
        return 0
    return int(getattr(sql, f"seen_{peer.table}")(connection, topic=task.topic))


def _failure(peer: Peer, log: str) -> UserError:
    lines = Path(log).read_text(errors="replace").strip().splitlines() or ["it says nothing"]
    name = next(name for name, known in PEERS.items() if known is peer)
    # Java's last line is a frame of a stack; the reason stands behind the last of its causes.
    reasons = [line for line in lines if line.startswith("Caused by: ")]
    return UserError(f"{name} failed or stood still: {(reasons or lines)[-1]}.")


def _sql() -> Any:
    return aiosql.from_path(Path(__file__).with_suffix(".sql"), "psycopg2", mandatory_parameters=False)


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
    bares = [name for name in results if name.startswith(BARE)]
    if bares:
        results[BARE] = results[max(bares, key=lambda name: results[name]["rows_per_s"])]
    ours_rate = results[OURS]["rows_per_s"] if OURS in results else None
    ratios = {name: ours_rate / found["rows_per_s"] for name, found in results.items() if ours_rate and name != OURS}
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
        if name != BARE
    ]
    figures.show(
        f"Landing {events:,} JSON events of about 180 bytes, 4 partitions; {repetitions} repetitions, interleaved",
        ["", "events", "rows/s", "least", "most", "ours / it", "CPU µs a row", "peak MB"],
        rows,
        [
            "Medians; a rate lies between the first rows seen in the table and the last, start-up left out.",
            "CPU and memory are those of the peer's own processes, without the broker and the server.",
            *(["bare is the faster of bare_1 and bare_2: one process and two."] if bares else []),
        ],
    )
    figures.write(json_path, results, ratios, events=events, repetitions=repetitions, cpus=os.cpu_count())
