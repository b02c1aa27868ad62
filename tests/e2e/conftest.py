"""Retraining in a real Airflow: its API, its warehouse, and the runs of the dataset seattle_weather."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from embedded.airflow_api import AirflowApi, Run
from embedded.platform import Platform
from include.datasets import definitions
from include.warehouse.connection import connect
from tests.e2e.retraining import YEARS, finished
from tests.polling import until

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


@pytest.fixture(scope="session")
def airflow(airflow_api: AirflowApi) -> AirflowApi:
    """A client of the API, once Airflow lists the DAGs of retraining."""
    names = definitions.find().valid
    airflow_api.wait_for_dags(
        [*(f"publish__{n}" for n in names), *(f"train__{n}" for n in names), "dispatch", "verify"]
    )
    return airflow_api


@pytest.fixture
def results(airflow_platform: Platform) -> Iterator[Connection]:
    """A connection to the platform's warehouse."""
    with closing(connect("test")) as connection:
        connection.autocommit = True
        yield connection


@pytest.fixture(scope="session")
def seattle(airflow: AirflowApi) -> list[Run]:
    """The training runs of all years, published by the schedule or by a backfill."""
    publish, train = "publish__seattle_weather", "train__seattle_weather"
    airflow.pause(train)
    years = (datetime(2013, 1, 1, tzinfo=UTC), datetime(2015, 1, 1, tzinfo=UTC))
    airflow.backfill(publish, *years, max_active_runs=10, run_backwards=True)
    airflow.unpause(publish)
    until("a run for each year", lambda: len(airflow.runs(train)) == len(YEARS), 240)
    airflow.unpause(train)
    return until("three years trained", lambda: finished(airflow, train, len(YEARS)), 240)
