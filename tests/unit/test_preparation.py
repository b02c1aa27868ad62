"""Preparation: two fits with one seed are equal, wherever the random state is; set values stay unchanged."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
import scipy.stats
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_iris
from sklearn.ensemble import BaggingClassifier, RandomForestClassifier, StackingClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import GridSearchCV, KFold, RandomizedSearchCV, ShuffleSplit, StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from include.registry import artifact
from include.training.preparation import prepared

TREE = DecisionTreeClassifier(max_features=1)
SEARCHES = {
    "splitter": GridSearchCV(TREE, {"max_depth": [1, 2, 3]}, cv=StratifiedKFold(3, shuffle=True)),
    "shuffle split": GridSearchCV(TREE, {"max_depth": [1, 2, 3]}, cv=ShuffleSplit(3)),
    "estimators in a grid": GridSearchCV(
        Pipeline([("scale", StandardScaler()), ("model", LogisticRegression())]),
        [{"model": [RandomForestClassifier(3), SGDClassifier()]}],
        cv=3,
    ),
    "distribution": RandomizedSearchCV(LogisticRegression(), {"C": scipy.stats.loguniform(1e-3, 10)}, n_iter=3, cv=3),
    "whole numbers": RandomizedSearchCV(TREE, [{"max_depth": scipy.stats.randint(1, 5)}], n_iter=3, cv=3),
    "calibration": CalibratedClassifierCV(TREE, cv=KFold(3, shuffle=True)),
    "stacking": StackingClassifier([("a", TREE), ("b", SGDClassifier())], cv=KFold(3, shuffle=True)),
    "bagging": BaggingClassifier(TREE, 3),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_a_stored_estimator_is_fitted_again_to_the_same_model(name: str) -> None:
    rows, target = load_iris(return_X_y=True)
    estimator = prepared(SEARCHES[name], 7)
    content = artifact.require_storable(estimator)
    again = artifact.loads(content, hashlib.sha256(content).hexdigest())
    first, second = estimator.fit(rows, target), again.fit(rows, target)
    assert (first.predict_proba(rows) == second.predict_proba(rows)).all() if hasattr(first, "predict_proba") else True
    assert (first.predict(rows) == second.predict(rows)).all()
    if hasattr(first, "cv_results_"):
        assert (first.cv_results_["mean_test_score"] == second.cv_results_["mean_test_score"]).all()


def test_another_seed_is_another_model() -> None:
    rows, target = load_iris(return_X_y=True)
    scores = [prepared(SEARCHES["splitter"], seed).fit(rows, target).cv_results_["mean_test_score"] for seed in (1, 2)]
    assert (scores[0] != scores[1]).any()


def test_set_random_states_and_the_definition_are_not_changed() -> None:
    splitter = StratifiedKFold(3, shuffle=True)
    given = GridSearchCV(RandomForestClassifier(random_state=3), {"max_depth": [1]}, cv=splitter)
    made = prepared(given, 7)
    assert (made.estimator.random_state, made.cv.random_state) == (3, 7)
    assert splitter.random_state is None
    assert prepared(make_pipeline(RandomForestClassifier()), 7)[0].random_state == 7


def test_a_splitter_that_does_not_shuffle_needs_no_seed() -> None:
    made: Any = prepared(GridSearchCV(TREE, {"max_depth": [1]}, cv=KFold(3)), 7)
    assert made.cv.random_state is None
    assert str(made.cv) == str(KFold(3))


def test_distributions_draw_the_values_of_scipy() -> None:
    grid = {"C": scipy.stats.loguniform(1e-3, 10), "n": scipy.stats.randint(low=1, high=5), "x": [1, 2]}
    made = prepared(RandomizedSearchCV(LogisticRegression(), grid), 7).param_distributions
    for name in ("C", "n"):
        drawn = made[name].rvs(size=5, random_state=np.random.RandomState(1))
        assert (drawn == grid[name].rvs(size=5, random_state=np.random.RandomState(1))).all()
    assert repr(made["C"]) == "loguniform(0.001, 10)"
    assert made["x"] is not grid["x"] and made["x"] == [1, 2]
