"""Evaluation: the metrics of a fitted model on the test rows, in all, by class and by slice, and each row's outcome."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from include.error_codes import Code
from include.errors import NonRetryableError
from include.training.slices import plain_text

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from include.versions.manifest import Manifest

# The two-sided 95 % quantile of the normal distribution.
Z95 = 1.959963984540054

COUNTED_ROWS = 2**18


@dataclass(frozen=True)
class Metric:
    """One number on the test rows; accuracy has a 95 % interval."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class ClassMetric:
    """The metrics of one class; ``support`` is the number of its test records."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


class ConfusionCell(NamedTuple):
    """How many test rows of one class were predicted as another, or the same, class."""

    actual: str
    predicted: str
    rows: int


@dataclass(frozen=True)
class Part:
    """The metrics on the test rows that have one value in a slice.

    Attributes:
        slice: The slice's name in the definition.
        value: The value, as text.
        rows: The number of test rows with this value.
        metrics: The same metrics as on all test rows.
    """

    slice: str
    value: str
    rows: int
    metrics: Sequence[Metric]


@dataclass(frozen=True)
class Evaluation:
    """A model on a test split.

    Attributes:
        metrics: Accuracy or RMSE first.
        classes: The metrics of each class; empty for a regression.
        confusion: The confusion matrix without zeros.
        outcome: For each test row whether the prediction was right (bool), or its absolute error (float64); shape
            (rows,).
        parts: The metrics of each value of each slice.
        predictions: The ``digest`` of all predictions in their order.
    """

    metrics: Sequence[Metric]
    outcome: NDArray[Any]
    classes: Sequence[ClassMetric] = ()
    confusion: Sequence[ConfusionCell] = ()
    parts: Sequence[Part] = ()
    predictions: str = ""


def evaluate(
    model: Any,
    features: Any,
    target: NDArray[Any],
    manifest: Manifest,
    slices: Mapping[str, NDArray[Any]] | None = None,
) -> Evaluation:
    """Scores a fitted model on the test rows.

    Args:
        slices: See ``slices.sliced``.
    """
    predicted = model.predict(features)
    score: Callable[[Any], Evaluation]
    if manifest.kind == "regression":

        def score(rows: Any) -> Evaluation:
            return _regression(target[rows], predicted[rows])
    else:
        chances = _probabilities(model, features, manifest.classes)
        # Comparing numbers is ten times faster than comparing texts, and each slice compares again.
        actual, answered = (_class_numbers(values, manifest.classes) for values in (target, predicted))

        def score(rows: Any) -> Evaluation:
            found = None if chances is None else chances[rows]
            return _classification(actual[rows], answered[rows], found, manifest.classes)

    return replace(score(slice(None)), parts=list(_parts(slices or {}, score)), predictions=digest(predicted))


def digest(predicted: NDArray[Any]) -> str:
    """SHA-256 (hexadecimal) of predictions: eight bytes for each number, UTF-8 and a newline for each text."""
    if predicted.dtype.kind in "iufb":
        content = predicted.astype("<f8" if predicted.dtype.kind == "f" else "<i8").tobytes()
    else:
        content = "".join(f"{value}\n" for value in predicted.tolist()).encode()
    return hashlib.sha256(content).hexdigest()


def wilson(right: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion (E. B. Wilson 1927, JASA 22:209-212)."""
    share, z2 = right / total, Z95**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z95 / (1 + z2 / total) * (share * (1 - share) / total + z2 / (4 * total**2)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


def _parts(slices: Mapping[str, NDArray[Any]], score: Callable[[Any], Evaluation]) -> Iterator[Part]:
    for name, values in slices.items():
        for value in sorted(set(values.tolist())):
            rows = values == value
            yield Part(name, value, int(rows.sum()), score(rows).metrics)


def _class_numbers(values: NDArray[Any], classes: Sequence[Any]) -> NDArray[Any]:
    """For each value the index of its class in ``classes``."""
    import numpy as np

    names = np.array(list(classes), values.dtype)
    order = np.argsort(names)
    numbers: NDArray[Any] = order[np.minimum(np.searchsorted(names, values, sorter=order), len(names) - 1)]
    if not (names[numbers] == values).all():
        unknown = sorted(set(values.tolist()) - set(names.tolist()))
        raise NonRetryableError(
            f"The rows have the class {unknown[0]!r}, which the version's manifest does not list.",
            "Publish the dataset again.",
            code=Code.UNLISTED_CLASS,
        )
    return numbers


def _classification(
    target: NDArray[Any], predicted: NDArray[Any], probabilities: NDArray[Any] | None, classes: Sequence[Any]
) -> Evaluation:
    """Scores predictions; they and the target are indexes of classes, see ``_class_numbers``.

    All metrics but those of probabilities follow from the confusion matrix. Computing each with scikit-learn, which
    validates its input every time, takes ten times as long, and every value of every slice is scored.
    """
    import numpy as np

    matrix = _confusion_matrix(target, predicted, len(classes))
    hits, support, answers = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    precision, recall, f1 = (
        np.divide(hits * factor, total, out=np.zeros(len(classes)), where=total > 0)
        for factor, total in ((1, answers), (1, support), (2, answers + support))
    )
    right = target == predicted
    low, high = wilson(int(right.sum()), len(right))
    # Like scikit-learn, averages over classes leave out those that the test rows do not have.
    present = support > 0
    found = [
        Metric("accuracy", float(right.mean()), low, high),
        Metric("balanced_accuracy", float(recall[present].mean())),
        Metric("f1_macro", float(f1[present].mean())),
    ]
    if probabilities is not None:
        found += _probabilistic(target, probabilities)
    names = [plain_text(name) for name in classes]
    confusion = [ConfusionCell(names[i], names[j], int(matrix[i, j])) for i, j in np.argwhere(matrix)]
    by_class = [
        ClassMetric(name, float(p), float(r), float(f), int(s))
        for name, p, r, f, s in zip(names, precision, recall, f1, support, strict=True)
    ]
    return Evaluation(found, right, by_class, confusion)


def _confusion_matrix(target: NDArray[Any], predicted: NDArray[Any], count: int) -> NDArray[Any]:
    """How many rows have each actual class (first axis) and predicted class (second axis)."""
    import numpy as np

    matrix = np.zeros((count, count), int)
    # In blocks, because several arrays of all rows may not fit into memory.
    for start in range(0, len(target), COUNTED_ROWS):
        rows = slice(start, start + COUNTED_ROWS)
        pairs = target[rows] * count + predicted[rows]
        matrix += np.bincount(pairs, minlength=count**2).reshape(count, count)
    return matrix


def _probabilistic(target: NDArray[Any], probabilities: NDArray[Any]) -> list[Metric]:
    import numpy as np

    chance = np.clip(probabilities[np.arange(len(target)), target], np.finfo(float).eps, 1.0)
    found = [Metric("log_loss", float(-np.log(chance).mean()))]
    classes = probabilities.shape[1]
    areas = [
        _area(target == i, probabilities[:, i])
        for i in (range(classes) if classes > 2 else [1])
        if 0 < (target == i).sum() < len(target)
    ]
    return [*found, Metric("roc_auc", float(np.mean(areas)))] if areas else found


def _area(positive: NDArray[Any], score: NDArray[Any]) -> float:
    """The area under the ROC curve: the share of pairs in which the positive has the greater score; ties count half.

    Computed from the sum of ranks (Mann and Whitney 1947, Ann. Math. Stat. 18:50-60). The result equals
    scikit-learn's; for a few hundred rows it takes a twentieth of the time.
    """
    from scipy.stats import rankdata

    count = int(positive.sum())
    ranks = rankdata(score)[positive].sum()
    return float((ranks - count * (count + 1) / 2) / (count * (len(positive) - count)))


def _regression(target: NDArray[Any], predicted: NDArray[Any]) -> Evaluation:
    import numpy as np

    error = np.abs(target.astype(float) - predicted)
    squared = float((error**2).mean())
    spread = float(np.var(target.astype(float)))
    found = [Metric("rmse", squared**0.5), Metric("mae", float(error.mean()))]
    return Evaluation([*found, Metric("r2", 1 - squared / spread)] if spread else found, error)


def _probabilities(model: Any, features: pd.DataFrame, classes: Sequence[Any]) -> NDArray[Any] | None:
    """Probabilities of the version's classes, shape (rows, classes); 0 for classes that the train rows do not have."""
    import numpy as np

    if not hasattr(model, "predict_proba"):
        return None
    found = np.zeros((len(features), len(classes)))
    column = {name: i for i, name in enumerate(classes)}
    found[:, [column[name] for name in model.classes_.tolist()]] = model.predict_proba(features)
    return found
