"""Deadlines of publishing and training: Airflow's deadline alerts, reported like an expectation that failed.

Airflow 3.3.2 counts from the moment when a run is queued, and also calls when the run has failed, or waits in a queue
with a hundred others. So the callback sends nothing: it records that the expectation failed, which the next check tells
once. It is over when a run of the same DAG succeeds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk.definitions.callback import AsyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

from include.monitoring import alerts
from include.monitoring.expectations import Finding, State, spoken, subject_of

if TYPE_CHECKING:
    from include.datasets import Dataset


def deadlines(dataset: Dataset, expectation: str, within: timedelta) -> list[DeadlineAlert]:
    """The deadline of the runs of a dataset's DAG; none if the definition has no notifier.

    Args:
        expectation: ``publish`` or ``train``.
        within: How long after it was queued a run may take to succeed.
    """
    if not dataset.notify:
        return []
    facts = {"subject": subject_of(dataset), "expectation": expectation, "within_s": within.total_seconds()}
    callback = AsyncCallback(missed, kwargs=facts)
    return [DeadlineAlert(reference=DeadlineReference.DAGRUN_QUEUED_AT, interval=within, callback=callback)]


async def missed(subject: str, expectation: str, within_s: float, context: Mapping[str, Any]) -> None:
    """Airflow calls this in the triggerer when a run has not succeeded in time."""
    run = context["dag_run"]
    within = spoken(timedelta(seconds=within_s))
    what = f"the run {run['dag_run_id']} of {run['dag_id']} has not succeeded within {within}."
    await asyncio.to_thread(_record, Finding(subject, expectation, State.FAILED, what))


def met(dataset: Dataset, expectation: str) -> None:
    """Records that a run of the DAG has succeeded."""
    if dataset.notify:
        _record(Finding(subject_of(dataset), expectation, State.HOLDS))


def _record(finding: Finding) -> None:
    from include.warehouse.connection import connected

    with connected("millrace deadline") as connection:
        alerts.record(connection, [finding], datetime.now(UTC), lambda subject: False)
