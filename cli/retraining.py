"""publish and train: start a DAG run and follow it to its end."""

import json
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import click

from cli.parameters import Moment
from embedded.airflow_api import AirflowApi, Run, TaskInstance
from embedded.platform import Platform
from include.error_codes import Code
from include.errors import UserError

_PATIENCE_S = 5.0
_NO_MESSAGE = "failed without a message; read its log in the Airflow UI, or ./millrace logs scheduler"


@click.command()
@click.argument("dataset")
@click.option(
    "--from", "start", type=Moment(), help="Start of the data interval (UTC). Default: the latest complete interval."
)
@click.option("--until", "end", type=Moment(), help="End of the data interval (UTC, exclusive).")
@click.option("--rows", type=click.IntRange(min=2), help="Publish a sample of at most this many rows.")
@click.option("--seed", default=0, show_default=True, help="The seed of the sample.")
def publish(dataset: str, start: datetime | None, end: datetime | None, rows: int | None, seed: int) -> None:
    """Publish a version of a dataset, and wait for the end. Its training starts automatically.

    Exits with 0 if the same rows were published before, and with 1 if there was nothing to publish.
    """
    if start and end and start >= end:
        raise UserError(
            f"The interval ends at {end:%Y-%m-%d %H:%M}, not after its start at {start:%Y-%m-%d %H:%M}.",
            "Exchange --from and --until.",
            code=Code.INVALID_INTERVAL,
        )
    api = _api(dataset)
    bounds = {"interval_start": start and start.isoformat(), "interval_end": end and end.isoformat()}
    form = {**bounds, "rows": rows, "seed": seed}
    run = _follow(api, f"publish__{dataset}", {name: value for name, value in form.items() if value is not None})
    (task,) = api.task_instances(run.dag_id, run.run_id)
    for line in api.task_messages(run, task) or ([_NO_MESSAGE] if task.state == "failed" else []):
        click.echo(line)
    if task.state != "success":
        sys.exit(1)


@click.command()
@click.argument("dataset")
@click.option("--version", help="The version's id, or its first digits. Default: the newest.")
@click.option("--until", type=click.DateTime(["%Y-%m-%d"]), help="The version whose data interval ends on this day.")
@click.option("--model", "models", multiple=True, help="Train only this model (and the baseline). Repeatable.")
@click.option("--grid", metavar="JSON", help='More candidates, such as \'{"logistic": {"C": [0.1, 1]}}\'.')
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="The seed of all random states.",
)
def train(
    dataset: str, version: str | None, until: datetime | None, models: tuple[str, ...], grid: str | None, seed: int
) -> None:
    """Train on a published version, and wait for the end."""
    from include.datasets import definitions
    from include.training.run import chosen
    from include.versions import catalog

    candidates = None
    if grid is not None:
        try:
            candidates = json.loads(grid)
        except ValueError as error:
            raise UserError(
                f"--grid is not JSON: {error}.", 'Write {"logistic": {"C": [0.1, 1]}}.', code=Code.INVALID_GRID
            ) from error
    if models or grid is not None:
        # Otherwise a run would fail with the same error and stay in the list of runs.
        chosen(definitions.get(dataset), models, candidates)
    api = _api(dataset)
    found = catalog.find(dataset, version, until and until.replace(tzinfo=UTC))
    form: dict[str, Any] = {"version": found.version, "models": list(models) or None, "seed": seed}
    if grid is not None:
        form["grid"] = candidates
    run = _follow(api, f"train__{dataset}", form)
    tasks = api.task_instances(run.dag_id, run.run_id)
    for task in tasks:
        if task.state == "failed":
            for line in api.task_messages(run, task) or [_NO_MESSAGE]:
                click.echo(f"{task.label}: {line}", err=True)
    _show(dataset, run.run_id)
    if run.state != "success":
        sys.exit(1)


def _api(dataset: str) -> AirflowApi:
    from include.datasets import definitions
    from include.kafka import topics

    definitions.get(dataset)
    platform = Platform()
    os.environ.update(platform.environment())
    # Tasks retry for a long time while Kafka is down; the user should see the error immediately.
    topics.names(_PATIENCE_S)
    api = AirflowApi.of(platform)
    api.wait_for_dags([f"publish__{dataset}", f"train__{dataset}"])
    return api


def _follow(api: AirflowApi, dag_id: str, form: Mapping[str, Any]) -> Run:
    if api.is_paused(dag_id):
        api.unpause(dag_id)
        click.echo(f"  {dag_id} was paused and is now unpaused; its queued and scheduled runs start as well.", err=True)
    run = api.trigger(dag_id, form)
    click.echo(f"  {run.run_id}", err=True)
    seen: dict[str, str | None] = {}

    def progress(_: Run, tasks: list[TaskInstance]) -> None:
        for task in tasks:
            named = not task.label.endswith(f"[{task.map_index}]")
            if named and task.state not in (None, "scheduled", "queued", seen.get(task.label)):
                click.echo(f"  {task.label}: {task.state}", err=True)
                seen[task.label] = task.state

    return api.wait(dag_id, run.run_id, timeout=7200, progress=progress)


def _show(dataset: str, run_id: str) -> None:
    from rich.console import Console
    from rich.table import Table

    from include.warehouse import queries
    from include.warehouse.connection import connected

    sql = queries.load("training")
    with connected("millrace train") as connection:
        found = sql.run_of(connection, dataset=dataset, run_id=run_id)
        if found is None:
            raise UserError(
                f"The run {run_id} ended before any model was fitted.",
                "Read the log of its task plan in the Airflow UI.",
                code=Code.RUN_FAILED,
            )
        results = list(sql.results_of(connection, run=found.run))
    if results:
        table = Table("model", results[0].metric, "95 % interval")
        for result in results:
            interval = f"{result.low:.3f} to {result.high:.3f}" if result.low is not None else ""
            table.add_row(result.model, f"{result.value:.3f}", interval)
        Console().print(f"Run {found.run} of {dataset}, version {found.version[:12]}", table)
