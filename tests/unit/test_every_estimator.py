"""Every public estimator of scikit-learn, fitted on suitable data, is stored, loaded, and predicts the same."""

from __future__ import annotations

import hashlib
import inspect
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.base import is_classifier
from sklearn.experimental import enable_halving_search_cv, enable_iterative_imputer  # noqa: F401
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.utils import all_estimators
from threadpoolctl import threadpool_limits

from include.registry import artifact
from include.training.preparation import prepared

EXCEPTIONS = {
    "Birch": "skops cannot store it: its clusters are a tree of objects that refer to each other",
}

ROWS = 90
DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(ROWS, 4))
CLASSES = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0.5)
BINARY = (X[:, 0] > 0).astype(int)
NUMBERS = X[:, 0] + 0.1 * X[:, 1] + 10
TEXTS = ["yes or no", "no", "maybe yes", "who knows"] * 10
PREDICTORS = [("one", LogisticRegression()), ("two", LogisticRegression(C=0.5))]
LINES = [("one", LinearRegression()), ("two", LinearRegression(positive=True))]

GIVEN: dict[str, dict[str, Any]] = {
    "ColumnTransformer": {"transformers": [("scale", StandardScaler(), [0, 1])]},
    "FeatureUnion": {"transformer_list": [("scale", StandardScaler())]},
    "FrozenEstimator": {"estimator": LogisticRegression().fit(X, CLASSES)},
    "HalvingRandomSearchCV": {"estimator": LogisticRegression(), "param_distributions": {"C": [0.1, 1.0, 2.0]}},
    "NuSVC": {"nu": 0.1},
    "PatchExtractor": {"patch_size": (2, 2)},
    "OrthogonalMatchingPursuitCV": {"max_iter": 3},
    "Pipeline": {"steps": [("scale", StandardScaler()), ("model", LogisticRegression())]},
    "RandomizedSearchCV": {"estimator": LogisticRegression(), "param_distributions": {"C": [0.1, 1.0]}, "n_iter": 2},
    "SelfTrainingClassifier": {"estimator": LogisticRegression()},
    "SparseCoder": {"dictionary": X[:3]},
    "SpectralBiclustering": {"n_clusters": 2},
    "StackingClassifier": {"estimators": PREDICTORS},
    "StackingRegressor": {"estimators": LINES},
    "TSNE": {"max_iter": 250, "perplexity": 5},
    "VotingClassifier": {"estimators": PREDICTORS},
    "VotingRegressor": {"estimators": LINES},
}
"""Arguments that an estimator requires, or needs for these rows."""

CATEGORIES = pd.DataFrame({"a": ["x", "y", None] * 30, "b": ["u", "v", "w"] * 30})
INPUTS: dict[str, tuple[Any, Any]] = {
    "CategoricalNB": (np.abs(X).astype(int), CLASSES),
    "CountVectorizer": (TEXTS, None),
    "DictVectorizer": ([{"a": 1.0, "b": "x"}, {"b": "y"}], None),
    "FeatureHasher": ([{"a": 1.0, "b": "x"}, {"b": "y"}], None),
    "FixedThresholdClassifier": (X, BINARY),
    "GammaRegressor": (X, NUMBERS),
    "HashingVectorizer": (TEXTS, None),
    "IsotonicRegression": (X[:, 0], NUMBERS),
    "KernelCenterer": (X @ X.T, None),
    "LabelBinarizer": (CLASSES, None),
    "LabelEncoder": (np.array(["a", "b", "a"]), None),
    "MissingIndicator": (np.where(X > 1, np.nan, X), None),
    "MultiLabelBinarizer": ([["a", "b"], ["a"]], None),
    "OneHotEncoder": (CATEGORIES, None),
    "OrdinalEncoder": (CATEGORIES, None),
    "OrthogonalMatchingPursuitCV": (X, NUMBERS),
    "PatchExtractor": (np.arange(192.0).reshape(3, 8, 8), None),
    "SkewedChi2Sampler": (np.abs(X), None),
    "SparseRandomProjection": (scipy.sparse.random(20, 4000, 0.01, random_state=0), None),
    "TargetEncoder": (CATEGORIES, BINARY),
    "TfidfTransformer": (np.abs(X).astype(int), None),
    "TfidfVectorizer": (TEXTS, None),
    "TunedThresholdClassifierCV": (X, BINARY),
}
"""Rows and target of the estimators that do not accept a matrix of numbers."""


