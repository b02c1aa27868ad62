"""The command line: a table of commands, each imported only when it is called."""

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
from include.error_codes import Code
from include.errors import UserError


@dataclass(frozen=True)
class Entry:
    """One row of the table: the function of a command, and its line in `./millrace --help`."""

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
        Entry("demo", "demo:demo", "Start everything, publish and train on real data, land events, print a summary."),
        Entry("check", "check:check", "Validate every definition; list data that no definition names any more."),
        Entry("new", "new:new", "Write a dataset or stream definition for you to edit."),
    ),
    "The platform": (
        Entry("up", "platform:up", "Start Kafka, PostgreSQL and Airflow, and migrate the databases."),
        Entry("down", "platform:down", "Stop them; the data stays."),
        Entry("status", "platform:status", "Show each component, its address and health, and the lag of each stream."),
        Entry("logs", "platform:logs", "Show or follow the log of a component."),
        Entry("doctor", "doctor:doctor", "Find problems, and show how to fix each."),
        Entry("metrics", "metrics:metrics", "Print the metrics that Prometheus reads."),
        Entry("backup", "backup:backup", "Write all data to one file while the platform runs."),
        Entry("restore", "backup:restore_command", "Replace all data by a backup (asks first)."),
        Entry("reset", "platform:reset", "Delete all data (asks first)."),
    ),
    "Retraining": (
        Entry("publish", "retraining:publish", "Publish a version of a dataset, and follow the run."),
        Entry("train", "retraining:train", "Train on a published version, and follow the run."),
        Entry("champion", "registry:champion", "Show the champion and its evidence; roll back or retire it."),
        Entry("value", "registry:value", "Show what retraining has gained so far."),
    ),
    "Landing": (
        Entry("produce", "landing:produce", "Send simulated events to a stream."),
        Entry("accept", "landing:accept", "Accept a loss that stopped a stream, and resume the stream."),
        Entry("replay", "landing:replay", "Land a range of offsets again, as the stream is defined now."),
        Entry("dead-letters", "landing:dead_letters", "List records that could not be landed; try them again."),
    ),
    "Proof and speed": (
        Entry("verify", "verify:verify", "Prove a training run, a version of a dataset, or a stream."),
        Entry("bench", "bench:bench", "Measure Millrace, the bare loop and the peers."),
        Entry("test", "development:test", "Run the test suite on ports and data of its own."),
    ),
    "Other tools, connected to the platform": (
        Entry("airflow", "tools:airflow", "Airflow's own command line."),
        Entry("psql", "tools:psql", "A SQL prompt on the warehouse."),
        Entry("python", "tools:python", "Python with Millrace's packages and connections."),
        Entry("env", "tools:env", "Shell exports that connect your own programs."),
    ),
}

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


class Commands(click.Group):
    """The table above as a group of commands. A command's module is imported when the command is called."""

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
    epilog="Begin with ./millrace demo, or with ./millrace up. ./millrace COMMAND --help describes a command.",
)
def millrace() -> None:
    """Retrain models on Kafka topics and land real-time streams in PostgreSQL, with Airflow.

    Kafka, PostgreSQL and Airflow run on this machine, with their data in .millrace/ or the directory MILLRACE_HOME.
    """


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return the exit code: 0, 1 for an error, 2 for invalid usage, 130 for Ctrl-C.

    An error is one line on stderr, `millrace: SENTENCES [code]`. An error without a code is a defect, and shows its
    traceback; with `MILLRACE_DEBUG` set, every error does.
    """
    connections.use(CommandConnections())
    # Imports leave no garbage: collecting it takes a tenth of a short command's time.
    gc.set_threshold(50_000)
    try:
        outcome = millrace.main(args=arguments, prog_name="./millrace", standalone_mode=False)
        return outcome if isinstance(outcome, int) else 0
    except BrokenPipeError:
        # The reader of a pipe, such as head, has closed it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except click.exceptions.NoArgsIsHelpError as shown:
        shown.show()
        return shown.exit_code
    except BaseException as error:
        failure, exit_code = _failure(error)
        if failure is None or (exit_code == 1 and os.environ.get("MILLRACE_DEBUG")):
            raise
        click.echo(f"millrace: {failure}", err=True)
        return exit_code


def _failure(error: BaseException) -> tuple[UserError | None, int]:
    """What to print for an error, and the exit code; None for a defect or an intended exit."""
    match error:
        case UserError():
            return error, 1
        case click.ClickException():
            context = getattr(error, "ctx", None)
            command = context.command_path if context else "./millrace"
            what = error.format_message()
            what += "" if what.endswith((".", "?")) else "."
            return UserError(what, f"Run {command} --help.", code=Code.INVALID_USAGE), error.exit_code
        case KeyboardInterrupt() | click.Abort():
            return UserError("The command was interrupted.", code=Code.COMMAND_INTERRUPTED), 130
        case OSError(errno=number) if number in _FULL:
            disk = Path(error.filename).parent if error.filename else Path(os.environ.get("MILLRACE_HOME", "."))
            return UserError(
                f"The disk that holds {disk} is full.",
                "Free some space, and run the command again.",
                code=Code.DISK_FULL,
            ), 1
        case OSError(errno=number) if number in _FORBIDDEN:
            return UserError(
                f"{error.filename or 'A file'} cannot be read or written ({error.strerror}).",
                "Change its owner or permissions.",
                code=Code.PERMISSION_DENIED,
            ), 1
        case Exception() if type(error).__module__.startswith("psycopg2"):
            from include.warehouse import revision

            if (mismatch := revision.mismatch(error)) is not None:
                return mismatch, 1
            reason = " ".join(str(error).split()).rstrip(".")
            return UserError(
                f"PostgreSQL reports an error: {reason}.", "Run ./millrace doctor.", code=Code.DATABASE_ERROR
            ), 1
    return None, 1


if __name__ == "__main__":
    sys.exit(main())
