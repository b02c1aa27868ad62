"""What DAGs need to know of their runs: interval, cause, parameters, and how errors end a task."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from include.errors import NonRetryableError, UserError
from include.versions.manifest import Interval

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.datasets import Dataset

# The largest number that a form takes: what a bigint column holds, and what Airflow passes to a task.
MAX_PARAMETER = 2**63 - 1

log = logging.getLogger(__name__)


@contextmanager
def airflow_errors() -> Iterator[None]:
    """Logs each of our errors as one sentence; an error that a retry cannot fix ends the task without one.

    Raises:
        AirflowSkipException: There was nothing to publish.
        AirflowFailException: Any other error that a retry cannot fix.
        UserError: An error that may pass, such as a broker that is down; the task is retried.
    """
    from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

    from include.versions.publication import NothingToPublish

    try:
        yield
    except NothingToPublish as reason:
        log.warning("Skipped: %s", reason)
        raise AirflowSkipException(str(reason)) from None
    except NonRetryableError as error:
        log.error("%s", error)
        raise AirflowFailException(str(error)) from None
    except UserError as error:
        log.error("%s", error)
        raise


def require_known(context: Context) -> None:
    """Refuses a run whose ``conf`` has a key that its DAG has no parameter for.

    Airflow itself passes over such a key, and the run does all that it does without it.

    Raises:
        NonRetryableError: There is one.
    """
    conf, dag = context["dag_run"].conf or {}, context["dag"]
    if unknown := sorted(set(conf) - set(dag.params)):
        known = ", ".join(dag.params)
        raise NonRetryableError(
            f"The DAG {dag.dag_id} has no parameter {', '.join(map(repr, unknown))}.",
            f"It has {known}: trigger it again with these names." if known else "It takes none.",
        )


def is_parsed_for(dag_id: str) -> bool:
    """Whether the process that parses a DAG file needs this DAG: a task needs only its own."""
    from airflow.sdk import get_parsing_context

    return get_parsing_context().dag_id in (None, dag_id)


def interval(dataset: Dataset, context: Context) -> Interval:
    """The interval that a run publishes: the form's, else the run's own, else the latest complete one.

    Raises:
        NonRetryableError: The form's dates are not dates, or in the wrong order.
    """
    start, end = (_moment(context["params"], name) for name in ("interval_start", "interval_end"))
    if start and end and start >= end:
        raise NonRetryableError(f"The interval's start, {start}, does not lie before its end, {end}.", "Swap them.")
    if start and not end and dataset.schedule is not None:
        # An open end would be another split of the same rows, and so another version.
        complete = latest(dataset, datetime.now(UTC)).end
        return Interval(start, complete if complete and start < complete else None)
    if start or end:
        return Interval(start, end)
    run = context["dag_run"]
    if run.data_interval_start and run.data_interval_end and run.data_interval_start < run.data_interval_end:
        return Interval(run.data_interval_start, run.data_interval_end)
    return latest(dataset, datetime.now(UTC))


def latest(dataset: Dataset, now: datetime) -> Interval:
    """The last interval of the dataset's schedule that is complete, and open on both sides without a schedule."""
    if dataset.schedule is None:
        return Interval(None, midnight(dataset.end) if dataset.end else None)
    import pendulum
    from airflow.timetables.interval import CronDataIntervalTimetable

    until = min(now, midnight(dataset.end)) if dataset.end else now
    timetable = CronDataIntervalTimetable(dataset.schedule, timezone="UTC")
    found = timetable.infer_manual_data_interval(run_after=pendulum.instance(until))
    # A manifest holds plain datetimes; pendulum's are not encoded.
    return Interval(*(datetime.fromisoformat(moment.isoformat()) for moment in (found.start, found.end)))


def due(dataset: Dataset, since: datetime | None, now: datetime, most: int) -> int:
    """How many intervals of a dataset's schedule are complete by now, ``most`` or fewer are counted.

    Args:
        since: Only those that are complete then or later count; all from the schedule's start if None.
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
    while found < most:
        following = timetable.next_dagrun_info(last_automated_data_interval=last, restriction=bounds)
        if following is None or following.run_after > now:
            break
        assert isinstance(following.data_interval, DataInterval)
        last = following.data_interval
        found += since is None or following.run_after >= since
    return found


def midnight(day: date) -> datetime:
    """The beginning of a day in UTC; a time of day that is given already stays."""
    return day.replace(tzinfo=day.tzinfo or UTC) if isinstance(day, datetime) else datetime.combine(day, time(), UTC)


def cause(context: Context) -> str:
    """What started the run: schedule, backfill, or a person, who is named then."""
    run = context["dag_run"]
    kind = str(getattr(run.run_type, "value", run.run_type))
    person = getattr(run, "triggering_user_name", None)
    return f"{kind}: {person}" if person else kind


def _moment(parameters: Mapping[str, Any], name: str) -> datetime | None:
    text = parameters.get(name)
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError as error:
        raise NonRetryableError(f"The parameter {name} is {text!r}, which is no date.", "Write 2015-01-01.") from error
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
