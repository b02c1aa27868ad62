"""What is kept of the past in addition to the data, and for how long: Airflow's tables, logs, fitted models."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from include.durations import duration
from include.errors import NonRetryableError, UserError
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

SECTION = "millrace"
"""The section of Airflow's settings that says how long."""

DEFAULTS = {
    "keep_history": "30 days",
    "keep_ledger": "30 days",
    "keep_run_log": "365 days",
    "keep_models": "100 days",
}
"""A question about a promotion waits 90 days for its answer, and until then for its model."""

METADATA = "MILLRACE_METADATA"
"""The environment variable that holds SQLAlchemy's URL of Airflow's database, which Airflow hides from its tasks."""

# Not among them: dag and dag_version, which a platform that was down for a month has not parsed again yet; trigger,
# whose rows are deleted by the triggerer, and which would take along the task that waits for one.
_TABLES = (
    "job",
    "dag_run",
    "task_instance",
    "task_instance_history",
    "task_reschedule",
    "xcom",
    "log",
    "asset_event",
    "revoked_token",
)

log = logging.getLogger(__name__)


def kept(name: str) -> timedelta:
    """How long something is kept, as Airflow's settings say.

    Args:
        name: One of ``DEFAULTS``.

    Raises:
        NonRetryableError: The setting is not a duration.
    """
    from airflow.configuration import conf

    text = conf.get(SECTION, name, fallback=DEFAULTS[name])
    try:
        return duration(text)
    except ValueError as error:
        raise NonRetryableError(
            f"The setting {name} of the section {SECTION} is {text!r}, which is not a duration.",
            f'Set MILLRACE_AIRFLOW__{SECTION.upper()}__{name.upper()}="{DEFAULTS[name]}", or the like.',
        ) from error


def clean_airflow(before: datetime) -> str:
    """Deletes what Airflow's tables hold of before a moment; returns what ``airflow db clean`` says.

    The last scheduled run of each DAG stays. A DAG of which a run from before that moment has not ended, such as a
    question without an answer, is left alone.

    Raises:
        NonRetryableError: The database is not named.
        UserError: It does not answer, or the command fails.
    """
    url = os.environ.get(METADATA)
    if not url:
        raise NonRetryableError(
            f"{METADATA} is not set, so that Airflow's tables cannot be cleaned from here.",
            "Set it to Airflow's sql_alchemy_conn on the workers, or pause this DAG and run airflow db clean yourself.",
        )
    command = [sys.executable, "-P", "-m", "airflow", "db", "clean", "--yes", "--skip-archive"]
    command += ["--clean-before-timestamp", before.isoformat()]
    command += ["--tables", ",".join(_TABLES)]
    if unfinished := _unfinished(url, before):
        command += ["--exclude-dag-ids", ",".join(unfinished)]
        # Airflow 3.3.2 looks for a dag_id in tables that have none; these are cleaned when nothing is left alone.
        log.info("Left alone, because a run has not ended: %s.", ", ".join(unfinished))
    else:
        command += ["--error-on-cleanup-failure"]
    # A task's process says that it is one, and has the address of nothing in the place of the database's.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("_AIRFLOW")}
    done = subprocess.run(
        command,
        env=environment | {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise UserError(f"airflow db clean failed: {lines[-1] if lines else f'exit {done.returncode}'}.")
    return done.stdout


def remove_logs(directory: Path, before: datetime) -> int:
    """Deletes the files below a directory that were last written before a moment, and the directories that held only
    such files. Returns how many files.
    """
    removed = 0
    for parent, _, files in os.walk(directory, topdown=False):
        old = [path for name in files if (path := Path(parent, name)).lstat().st_mtime < before.timestamp()]
        is_old = os.stat(parent).st_mtime < before.timestamp()
        for path in old:
            path.unlink()
        removed += len(old)
        # A new directory is empty because something is about to be written to it.
        if Path(parent) != directory and (old or is_old) and not os.listdir(parent):
            os.rmdir(parent)
    return removed


def remove_run_logs(connection: Connection, before: datetime) -> int:
    """Deletes what training runs logged that ended before a moment, unless they made a champion; commits."""
    removed: int = queries.load("retention").drop_run_logs(connection, before=before)
    connection.commit()
    return removed


def empty_models(connection: Connection, before: datetime) -> int:
    """Empties the stored models of versions that were expired before a moment; commits. Returns how many.

    Nothing can be derived again of such a version. Models that were champion are kept with the registry; metrics,
    verdicts and digests stay.
    """
    emptied: int = queries.load("retention").empty_models(connection, before=before)
    connection.commit()
    return emptied


def cut_off(name: str) -> datetime:
    """The moment before which something is not kept any more."""
    return datetime.now(UTC) - kept(name)


def _unfinished(url: str, before: datetime) -> list[str]:
    """DAGs with a run that began before a moment and has not ended."""
    import psycopg2

    try:
        connection = psycopg2.connect(url.replace("postgresql+psycopg2://", "postgresql://"), connect_timeout=10)
    except psycopg2.OperationalError as error:
        raise UserError(f"Airflow's database does not answer: {str(error).strip().partition(chr(10))[0]}.") from error
    with closing(connection):
        return [dag for (dag,) in queries.load("metadata").unfinished_dags(connection, before=before)]
