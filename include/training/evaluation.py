"""Evaluation: what a fitted model is worth on the test rows, as metrics, by class, and record by record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from include.versions.manifest import Manifest

# The two-sided 95 % quantile of the normal distribution.
Z95 = 1.959963984540054


@dataclass(frozen=True)
class Metric:
    """One number on the test rows, with a 95 % interval where there is one."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class ClassMetric:
    """How well one class is told; ``support`` is how many test records are of it."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Evaluation:
    """A model on a test split.

    Attributes:
        metrics: The leading one first: accuracy, or RMSE.
        classes: By class; empty for a regression.
        confusion: Actual class, predicted class, how often; without zeros.
        outcome: For each test row, whether it was right (bool), or its absolute error (float64), shape (rows,).
    """

    metrics: Sequence[Metric]
    outcome: NDArray[Any]
    classes: Sequence[ClassMetric] = ()
    confusion: Sequence[tuple[str, str, int]] = field(default=())


def evaluate(model: Any, features: pd.DataFrame, target: NDArray[Any], manifest: Manifest) -> Evaluation:
    """Scores a fitted model on the test rows."""
    predicted = model.predict(features)
    if manifest.kind == "regression":
        return _regression(target, predicted)
    return _classification(target, predicted, _probabilities(model, features, manifest.classes), manifest.classes)


def wilson(right: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share (E. B. Wilson 1927, JASA 22:209-212)."""
    share, z2 = right / total, Z95**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z95 / (1 + z2 / total) * (share * (1 - share) / total + z2 / (4 * total**2)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


def _classification(
    target: NDArray[Any], predicted: NDArray[Any], probabilities: NDArray[Any] | None, classes: Sequence[Any]
) -> Evaluation:
    import numpy as np
    from sklearn import metrics

    right = target == predicted
    low, high = wilson(int(right.sum()), len(right))
    # Recall and the like count the classes that occur among the test rows.
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        target, predicted, labels=list(classes), zero_division=0.0
    )
    present = support > 0
    found = [
        Metric("accuracy", float(right.mean()), low, high),
        Metric("balanced_accuracy", float(recall[present].mean())),
        Metric("f1_macro", float(f1[present].mean())),
    ]
    if probabilities is not None:
        found += _probabilistic(target, probabilities, classes)
    matrix = metrics.confusion_matrix(target, predicted, labels=list(classes))
    confusion = [(str(classes[i]), str(classes[j]), int(matrix[i, j])) for i, j in np.argwhere(matrix)]
    by_class = [
        ClassMetric(str(name), float(p), float(r), float(f), int(s))
        for name, p, r, f, s in zip(classes, precision, recall, f1, support, strict=True)
    ]
    return Evaluation(found, right, by_class, confusion)


def _probabilistic(target: NDArray[Any], probabilities: NDArray[Any], classes: Sequence[Any]) -> list[Metric]:
    import numpy as np
    from sklearn import metrics

    column = {name: i for i, name in enumerate(classes)}
    actual = np.array([column[name] for name in target.tolist()])
    chance = np.clip(probabilities[np.arange(len(actual)), actual], np.finfo(float).eps, 1.0)
    found = [Metric("log_loss", float(-np.log(chance).mean()))]
    areas = [
        metrics.roc_auc_score(actual == i, probabilities[:, i])
        for i in (range(len(classes)) if len(classes) > 2 else [1])
        if 0 < (actual == i).sum() < len(actual)
    ]
    return [*found, Metric("roc_auc", float(np.mean(areas)))] if areas else found


def _regression(target: NDArray[Any], predicted: NDArray[Any]) -> Evaluation:
    import numpy as np

    error = np.abs(target.astype(float) - predicted)
    squared = float((error**2).mean())
    spread = float(np.var(target.astype(float)))
    found = [Metric("rmse", squared**0.5), Metric("mae", float(error.mean()))]
    return Evaluation([*found, Metric("r2", 1 - squared / spread)] if spread else found, error)


def _probabilities(model: Any, features: pd.DataFrame, classes: Sequence[Any]) -> NDArray[Any] | None:
    """Probabilities of all classes of the version, shape (rows, classes); those never trained on get 0."""
    import numpy as np

    if not hasattr(model, "predict_proba"):
        return None
    found = np.zeros((len(features), len(classes)))
    column = {name: i for i, name in enumerate(classes)}
    found[:, [column[name] for name in model.classes_.tolist()]] = model.predict_proba(features)
    return found
