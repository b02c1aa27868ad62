"""Training on more rows than fit into memory: uninterrupted, killed and continued, and by a bare loop on the file.

It uses the platform's Kafka with temporary topics, and a temporary database as warehouse.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from uuid import uuid4

from benchmarks import doubles
from benchmarks.figures import progress, show, write
from benchmarks.peers import learning, process
from benchmarks.publish import BARE, OURS, rows_in_a_file, topics_of
from embedded import environment, postgres
from embedded.home import Home
from include.error_codes import Code
from include.errors import UserError
from include.project import ROOT
from include.warehouse.connection import connected
from include.warehouse.migrations import migrate

ROWS = 10_000_000
MODULE = "benchmarks.peers.learning"


def main(json_path: str | None = None, rows: int = ROWS) -> None:
    """Measures, prints the table, and writes the JSON file if there is one.

    Raises:
        UserError: The model that was killed and continued predicts something else.
    """
    name = f"bench_{uuid4().hex[:8]}"
    progress.print(f"writing {rows:,} rows …")
    with rows_in_a_file(rows) as path, own_warehouse(name), topics_of(name):
        file = str(path)
        progress.print("publishing …")
        published = process.run("prepare", name, file, module=MODULE)
        whole, killed = (str(published.figures[f"run_{number}"]) for number in (0, 1))
        progress.print("fitting …")
        ours = process.run("fit", name, file, whole, module=MODULE)
        progress.print("fitting again, to kill it …")
        worked = _kill(name, file, killed, ours.figures["seconds"] / 2)
        batch, batches = _reached(killed)
        progress.print("continuing …")
        rest = process.run("fit", name, file, killed, module=MODULE)
        first, second = _result(whole), _result(killed)
        if first["predictions"] != second["predictions"]:
            raise UserError(
                "The model that was killed and continued predicts something else than the uninterrupted one.",
                code=Code.BENCHMARK_FAILED,
            )
        progress.print("the bare loop …")
        bare = process.run("bare", file, str(first["train_rows"]), module=MODULE)
    results = {
        OURS: {
            "rows_per_s": rows / ours.figures["seconds"],
            "seconds": ours.figures["seconds"],
            "peak_rss_mb": max(first["peak_mb"], ours.peak_rss / 1e6),
            "publish_s": published.figures["seconds"],
            "publish_peak_rss_mb": published.peak_rss / 1e6,
            "accuracy": first["accuracy"],
        },
        "ours_killed": {
            "seconds_before": worked,
            "seconds_after": rest.figures["seconds"],
            "peak_rss_mb": second["peak_mb"],
            "continued_at": f"step {batch[0] + 1}, batch {batch[1]}" if batch else "the beginning",
            "same_predictions": True,
        },
        BARE: {
            "rows_per_s": rows / bare.figures["seconds"],
            "seconds": bare.figures["seconds"],
            "peak_rss_mb": bare.peak_rss / 1e6,
            "accuracy": bare.figures["accuracy"],
        },
    }
    ratio = bare.figures["seconds"] / ours.figures["seconds"]
    show(
        f"A scaler and a linear model on {rows:,} rows of {doubles.COLUMNS} doubles ({rows * 256 / 1e9:.1f} GB)",
        ["", "seconds", "rows/s", "peak MB", "accuracy"],
        [
            [
                name,
                f"{found['seconds']:.1f}",
                f"{found['rows_per_s']:,.0f}",
                f"{found['peak_rss_mb']:.0f}",
                f"{found['accuracy']:.4f}",
            ]
            for name, found in results.items()
            if "rows_per_s" in found
        ],
        [
            f"The memory_limit is {learning.MEMORY_LIMIT}. Train rows are read and proven twice, test rows once.",
            f"Killed with SIGKILL after {worked:.0f} s, it continued at "
            f"{results['ours_killed']['continued_at']} of {batches}, took {rest.figures['seconds']:.1f} s more, and "
            "predicts the same for every test row.",
            f"Publishing took {published.figures['seconds']:.1f} s and {published.peak_rss / 1e6:.0f} MB at most.",
        ],
    )
    write(json_path, results, {BARE: ratio}, rows=rows, cpus=os.cpu_count())


@contextmanager
def own_warehouse(name: str, prepare: str = "") -> Iterator[None]:
    """A migrated temporary database on the platform's server, the warehouse of this process and its children.

    Args:
        prepare: SQL that the superuser executes in it before the migration.
    """
    home, before = Home.current(), os.environ["AIRFLOW_CONN_MILLRACE_POSTGRES"]
    # A killed benchmark has left its database.
    _execute(home, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    _execute(home, f"CREATE DATABASE {name} OWNER warehouse")
    try:
        if prepare:
            _execute(home, prepare, name)
        os.environ["AIRFLOW_CONN_MILLRACE_POSTGRES"] = environment.warehouse_connection(home, name)
        migrate()
        yield
    finally:
        os.environ["AIRFLOW_CONN_MILLRACE_POSTGRES"] = before
        _execute(home, f"DROP DATABASE {name} WITH (FORCE)")


def _execute(home: Home, statement: str, database: str = "postgres") -> None:
    port = home.state()["ports"]["postgres"]
    with closing(postgres.connect(home, port, database)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)


def _kill(name: str, file: str, run: str, after_s: float) -> float:
    """Kills a task after ``after_s`` seconds, once it has a checkpoint; returns the seconds that it worked."""
    command = [sys.executable, "-m", MODULE, "fit", name, file, run]
    started = time.monotonic()
    task = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while time.monotonic() - started < after_s or not _reached(run)[0]:
        if task.poll() is not None:
            raise UserError(
                "The task ended before it had a checkpoint.", "Use more with --rows.", code=Code.BENCHMARK_FAILED
            )
        time.sleep(0.5)
    task.send_signal(signal.SIGKILL)
    task.wait()
    return time.monotonic() - started


def _reached(run: str) -> tuple[tuple[int, int] | None, int]:
    """The step and batch of a run's checkpoint, or None, and the number of batches."""
    found = _ask("SELECT step, batch FROM millrace.checkpoint WHERE run = %s", run)
    ((batches,),) = _ask(
        "SELECT count(*) FROM millrace.dataset_version, "
        "jsonb_array_elements(convert_from(manifest, 'UTF8')::jsonb -> 'messages') AS message "
        "WHERE message ->> 'split' = 'train'"
    )
    return (found[0] if found else None), batches


def _result(run: str) -> dict[str, Any]:
    ((predictions, peak, train_rows, accuracy),) = _ask(
        "SELECT sha256(outcomes) || sha256(probe), peak_memory_mb, train_rows, value "
        "FROM millrace.model_result JOIN millrace.metric USING (result) WHERE run = %s AND name = 'accuracy'",
        run,
    )
    return {"predictions": bytes(predictions), "peak_mb": peak, "train_rows": train_rows, "accuracy": accuracy}


def _ask(statement: str, *values: object) -> list[Any]:
    with connected("millrace bench") as connection, connection.cursor() as cursor:
        cursor.execute(statement, values)
        return cursor.fetchall()
