"""Out of core: a model learns a version in batches, in batch order, and holds one batch in memory at a time."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from include.datasets import Dataset
from include.datasets.sizes import size
from include.error_codes import Code
from include.errors import NonRetryableError
from include.training.partial_fit import PartialFit, batches_of, is_baseline, matrix, steps
from include.training.progress import Progress
from include.training.unfittable import estimator_errors
from include.versions.manifest import Manifest

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray

    from include.training.checkpoint import Checkpoint
    from include.training.evaluation import Evaluation

MEMORY_FRACTION = 0.25
"""The share of ``memory_limit`` that a version's rows may take: a fit copies them up to three times."""

_TEXT_BYTES = 32
"""The assumed size of a value without a fixed width."""

log = logging.getLogger(__name__)


@dataclass
class Learned:
    """A fitted model and its evaluation.

    Attributes:
        estimator: The fitted model.
        evaluation: Its metrics and outcomes.
        identities: The hashes of the test rows' record ids, see ``hashing.identities``; each of shape (rows,).
        sample: The first test rows.
        seconds: The duration of each phase: read, fit, evaluate. ``read`` is the time that the fit waited for rows.
    """

    estimator: Any
    evaluation: Evaluation
    identities: Sequence[NDArray[np.uint64]]
    sample: pa.Table
    seconds: dict[str, float] = field(default_factory=dict)


def chosen(dataset: Dataset, manifest: Manifest, estimator: Any) -> bool:
    """Whether a model learns the version in batches: because of its definition, or because the version is too large.

    Raises:
        NonRetryableError: The model must learn in batches, and cannot.
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
            f"Dataset {dataset.name!r} has out_of_core='always', but {why}.",
            "Use a model whose steps all have partial_fit, or set out_of_core='auto'.",
            code=Code.PARTIAL_FIT_MISSING,
        )
    if needed > limit:
        raise NonRetryableError(
            f"The rows of version {manifest.short} need about {needed / 1e6:,.0f} MB, more than the memory_limit of "
            f"{dataset.name!r} ({limit / 1e6:,.0f} MB), and {why}.",
            "Raise memory_limit, publish fewer rows, or use a model whose steps all have partial_fit.",
            code=Code.PARTIAL_FIT_MISSING,
        )
    return False


def rows_bytes(manifest: Manifest) -> float:
    """The memory that the version's rows take, in bytes; values without a fixed width are estimated."""
    return sum(manifest.rows.values()) * sum(_width(column.type) for column in manifest.columns)


def refusal(estimator: Any) -> str:
    """Why an estimator cannot learn in batches; empty when it can."""
    *transformers, last = steps(estimator)
    for step in transformers:
        if not hasattr(step, "partial_fit") and _is_stateful(step):
            return f"the step {type(step).__name__} has no partial_fit"
    if not hasattr(last, "partial_fit") and not is_baseline(last):
        return f"{type(last).__name__} has no partial_fit"
    return ""


def learn(
    estimator: Any, manifest: Manifest, slices: Mapping[str, str], passes: int, checkpoint: Checkpoint | None = None
) -> Learned:
    """Fits an estimator on the version's train rows and evaluates it on its test rows.

    Args:
        slices: Those of the definition, see ``slices.sliced``.
        passes: How often the last step learns from every row.
        checkpoint: Where to continue from, and to store the progress.

    Raises:
        VersionRefused: The version does not match its manifest.
    """
    from include.versions.reading import prove

    progress, prove_s = Progress(), 0.0
    if checkpoint is not None and (found := checkpoint.load()):
        estimator, progress = found
        log.info("Continuing at batch %d of pass %d of step %d.", progress.batch, progress.epoch + 1, progress.step + 1)
    else:
        # The model must not learn a row of a version that is refused later.
        started = time.perf_counter()
        prove(manifest)
        prove_s = time.perf_counter() - started
    started = time.perf_counter()
    fit = PartialFit(estimator, manifest, passes, checkpoint)
    fit.run(progress)
    fit_s = time.perf_counter() - started - fit.read_s
    started = time.perf_counter()
    evaluation, identities, sample = _evaluate(estimator, manifest, slices)
    seconds = {"read": prove_s + fit.read_s, "fit": fit_s, "evaluate": time.perf_counter() - started}
    return Learned(estimator, evaluation, identities, sample, seconds)


def _evaluate(
    estimator: Any, manifest: Manifest, slices: Mapping[str, str]
) -> tuple[Evaluation, Sequence[NDArray[np.uint64]], pa.Table]:
    import numpy as np
    import pyarrow as pa

    from include.datasets import hashing
    from include.training.evaluation import evaluate
    from include.training.slices import sliced

    tested = manifest.rows["test"]
    predictions, sample = BatchPredictions(estimator, tested), None
    ids: list[Sequence[NDArray[np.uint64]]] = []
    targets: NDArray[Any] | None = None
    cut: list[dict[str, NDArray[Any]]] = []
    start = 0
    for rows in batches_of(manifest, "test"):
        table, end = pa.Table.from_batches([rows]), start + rows.num_rows
        features, target = matrix(rows, manifest)
        with estimator_errors("evaluated on", manifest):
            predictions.add(features, start)
        targets = _put(targets, tested, start, target)
        ids.append(hashing.identities(table[manifest.record_id]))
        cut.append(sliced(table, slices))
        sample, start = sample or table, end
    assert sample is not None and targets is not None
    names = [name for name in slices if all(name in found for found in cut)]
    parts = {name: np.concatenate([found[name] for found in cut]) for name in names}
    identities = [np.concatenate(found) for found in zip(*ids, strict=True)]
    return evaluate(predictions, range(tested), targets, manifest, parts), identities, sample


class BatchPredictions:
    """Collects a model's predictions batch by batch; ``evaluate`` uses it like the model.

    Args:
        rows: The number of rows of all batches.
    """

    def __init__(self, model: Any, rows: int) -> None:
        self._model = model
        self._rows = rows
        self._predicted: NDArray[Any] | None = None
        self._probabilities: NDArray[Any] | None = None
        if hasattr(model, "predict_proba"):
            self.predict_proba = lambda _: self._probabilities
            self.classes_ = model.classes_

    def add(self, features: pd.DataFrame, start: int) -> None:
        """Predicts a batch; ``start`` is the number of its first row."""
        self._predicted = _put(self._predicted, self._rows, start, self._model.predict(features))
        if hasattr(self, "predict_proba"):
            self._probabilities = _put(self._probabilities, self._rows, start, self._model.predict_proba(features))

    def predict(self, _: object) -> Any:
        """The predictions of all rows, in their order."""
        return self._predicted


def _is_stateful(step: Any) -> bool:
    from sklearn.utils import get_tags

    return bool(get_tags(step).requires_fit)


def _put(into: NDArray[Any] | None, rows: int, start: int, values: NDArray[Any]) -> NDArray[Any]:
    """Writes a batch's values into an array of all rows, which the first batch creates."""
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
