"""What DAGs need of their runs: interval, cause and parameters, and how an error ends a task."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from include.error_codes import Code
from include.errors import NonRetryableError, UserError
from include.versions.manifest import Interval

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.datasets import Dataset

# The largest number that a form accepts: the largest of a bigint column, and of what Airflow passes to a task.
MAX_PARAMETER = 2**63 - 1
# A date or a moment in a form. Airflow does not check the format; only the widget of the form uses it.
DAY = r"^\d{4}-\d\d-\d\d([T ].*)?$"

log = logging.getLogger(__name__)


@contextmanager
def airflow_errors() -> Iterator[None]:
    """Log a UserError as one line without a traceback, and end the task by it.

    Raises:
        AirflowSkipException: There was nothing to publish.
        AirflowFailException: Another error that a retry cannot fix, or a stored position that another process has
            claimed; Airflow does not retry the task.
        UserError: A transient error, such as a broker that is down; Airflow retries the task.
    """
    from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

    from include.airflow import run_notes
    from include.kafka.position_errors import Fenced, PositionError

    try:
        yield
    except Exception as raised:
        # Imported here, because a drain that succeeds needs nothing of it.
        from include.versions.publication import NothingToPublish
        from include.warehouse import revision

        error = raised if isinstance(raised, UserError) else revision.mismatch(raised)
        if error is None:
            raise
        if isinstance(error, NothingToPublish):
            log.warning("Skipped: %s", error)
            raise AirflowSkipException(str(error)) from None
        log.error("%s", error)
        with suppress(Exception):
            # Outside of a task it is not read. A try that succeeds begins without it.
            run_notes.leave(f"failed: {error.what}")
        if isinstance(error, NonRetryableError | PositionError | Fenced):
            raise AirflowFailException(str(error)) from None
        if error is raised:
            raise
        raise error from raised


def require_known(context: Context) -> None:
    """Check that the DAG has a parameter for each key of the run's ``conf``. Airflow itself ignores unknown keys.

    Raises:
        NonRetryableError: It has none for one of the keys.
    """
    conf, dag = context["dag_run"].conf or {}, context["dag"]
    if unknown := sorted(set(conf) - set(dag.params)):
        known = ", ".join(dag.params)
        raise NonRetryableError(
            f"The DAG {dag.dag_id} has no parameter {', '.join(map(repr, unknown))}.",
            f"Trigger it again with its parameters: {known}." if known else "Trigger it again without parameters.",
            code=Code.UNKNOWN_PARAMETER,
        )


def is_parsed_for(dag_id: str) -> bool:
    """Whether the process that parses a DAG file needs this DAG. A task needs only its own DAG."""
    from airflow.sdk import get_parsing_context

    return get_parsing_context().dag_id in (None, dag_id)


def interval(dataset: Dataset, context: Context) -> Interval:
    """The interval that a run publishes: that of the form, else that of the run, else the latest complete one.

    Raises:
        NonRetryableError: The form's dates are not dates, or in the wrong order.
    """
    start, end = (moment(context["params"], name) for name in ("interval_start", "interval_end"))
    if start and end and start >= end:
        raise NonRetryableError(
            f"The interval starts at {start}, which is not before its end, {end}.",
            "Exchange them.",
            code=Code.INVALID_INTERVAL,
        )
    if start and not end and dataset.schedule is not None:
        # With an open end the same rows would be split otherwise, and become another version.
        complete = latest(dataset, datetime.now(UTC)).end
        return Interval(start, complete if complete and start < complete else None)
    if start or end:
        return Interval(start, end)
    run = context["dag_run"]
    if run.data_interval_start and run.data_interval_end and run.data_interval_start < run.data_interval_end:
        return Interval(run.data_interval_start, run.data_interval_end)
    return latest(dataset, datetime.now(UTC))


def latest(dataset: Dataset, now: datetime) -> Interval:
    """The latest complete interval of the dataset's schedule. Without a schedule: open, or up to the dataset's end."""
    if dataset.schedule is None:
        return Interval(None, midnight(dataset.end) if dataset.end else None)
    import pendulum
    from airflow.timetables.interval import CronDataIntervalTimetable

    until = min(now, midnight(dataset.end)) if dataset.end else now
    timetable = CronDataIntervalTimetable(dataset.schedule, timezone="UTC")
    found = timetable.infer_manual_data_interval(run_after=pendulum.instance(until))
    # A manifest encodes plain datetimes, and not those of pendulum.
    return Interval(*(datetime.fromisoformat(moment.isoformat()) for moment in (found.start, found.end)))


def due(dataset: Dataset, since: datetime | None, now: datetime, limit: int) -> int:
    """The number of intervals of a dataset's schedule that are complete by now, counted up to ``limit``.

    Args:
        since: Count only intervals that end at this time or later; None counts from the start of the schedule.
    """
    if dataset.schedule is None or dataset.start is None:
        return 0
    import pendulum
    from airflow.timetables.base import DataInterval, TimeRestriction
    from airflow.timetables.interval import CronDataIntervalTimetable

    timetable = CronDataIntervalTimetable(dataset.schedule, timezone="UTC")
    latest = pendulum.instance(midnight(dataset.end) - timedelta(microseconds=1)) if dataset.end else None
    bounds = TimeRestriction(earliest=pendulum.instance(midnight(dataset.start)), latest=latest, catchup=True)
    found, last = 0, None
    while found < limit:
        following = timetable.next_dagrun_info(last_automated_data_interval=last, restriction=bounds)
        if following is None or following.run_after > now:
            break
        assert isinstance(following.data_interval, DataInterval)
        last = following.data_interval
        found += since is None or following.run_after >= since
    return found


def midnight(day: date) -> datetime:
    """The start of a day in UTC. A datetime stays as it is, in UTC unless it has a time zone."""
    return day.replace(tzinfo=day.tzinfo or UTC) if isinstance(day, datetime) else datetime.combine(day, time(), UTC)


def cause(context: Context) -> str:
    """What started the run: the schedule, a backfill, or a user, with the name."""
    run = context["dag_run"]
    kind = str(getattr(run.run_type, "value", run.run_type))
    person = getattr(run, "triggering_user_name", None)
    return f"{kind}: {person}" if person else kind


def person(context: Context) -> str:
    """The name of the user who started the run; else what started it."""
    return getattr(context["dag_run"], "triggering_user_name", None) or cause(context)


def moment(parameters: Mapping[str, Any], name: str) -> datetime | None:
    """A moment of the form; without a time zone it is in UTC.

    Raises:
        NonRetryableError: It is not a date.
    """
    text = parameters.get(name)
    if not text:
        return None
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError as error:
        raise NonRetryableError(
            f"The parameter {name} is {text!r}, which is not a date.",
            "Write it like 2015-01-01.",
            code=Code.INVALID_PARAMETER,
        ) from error
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
