"""History: how long Airflow's tables, logs and fitted models are kept, and their deletion."""

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
from include.error_codes import Code
from include.errors import NonRetryableError, UserError
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

SECTION = "millrace"
"""The section of Airflow's settings with the durations."""

DEFAULTS = {
    "keep_history": "30 days",
    "keep_ledger": "30 days",
    "keep_run_log": "365 days",
    "keep_models": "100 days",
}
"""An approval may be answered for 90 days and needs its model until then."""

METADATA = "MILLRACE_METADATA"
"""The environment variable with the SQLAlchemy URL of Airflow's database, which Airflow hides from its tasks."""

# Without dag and dag_version, which a platform that was down for a month has not parsed again yet, and without trigger:
# the triggerer deletes its rows, and deleting one would delete the task that waits for it.
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
    """How long something is kept, from Airflow's settings.

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
            f"The setting {name} in section {SECTION} of Airflow is {text!r}, which is not a duration.",
            f'Write it like MILLRACE_AIRFLOW__{SECTION.upper()}__{name.upper()}="{DEFAULTS[name]}".',
            code=Code.INVALID_SETTING,
        ) from error


def clean_airflow(before: datetime) -> str:
    """Deletes the rows of Airflow's tables from before a moment; returns the output of ``airflow db clean``.

    The last scheduled run of each DAG stays. A DAG is skipped if one of its runs from before that moment has not ended,
    such as an approval without an answer.

    Raises:
        NonRetryableError: The URL of the database is not set.
        UserError: The database is unavailable, or the command fails.
    """
    url = os.environ.get(METADATA)
    if not url:
        raise NonRetryableError(
            f"The environment variable {METADATA} is not set, so this task cannot clean Airflow's tables.",
            "Set it on the workers to Airflow's sql_alchemy_conn, or pause this DAG and run airflow db clean yourself.",
            code=Code.SETTING_MISSING,
        )
    command = [sys.executable, "-P", "-m", "airflow", "db", "clean", "--yes", "--skip-archive"]
    command += ["--clean-before-timestamp", before.isoformat()]
    command += ["--tables", ",".join(_TABLES)]
    if unfinished := _unfinished(url, before):
        command += ["--exclude-dag-ids", ",".join(unfinished)]
        # With this option Airflow 3.3.2 fails on tables that have no dag_id; they are cleaned when no DAG is skipped.
        log.info("Skipped because a run has not ended: %s.", ", ".join(unfinished))
    else:
        command += ["--error-on-cleanup-failure"]
    # In a task's process these variables mark it as a task and replace the URL of the database.
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
        raise UserError(
            f"airflow db clean failed: {lines[-1] if lines else f'exit code {done.returncode}'}.",
            "Read its whole output: run it yourself with the same options.",
            code=Code.AIRFLOW_CLEAN_FAILED,
        )
    return done.stdout


def remove_logs(directory: Path, before: datetime) -> int:
    """Deletes the files below a directory that were last written before a moment, and directories that become empty.

    Returns:
        The number of files deleted.
    """
    removed = 0
    for parent, _, files in os.walk(directory, topdown=False):
        old = [path for name in files if (path := Path(parent, name)).lstat().st_mtime < before.timestamp()]
        is_old = os.stat(parent).st_mtime < before.timestamp()
        for path in old:
            path.unlink()
        removed += len(old)
        # A new empty directory is about to be written to.
        if Path(parent) != directory and (old or is_old) and not os.listdir(parent):
            os.rmdir(parent)
    return removed


def remove_run_logs(connection: Connection, before: datetime) -> int:
    """Deletes the logs of training runs that ended before a moment, unless they made a champion; commits."""
    removed: int = queries.load("retention").drop_run_logs(connection, before=before)
    connection.commit()
    return removed


def empty_models(connection: Connection, before: datetime) -> int:
    """Empties the stored models of versions that expired before a moment; commits. Returns their number.

    Runs on such a version cannot be verified any more. The registry keeps the models that were champion; metrics,
    verdicts and digests stay.
    """
    emptied: int = queries.load("retention").empty_models(connection, before=before)
    connection.commit()
    return emptied


def cut_off(name: str) -> datetime:
    """The moment before which something is deleted."""
    return datetime.now(UTC) - kept(name)


def _unfinished(url: str, before: datetime) -> list[str]:
    """The DAGs with a run that began before a moment and has not ended."""
    import psycopg2

    try:
        connection = psycopg2.connect(url.replace("postgresql+psycopg2://", "postgresql://"), connect_timeout=10)
    except psycopg2.OperationalError as error:
        raise UserError(
            f"Airflow's database is unavailable: {str(error).strip().partition(chr(10))[0]}.",
            "Start it, or correct the URL in MILLRACE_METADATA.",
            code=Code.METADATA_UNAVAILABLE,
        ) from error
    with closing(connection):
        return [dag for (dag,) in queries.load("metadata").unfinished_dags(connection, before=before)]
