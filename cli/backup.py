"""backup and restore."""

import signal
from pathlib import Path
from types import FrameType

import click

from cli.parameters import NewFile
from cli.platform import steps
from embedded import backup as backups
from embedded import environment, restore
from embedded.platform import Platform


@click.command()
@click.argument("file", type=NewFile())
def backup(file: str) -> None:
    """Write the warehouse, the models, Airflow's history, the topics and the passwords to FILE.

    The platform may run meanwhile: Kafka alone is stopped for some seconds, which landing and training wait for. FILE
    is readable by you alone: anyone who has it has the passwords. Tasks' logs are not in it.
    """
    _end_in_order()
    path = Path(file).absolute()
    backups.make(Platform(report=steps), path, steps)
    click.echo(f"{path}: {path.stat().st_size / 1e6:,.1f} MB. Bring it back with ./millrace restore {file}")
    if "AIRFLOW_CONN_MILLRACE_KAFKA" in environment.overrides():
        click.echo("The topics are on your own brokers, and not in it: back them up as docs/platform.md says.")


@click.command("restore")
@click.argument("file", type=click.Path())
@click.option("--yes", is_flag=True, help="Do not ask.")
def restore_command(file: str, yes: bool) -> None:
    """Replace the platform's data by what FILE, a backup, holds.

    FILE is checked and unpacked first: when anything is wrong with it, nothing is changed. The platform is stopped, and
    stays so until ./millrace up.
    """
    _end_in_order()
    path = Path(file).absolute()
    platform = Platform(report=steps)
    header = restore.check(path, steps)
    what = f"every topic, database and password in {platform.home.path}"
    if header["own_warehouse"]:
        what += f", and the schemas {' and '.join(backups.SCHEMAS)} of your own database,"
    if not yes and (header["own_warehouse"] or restore.holds_data(platform.home)):
        click.confirm(f"Replace {what} by the backup of {header['made_at']}?", abort=True)
    restore.make(platform, path, header, steps)
    click.echo(f"restored as of {header['made_at']}; start it with ./millrace up")


def _end_in_order() -> None:
    """A closed terminal, or kill, ends a command as Ctrl-C does: what it has stopped starts again."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
