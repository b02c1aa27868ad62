"""Helpers of the tests of the registry: datasets that are quickly published and trained, without Airflow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from psycopg2.extras import NamedTupleCursor

from include.datasets import Dataset, HashSplit, definitions
from include.datasets.sources import Source
from include.training import dispatch, fitting, run
from include.training.grid import Grid
from include.versions.manifest import Interval
from include.versions.publication import publish

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

YEARS = (2013, 2014, 2015)


def weather_models() -> dict[str, Any]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import GaussianNB
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.tree import DecisionTreeClassifier

    return {
        "logistic": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        "naive_bayes": GaussianNB(),
        "tree": DecisionTreeClassifier(min_samples_leaf=10),
    }


def one_model() -> dict[str, Any]:
    from sklearn.tree import DecisionTreeClassifier

    return {"tree": DecisionTreeClassifier(max_depth=3)}


def the_median() -> dict[str, Any]:
    from sklearn.dummy import DummyRegressor

    return {"median": DummyRegressor(strategy="median")}


@dataclass
class Given(Source):
    """A source with the rows of a test."""

    table: pa.Table = field(default_factory=lambda: signal(600))

    def rows(self, start: datetime | None, end: datetime | None) -> pa.Table:
        return self.table


def signal(rows: int, *, strength: float = 1.0, seed: int = 0, first: int = 0) -> pa.Table:
    """Records from ``first`` on; with probability ``strength`` the feature decides the target, else chance."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=rows)
    chance = draw.random(rows)
    target = np.where(chance < strength, x > 0, draw.random(rows) < 0.5)
    columns = {"id": np.arange(first, first + rows), "x": x, "noise": draw.normal(size=rows)}
    return pa.table({**columns, "target": np.where(target, "yes", "no")})


def given(topic: Callable[..., str], table: pa.Table, **changes: Any) -> Dataset:
    """A dataset of given rows; a test may change its source's ``table`` between versions."""
    fields: dict[str, Any] = {
        "name": topic("given").replace("-", "_"),
        "source": Given(table),
        "record_id": "id",
        "target": "target",
        "split": HashSplit(test=0.5),
        "models": one_model,
    }
    return Dataset(**fields | changes)


def weather(topic: Callable[..., str], **changes: Any) -> Dataset:
    """Seattle's weather under another name, with three quick models."""
    name = topic("weather").replace("-", "_")
    return replace(definitions.get("seattle_weather"), name=name, models=weather_models, **changes)


def year(number: int) -> Interval:
    return Interval(datetime(number, 1, 1, tzinfo=UTC), datetime(number + 1, 1, 1, tzinfo=UTC))


def seal(dataset: Dataset, interval: Interval | None = None, rows: int | None = None, seed: int = 0) -> str:
    """Publishes a version, or a sample of it, and lands its manifest. Returns its id."""
    version = publish(dataset, interval or Interval(), max_rows=rows, seed=seed, asked_by="test").version
    dispatch.land("test")
    return version


def train(dataset: Dataset, version: str, *, seed: int = 0, run_id: str | None = None, grid: Grid | None = None) -> int:
    """Trains every model on a version. Returns the number of the run, which has succeeded."""
    form = {"version": version, "seed": seed, "grid": grid}
    planned = run.begin(dataset, run_id or run.sealed_run_id(version), form, "test")
    for task in planned:
        fitting.fit(dataset, task["run"], task["model"])
    assert run.settle(planned) == []
    return int(planned[0]["run"])


def train_years(dataset: Dataset, years: Sequence[int] = YEARS) -> list[int]:
    """Seals and trains a version for each year, without judging them. Returns the runs."""
    return [train(dataset, seal(dataset, year(number))) for number in years]


def ask(connection: Connection, statement: str, *values: object) -> list[Any]:
    with connection.cursor(cursor_factory=NamedTupleCursor) as cursor:
        cursor.execute(statement, values)
        rows = cursor.fetchall()
    connection.rollback()
    return rows


def change(connection: Connection, statement: str, *values: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
    connection.commit()


def champions(connection: Connection, dataset: Dataset) -> list[tuple[str, str, str]]:
    """Every champion so far: model, version, cause."""
    return [
        tuple(row)
        for row in ask(
            connection,
            "SELECT model, version, cause FROM millrace.champion_history WHERE dataset = %s ORDER BY number",
            dataset.name,
        )
    ]
