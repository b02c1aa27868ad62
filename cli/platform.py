"""up, down, status, logs and reset."""

import json
import shutil
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import click

from embedded.component import ALL
from embedded.home import Home
from embedded.platform import Health, Platform
from include.error_codes import Code
from include.errors import UserError


def steps(text: str) -> None:
    """Print a step of a long command."""
    click.echo(f"  {text} …", err=True)


@click.command()
@click.option(
    "--registry/--no-registry",
    default=None,
    help="Run a schema registry, or none, from now on. By default one runs once a stream needs it.",
)
def up(registry: bool | None) -> None:
    """Start Kafka, PostgreSQL and Airflow, and migrate the databases.

    Does nothing when they are running. Each listener uses its usual port when it is free, else another one, which it
    keeps. MILLRACE_PORT_API, _KAFKA, _KAFKA_CONTROLLER, _POSTGRES, _SCHEMA_REGISTRY and _SUPERVISOR set ports.
    """
    started = time.monotonic()
    platform = Platform(report=steps)
    if registry is not None:
        platform.use_schema_registry(registry)
    changed = platform.up()
    click.echo(f"ready after {time.monotonic() - started:.0f} s" if changed else "already up")
    show_addresses(platform)


def show_addresses(platform: Platform) -> None:
    """Print the addresses, and the login of Airflow's UI."""
    from embedded import schema_registry
    from embedded.environment import api_url, overrides

    click.echo(f"  Airflow   {api_url(platform.home)}   user admin, password {platform.home.password}")
    ports, own = platform.home.state()["ports"], overrides()
    kafka = "your own (MILLRACE_CONN_KAFKA)" if "AIRFLOW_CONN_MILLRACE_KAFKA" in own else f"127.0.0.1:{ports['kafka']}"
    postgres = f"127.0.0.1:{ports['postgres']}"
    if "AIRFLOW_CONN_MILLRACE_POSTGRES" in own:
        postgres = "your own (MILLRACE_CONN_POSTGRES)"
    click.echo(f"  Kafka     {kafka}")
    click.echo(f"  Postgres  {postgres}   ./millrace psql")
    if "AIRFLOW_CONN_MILLRACE_REGISTRY" in own:
        click.echo("  Registry  your own (MILLRACE_CONN_REGISTRY)")
    elif platform.home.state().get("schema_registry"):
        click.echo(f"  Registry  {schema_registry.url(ports['schema_registry'])}")


@click.command()
def down() -> None:
    """Stop everything; the data stays."""
    Platform(report=steps).down()
    click.echo("down")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def status(as_json: bool) -> None:
    """Show each component, its address and health, and the lag of each stream.

    Exits with 1 unless everything is healthy.
    """
    platform = Platform()
    healths = platform.status()
    if as_json:
        from embedded import report

        click.echo(json.dumps(report.status(platform, healths), indent=2))
    elif not healths:
        click.echo("down (./millrace up starts it)")
    for health in [] if as_json else healths:
        state = "healthy" if health.healthy else health.state.lower()
        restarts = f"restarted {health.restarts} times" if health.restarts else ""
        click.echo(
            f"{health.name:14} {state:9} {health.detail if health.detail != state else '':32} {restarts}".rstrip()
        )
    for entry in [] if as_json else _lag(platform, healths):
        click.echo(describe_lag(entry))
    if not healths or not all(health.healthy for health in healths):
        sys.exit(1)


@click.command()
@click.argument("component", type=click.Choice([*ALL, "migrate", "supervisor"]), required=False)
@click.option("-f", "--follow", is_flag=True, help="Print new lines until Ctrl-C.")
@click.option("-n", "--lines", type=click.IntRange(min=0), default=40, show_default=True, help="Lines of each log.")
def logs(component: str | None, follow: bool, lines: int) -> None:
    """Show the end of the log of a component, or of all logs."""
    directory = Home.current().logs
    names = [component] if component else [*ALL, "supervisor"]
    files = {name: _log_file(directory, name) for name in names}
    present = {name: file for name, file in files.items() if file.exists()}
    if not present:
        raise UserError(
            f"There is no log in {directory}.", "Start the platform with ./millrace up.", code=Code.PLATFORM_DOWN
        )
    for name, file in present.items():
        with file.open(errors="replace") as text:
            for line in deque(text, maxlen=lines):
                _show(name, line, labelled=len(names) > 1)
    if follow:
        _follow(present, labelled=len(names) > 1)


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
def reset(yes: bool) -> None:
    """Stop everything and delete all data: topics, databases, models, logs, ports and passwords.

    Only the installed environment stays.
    """
    platform = Platform(report=steps)
    home = platform.home.path
    if not yes:
        click.confirm(f"Delete every topic, database and log in {home}?", abort=True)
    platform.down()
    keep = platform.home.environment
    for entry in home.iterdir() if home.exists() else []:
        if entry in (keep, keep.with_name(keep.name + ".lock"), home / "test"):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    click.echo("all data is deleted; the installed environment is left")


def _lag(platform: Platform, healths: list[Health]) -> list[dict[str, Any]]:
    from embedded import report

    return report.lag(platform, {health.name for health in healths if health.healthy}) if healths else []


def describe_lag(entry: dict[str, Any]) -> str:
    """The lag of one reader as a line of text."""
    from embedded.report import waiting

    text = entry.get("error") or (waiting(entry["lag"]) if entry["lag"] else "nothing waits")
    if entry.get("behind_s"):
        text += f", the oldest for {entry['behind_s']:.0f} s"
    if entry.get("blocked"):
        since = f" since {entry['blocked_since']}" if "blocked_since" in entry else ""
        text += f", but an open transaction blocks records{since}"
    if entry.get("newest_event"):
        filtered = f"{entry['filtered']:,} filtered, " if entry.get("filtered") else ""
        landed = f"{entry['landed']:,} landed, {filtered}newest event {entry['newest_event']}"
        text += f" ({landed})" if "error" in entry else f"; {landed}"
    problems = "".join(f"\n{'':32} {problem['what']}" for problem in entry.get("problems", ()))
    return f"{entry['reader']:32} {text}{problems}"


def _log_file(directory: Path, name: str) -> Path:
    return directory / "supervisor/supervisord.log" if name == "supervisor" else directory / f"{name}.log"


def _show(name: str, line: str, labelled: bool) -> None:
    click.echo((f"{name:13} " if labelled else "") + line.rstrip("\n"))


def _follow(files: dict[str, Path], labelled: bool) -> None:
    positions = {name: file.stat().st_size for name, file in files.items()}
    while True:
        for name, file in files.items():
            # A rotated log starts again at its beginning.
            positions[name] = positions[name] if file.stat().st_size >= positions[name] else 0
            with file.open(errors="replace") as text:
                text.seek(positions[name])
                for line in text:
                    _show(name, line, labelled)
                positions[name] = text.tell()
        time.sleep(0.3)
