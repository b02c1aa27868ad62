"""demo: both jobs from nothing, on real data, with a summary at the end."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

import click

from cli.platform import show_addresses, steps
from embedded.platform import Platform
from include.errors import UserError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from embedded.airflow_api import AirflowApi

DEADLINE_S = 600


@click.command()
@click.option("--events", type=click.IntRange(min=1), default=50_000, show_default=True, help="Events for each stream.")
@click.option("--down", "stop", is_flag=True, help="Stop everything at the end; the data stays.")
def demo(events: int, stop: bool) -> None:
    """Everything from nothing: the platform up, datasets published, models trained, events landed, a summary.

    On a platform that has seen a demo already, datasets that have not changed are not published again.
    """
    started = time.monotonic()
    platform = Platform(report=steps)
    platform.up()
    os.environ.update(platform.environment())
    try:
        _work(platform, events)
        _summary()
    finally:
        if stop:
            platform.down()
    click.echo(f"\nAll of it took {time.monotonic() - started:.0f} s.")
    if not stop:
        _farewell(platform)


def _work(platform: Platform, events: int) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from embedded.airflow_api import AirflowApi

    airflow = AirflowApi.of(platform)
    columns = (TextColumn("  {task.description:34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        _publish(airflow)
        _produce(airflow, progress, events)
        _follow_training(airflow, progress)
        _follow_landing(progress)


def _publish(airflow: AirflowApi) -> None:
    """Starts the publishing of every dataset: by its schedule where it has one, by a run of now otherwise."""
    from include.datasets import definitions

    datasets = definitions.find().valid
    airflow.wait_for_dags(
        [*(f"publish__{name}" for name in datasets), *(f"train__{name}" for name in datasets), "dispatch"]
    )
    for dag_id in ["dispatch", *(f"train__{name}" for name in datasets), *(f"publish__{name}" for name in datasets)]:
        airflow.unpause(dag_id)
    for name, dataset in datasets.items():
        if dataset.schedule is None:
            airflow.trigger(f"publish__{name}")


def _produce(airflow: AirflowApi, progress: Progress, events: int) -> None:
    from include.streams import definitions
    from include.streams.produce import make_topic, produce

    streams = [stream for stream in definitions.find().valid.values() if stream.simulate is not None]
    airflow.wait_for_dags([f"land__{stream.name}" for stream in streams])
    for stream in streams:
        make_topic(stream)
        airflow.unpause(f"land__{stream.name}")
    for stream in streams:
        bar = progress.add_task(f"events sent: {stream.name}", total=events)
        produce(stream, events, progress=partial(_advance, progress, bar))


def _advance(progress: Progress, bar: TaskID, sent: int) -> None:
    progress.update(bar, completed=sent)


def _follow_training(airflow: AirflowApi, progress: Progress) -> None:
    """Waits until everything due is published, and every version is trained on."""
    from include.datasets import definitions
    from include.kafka import client
    from include.kafka.backlog import measure
    from include.training.dispatch import READER
    from include.versions.manifest import CONTROL_TOPIC
    from include.warehouse import queries
    from include.warehouse.connection import connected

    publishers = [f"publish__{name}" for name in definitions.find().valid]
    bar = progress.add_task("training runs", total=None)
    brokers = client.admin()
    with connected("millrace demo") as connection:
        for _ in _patiently("The training runs"):
            ((versions, trained),) = queries.load("demo").count_trained(connection)
            connection.rollback()
            progress.update(bar, total=versions or None, completed=trained)
            if trained == versions and not any(_is_publishing(airflow, dag_id) for dag_id in publishers):
                ((versions, _),) = queries.load("demo").count_trained(connection)
                if trained == versions and measure(brokers, connection, READER, CONTROL_TOPIC).lag == 0:
                    return


def _is_publishing(airflow: AirflowApi, dag_id: str) -> bool:
    """Whether a run of the DAG is unfinished, or one is due by its schedule."""
    due = airflow.call("GET", f"dags/{dag_id}")["next_dagrun_run_after"]
    if due is not None and datetime.fromisoformat(due) <= datetime.now(UTC):
        return True
    return any(not run.finished for run in airflow.runs(dag_id))


def _follow_landing(progress: Progress) -> None:
    """Waits until the position of every stream has reached its topic's end."""
    from include.kafka import client
    from include.kafka.backlog import measure
    from include.streams import definitions
    from include.warehouse.connection import connected

    brokers = client.admin()
    bars = {
        stream: progress.add_task(f"events landed: {stream.name}", total=None)
        for stream in definitions.find().valid.values()
        if stream.simulate is not None
    }
    with connected("millrace demo") as connection:
        for _ in _patiently("The landing"):
            backlogs = {stream: measure(brokers, connection, stream.reader, stream.topic) for stream in bars}
            for stream, backlog in backlogs.items():
                read = sum(backlog.positions.values())
                progress.update(bars[stream], total=read + backlog.lag, completed=read)
            if not any(backlog.lag for backlog in backlogs.values()):
                return


def _patiently(what: str) -> Iterator[None]:
    """Looks again every half second; raises UserError when the end does not come."""
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        yield
        time.sleep(0.5)
    raise UserError(f"{what} did not end within {DEADLINE_S} s.", "See ./millrace status and ./millrace doctor.")


def _summary() -> None:
    """Prints the accuracies and the landing's reconciliation; raises UserError when something did not succeed."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from include.warehouse import queries
    from include.warehouse.connection import connected

    sql = queries.load("demo")
    # A pipe has no width of its own; the tables need this much.
    console = Console(width=None if sys.stdout.isatty() else 110)
    with connected("millrace demo") as connection:
        models = Table("dataset", "until", "version", "model", "metric", box=SIMPLE_HEAD)
        for heading in ("value", "95 % interval", "baseline"):
            models.add_column(heading, justify="right")
        for (dataset, version, until), results in groupby(sql.list_results(connection), key=itemgetter(0, 1, 2)):
            names = (dataset, f"{until:%Y-%m-%d}" if until else "", version)
            for _, _, _, model, metric, value, low, high, baseline in results:
                interval = "" if low is None else f"{low:.3f}..{high:.3f}"
                models.add_row(*names, model, metric, f"{value:.3f}", interval, f"{baseline:.3f}")
                names = ("", "", "")
            models.add_section()
        landing = Table("stream", box=SIMPLE_HEAD)
        for heading in ("offsets", "landed", "dead letters", "quarantined", "tombstones", "no records"):
            landing.add_column(heading, justify="right")
        unequal = []
        for stream, offsets, *fates in sql.list_reconciliation(connection):
            landing.add_row(stream, *(f"{count:,}" for count in (offsets, *fates)))
            if offsets != sum(fates):
                unequal.append(stream)
        failed = [run_id for (run_id,) in sql.list_failed_runs(connection)]
    console.print("\nRetraining: every model on the test rows of every version", models, sep="\n")
    console.print("Landing: every offset of every topic has one fate", landing, sep="\n")
    if unequal or failed:
        raise UserError(
            f"Not all is well: failed runs {failed or 'none'}, streams that do not add up {unequal or 'none'}."
        )


def _farewell(platform: Platform) -> None:
    click.echo("\nIt runs on. Look at it:")
    show_addresses(platform)
    click.echo(
        """
Try next:
  ./millrace psql -c "select * from millrace.accuracy"      every accuracy, with its interval
  ./millrace value seattle_weather                          what retraining gained there, and why
  ./millrace produce payments --events 100000               watch land__payments in the UI
  ./millrace new dataset mine --from FILE.csv               your own data
  ./millrace down                                           stop; the data stays"""
    )
