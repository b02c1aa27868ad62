"""The fields of a dataset's definition, and the errors of invalid ones."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import accuracy_score

from include.datasets import Dataset, GroupSplit, HashSplit, Packaged, Query, TimeSplit, definitions
from include.definitions import InvalidDefinition
from include.error_codes import Code
from include.gate.metric import Metric
from tests.errors import raises

VALID = """
from include.datasets import Dataset, HashSplit, Packaged
def models():
    from sklearn.linear_model import LogisticRegression
    return {{"logistic": LogisticRegression()}}
dataset = Dataset(name={name!r}, source=Packaged("sklearn.datasets:load_iris", number="row"), record_id="row",
                  target="target", split=HashSplit(), models=models)
"""


def no_models() -> Mapping[str, Any]:
    return {}


def define(**changes: Any) -> Dataset:
    fields: dict[str, Any] = {
        "name": "orders",
        "source": Packaged("orders:load"),
        "record_id": "order",
        "event_time": "at",
        "target": "returned",
        "split": HashSplit(),
        "models": no_models,
    }
    return Dataset(**fields | changes)


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"name": "Orders"}, "name", "'Orders'"),
        ({"name": 7}, "name", "7"),
        ({"source": "orders.csv"}, "source", "'orders.csv'"),
        ({"split": 0.2}, "split", "0.2"),
        ({"models": {"logistic": None}}, "models", "{'logistic': None}"),
        ({"kind": "ranking"}, "kind", "'ranking'"),
        ({"record_id": None}, "record_id", "None"),
        ({"target": "order"}, "target", "'order' is also the record_id"),
        ({"target": "at"}, "target", "'at' is also the event_time"),
        ({"features": "amount"}, "features", "'amount'"),
        ({"features": ["amount", "returned"]}, "features", "'returned'"),
        ({"event_time": None, "split": TimeSplit("1 day")}, "event_time", "a TimeSplit needs it"),
        ({"event_time": None, "history": "7 days"}, "event_time", "history needs it"),
        ({"schedule": "@sometimes", "start": date(2025, 1, 1)}, "schedule", "'@sometimes'"),
        ({"schedule": "@daily"}, "start", "a schedule needs it"),
        ({"start": "2025-01-01"}, "start", "'2025-01-01'"),
        ({"start": date(2025, 1, 1), "end": date(2024, 1, 1)}, "end", "2024-01-01 is not after start, 2025-01-01"),
        ({"keep": "some"}, "keep", "'some'"),
        ({"history": "long"}, "history", "'long'"),
        ({"memory_limit": "4 bytes"}, "memory_limit", "'4 bytes'"),
        ({"time_limit": "long"}, "time_limit", "'long'"),
        ({"out_of_core": "perhaps"}, "out_of_core", "'perhaps'"),
        ({"passes": 0}, "passes", "0"),
        ({"guards": {"accuracy of season=winter": 0.5}}, "guards", "'accuracy of season=winter'"),
        ({"guards": {"beauty": 0.5}}, "guards", "'beauty'"),
        ({"metric": Metric("accuracy", accuracy_score, worth=0.01)}, "metric", "'accuracy'"),
        ({"guards": {"recall": 0.5}}, "guards", "each class has its own recall"),
        ({"guards": {"accuracy of winter": 0.5}}, "guards", "'winter'"),
        ({"guards": {"rmse": 0.5}}, "guards", "'rmse'"),
        ({"guards": {"accuracy": "0.5"}}, "guards", "'0.5'"),
        ({"guards": {"accuracy": float("nan")}}, "guards", "nan"),
        ({"guards": {"recall of winter": 0.5}, "kind": "regression"}, "guards", "'recall'"),
        ({"slices": "season"}, "slices", "'season'"),
        ({"slices": {"By season": "season"}}, "slices", "'By season'"),
        ({"slices": {"season": ["winter"]}}, "slices", "['winter']"),
    ],
)
def test_an_invalid_field_is_named_with_its_value_and_a_remedy(changes: dict[str, Any], field: str, value: str) -> None:
    with raises(Code.INVALID_DEFINITION, value, kind=InvalidDefinition) as caught:
        define(**changes)
    assert str(caught).startswith(f"{field}: ")
    assert caught.error.remedy


def test_the_columns_of_slices_include_those_in_expressions() -> None:
    dataset = define(
        slices={"shop": "shop", "dear": "price * pieces > 100", "spaced": "day of week", "end": "`the end` > 1"}
    )
    columns = ["order", "pieces", "shop", "day of week", "colour", "price", "the end"]
    assert dataset.slice_columns(columns) == ["pieces", "shop", "day of week", "price", "the end"]


@pytest.mark.parametrize("wrong", [lambda: TimeSplit("soon"), lambda: HashSplit(1.5), lambda: GroupSplit("shop", 0)])
def test_an_invalid_split_is_named(wrong: Any) -> None:
    with raises(Code.INVALID_DEFINITION) as caught:
        wrong()
    assert str(caught).startswith("split: ")


def test_the_sql_of_a_query_is_a_text() -> None:
    with raises(Code.INVALID_DEFINITION, "None") as caught:
        Query(None)  # type: ignore[arg-type]
    assert str(caught).startswith("source: ")


def test_a_model_must_be_an_estimator_with_a_valid_name() -> None:
    for models, value in [
        ({}, "returned {}"),
        ({"Linear Model": 1}, "'Linear Model'"),
        ({"baseline": 1}, "'baseline' is reserved"),
        ({"linear": 1}, "'linear' is 1"),
    ]:
        with raises(Code.INVALID_DEFINITION, value):
            define(models=lambda models=models: models).estimators()


def test_features_are_the_columns_that_no_other_field_names() -> None:
    columns = ["order", "at", "shop", "amount", "weight", "returned"]
    assert define(split=GroupSplit("shop")).feature_names(columns) == ["amount", "weight"]
    assert define(features=["weight"]).feature_names(columns) == ["weight"]


def test_a_broken_file_does_not_affect_the_others(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(VALID.format(name="good"))
    (tmp_path / "wrong_field.py").write_text(VALID.format(name="Wrong Name"))
    (tmp_path / "syntax.py").write_text("dataset = Dataset(\n")
    (tmp_path / "missing.py").write_text("from include.datasets import Dataset\n\ndataset = Dataset(name='missing')\n")
    (tmp_path / "nothing.py").write_text("")
    (tmp_path / "twin.py").write_text(VALID.format(name="good"))
    found = definitions.find(tmp_path)
    assert set(found.valid) == {"good"}
    codes = {Path(file).stem: error.code for file, error in found.broken.items()}
    assert codes == {
        "wrong_field": Code.INVALID_DEFINITION,
        "syntax": Code.BROKEN_DEFINITION,
        "missing": Code.BROKEN_DEFINITION,
        "nothing": Code.DEFINITION_MISSING,
        "twin": Code.DEFINITION_EXISTS,
    }
    errors = {Path(file).stem: str(error) for file, error in found.broken.items()}
    assert "wrong_field.py: name: 'Wrong Name'" in errors["wrong_field"]
    assert "syntax.py, line 1" in errors["syntax"]
    assert "missing.py, line 3" in errors["missing"] and "'source'" in errors["missing"]
    assert "'dataset'" in errors["nothing"]
    assert "'good'" in errors["twin"] and "good.py" in errors["twin"]


def test_the_error_of_an_unknown_dataset_lists_the_known_ones() -> None:
    with raises(Code.UNKNOWN_DEFINITION, "'weather'", "seattle_weather"):
        definitions.get("weather")


def test_the_shipped_definitions_are_valid() -> None:
    found = definitions.find()
    assert not found.broken
    assert {"seattle_weather", "digits", "breast_cancer", "diabetes"} <= set(found.valid)
    for dataset in found.valid.values():
        assert dataset.doc
        assert list(dataset.estimators())[-1] == "baseline"
        assert len(dataset.estimators()) > 3, "three models and a baseline"
