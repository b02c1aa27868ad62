"""bench: compares Millrace with the bare loop and with its peers; the benchmarks are in benchmarks/."""

import importlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from cli.parameters import WritableFile
from cli.platform import steps
from embedded.component import SCHEMA_REGISTRY
from embedded.home import Home
from embedded.platform import NAMES, SERVICES, Platform
from include.project import ROOT

_AMOUNT = click.IntRange(min=1)
_json = click.option("--json", "json_path", type=WritableFile(), help="Write the figures to a JSON file.")


class Benchmarks(click.Group):
    """Lists the benchmarks that this checkout has, and imports the module of the one that runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in self.commands if _file(name).exists()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) if _file(cmd_name).exists() else None


@click.group(cls=Benchmarks)
def bench() -> None:
    """Compare Millrace with the bare loop and with its peers, all run on this machine.

    Benchmarks use Kafka and PostgreSQL of the running platform, and start what is down. A benchmark with Airflow starts
    a platform of its own and removes it.
    """


@bench.command()
@click.option("--events", type=_AMOUNT, default=1_000_000, show_default=True, help="The slowest peers get fewer.")
@click.option("--repetitions", type=_AMOUNT, default=3, show_default=True, help="Repetitions of each peer.")
@click.option("--peers", help="Only these peers, such as ours,bare.")
@click.option(
    "--format",
    "encoding",
    type=click.Choice(["json", "avro", "protobuf", "json-schema"]),
    default="json",
    show_default=True,
    help="The format of the events. With another one than json, only Millrace is measured.",
)
@_json
def landing(events: int, repetitions: int, peers: str | None, encoding: str, json_path: str | None) -> None:
    """From a topic to a table. Compares Millrace, the bare loop, the Kafka provider's operator and Debezium."""
    is_json = encoding == "json"
    _use(SERVICES if is_json else (*SERVICES, SCHEMA_REGISTRY))
    module = _module("landing")
    names = tuple(peers.split(",")) if peers else module.NAMES if is_json else (module.OURS,)
    module.main(events, repetitions, json_path, names, encoding)


@bench.command()
@click.option("--rate", type=_AMOUNT, default=5_000, show_default=True, help="Events per second.")
@click.option("--seconds", type=_AMOUNT, default=300, show_default=True, help="Duration.")
@_json
def freshness(rate: int, seconds: int, json_path: str | None) -> None:
    """From an event to its visible row. The DAG in Airflow lands it, in a home of its own."""
    with _own_platform():
        _module("freshness").main(rate, seconds, json_path)


@bench.command()
@click.option(
    "--rows", type=click.IntRange(min=1_000), help="Train on this many rows of 30 doubles instead of Seattle's weather."
)
@click.option("--repetitions", type=_AMOUNT, default=5, show_default=True, help="Repetitions of both, alternately.")
@_json
def training(rows: int | None, repetitions: int, json_path: str | None) -> None:
    """A training run and a plain script. Both fit the same models; Airflow runs in a home of its own."""
    with _module("passing").workplace(), _own_platform():
        _module("training").main(json_path, rows, repetitions)


@bench.command()
@click.option(
    "--rows", type=click.IntRange(min=1_000), default=10_000_000, show_default=True, help="Rows of 30 doubles."
)
@_json
def out_of_core(rows: int, json_path: str | None) -> None:
    """Training on more rows than memory. Kills it half-way, and compares it with a bare loop on the file."""
    _use(SERVICES)
    _module("out-of-core").main(json_path, rows)


def _plain(name: str, description: str, components: Iterable[str]) -> Callable[..., Any]:
    @bench.command(name, help=description)
    @_json
    def run(json_path: str | None) -> None:
        if components:
            _use(components)
        _module(name).main(json_path)

    return run


@bench.command()
@click.option("--days", type=click.IntRange(min=30), default=365, show_default=True, help="Number of daily windows.")
@_json
def year(days: int, json_path: str | None) -> None:
    """A simulated year of daily windows. Checks that nothing keeps growing."""
    _use(SERVICES)
    _module("year").main(json_path, days)


@bench.command()
@click.option(
    "--versions", type=click.IntRange(min=60), default=1_000, show_default=True, help="Versions of a dataset."
)
@click.option("--models", type=click.IntRange(min=8), default=100, show_default=True, help="Models of each version.")
@click.option("--rows", type=click.IntRange(min=10_000), default=10_000_000, show_default=True, help="Landed rows.")
@click.option("--partitions", type=_AMOUNT, default=2_000, show_default=True, help="Partitions of the stream's table.")
@click.option("--letters", type=_AMOUNT, default=100_000, show_default=True, help="Dead letters.")
@_json
def pages(json_path: str | None, **amounts: int) -> None:
    """The queries of the pages on a large installation, in a home of its own."""
    from include.warehouse.migrations import migrate

    with _own_platform((*SERVICES, "api-server")):
        migrate()
        _module("pages").main(json_path, amounts)


@bench.command()
@click.option("--events", type=_AMOUNT, default=1_000_000, show_default=True, help="Events that land each time.")
@click.option("--repetitions", type=_AMOUNT, default=5, show_default=True, help="Repetitions of both, alternately.")
@_json
def open_pages(events: int, repetitions: int, json_path: str | None) -> None:
    """What open pages cost a landing stream, in a home of its own."""
    from include.warehouse.migrations import migrate

    with _own_platform((*SERVICES, "api-server")):
        migrate()
        _module("open-pages").main(json_path, events, repetitions)


_plain("publish", "From rows to a sealed version in its topic.", SERVICES)
_plain("read", "From a sealed version to its rows, every batch proven.", SERVICES)
_plain("gate", "Simulated years of the gate. Shows false promotions, and the weeks until a better model wins.", ())


def _file(name: str) -> Path:
    return ROOT / "benchmarks" / f"{name.replace('-', '_')}.py"


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"benchmarks.{name.replace('-', '_')}")


@contextmanager
def _own_platform(components: Iterable[str] = NAMES) -> Iterator[None]:
    """A temporary platform for one benchmark; the runs and events of the user's platform stay unchanged.

    Args:
        components: What to start.
    """
    if Platform().is_alive():
        click.echo("Another platform is running and slows this one down. To stop it: ./millrace down", err=True)
    home = Home.current().path / "bench"
    os.environ["MILLRACE_HOME"] = str(home)
    platform = Platform(report=steps)
    try:
        platform.up(components)
        os.environ.update(platform.environment())
        yield
    finally:
        platform.down()
        shutil.rmtree(home, ignore_errors=True)


def _use(components: Iterable[str]) -> None:
    """Connect this process to the platform, and start the components that are down."""
    from include.warehouse.migrations import migrate

    platform = Platform(report=steps)
    healthy = {health.name for health in platform.status(tuple(components)) if health.healthy}
    if missing := [name for name in components if name not in healthy]:
        click.echo(f"Starting {', '.join(missing)}. They keep running; to stop them: ./millrace down", err=True)
        platform.up(components)
    os.environ.update(platform.environment())
    if missing:
        migrate()
