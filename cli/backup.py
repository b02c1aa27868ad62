"""backup and restore."""

import signal
from pathlib import Path
from types import FrameType

import click

from cli.parameters import WritableFile
from cli.platform import steps
from embedded import backup as backups
from embedded import environment, restore
from embedded.platform import Platform


@click.command()
@click.argument("file", type=WritableFile())
def backup(file: str) -> None:
    """Write the warehouse, the models, Airflow's history, the topics and the passwords to FILE.

    The platform keeps running; only Kafka is stopped for a few seconds, and landing and training wait for it. Only you
    can read FILE; keep it so, because it contains the passwords. It does not contain the tasks' logs.
    """
    _interrupt_on_signals()
    path = Path(file).absolute()
    backups.make(Platform(report=steps), path, steps)
    click.echo(f"{path}: {path.stat().st_size / 1e6:,.1f} MB. Restore it with ./millrace restore {file}")
    if "AIRFLOW_CONN_MILLRACE_KAFKA" in environment.overrides():
        click.echo("It does not contain the topics, which are on your own brokers: see docs/platform.md, Backup.")


@click.command("restore")
@click.argument("file", type=click.Path())
@click.option("--yes", is_flag=True, help="Do not ask.")
def restore_command(file: str, yes: bool) -> None:
    """Replace the platform's data by the backup in FILE.

    FILE is checked and unpacked first; when it is damaged, nothing is changed. The platform is stopped, and stays down
    until ./millrace up.
    """
    _interrupt_on_signals()
    path = Path(file).absolute()
    platform = Platform(report=steps)
    header = restore.check(path, steps)
    what = f"every topic, database and password in {platform.home.path}"
    if header["own_warehouse"]:
        what += f", and the schemas {' and '.join(backups.SCHEMAS)} of your own database,"
    if not yes and (header["own_warehouse"] or restore.holds_data(platform.home)):
        click.confirm(f"Replace {what} by the backup of {header['made_at']}?", abort=True)
    restore.make(platform, path, header, steps)
    click.echo(f"restored the backup of {header['made_at']}; start the platform with ./millrace up")


def _interrupt_on_signals() -> None:
    """Make SIGTERM and SIGHUP end the command as Ctrl-C does, so that it starts again what it has stopped."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
