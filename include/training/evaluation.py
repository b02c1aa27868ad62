"""Evaluation: what a fitted model is worth on the test rows: metrics, by class, by slice, and record by record."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from include.errors import NonRetryableError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray

    from include.versions.manifest import Manifest

# The two-sided 95 % quantile of the normal distribution.
Z95 = 1.959963984540054

MAX_PARTS = 50
"""Of a slice: more are numbers that somebody forgot to group."""

COUNTED_ROWS = 2**18

MISSING = "missing"
"""The part of a slice whose rows have no value."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Metric:
    """One number on the test rows, with a 95 % interval where there is one."""

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


@dataclass(frozen=True)
class Part:
    """The metrics on those of the test rows that have one value in a slice.

    Attributes:
        slice: Its name in the definition.
        value: The value, as text.
        rows: How many test rows have it.
        metrics: As those on all test rows.
    """

    slice: str
    value: str
    rows: int
    metrics: Sequence[Metric]


@dataclass(frozen=True)
class Evaluation:
    """A model on a test split.

    Attributes:
        metrics: The leading one first: accuracy, or RMSE.
        classes: By class; empty for a regression.
        confusion: Actual class, predicted class, how often; without zeros.
        outcome: For each test row, whether it was right (bool), or its absolute error (float64), shape (rows,).
        parts: By slice and its values.
        predictions: A digest of all predictions in their order, see ``digest``.
    """

    metrics: Sequence[Metric]
    outcome: NDArray[Any]
    classes: Sequence[ClassMetric] = ()
    confusion: Sequence[tuple[str, str, int]] = field(default=())
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
        slices: See ``sliced``.
    """
    predicted = model.predict(features)
    score: Callable[[Any], Evaluation]
    if manifest.kind == "regression":

        def score(rows: Any) -> Evaluation:
            return _regression(target[rows], predicted[rows])
    else:
        chances = _probabilities(model, features, manifest.classes)
        # Comparing numbers takes a tenth of the time of comparing texts, and each slice compares them all again.
        actual, answered = (_numbered(values, manifest.classes) for values in (target, predicted))

        def score(rows: Any) -> Evaluation:
            found = None if chances is None else chances[rows]
            return _classification(actual[rows], answered[rows], found, manifest.classes)

    return replace(score(slice(None)), parts=list(_parts(slices or {}, score)), predictions=digest(predicted))


def digest(predicted: NDArray[Any]) -> str:
    """SHA-256, in hexadecimal, of predictions: eight bytes for each number, for each text its UTF-8 and a newline."""
    if predicted.dtype.kind in "iufb":
        content = predicted.astype("<f8" if predicted.dtype.kind == "f" else "<i8").tobytes()
    else:
        content = "".join(f"{value}\n" for value in predicted.tolist()).encode()
    return hashlib.sha256(content).hexdigest()


def sliced(rows: pa.Table, slices: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    """For each slice, which of its values each row has, as text; shape (rows,).

    A slice that these rows cannot be cut into is left out with a warning: a version may be older than the definition,
    and no training is to fail for the want of a table.

    Args:
        rows: Test rows, with all of their columns.
        slices: Those of the definition: name to column or expression.
    """
    frame = rows.to_pandas() if slices else None
    found = {}
    for name, expression in slices.items():
        assert frame is not None
        try:
            values = frame[expression] if expression in frame else frame.eval(expression)
            parts = _parts_of(values, len(frame))
            count = len(set(parts.tolist()))
        except Exception as error:
            log.warning("The slice %s (%s) cannot be cut from this version: %s.", name, expression, error)
            continue
        if count > MAX_PARTS:
            log.warning(
                "The slice %s (%s) has %d values, and at most %d are shown; group them by an expression.",
                *(name, expression, count, MAX_PARTS),
            )
            continue
        found[name] = parts
    return found


def _parts_of(values: Any, rows: int) -> NDArray[Any]:
    """Each row's value as text, ``MISSING`` where there is none; shape (rows,)."""
    import numpy as np
    import pandas as pd

    if np.ndim(values) != 1 or len(values) != rows:
        raise ValueError("it does not give one value for each row")
    missing = pd.isna(values).tolist()
    plain = (MISSING if absent else plain_text(value) for value, absent in zip(values, missing, strict=True))
    return np.array(list(plain), dtype=object)


