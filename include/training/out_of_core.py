"""Out of core: a model learns a version batch by batch, in batch order, and never holds more than one of them.

Each step of a pipeline goes through the train rows by itself, in the pipeline's order: the transformers learn first,
each on what the ones before it make of the rows, then the model. Where a step, a pass and a batch end is a place that
can be written down; from there the same estimator goes on as if nothing had happened.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from include.datasets import Dataset
from include.datasets.sizes import size
from include.errors import NonRetryableError
from include.training.unfittable import in_own_words
from include.versions.manifest import Manifest, Role

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray

    from include.training.checkpoint import Checkpoint
    from include.training.evaluation import Evaluation

MEMORY_FRACTION = 0.25
"""Of ``memory_limit``, that a version's rows may take in memory: a fit copies them up to three times."""

_TEXT_BYTES = 32
"""What a value of no fixed width is counted with."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """How far an estimator has learned: the batch to go on with, of a pass, of a step."""

    step: int = 0
    epoch: int = 0
    batch: int = 0


@dataclass
class Learned:
    """What came of it.

    Attributes:
        estimator: The fitted model.
        evaluation: What it is worth.
        identities: For each test row the hashes of its record id, see ``hashing.identities``; each of shape (rows,).
        sample: The first test rows.
        seconds: How long each phase took: read, fit, evaluate. Reading is what fitting waited for.
    """

    estimator: Any
    evaluation: Evaluation
    identities: Sequence[NDArray[np.uint64]]
    sample: pa.Table
    seconds: dict[str, float] = field(default_factory=dict)


def chosen(dataset: Dataset, manifest: Manifest, estimator: Any) -> bool:
    """Whether a model is to learn a version batch by batch: by its definition, or because the version is too large.

    Raises:
        NonRetryableError: It would have to, and cannot.
    """
    if dataset.out_of_core == "never":
        return False
    limit, needed = size(dataset.memory_limit), rows_bytes(manifest)
    if dataset.out_of_core == "auto" and needed <= MEMORY_FRACTION * limit:
        return False
    why = refusal(estimator)
    if not why:
        return True
    if dataset.out_of_core == "always":
        raise NonRetryableError(
            f"Dataset {dataset.name!r} is defined with out_of_core='always', and {why}.",
            "Take a model whose steps all have partial_fit, or set out_of_core='auto'.",
        )
    if needed > limit:
        raise NonRetryableError(
            f"The rows of version {manifest.short} take some {needed / 1e6:,.0f} MB, the memory_limit of "
            f"{dataset.name!r} is {limit / 1e6:,.0f} MB, and {why}.",
            "Raise memory_limit, publish fewer rows, or take a model whose steps all have partial_fit.",
        )
    return False


def rows_bytes(manifest: Manifest) -> float:
    """What the version's rows take in memory, in bytes; values of no fixed width are estimated."""
    return sum(manifest.rows.values()) * sum(_width(column.type) for column in manifest.columns)


def refusal(estimator: Any) -> str:
    """Why an estimator cannot learn batch by batch; empty when it can."""
    *transformers, last = _steps(estimator)
    for step in transformers:
        if not hasattr(step, "partial_fit") and _learns(step):
            return f"the step {type(step).__name__} has no partial_fit"
    if not hasattr(last, "partial_fit") and not _is_baseline(last):
        return f"{type(last).__name__} has no partial_fit"
    return ""


def learn(
    estimator: Any, manifest: Manifest, slices: Mapping[str, str], passes: int, checkpoint: Checkpoint | None = None
) -> Learned:
    """Fits an estimator on the version's train rows and evaluates it on its test rows.

    Args:
        slices: Those of the definition, see ``evaluation.sliced``.
        passes: How often the last step sees every row.
        checkpoint: Where to go on, and to write down how far it came.

    Raises:
        VersionRefused: The version is not what its manifest says.
    """
    from include.versions.reading import prove

    seconds = {"read": 0.0}
    place = Place()
    if checkpoint is not None and (found := checkpoint.load()):
        estimator, place = found
        log.info("Going on at batch %d of pass %d of step %d.", place.batch, place.epoch + 1, place.step + 1)
    else:
        # No row may be learned of a version that is to be refused.
        started = time.perf_counter()
        prove(manifest)
        seconds["read"] += time.perf_counter() - started
    started, proven = time.perf_counter(), seconds["read"]
    _fit(estimator, manifest, passes, place, checkpoint, seconds)
    seconds["fit"] = time.perf_counter() - started - (seconds["read"] - proven)
    started = time.perf_counter()
    evaluation, identities, sample = _evaluate(estimator, manifest, slices)
    seconds["evaluate"] = time.perf_counter() - started
    return Learned(estimator, evaluation, identities, sample, seconds)


def _fit(
    estimator: Any,
    manifest: Manifest,
    passes: int,
    place: Place,
    checkpoint: Checkpoint | None,
    seconds: dict[str, float],
) -> None:
    steps = _steps(estimator)
    for number in range(place.step, len(steps)):
        last = number == len(steps) - 1
        if not last and not hasattr(steps[number], "partial_fit"):
            continue
        if last and _is_baseline(steps[number]):
            _fit_baseline(steps[number], manifest, seconds)
            continue
        for epoch in range(place.epoch if number == place.step else 0, passes if last else 1):
            first = place.batch if (number, epoch) == (place.step, place.epoch) else 0
            for batch, rows in enumerate(_timed(_batches(manifest, "train", first), seconds), first):
                with in_own_words("fitted on", manifest):
                    _learn(steps, number, rows, manifest)
                if checkpoint is not None:
                    checkpoint.reached(estimator, Place(number, epoch, batch + 1))
    if checkpoint is not None:
        checkpoint.save(estimator, Place(len(steps)))


