"""bench: Millrace measured beside the bare loop and its peers; the benchmarks themselves are below benchmarks/."""

import importlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from cli.parameters import NewFile
from cli.platform import steps
from embedded.home import Home
from embedded.platform import SERVICES, Platform
from include.project import ROOT

_AMOUNT = click.IntRange(min=1)
_json = click.option("--json", "json_path", type=NewFile(), help="Write the figures.")


class Benchmarks(click.Group):
    """Shows the benchmarks that this checkout has; a benchmark's module is imported when it is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in self.commands if _file(name).exists()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) if _file(cmd_name).exists() else None


@click.group(cls=Benchmarks)
def bench() -> None:
    """Measure Millrace beside the bare loop and its peers, each really run, here and now.

    Kafka and PostgreSQL are those of the running platform; what is not up is started. A benchmark with Airflow starts a
    platform of its own, and removes it.
    """


@bench.command()
@click.option("--events", type=_AMOUNT, default=1_000_000, show_default=True, help="The slowest peers take fewer.")
@click.option("--repetitions", type=_AMOUNT, default=3, show_default=True, help="Of everything, one after the other.")
@click.option("--peers", help="Only these, such as ours,bare.")
@_json
def landing(events: int, repetitions: int, peers: str | None, json_path: str | None) -> None:
    """From a topic to a table: Millrace, the bare loop, the Kafka provider's operator, Debezium."""
    _use(SERVICES)
    module = _module("landing")
    module.main(events, repetitions, json_path, tuple(peers.split(",")) if peers else module.NAMES)


@bench.command()
@click.option("--rate", type=_AMOUNT, default=5_000, show_default=True, help="Events a second.")
@click.option("--seconds", type=_AMOUNT, default=300, show_default=True, help="For how long.")
@_json
def freshness(rate: int, seconds: int, json_path: str | None) -> None:
    """From an event to its visible row, landed by the DAG in Airflow. Runs in a home of its own."""
    with _own_platform():
        _module("freshness").main(rate, seconds, json_path)


@bench.command()
@click.option(
    "--rows", type=click.IntRange(min=1_000), help="So many rows of 30 doubles, instead of Seattle's weather."
)
@click.option("--repetitions", type=_AMOUNT, default=5, show_default=True, help="Of both, in turn.")
@_json
def training(rows: int | None, repetitions: int, json_path: str | None) -> None:
    """A training run in Airflow, and a plain script that does the same fits. Runs in a home of its own."""
    with _module("passing").workplace(), _own_platform():
        _module("training").main(json_path, rows, repetitions)


@bench.command()
@click.option("--rows", type=click.IntRange(min=1_000), default=10_000_000, show_default=True, help="Of 30 doubles.")
@_json
def out_of_core(rows: int, json_path: str | None) -> None:
    """Training on more rows than fit into memory, killed half-way; beside a bare loop on the file."""
    _use(SERVICES)
    _module("out-of-core").main(json_path, rows)


def _plain(name: str, says: str, components: Iterable[str]) -> Callable[..., Any]:
    @bench.command(name, help=says)
    @_json
    def run(json_path: str | None) -> None:
        if components:
            _use(components)
        _module(name).main(json_path)

    return run


@bench.command()
@click.option("--days", type=click.IntRange(min=30), default=365, show_default=True, help="Daily windows.")
@_json
def year(days: int, json_path: str | None) -> None:
    """A year of daily windows in fast motion: whether what is kept stays of one size."""
    _use(SERVICES)
    _module("year").main(json_path, days)


_plain("publish", "Rows of a dataset into its topic, sealed.", SERVICES)
_plain("read", "A sealed version out of its topic, every batch proven.", SERVICES)
_plain("gate", "Simulated years of gates: false promotions, and weeks until a better model wins.", ())


def _file(name: str) -> Path:
    return ROOT / "benchmarks" / f"{name.replace('-', '_')}.py"


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"benchmarks.{name.replace('-', '_')}")


@contextmanager
def _own_platform() -> Iterator[None]:
    """A platform that is there for one benchmark: runs and events of the user's own platform stay as they are."""
    if Platform().is_alive():
        click.echo("another platform is up, and takes its part of this machine (./millrace down)", err=True)
    home = Home.current().path / "bench"
    os.environ["MILLRACE_HOME"] = str(home)
    platform = Platform(report=steps)
    try:
        platform.up()
        os.environ.update(platform.environment())
        yield
    finally:
        platform.down()
        shutil.rmtree(home, ignore_errors=True)


def _use(components: Iterable[str]) -> None:
    """Connect this process to the platform, and start what of it is not up."""
    from include.warehouse.migrations import migrate

    platform = Platform(report=steps)
    healthy = {health.name for health in platform.status() if health.healthy}
    if missing := [name for name in components if name not in healthy]:
        click.echo(f"{', '.join(missing)} not running; starting, and left running (./millrace down)", err=True)
        platform.up(components)
    os.environ.update(platform.environment())
    if missing:
        migrate()
