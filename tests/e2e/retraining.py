"""Helpers of the tests of retraining in Airflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from embedded.airflow_api import AirflowApi, Run

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

T = TypeVar("T")

YEARS = (2013, 2014, 2015)
"""The years of Seattle's weather; each is a version."""


def ask(connection: Connection, statement: str, *values: object) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return cursor.fetchall()


def finished(airflow: AirflowApi, dag_id: str, at_least: int) -> list[Run] | None:
    """The runs of a DAG, once there are ``at_least`` and all have finished."""
    runs = airflow.runs(dag_id)
    return runs if len(runs) >= at_least and all(run.finished for run in runs) else None