def _learn(steps: Sequence[Any], number: int, rows: pa.RecordBatch, manifest: Manifest) -> None:
    import numpy as np

    features, target = _matrix(rows, manifest)
    for step in steps[:number]:
        features = step.transform(features)
    if number < len(steps) - 1:
        steps[number].partial_fit(features)
    elif manifest.kind == "classification":
        steps[number].partial_fit(features, target, classes=np.array(manifest.classes))
    else:
        steps[number].partial_fit(features, target)


def _fit_baseline(step: Any, manifest: Manifest, seconds: dict[str, float]) -> None:
    """Majority and mean are known from counts and a sum."""
    import numpy as np

    if manifest.kind == "regression":
        total, count = 0.0, 0
        for rows in _timed(_batches(manifest, "train"), seconds):
            target = _target(rows, manifest)
            total, count = total + float(target.sum()), count + len(target)
        step.fit(np.zeros((1, 1)), [total / count])
        return
    counts = dict.fromkeys(manifest.classes, 0)
    for rows in _timed(_batches(manifest, "train"), seconds):
        for value, count in zip(*np.unique(_target(rows, manifest), return_counts=True), strict=True):
            counts[value] += int(count)
    seen = [name for name in manifest.classes if counts[name]]
    step.fit(np.zeros((len(seen), 1)), np.array(seen), sample_weight=[counts[name] for name in seen])


def _evaluate(
    estimator: Any, manifest: Manifest, slices: Mapping[str, str]
) -> tuple[Evaluation, Sequence[NDArray[np.uint64]], pa.Table]:
    import numpy as np
    import pyarrow as pa

    from include.datasets import hashing
    from include.training.evaluation import evaluate, sliced

    tested = manifest.rows["test"]
    answers, sample = Answers(estimator, tested), None
    ids: list[Sequence[NDArray[np.uint64]]] = []
    targets: NDArray[Any] | None = None
    cut: list[dict[str, NDArray[Any]]] = []
    start = 0
    for rows in _batches(manifest, "test"):
        table, end = pa.Table.from_batches([rows]), start + rows.num_rows
        features, target = _matrix(rows, manifest)
        with in_own_words("evaluated on", manifest):
            answers.ask(features, start)
        targets = _put(targets, tested, start, target)
        ids.append(hashing.identities(table[manifest.record_id]))
        cut.append(sliced(table, slices))
        sample, start = sample or table, end
    assert sample is not None and targets is not None
    names = [name for name in slices if all(name in found for found in cut)]
    parts = {name: np.concatenate([found[name] for found in cut]) for name in names}
    identities = [np.concatenate(found) for found in zip(*ids, strict=True)]
    return evaluate(answers, range(tested), targets, manifest, parts), identities, sample


class Answers:
    """What a model has answered, batch by batch; asked again, for all rows together, it has the answers ready.

    Args:
        rows: How many rows there will be.
    """

    def __init__(self, model: Any, rows: int) -> None:
        self._model = model
        self._rows = rows
        self._predicted: NDArray[Any] | None = None
        self._chances: NDArray[Any] | None = None
        if hasattr(model, "predict_proba"):
            self.predict_proba = lambda _: self._chances
            self.classes_ = model.classes_

    def ask(self, features: pd.DataFrame, start: int) -> None:
        """Lets the model answer for some rows, of which the first has that number."""
        self._predicted = _put(self._predicted, self._rows, start, self._model.predict(features))
        if hasattr(self, "predict_proba"):
            self._chances = _put(self._chances, self._rows, start, self._model.predict_proba(features))

    def predict(self, _: object) -> Any:
        """All predictions, in the order of the rows."""
        return self._predicted


def _batches(manifest: Manifest, split: Role, first: int = 0) -> Iterator[pa.RecordBatch]:
    from include.versions.reading import in_order

    return in_order(manifest, split, first)


def _timed(batches: Iterator[pa.RecordBatch], seconds: dict[str, float]) -> Iterator[pa.RecordBatch]:
    while True:
        started = time.perf_counter()
        rows = next(batches, None)
        seconds["read"] += time.perf_counter() - started
        if rows is None:
            return
        yield rows


def _matrix(rows: pa.RecordBatch, manifest: Manifest) -> tuple[pd.DataFrame, NDArray[Any]]:
    return rows.select(manifest.features).to_pandas(), _target(rows, manifest)


def _target(rows: pa.RecordBatch, manifest: Manifest) -> Any:
    return rows.column(manifest.target).to_numpy(zero_copy_only=False)


def _steps(estimator: Any) -> list[Any]:
    """The steps of a pipeline, pipelines inside it taken apart; another estimator is one step."""
    from sklearn.pipeline import Pipeline

    if not isinstance(estimator, Pipeline):
        return [estimator]
    inner = [step for _, step in estimator.steps if step is not None and step != "passthrough"]
    return [part for step in inner for part in _steps(step)]


def _learns(step: Any) -> bool:
    from sklearn.utils import get_tags

    return bool(get_tags(step).requires_fit)


def _is_baseline(step: Any) -> bool:
    from sklearn.dummy import DummyClassifier, DummyRegressor

    return isinstance(step, DummyClassifier | DummyRegressor) and step.strategy in ("prior", "most_frequent", "mean")


def _put(into: NDArray[Any] | None, rows: int, start: int, values: NDArray[Any]) -> NDArray[Any]:
    """Values at their place in an array of all rows, which the first of them make."""
    import numpy as np

    if into is None:
        into = np.empty((rows, *values.shape[1:]), values.dtype)
    into[start : start + len(values)] = values
    return into


def _width(type_: str) -> float:
    import pyarrow as pa

    try:
        return float(pa.type_for_alias(type_).bit_width) / 8
    except ValueError:
        return _TEXT_BYTES
