"""The candidates of a grid: their names, their parameters, and grids that are invalid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from airflow.sdk import Param
from airflow.sdk.exceptions import ParamValidationError
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from include.datasets import Dataset, HashSplit, Packaged
from include.error_codes import Code
from include.errors import NonRetryableError
from include.training.grid import MAX_CANDIDATES, SCHEMA, Grid, estimators
from tests.errors import raises


class Foreign(BaseEstimator):
    def __init__(self, width: int = 1) -> None:
        self.width = width


def models() -> Mapping[str, Any]:
    return {
        "logistic": make_pipeline(StandardScaler(), LogisticRegression()),
        "twice": make_pipeline(SVC(), LogisticRegression()),
        "foreign": Foreign(),
    }


DATASET = Dataset(
    name="orders", source=Packaged("orders:load"), record_id="order", target="y", split=HashSplit(), models=models
)


def names(grid: Any) -> list[str]:
    """The names of the candidates alone."""
    known = DATASET.estimators()
    return [name for name in estimators(DATASET, grid) if name not in known]


def test_every_combination_is_a_candidate_next_to_the_models() -> None:
    grid: Grid = {"logistic": {"C": [0.1, 10], "fit_intercept": [True, False]}, "foreign": {"width": [2]}}
    found = estimators(DATASET, grid)
    assert list(found) == [
        *("logistic", "twice", "foreign", "baseline"),
        "logistic C=0.1, fit_intercept=True",
        "logistic C=0.1, fit_intercept=False",
        "logistic C=10, fit_intercept=True",
        "logistic C=10, fit_intercept=False",
        "foreign width=2",
    ]
    parameters = found["logistic C=10, fit_intercept=False"].get_params()
    assert parameters["logisticregression__C"] == 10 and parameters["logisticregression__fit_intercept"] is False
    assert found["logistic"].get_params()["logisticregression__C"] == 1.0, "the definition's own model is unchanged"
    assert estimators(DATASET, None).keys() == DATASET.estimators().keys()


def test_a_candidate_has_one_name_however_it_is_written() -> None:
    """It is a model line: its evidence adds up over runs whose grids are written differently."""
    assert names({"logistic": {"logisticregression__C": [1.0]}}) == ["logistic C=1"]
    assert names({"logistic": {"C": [1]}}) == ["logistic C=1"]
    one = names({"logistic": {"C": [2], "tol": [0.1]}})
    assert one == names({"logistic": {"tol": [0.1], "logisticregression__C": [2.0]}}) == ["logistic C=2, tol=0.1"]
    assert names({"twice": {"svc__C": [2]}}) == ["twice svc__C=2"], "both steps have a parameter C"


@pytest.mark.parametrize(
    ("grid", "values"),
    [
        ({"oracle": {"C": [1]}}, ["'orders'", "'oracle'", "logistic, twice, foreign"]),
        ({"baseline": {"strategy": ["uniform"]}}, ["'orders'", "'baseline'"]),
        ({"logistic": 1}, ["'logistic' has 1 "]),
        ({"logistic": {}}, ["'logistic' has {} "]),
        ({"logistic": {"C": 3}}, ["'C' of 'logistic'", " 3 "]),
        ({"logistic": {"C": "all"}}, ["'C' of 'logistic'", "'all'"]),
        ({"logistic": {"C": []}}, ["'C' of 'logistic'", "[]"]),
        ([1], ["[1]"]),
        ({"logistic": {"depth": [1]}}, ["'logistic'", "'depth'", "logisticregression__C, "]),
        ({"twice": {"C": [1]}}, ["'C' of 'twice'", "logisticregression__C or svc__C"]),
        ({"logistic": {"C": [1], "logisticregression__C": [2]}}, ["'logistic'", "twice"]),
        (
            {"logistic": {"C": [1, "large"]}},
            [
                "logistic C=large: The 'C' parameter of LogisticRegression must be a float in the range (0.0, inf]. "
                "Got 'large' instead."
            ],
        ),
        ({"logistic": {"C": [-1]}}, ["Got -1 instead"]),
        ({"logistic": {"C": list(range(1, MAX_CANDIDATES + 2))}}, [101, 100]),
        ({"foreign": {"width": ["x" * 300]}}, [314, 200]),
    ],
)
def test_an_invalid_grid_is_refused(grid: Any, values: list[object]) -> None:
    with raises(Code.INVALID_GRID, *values, kind=NonRetryableError) as caught:
        estimators(DATASET, grid)
    assert "\n" not in str(caught)


@pytest.mark.parametrize("good", [None, {}, {"m": {"C": [0.1, 1, "a", True, None]}}])
def test_the_schema_of_the_form_accepts_grids(good: Any) -> None:
    assert Param(None, **SCHEMA).resolve(good) == good


@pytest.mark.parametrize("bad", [[], "C=1", {"m": {}}, {"m": {"C": 1}}, {"m": {"C": []}}, {"m": {"C": [[1]]}}])
def test_the_schema_of_the_form_rejects_everything_else(bad: Any) -> None:
    with pytest.raises(ParamValidationError):
        Param(None, **SCHEMA).resolve(bad)
