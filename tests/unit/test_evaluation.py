"""Metrics, against scikit-learn's and against published values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn import metrics
from sklearn.datasets import load_diabetes, load_iris
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression

from include.error_codes import Code
from include.errors import NonRetryableError
from include.training.evaluation import _area, _classification, evaluate, wilson
from include.training.slices import sliced
from include.versions.manifest import Column, Manifest, Message, version_id
from tests.errors import raises


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


def test_metrics_by_class_agree_with_scikit_learn_for_classes_never_seen_or_predicted() -> None:
    draw = np.random.default_rng(1)
    # The last class is never predicted, the one before it never occurs, and the first neither.
    actual, predicted = draw.choice([1, 2, 4], 300), draw.choice([1, 2, 3], 300)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        actual, predicted, labels=range(5), zero_division=0.0
    )
    found = _classification(actual, predicted, None, list("abcde"))
    assert [[c.precision, c.recall, c.f1, c.support] for c in found.classes] == pytest.approx(
        np.array([precision, recall, f1, support]).T
    )
    assert found.confusion == [
        ("abcde"[i], "abcde"[j], count)
        for (i, j), count in np.ndenumerate(metrics.confusion_matrix(actual, predicted, labels=range(5)))
        if count
    ]


def test_the_area_under_the_curve_agrees_with_scikit_learn_for_equal_scores() -> None:
    draw = np.random.default_rng(0)
    target = draw.integers(0, 2, 500)
    scores = np.round(draw.random(500) / 2 + target / 4, 1)
    assert _area(target == 1, scores) == pytest.approx(metrics.roc_auc_score(target, scores), abs=1e-12)


def test_a_class_that_the_manifest_does_not_list_is_named() -> None:
    model = DummyClassifier(strategy="prior").fit([[0], [0]], ["a", "b"])
    with raises(Code.UNLISTED_CLASS, "'c'", kind=NonRetryableError):
        evaluate(model, [[0], [0]], np.array(["a", "c"]), manifest("classification", ["a", "b"]))


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


def test_slices_agree_with_scikit_learn_on_their_rows() -> None:
    features, target = load_iris(return_X_y=True, as_frame=True)
    model = LogisticRegression(max_iter=1000).fit(features[::2], target[::2])
    features, actual = features[1::2], target[1::2].to_numpy()
    rows = pa.Table.from_pandas(features.rename(columns=lambda name: name.split(" (")[0].replace(" ", "_")))
    slices = sliced(rows, {"wide": "sepal_width > 3", "long": "petal_length // 3"})
    found = evaluate(model, features, actual, manifest("classification", [0, 1, 2]), slices)
    whole = evaluate(model, features, actual, manifest("classification", [0, 1, 2]))
    assert found.metrics == whole.metrics and (found.outcome == whole.outcome).all()
    assert [(part.slice, part.value) for part in found.parts] == [
        *(("wide", "False"), ("wide", "True")),
        *(("long", "0"), ("long", "1"), ("long", "2")),
    ]
    predicted, chances = model.predict(features), model.predict_proba(features)
    for part in found.parts[:2]:
        taken = (features["sepal width (cm)"] > 3).to_numpy() == (part.value == "True")
        assert part.rows == taken.sum() > 20
        values = {metric.name: metric.value for metric in part.metrics}
        assert values == pytest.approx(
            {
                "accuracy": metrics.accuracy_score(actual[taken], predicted[taken]),
                "balanced_accuracy": metrics.balanced_accuracy_score(actual[taken], predicted[taken]),
                "f1_macro": metrics.f1_score(actual[taken], predicted[taken], average="macro"),
                "log_loss": metrics.log_loss(actual[taken], chances[taken], labels=[0, 1, 2]),
                "roc_auc": metrics.roc_auc_score(actual[taken], chances[taken], multi_class="ovr"),
            }
        )
        assert part.metrics[0].low is not None and part.metrics[0].low < values["accuracy"]
    only_setosa = found.parts[2]
    assert set(actual[features["petal length (cm)"] < 3]) == {0}
    assert "roc_auc" not in {metric.name for metric in only_setosa.metrics}, "a single class has no ROC curve"


def test_slices_of_a_regression_and_by_time() -> None:
    features, target = load_diabetes(return_X_y=True, as_frame=True)
    model = LinearRegression().fit(features[::2], target[::2])
    features, actual = features[1::2], target[1::2].to_numpy()
    days = pd.date_range("2013-01-01", periods=len(features), freq="3D")
    slices = sliced(pa.Table.from_pandas(features.assign(day=days)), {"quarter": "day.dt.quarter"})
    found = evaluate(model, features, actual, manifest("regression", []), slices)
    assert [part.value for part in found.parts] == ["1", "2", "3", "4"]
    taken = days.quarter == 2
    assert {metric.name: metric.value for metric in found.parts[1].metrics} == pytest.approx(
        {
            "rmse": metrics.root_mean_squared_error(actual[taken], model.predict(features[taken])),
            "mae": metrics.mean_absolute_error(actual[taken], model.predict(features[taken])),
            "r2": metrics.r2_score(actual[taken], model.predict(features[taken])),
        }
    )


def test_a_slice_that_cannot_be_computed_is_left_out_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    rows = pa.table({"x": np.arange(60.0), "group": ["a", "b"] * 30})
    found = sliced(rows, {"group": "group", "gone": "season", "broken": "x +", "x": "x", "missing": "x > y"})
    assert list(found) == ["group"]
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 4
    assert "gone (season)" in warnings[0] and "name 'season' is not defined" in warnings[0]
    assert "60 values" in warnings[2] and "50" in warnings[2]


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17:857-872, table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval_is_the_published_one(right: int, total: int, low: float, high: float) -> None:
    assert wilson(right, total) == pytest.approx((low, high), abs=5e-5)
