"""The command line: a table of commands, each imported only when it is used."""

import errno
import gc
import importlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from cli.connections import CommandConnections
from include import connections
from include.errors import UserError


@dataclass(frozen=True)
class Entry:
    """One row of the table: where a command lives, and the line that `--help` shows for it."""

    name: str
    target: str
    help: str

    def load(self) -> click.Command:
        module, _, attribute = self.target.partition(":")
        command = getattr(importlib.import_module(f"cli.{module}"), attribute)
        assert isinstance(command, click.Command)
        return command


PANELS: dict[str, tuple[Entry, ...]] = {
    "Start here": (
        Entry("demo", "demo:demo", "Everything from nothing: models retrained, events landed, a summary."),
        Entry("check", "check:check", "Validate every definition, and show what no definition names any more."),
        Entry("new", "new:new", "Write a dataset or stream definition for you to edit."),
    ),
    "The platform": (
        Entry("up", "platform:up", "Start Kafka, PostgreSQL and Airflow, and bring the databases up to date."),
        Entry("down", "platform:down", "Stop them; the data stays."),
        Entry("status", "platform:status", "What runs, where it listens, how well it is."),
        Entry("logs", "platform:logs", "Show or follow a component's log."),
        Entry("doctor", "doctor:doctor", "Look for what is wrong, and say what to do about it."),
        Entry("backup", "backup:backup", "Write everything to one file, while the platform runs."),
        Entry("restore", "backup:restore_command", "Bring back what a backup holds (asks first)."),
        Entry("reset", "platform:reset", "Delete all data and start from nothing (asks first)."),
    ),
    "Retraining": (
        Entry("publish", "retraining:publish", "Publish a version of a dataset, and follow it to its end."),
        Entry("train", "retraining:train", "Train on a published version, and follow it to its end."),
        Entry("champion", "registry:champion", "Which model is live, since when, on what evidence; roll back, retire."),
        Entry("value", "registry:value", "What retraining has gained so far."),
    ),
    "Landing": (
        Entry("produce", "landing:produce", "Send real-time events to a stream."),
        Entry("accept", "landing:accept", "Choose how a stream that stopped goes on."),
        Entry("replay", "landing:replay", "Land a range again, as the stream is defined now."),
        Entry(
            "dead-letters",
            "landing:dead_letters",
            "List records that could not be landed; decode them again.",
        ),
    ),
    "Proof and speed": (
        Entry("verify", "verify:verify", "Prove a training run, a version of a dataset, or a stream."),
        Entry("bench", "bench:bench", "Measure Millrace beside the bare loop and its peers."),
        Entry("test", "development:test", "Run the test suite on its own ports and state."),
    ),
    "The ordinary tools, connected": (
        Entry("airflow", "tools:airflow", "Airflow's own command line."),
        Entry("psql", "tools:psql", "A SQL prompt on the warehouse."),
        Entry("python", "tools:python", "Python with Millrace's packages and connections."),
        Entry("env", "tools:env", "Shell exports that connect your own programs."),
    ),
}


_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


class Commands(click.Group):
    """The table above as a group; a command's module is imported when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [entry.name for entries in PANELS.values() for entry in entries]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entries = (entry for panel in PANELS.values() for entry in panel if entry.name == cmd_name)
        return next((entry.load() for entry in entries), None)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for panel, entries in PANELS.items():
            with formatter.section(panel):
                formatter.write_dl([(entry.name, entry.help) for entry in entries], col_spacing=4)


@click.command(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Begin with ./millrace demo, or with ./millrace up. ./millrace COMMAND --help says more about each.",
)
def millrace() -> None:
    """Retrain models on Kafka topics and land real-time streams in PostgreSQL, with Airflow.

    Kafka, PostgreSQL and Airflow run on this machine, below .millrace/ (another place: MILLRACE_HOME).
    """


def main(arguments: list[str] | None = None) -> int:
    """Run a command. Returns the exit code: 0, 1 for an error with a remedy, 2 for a wrong call, 130 for Ctrl-C."""
    connections.use(CommandConnections())
    # Airflow's imports make nothing but what stays: looking for garbage among it takes a tenth of a short command.
    gc.set_threshold(50_000)
    try:
        outcome = millrace.main(args=arguments, prog_name="./millrace", standalone_mode=False)
        return outcome if isinstance(outcome, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("millrace: interrupted", err=True)
        return 130
    except BrokenPipeError:
        # The reader of a pipe, such as head, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UserError as error:
        if os.environ.get("MILLRACE_DEBUG"):
            raise
        click.echo(f"millrace: {error}", err=True)
        return 1
    except OSError as error:
        if os.environ.get("MILLRACE_DEBUG") or error.errno not in (*_FULL, *_FORBIDDEN):
            raise
        if error.errno in _FORBIDDEN:
            what = f"{error.filename or 'A file'} may not be used ({error.strerror})."
            click.echo(f"millrace: {what} Make it readable and writable for you.", err=True)
            return 1
        where = Path(error.filename).parent if error.filename else "the home"
        click.echo(f"millrace: The disk that holds {where} is full. Free some space and start again.", err=True)
        return 1
    except Exception as error:
        if os.environ.get("MILLRACE_DEBUG") or not type(error).__module__.startswith("psycopg2"):
            raise
        said = " ".join(str(error).split())
        click.echo(f"millrace: PostgreSQL refuses, or has stopped: {said} ./millrace doctor looks for why.", err=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