def plain_text(value: Any) -> str:
    """A value as people and guards write it: a whole number without ``.0``, and nothing that PostgreSQL refuses."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).replace("\x00", "\\x00")


def wilson(right: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share (E. B. Wilson 1927, JASA 22:209-212)."""
    share, z2 = right / total, Z95**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z95 / (1 + z2 / total) * (share * (1 - share) / total + z2 / (4 * total**2)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


def _parts(slices: Mapping[str, NDArray[Any]], score: Callable[[Any], Evaluation]) -> Iterator[Part]:
    for name, values in slices.items():
        for value in sorted(set(values.tolist())):
            rows = values == value
            yield Part(name, value, int(rows.sum()), score(rows).metrics)


def _numbered(values: NDArray[Any], classes: Sequence[Any]) -> NDArray[Any]:
    """For each value the place of its class among all."""
    import numpy as np

    names = np.array(list(classes), values.dtype)
    order = np.argsort(names)
    places = order[np.minimum(np.searchsorted(names, values, sorter=order), len(names) - 1)]
    if not (names[places] == values).all():
        unknown = sorted(set(values.tolist()) - set(names.tolist()))
        raise NonRetryableError(f"The rows have a class {unknown[0]!r} that the version's manifest does not list.")
    return places


def _classification(
    target: NDArray[Any], predicted: NDArray[Any], probabilities: NDArray[Any] | None, classes: Sequence[Any]
) -> Evaluation:
    """Scores answers; both they and the target are places among the classes, see ``_numbered``."""
    import numpy as np

    right = target == predicted
    low, high = wilson(int(right.sum()), len(right))
    # Everything but the probabilities follows from how often each class is taken for each. Asking scikit-learn for one
    # number after the other, each with its own checks, takes ten times as long, and that for each part of each slice.
    count = len(classes)
    matrix = np.zeros((count, count), int)
    # Some at a time: there may be more rows than fit into memory several times.
    for start in range(0, len(target), COUNTED_ROWS):
        rows = slice(start, start + COUNTED_ROWS)
        pairs = target[rows] * count + predicted[rows]
        matrix += np.bincount(pairs, minlength=count**2).reshape(count, count)
    hits, support, answers = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    precision, recall, f1 = (
        np.divide(hits * times, of, out=np.zeros(count), where=of > 0)
        for times, of in ((1, answers), (1, support), (2, answers + support))
    )
    # Recall and the like count the classes that occur among the test rows.
    present = support > 0
    found = [
        Metric("accuracy", float(right.mean()), low, high),
        Metric("balanced_accuracy", float(recall[present].mean())),
        Metric("f1_macro", float(f1[present].mean())),
    ]
    if probabilities is not None:
        found += _probabilistic(target, probabilities)
    names = [plain_text(name) for name in classes]
    confusion = [(names[i], names[j], int(matrix[i, j])) for i, j in np.argwhere(matrix)]
    by_class = [
        ClassMetric(name, float(p), float(r), float(f), int(s))
        for name, p, r, f, s in zip(names, precision, recall, f1, support, strict=True)
    ]
    return Evaluation(found, right, by_class, confusion)


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
    """The area under the ROC curve: how often a positive has a greater score than a negative, equal ones for a half.

    By the sum of ranks (Mann and Whitney 1947, Ann. Math. Stat. 18:50-60), which is the same number as scikit-learn's
    and, for some hundred rows, takes a twentieth of its time.
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
    """Probabilities of all classes of the version, shape (rows, classes); those never trained on get 0."""
    import numpy as np

    if not hasattr(model, "predict_proba"):
        return None
    found = np.zeros((len(features), len(classes)))
    column = {name: i for i, name in enumerate(classes)}
    found[:, [column[name] for name in model.classes_.tolist()]] = model.predict_proba(features)
    return found