def made(name: str, kind: type) -> Any:
    if name in GIVEN:
        return kind(**GIVEN[name])
    needed = inspect.signature(kind).parameters
    regresses = "Regressor" in name or name == "RegressorChain"
    inner: Any = LinearRegression() if regresses else LogisticRegression()
    values: dict[str, Any] = {"estimator": inner, "param_grid": {"C": [0.1, 1.0]}}
    # A kernel density or a mixture of four numbers must not look for ten components.
    smaller = {"n_components": 2, "max_iter": 50, "n_estimators": 3, "n_init": 1, "perplexity": 5}
    return kind(
        **{key: values[key] for key, found in needed.items() if found.default is found.empty and key in values},
        **{key: value for key, value in smaller.items() if key in needed},
    )


def data(name: str, estimator: Any) -> tuple[Any, Any]:
    if name in INPUTS:
        return INPUTS[name]
    tags = estimator.__sklearn_tags__()
    rows = np.abs(X) if tags.input_tags.positive_only else X
    if tags.target_tags.multi_output and not tags.target_tags.single_output:
        both = np.column_stack([BINARY, CLASSES > 0]).astype(int)
        return rows, both if is_classifier(estimator) or "Classifier" in name or "Chain" in name else rows[:, :2]
    if "CCA" in name or "PLS" in name:
        return rows, rows[:, :2]
    return rows, CLASSES if is_classifier(estimator) else NUMBERS if "Regress" in name or "SVR" in name else CLASSES


def answers(estimator: Any, rows: Any) -> list[Any]:
    """The results of an estimator's methods for rows."""
    found = [
        getattr(estimator, method)(rows)
        for method in ("predict", "predict_proba", "decision_function", "transform", "score_samples")
        if hasattr(estimator, method)
    ]
    assert (
        found or hasattr(estimator, "fit_predict") or hasattr(estimator, "fit_transform") or hasattr(estimator, "fit")
    )
    return found


def same(before: Any, after: Any) -> bool:
    if scipy.sparse.issparse(before):
        before, after = before.toarray(), after.toarray()
    if isinstance(before, np.ndarray) and before.dtype.kind == "f":
        # The alignment of an array in memory changes the last bits of BLAS results.
        return bool(np.allclose(before, after, rtol=1e-9, atol=1e-12, equal_nan=True))
    if isinstance(before, np.ndarray) and before.dtype != object:
        return bool(np.array_equal(before, after))
    return str(before) == str(after)


ESTIMATORS: list[tuple[str, Callable[..., Any]]] = all_estimators()


def test_scikit_learn_has_the_estimators_of_this_file() -> None:
    names = {name for name, _ in ESTIMATORS}
    assert len(names) > 200
    assert not (EXCEPTIONS.keys() | GIVEN.keys() | INPUTS.keys()) - names


@pytest.mark.parametrize(("name", "kind"), ESTIMATORS, ids=[name for name, _ in ESTIMATORS])
@pytest.mark.filterwarnings("ignore")
def test_it_is_stored_and_predicts_the_same(name: str, kind: type) -> None:
    estimator = prepared(made(name, kind), 0)
    rows, target = data(name, estimator)
    if name in EXCEPTIONS:
        with pytest.raises(artifact.UntrustedArtifact, match=name):
            artifact.require_storable(estimator)
        return
    artifact.require_storable(estimator)
    # A process that has started OpenMP's threads must not be forked, and other tests fork.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        estimator.fit(rows) if target is None else estimator.fit(rows, target)
        content = artifact.require_storable(estimator)
        loaded = artifact.loads(content, hashlib.sha256(content).hexdigest())
        before, after = answers(estimator, rows), answers(loaded, rows)
    assert len(before) == len(after)
    assert all(map(same, before, after))
    if is_classifier(estimator):
        assert before
