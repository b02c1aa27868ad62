"""A grid's candidates: their names, their parameters, and what cannot be."""

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
from include.errors import NonRetryableError
from include.training.grid import MAX_CANDIDATES, SCHEMA, Grid, estimators


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


def test_every_combination_is_a_candidate_beside_the_models() -> None:
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
    assert found["logistic"].get_params()["logisticregression__C"] == 1.0, "the definition's stays as it is"
    assert estimators(DATASET, None).keys() == DATASET.estimators().keys()


def test_a_candidate_has_one_name_however_it_is_written() -> None:
    """It is a model line: its evidence adds up over runs whose grids are written differently."""
    assert names({"logistic": {"logisticregression__C": [1.0]}}) == ["logistic C=1"]
    assert names({"logistic": {"C": [1]}}) == ["logistic C=1"]
    one = names({"logistic": {"C": [2], "tol": [0.1]}})
    assert one == names({"logistic": {"tol": [0.1], "logisticregression__C": [2.0]}}) == ["logistic C=2, tol=0.1"]
    assert names({"twice": {"svc__C": [2]}}) == ["twice svc__C=2"], "C alone could be the other step's"


@pytest.mark.parametrize(
    ("grid", "says"),
    [
        ({"oracle": {"C": [1]}}, "'orders' has no model 'oracle' to vary; it has logistic, twice, foreign. Name"),
        ({"baseline": {"strategy": ["uniform"]}}, "'orders' has no model 'baseline' to vary"),
        ({"logistic": 1}, "'logistic' is given 1, and not its parameters"),
        ({"logistic": {}}, "'logistic' is given {}, and not its parameters"),
        ({"logistic": {"C": 3}}, "'C' of 'logistic' is given 3, and not a list of values. Write"),
        ({"logistic": {"C": "all"}}, "'C' of 'logistic' is given 'all', and not a list of values"),
        ({"logistic": {"C": []}}, "'C' of 'logistic' is given [], and not a list of values"),
        ([1], "it is [1], and not models with their parameters"),
        ({"logistic": {"depth": [1]}}, "logistic has no parameter 'depth'; it has logisticregression__C, "),
        ({"twice": {"C": [1]}}, "'C' of twice can be logisticregression__C or svc__C. Write which"),
        ({"logistic": {"C": [1], "logisticregression__C": [2]}}, "logistic has a parameter twice"),
        (
            {"logistic": {"C": [1, "large"]}},
            "logistic C=large: The 'C' parameter of LogisticRegression must be a float in the range (0.0, inf]. "
            "Got 'large' instead. Correct the value.",
        ),
        ({"logistic": {"C": [-1]}}, "Got -1 instead"),
        ({"logistic": {"C": list(range(1, MAX_CANDIDATES + 2))}}, "it makes 101 candidates, and at most 100 are tried"),
        ({"foreign": {"width": ["x" * 300]}}, "has 314 characters, and at most 200 fit"),
    ],
)
def test_a_grid_that_cannot_be_is_refused_with_one_sentence(grid: Any, says: str) -> None:
    with pytest.raises(NonRetryableError) as raised:
        estimators(DATASET, grid)
    assert str(raised.value).startswith("The grid cannot be: ") and says in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("good", [None, {}, {"m": {"C": [0.1, 1, "a", True, None]}}])
def test_the_schema_of_the_form_takes_grids(good: Any) -> None:
    assert Param(None, **SCHEMA).resolve(good) == good


@pytest.mark.parametrize("bad", [[], "C=1", {"m": {}}, {"m": {"C": 1}}, {"m": {"C": []}}, {"m": {"C": [[1]]}}])
def test_and_nothing_else(bad: Any) -> None:
    with pytest.raises(ParamValidationError):
        Param(None, **SCHEMA).resolve(bad)
