"""Queries made at random: a version holds what PostgreSQL holds, and trains to the metrics of plain scikit-learn.

MILLRACE_QUERIES is the number of queries, MILLRACE_QUERIES_FROM the first seed:

    MILLRACE_QUERIES=2000 ./millrace test tests/integration/test_queries_generated.py
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from psycopg2.extras import execute_values
from sklearn.metrics import accuracy_score, r2_score
from threadpoolctl import threadpool_limits

from include.datasets import Dataset, HashSplit, Query, TimeSplit
from include.training import dispatch
from include.training.preparation import prepared
from include.versions import catalog
from include.versions.manifest import Interval
from include.versions.publication import NothingToPublish, publish
from include.versions.reading import read
from tests.integration.generated_queries import DAYS, FIRST, SETUP, Table, quoted, table
from tests.integration.registry import change
from tests.unit.trained import Version, evaluated, trained, version

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

QUERIES = int(os.environ.get("MILLRACE_QUERIES", "100"))
FROM = int(os.environ.get("MILLRACE_QUERIES_FROM", "0"))
TOGETHER = 50
# For one query in this many, the version is sent to Kafka and read, and a model is stored and loaded.
KAFKA, STORED = 5, 10
START = FIRST.replace(tzinfo=UTC)
END = START + timedelta(days=DAYS)
ALL, LATER = Interval(START, END), Interval(END, END + timedelta(days=1))


def classifiers() -> dict[str, Any]:
    from sklearn.linear_model import LogisticRegression

    return {"linear": _prepared(LogisticRegression(max_iter=1000))}


def regressors() -> dict[str, Any]:
    from sklearn.linear_model import Ridge

    return {"linear": _prepared(Ridge())}


def _prepared(model: Any) -> Any:
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler())
    categories = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    number, other = make_column_selector(dtype_include="number"), make_column_selector(dtype_exclude="number")
    return make_pipeline(make_column_transformer((numbers, number), (categories, other)), model)


@dataclass
class Case:
    """A table that was published.

    Attributes:
        held: What PostgreSQL holds, by column.
        dataset: Its dataset.
        found: Its version, unless it was sent to Kafka.
    """

    made: Table
    held: dict[str, list[Any]]
    dataset: Dataset
    found: Version | None


@pytest.mark.timeout(60 + 2 * TOGETHER)
@pytest.mark.parametrize("first", range(FROM, FROM + QUERIES, TOGETHER))
def test_a_version_holds_what_postgresql_holds(first: int, warehouse: Connection, topic: Callable[..., str]) -> None:
    change(warehouse, SETUP)
    failed: list[str] = []

    @contextmanager
    def of(seed: int, made: Table) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            failed.append(f"seed {seed}: {made.sql}: {error!r}")
            warehouse.rollback()

    cases: dict[int, Case] = {}
    for seed in range(first, first + TOGETHER):
        made = table(seed, f"t{seed}")
        with of(seed, made):
            fill(warehouse, made)
            cases[seed] = published(made, held(warehouse, made), topic("generated"), seed % KAFKA == 0)
    dispatch.land("test")
    for seed, case in cases.items():
        with of(seed, case.made):
            require_same(case, stored=seed % STORED == 0)
    assert not failed, "\n".join(failed)


def fill(warehouse: Connection, made: Table) -> None:
    columns = ", ".join(f"{quoted(name)} {kind.sql}" for name, kind in made.columns.items())
    with warehouse.cursor() as cursor:
        cursor.execute(f"create table {made.name} ({columns})")
        rows = list(zip(*made.values.values(), strict=True))
        each = ", ".join(f"%s::{kind.sql}" for kind in made.columns.values())
        execute_values(cursor, f"insert into {made.name} values %s", rows, f"({each})", page_size=len(rows))
    warehouse.commit()


def held(warehouse: Connection, made: Table) -> dict[str, list[Any]]:
    """What PostgreSQL holds, as it writes it itself."""
    shown = ", ".join(kind.shown.format(quoted(name)) for name, kind in made.columns.items())
    with warehouse.cursor() as cursor:
        cursor.execute("set timezone = 'UTC'")
        cursor.execute(f"select {shown} from {made.name}")
        rows = cursor.fetchall()
    warehouse.rollback()
    return {
        name: [None if text is None else kind.read(text) for text in texts]
        for (name, kind), texts in zip(made.columns.items(), zip(*rows, strict=True), strict=True)
    }


def plain(value: Any) -> Any:
    """A value without the differences between PostgreSQL and Arrow."""
    return value.replace(tzinfo=None) if isinstance(value, datetime) else value


def published(made: Table, known: dict[str, list[Any]], name: str, kafka: bool) -> Case:
    """Checks the rows of the query, and publishes them."""
    source = Query(made.sql)
    found = source.rows(None, None)
    keys = {key(value): place for place, value in enumerate(known["id"])}
    assert len(keys) == found.num_rows
    places = [keys[key(value)] for value in found["id"].to_pylist()]
    for column in found.column_names:
        for place, value in zip(places, found[column].to_pylist(), strict=True):
            assert plain(value) == known[column][place], f"{column}: {value!r} is {known[column][place]!r}"
    dataset = Dataset(
        name=name.replace("-", "_"),
        source=source,
        record_id=made.record_id,
        target=made.target,
        kind=made.kind,  # type: ignore[arg-type]
        event_time=made.event_time,
        features=made.features,
        split=TimeSplit("3 days") if made.event_time else HashSplit(test=0.3),
        history="interval" if made.event_time else "all",
        models=regressors if made.kind == "regression" else classifiers,
    )
    if made.event_time:
        with pytest.raises(NothingToPublish):
            publish(dataset, LATER)
    interval = ALL if made.event_time else Interval()
    if not kafka:
        return Case(made, known, dataset, version(dataset, interval))
    publish(dataset, interval)
    return Case(made, known, dataset, None)


def require_same(case: Case, stored: bool) -> None:
    """A version has the rows that it should have, and the metrics of plain scikit-learn."""
    made, dataset, found = case.made, case.dataset, case.found
    if found is None:
        manifest = catalog.find(dataset.name)
        rows = read(manifest)
        found = Version(manifest, rows.train, rows.test)
    assert found.manifest.features == made.learned
    keys = {key(value): place for place, value in enumerate(case.held["id"])}
    train, test = ([keys[key(value)] for value in part["id"].to_pylist()] for part in (found.train, found.test))
    assert sorted(train + test) == [n for n, value in enumerate(case.held[made.target]) if value is not None]
    frame = pd.DataFrame({name: _column(made, name, case.held[name]) for name in made.learned})
    for name in (name for name in made.learned if made.columns[name].learned == "number"):
        for part, places in ((found.train, train), (found.test, test)):
            numbers = [None if value is None else float(value) for value in part[name].to_pylist()]
            assert numbers == frame[name].iloc[places].astype(object).where(frame[name].notna(), None).tolist(), name
    target = np.array(case.held[made.target], float if made.kind == "regression" else object)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluation = trained(dataset, found, "linear")[1] if stored else evaluated(dataset, found, "linear")
        model = prepared(dataset.estimators()["linear"], 0)
        model.fit(frame.iloc[train], target[train].tolist())
        predicted = model.predict(frame.iloc[test])
    name = "r2" if made.kind == "regression" else "accuracy"
    score = (r2_score if made.kind == "regression" else accuracy_score)(target[test].tolist(), predicted)
    value = next(metric.value for metric in evaluation.metrics if metric.name == name)
    assert value == pytest.approx(score, abs=1e-4)


def key(value: Any) -> str:
    """The identity of a record, whatever the type of its id."""
    return format(value.normalize(), "f") if isinstance(value, Decimal) else str(plain(value)).rstrip()


def _column(made: Table, name: str, values: list[Any]) -> Any:
    if made.columns[name].learned == "number":
        return pd.Series([None if value is None else float(value) for value in values], dtype="float64")
    return pd.Series(values, dtype=object)
