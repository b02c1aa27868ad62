"""demo: start the platform, retrain and land on real data, and print a summary."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING

import click

from cli.platform import show_addresses, steps
from embedded.platform import Platform
from embedded.polling import wait_until
from include.error_codes import Code
from include.errors import UserError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from embedded.airflow_api import AirflowApi

DEADLINE_S = 600


@click.command()
@click.option(
    "--events", type=click.IntRange(min=1), default=50_000, show_default=True, help="Events to send to each stream."
)
@click.option("--down", "stop", is_flag=True, help="Stop everything at the end; the data stays.")
def demo(events: int, stop: bool) -> None:
    """Start the platform, publish datasets, train models, land events, and print a summary.

    On a platform where the demo ran before, datasets that have not changed are not published again.
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
    click.echo(f"\nThe demo took {time.monotonic() - started:.0f} s.")
    if not stop:
        _show_next_steps(platform)


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
    """Start the publication of every dataset: by unpausing its schedule, or by a run when it has none."""
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
    """Wait until all due versions are published and every version has a finished training run."""
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

        def is_done() -> bool:
            ((versions, trained),) = queries.load("demo").count_trained(connection)
            connection.rollback()
            progress.update(bar, total=versions or None, completed=trained)
            if trained < versions or any(_is_publishing(airflow, dag_id) for dag_id in publishers):
                return False
            # A version that was published after the first count is counted now, or its manifest is still unread.
            ((versions, _),) = queries.load("demo").count_trained(connection)
            return bool(trained == versions and measure(brokers, connection, READER, CONTROL_TOPIC).lag == 0)

        _wait("The training runs", is_done)


def _is_publishing(airflow: AirflowApi, dag_id: str) -> bool:
    """Whether the DAG has an unfinished run, or its schedule owes one."""
    due = airflow.call("GET", f"dags/{dag_id}")["next_dagrun_run_after"]
    if due is not None and datetime.fromisoformat(due) <= datetime.now(UTC):
        return True
    return any(not run.finished for run in airflow.runs(dag_id))


def _follow_landing(progress: Progress) -> None:
    """Wait until the position of every stream has reached the end of its topic."""
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

        def is_done() -> bool:
            backlogs = {stream: measure(brokers, connection, stream.reader, stream.topic) for stream in bars}
            for stream, backlog in backlogs.items():
                read = sum(backlog.positions.values())
                progress.update(bars[stream], total=read + backlog.lag, completed=read)
            return not any(backlog.lag for backlog in backlogs.values())

        _wait("Landing", is_done)


def _wait(what: str, is_done: Callable[[], bool]) -> None:
    try:
        wait_until(is_done, DEADLINE_S, pause=0.5)
    except TimeoutError:
        raise UserError(
            f"{what} did not finish within {DEADLINE_S} s.",
            "Run ./millrace status and ./millrace doctor.",
            code=Code.RUN_TIMEOUT,
        ) from None


def _summary() -> None:
    """Print every accuracy and the dispositions of each stream. Raises UserError when a run or a stream failed."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from include.warehouse import queries
    from include.warehouse.connection import connected

    sql = queries.load("demo")
    # A pipe has no width; the tables need this much.
    console = Console(width=None if sys.stdout.isatty() else 110)
    with connected("millrace demo") as connection:
        models = Table("dataset", "until", "version", "model", "metric", box=SIMPLE_HEAD)
        for heading in ("value", "95 % interval", "baseline"):
            models.add_column(heading, justify="right")
        version = attrgetter("dataset", "version", "interval_end")
        for (dataset, name, until), results in groupby(sql.list_results(connection), key=version):
            names = (dataset, f"{until:%Y-%m-%d}" if until else "", name)
            for result in results:
                interval = "" if result.low is None else f"{result.low:.3f}..{result.high:.3f}"
                baseline = "" if result.baseline is None else f"{result.baseline:.3f}"
                models.add_row(*names, result.model, result.metric, f"{result.value:.3f}", interval, baseline)
                names = ("", "", "")
            models.add_section()
        landing = Table("stream", box=SIMPLE_HEAD)
        for heading in ("offsets", "landed", "dead letters", "quarantined", "filtered", "skipped", "no records"):
            landing.add_column(heading, justify="right")
        incomplete = []
        for row in sql.list_reconciliation(connection):
            dispositions = (row.landed, row.dead_letters, row.quarantined, row.filtered, row.skipped, row.no_records)
            landing.add_row(row.stream, *(f"{count:,}" for count in (row.offsets, *dispositions)))
            if row.offsets != sum(dispositions):
                incomplete.append(row.stream)
        failed = [run.run_id for run in sql.list_failed_runs(connection)]
    console.print("\nRetraining: every model on the test rows of every version", models, sep="\n")
    console.print("Landing: every offset of every topic has one disposition", landing, sep="\n")
    if incomplete or failed:
        problems = [f"training run {run} failed" for run in failed]
        problems += [f"the dispositions of stream {stream!r} do not add up to its offsets" for stream in incomplete]
        raise UserError(
            f"The demo found problems: {'; '.join(problems)}.", "Run ./millrace doctor.", code=Code.DEMO_FAILED
        )


def _show_next_steps(platform: Platform) -> None:
    from embedded.environment import api_url

    click.echo("\nThe platform is running:")
    show_addresses(platform)
    click.echo(
        """
Try next:
  ./millrace psql -c "select * from millrace.accuracy"      every accuracy, with its interval
  ./millrace value seattle_weather                          what retraining gained there
  ./millrace produce payments --events 100000               watch land__payments in the UI
  ./millrace psql -c "table landing.payments_current"       each payment after its corrections
  ./millrace new dataset mine --from FILE.csv               your own data
  ./millrace down                                           stop; the data stays

See what it did, in Airflow: """
        + f"{api_url(platform.home)}/plugin/millrace-models"
    )
