"""airflow, psql, python and env: other tools, connected to the platform."""

import os
import shlex
import sys

import click

from embedded import environment, postgres
from embedded.platform import Platform
from embedded.ports import HOST
from include.error_codes import Code
from include.errors import UserError

# The commands of Airflow that need no database.
_WITHOUT_DATABASE = {"version", "info", "config", "providers", "cheat-sheet"}
_PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


@click.command(context_settings=_PASS_ON, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def airflow(arguments: tuple[str, ...]) -> None:
    """Airflow's own command line, connected to the platform."""
    platform = Platform()
    platform.environment()
    if arguments and arguments[0] not in _WITHOUT_DATABASE and not {"-h", "--help"}.intersection(arguments):
        _expect_postgres(platform)
    command = [sys.executable, "-P", "-m", "airflow", *arguments]
    os.execve(sys.executable, command, environment.child(platform.home))


def _expect_postgres(platform: Platform) -> None:
    """Raise UserError when the platform's PostgreSQL does not answer. Airflow itself would print a traceback."""
    if not platform.status():
        raise UserError(
            f"The platform in {platform.home.path} is down.", "Run ./millrace up first.", code=Code.PLATFORM_DOWN
        )
    postgres.check(platform.home, platform.home.state()["ports"]["postgres"])


@click.command(context_settings=_PASS_ON, add_help_option=False)
@click.option("--metadata", is_flag=True, help="Open Airflow's metadata database instead of the warehouse.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def psql(metadata: bool, arguments: tuple[str, ...]) -> None:
    """A SQL prompt on the warehouse. Arguments go to psql."""
    platform = Platform()
    platform.environment()
    if not metadata and "AIRFLOW_CONN_MILLRACE_POSTGRES" in environment.overrides():
        os.environ.update(platform.environment())
        own = postgres.own_warehouse(platform.home)
    else:
        # `psql --version` and `psql --help` need no server.
        if not {"-V", "--version", "-?", "--help"}.intersection(arguments):
            _expect_postgres(platform)
        database = "airflow" if metadata else "warehouse"
        own = {
            "PGHOST": HOST,
            "PGPORT": str(platform.home.state()["ports"]["postgres"]),
            "PGUSER": database,
            "PGPASSWORD": platform.home.secrets[database],
            "PGDATABASE": database,
            "PGCONNECT_TIMEOUT": "10",
        }
    program = postgres.program("psql")
    os.execve(program, [program, *arguments], os.environ | own)


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def python(arguments: tuple[str, ...]) -> None:
    """Python with Millrace's packages and connections. Arguments go to Python.

    Examples: ./millrace python, ./millrace python script.py, ./millrace python -m module.
    """
    platform = Platform()
    platform.environment()
    os.execve(sys.executable, [sys.executable, *arguments], environment.child(platform.home))


@click.command()
def env() -> None:
    """Print shell exports that connect your own programs: eval "$(./millrace env)"."""
    platform = Platform()
    programs = str(platform.home.environment / "bin")
    path = [programs, *(part for part in os.environ.get("PATH", "").split(os.pathsep) if part != programs)]
    for name, value in sorted({**platform.environment(), "PATH": os.pathsep.join(path)}.items()):
        click.echo(f"export {name}={shlex.quote(value)}")
