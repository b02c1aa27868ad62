"""Metrics, against scikit-learn's and against published values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics
from sklearn.datasets import load_diabetes, load_iris
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression

from include.training.evaluation import evaluate, wilson
from include.training.fitting import seeded
from include.versions.manifest import Column, Manifest, Message, version_id


def manifest(kind: Any, classes: list[Any]) -> Manifest:
    messages = [Message(0, 0, "train", 0, 1, "0" * 64), Message(0, 1, "test", 0, 1, "0" * 64)]
    return Manifest(
        dataset="d",
        version=version_id("t", messages),
        publication="p",
        topic="t",
        kind=kind,
        record_id="i",
        target="y",
        features=["x"],
        columns=[Column("x", "double")],
        split={},
        classes=classes,
        rows={"train": 1, "test": 1},
        messages=messages,
    )


def test_classification_agrees_with_scikit_learn() -> None:
    features, target = load_iris(return_X_y=True, as_frame=True)
    model = LogisticRegression(max_iter=1000).fit(features[::2], target[::2])
    found = evaluate(model, features[1::2], target[1::2].to_numpy(), manifest("classification", [0, 1, 2]))
    actual, predicted = target[1::2], model.predict(features[1::2])
    chances = model.predict_proba(features[1::2])
    values = {metric.name: metric.value for metric in found.metrics}
    assert values == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(actual, predicted),
            "balanced_accuracy": metrics.balanced_accuracy_score(actual, predicted),
            "f1_macro": metrics.f1_score(actual, predicted, average="macro"),
            "log_loss": metrics.log_loss(actual, chances),
            "roc_auc": metrics.roc_auc_score(actual, chances, multi_class="ovr"),
        }
    )
    assert sum(count for *_, count in found.confusion) == len(actual)
    assert [entry.support for entry in found.classes] == np.bincount(actual).tolist()
    assert found.outcome.mean() == values["accuracy"]


def test_classes_that_were_never_trained_on_count_as_wrong() -> None:
    features = pd.DataFrame(np.zeros((4, 1)))
    model = DummyClassifier(strategy="prior").fit(features, ["a", "a", "a", "b"])
    found = evaluate(
        model,
        pd.DataFrame(np.zeros((4, 1))),
        np.array(["a", "c", "c", "b"]),
        manifest("classification", ["a", "b", "c"]),
    )
    values = {metric.name: metric.value for metric in found.metrics}
    assert values["accuracy"] == 0.25
    assert np.isfinite(values["log_loss"])
    assert ("c", "a", 2) in found.confusion


def test_regression_agrees_with_scikit_learn() -> None:
    features, target = load_diabetes(return_X_y=True)
    model = LinearRegression().fit(features[::2], target[::2])
    found = evaluate(model, features[1::2], target[1::2], manifest("regression", []))
    predicted = model.predict(features[1::2])
    assert {metric.name: metric.value for metric in found.metrics} == pytest.approx(
        {
            "rmse": metrics.root_mean_squared_error(target[1::2], predicted),
            "mae": metrics.mean_absolute_error(target[1::2], predicted),
            "r2": metrics.r2_score(target[1::2], predicted),
        }
    )
    assert found.outcome == pytest.approx(np.abs(target[1::2] - predicted))


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17:857-872, table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval_is_the_published_one(right: int, total: int, low: float, high: float) -> None:
    assert wilson(right, total) == pytest.approx((low, high), abs=5e-5)


def test_a_seed_reaches_into_pipelines_and_leaves_what_is_set() -> None:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline

    assert seeded(make_pipeline(RandomForestClassifier()), 7)[0].random_state == 7
    assert seeded(RandomForestClassifier(random_state=3), 7).random_state == 3
