"""From rows to a topic: Millrace, a bare loop of Arrow batches, and the Kafka provider's operator."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from benchmarks import doubles
from benchmarks.figures import Spread, progress, show, shuffled, write
from benchmarks.peers import process
from benchmarks.peers import topic as topics
from benchmarks.peers.publishing import dataset

OURS, BARE, DEFAULTS, OPERATOR = "ours", "bare", "bare_defaults", "operator_async"
WAYS = {OURS: "publish", BARE: "publish_bare", DEFAULTS: "publish_bare_defaults", OPERATOR: "publish_operator"}
ROWS, OPERATOR_ROWS, REPETITIONS = 1_000_000, 50_000, 5


def main(json_path: str | None = None, rows: int = ROWS, repetitions: int = REPETITIONS) -> None:
    """Measures, prints the table, and writes the JSON file if there is one."""
    found: dict[str, list[process.Ended]] = {name: [] for name in WAYS}
    with rows_in_a_file(rows) as file:
        for repetition in range(repetitions):
            progress.print(f"repetition {repetition + 1} of {repetitions} …")
            for name in shuffled(found, repetition):
                found[name].append(_publish(name, file, min(rows, OPERATOR_ROWS)))
    _report(found, rows, min(rows, OPERATOR_ROWS), repetitions, json_path)


@contextmanager
def rows_in_a_file(rows: int) -> Iterator[Path]:
    """A Parquet file with ``rows`` rows, read once so that the system caches it; deleted at the end."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        file = doubles.write(folder / "rows.parquet", rows)
        with file.open("rb") as content:
            while content.read(1 << 24):
                pass
        yield file
    finally:
        shutil.rmtree(folder)


@contextmanager
def topics_of(name: str) -> Iterator[str]:
    """The name of a dataset whose topics are deleted at the end."""
    try:
        yield name
    finally:
        for topic in (f"{name}.manifests", f"{name}.bare", f"{name}.operator", dataset(name, "").topic):
            topics.forget(topic)


def _publish(name: str, file: Path, operator_rows: int) -> process.Ended:
    with topics_of(f"bench_{uuid4().hex[:8]}") as topic:
        # A run must not wait for the disk to write the data of the run before.
        os.sync()
        return process.run(WAYS[name], topic, str(file), *([str(operator_rows)] if name == OPERATOR else []))


def _report(
    found: dict[str, list[process.Ended]], rows: int, operator_rows: int, repetitions: int, json_path: str | None
) -> None:
    counts = {**dict.fromkeys(WAYS, rows), OPERATOR: operator_rows}
    rates = {name: Spread.of([counts[name] / run.figures["seconds"] for run in runs]) for name, runs in found.items()}
    results = {
        name: {
            "rows_per_s": rate.median,
            "min": rate.min,
            "max": rate.max,
            "rows": counts[name],
            "cpu_s": Spread.of([run.cpu_s for run in found[name]]).median,
            "peak_rss_mb": max(run.peak_rss for run in found[name]) / 1e6,
        }
        for name, rate in rates.items()
    }
    ratios = {name: rates[OURS].median / rate.median for name, rate in rates.items() if name != OURS}
    show(
        f"Publishing {rows:,} rows of {doubles.COLUMNS} doubles; {repetitions} repetitions, interleaved",
        ["", "rows", "rows/s", "min", "max", "ours / it", "peak MB"],
        [
            [
                name,
                f"{one['rows']:,}",
                f"{one['rows_per_s']:,.0f}",
                f"{one['min']:,.0f}",
                f"{one['max']:,.0f}",
                f"{ratios[name]:.2f}" if name in ratios else "",
                f"{one['peak_rss_mb']:.0f}",
            ]
            for name, one in results.items()
        ],
        [
            "Medians. All read the same Parquet file; start and imports do not count. These doubles do not compress.",
            "bare has the settings of ours, bare_defaults the defaults of the libraries.",
            f"operator_async is ProduceToTopicOperator(synchronous=False) with {operator_rows:,} rows, a message each.",
        ],
    )
    write(json_path, results, ratios, rows=rows, repetitions=repetitions, cpus=os.cpu_count())
