"""What a dataset's definition may say, and the errors of a wrong one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from include.datasets import Dataset, GroupSplit, HashSplit, Packaged, TimeSplit, definitions
from include.definitions import InvalidDefinition
from include.errors import UserError

SOUND = """
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
    ("changes", "field", "says"),
    [
        ({"name": "Orders"}, "name", "'Orders' is not a name"),
        ({"name": 7}, "name", "7 is not a name"),
        ({"source": "orders.csv"}, "source", "Use Packaged, File or Query"),
        ({"split": 0.2}, "split", "Use TimeSplit, GroupSplit or HashSplit"),
        ({"models": {"logistic": None}}, "models", "is not a function"),
        ({"kind": "ranking"}, "kind", "Use 'classification' or 'regression'"),
        ({"record_id": None}, "record_id", "None is not a column"),
        ({"target": "order"}, "target", "'order' is the record_id too"),
        ({"features": "amount"}, "features", "'amount' is no list of columns"),
        ({"features": ["amount", "returned"]}, "features", "A model must not see it"),
        ({"event_time": None, "split": TimeSplit("1 day")}, "event_time", "a TimeSplit needs it"),
        ({"event_time": None, "history": "7 days"}, "event_time", "history needs it"),
        ({"schedule": "@sometimes", "start": date(2025, 1, 1)}, "schedule", "'@sometimes' is no schedule"),
        ({"schedule": "@daily"}, "start", "a schedule needs it"),
        ({"start": "2025-01-01"}, "start", "'2025-01-01' is no date"),
        ({"start": date(2025, 1, 1), "end": date(2024, 1, 1)}, "end", "does not lie after start"),
        ({"keep": "some"}, "keep", "Use 'all' or '5 versions'"),
        ({"history": "long"}, "history", "'long' is no duration"),
        (
            {"guards": {"accuracy of season=winter": 0.5}},
            "guards",
            "'accuracy of season=winter': there is no such slice",
        ),
        ({"slices": "season"}, "slices", "'season' is no mapping"),
        ({"slices": {"By season": "season"}}, "slices", "'By season' is no name"),
        ({"slices": {"season": ["winter"]}}, "slices", "['winter'] is no text"),
    ],
)
def test_a_wrong_field_is_named_with_its_remedy(changes: dict[str, Any], field: str, says: str) -> None:
    with pytest.raises(InvalidDefinition) as raised:
        define(**changes)
    assert raised.value.field == field
    assert says in str(raised.value)
    assert raised.value.remedy


def test_slices_look_at_columns_also_in_expressions() -> None:
    dataset = define(
        slices={"shop": "shop", "dear": "price * pieces > 100", "spaced": "day of week", "end": "`the end` > 1"}
    )
    columns = ["order", "pieces", "shop", "day of week", "colour", "price", "the end"]
    assert dataset.slice_columns(columns) == ["pieces", "shop", "day of week", "price", "the end"]


@pytest.mark.parametrize("wrong", [lambda: TimeSplit("soon"), lambda: HashSplit(1.5), lambda: GroupSplit("shop", 0)])
def test_a_wrong_split_is_named(wrong: Any) -> None:
    with pytest.raises(InvalidDefinition, match=r"^split: "):
        wrong()


def test_a_model_must_be_an_estimator_with_a_usable_name() -> None:
    for models, says in [
        ({}, "returns {}"),
        ({"Linear Model": 1}, "cannot name a model"),
        ({"baseline": 1}, "cannot name a model"),
        ({"linear": 1}, "'linear' is 1"),
    ]:
        with pytest.raises(InvalidDefinition, match=says):
            define(models=lambda models=models: models).estimators()


def test_features_are_what_no_other_field_names() -> None:
    columns = ["order", "at", "shop", "amount", "weight", "returned"]
    assert define(split=GroupSplit("shop")).feature_names(columns) == ["amount", "weight"]
    assert define(features=["weight"]).feature_names(columns) == ["weight"]


def test_a_broken_file_is_told_and_the_others_work(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(SOUND.format(name="good"))
    (tmp_path / "wrong_field.py").write_text(SOUND.format(name="Wrong Name"))
    (tmp_path / "syntax.py").write_text("dataset = Dataset(\n")
    (tmp_path / "missing.py").write_text("from include.datasets import Dataset\n\ndataset = Dataset(name='missing')\n")
    (tmp_path / "nothing.py").write_text("")
    (tmp_path / "twin.py").write_text(SOUND.format(name="good"))
    found = definitions.find(tmp_path)
    assert set(found.valid) == {"good"}
    errors = {Path(file).stem: str(error) for file, error in found.broken.items()}
    assert "name: 'Wrong Name' is not a name" in errors["wrong_field"]
    assert "syntax.py, line 1" in errors["syntax"]
    assert "missing.py, line 3" in errors["missing"] and "'source'" in errors["missing"]
    assert "no 'dataset' in it" in errors["nothing"]
    assert "the name 'good' is taken by" in errors["twin"]


def test_an_unknown_dataset_is_told_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"no dataset 'weather'; there are: .*seattle_weather"):
        definitions.get("weather")


def test_the_shipped_definitions_are_sound() -> None:
    found = definitions.find()
    assert not found.broken
    assert {"seattle_weather", "digits", "breast_cancer", "diabetes"} <= set(found.valid)
    for dataset in found.valid.values():
        assert dataset.doc
        assert list(dataset.estimators())[-1] == "baseline"
        assert len(dataset.estimators()) > 3, "three models and a baseline"
