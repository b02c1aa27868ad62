"""From a topic to rows: a sealed version read and proven by Millrace, and read by bare loops that prove nothing."""

from __future__ import annotations

import os
from statistics import median
from uuid import uuid4

from benchmarks import doubles
from benchmarks.figures import Spread, progress, show, shuffled, write
from benchmarks.peers import process
from benchmarks.publish import BARE, OURS, ROWS, rows_in_a_file, topics_of

FRAME = "bare_frame"
REPETITIONS = 9


def main(json_path: str | None = None, rows: int = ROWS, repetitions: int = REPETITIONS) -> None:
    """Measures, prints the table, and writes the JSON file if there is one."""
    ways = {OURS: "read", BARE: "read_bare", FRAME: "read_bare_frame"}
    found: dict[str, list[process.Ended]] = {name: [] for name in ways}
    with rows_in_a_file(rows) as file, topics_of(f"bench_{uuid4().hex[:8]}") as topic:
        process.run("publish", topic, str(file))
        process.run("read_bare", topic, str(file))
        for repetition in range(repetitions):
            progress.print(f"repetition {repetition + 1} of {repetitions} …")
            for name in shuffled(ways, repetition):
                found[name].append(process.run(ways[name], topic, str(file)))
    _report(found, rows, repetitions, json_path)


def _report(found: dict[str, list[process.Ended]], rows: int, repetitions: int, json_path: str | None) -> None:
    rates = {name: Spread.of([rows / run.figures["seconds"] for run in runs]) for name, runs in found.items()}
    results = {
        name: {
            "rows_per_s": rate.median,
            "min": rate.min,
            "max": rate.max,
            "peak_rss_mb": max(run.peak_rss for run in found[name]) / 1e6,
        }
        for name, rate in rates.items()
    }
    frame = median(run.figures["frame_mb"] for run in found[OURS])
    results[OURS]["frame_mb"] = frame
    bound = 1.3 * frame + 150
    ratios = {name: rates[OURS].median / rate.median for name, rate in rates.items() if name != OURS}
    show(
        f"Reading and proving {rows:,} rows of {doubles.COLUMNS} doubles; {repetitions} repetitions, interleaved",
        ["", "rows/s", "min", "max", "ours / it", "peak MB"],
        [
            [
                name,
                f"{one['rows_per_s']:,.0f}",
                f"{one['min']:,.0f}",
                f"{one['max']:,.0f}",
                f"{ratios[name]:.2f}" if name in ratios else "",
                f"{one['peak_rss_mb']:.0f}",
            ]
            for name, one in results.items()
        ],
        [
            "Medians; start and imports do not count in the rates, but in the memory.",
            "bare counts bytes and keeps nothing; bare_frame ends with the same rows as ours, and proves nothing.",
            f"The frame is {frame:.0f} MB; 1.3 times that and 150 MB are {bound:.0f} MB.",
        ],
    )
    write(json_path, results, ratios, rows=rows, repetitions=repetitions, cpus=os.cpu_count())
