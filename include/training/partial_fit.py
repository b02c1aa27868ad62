"""Partial fits: fits an estimator on a version's train rows batch by batch, one step of its pipeline after the other.

Each step reads the train rows by itself: the transformers learn first, each from what the steps before it make of the
rows, then the model learns. The end of a batch, a pass and a step is a ``Progress`` that a checkpoint stores; a fit
that continues from there gives the same model as one that was never interrupted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from include.training.progress import Progress
from include.training.unfittable import estimator_errors
from include.versions.manifest import Manifest, Role

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray

    from include.training.checkpoint import Checkpoint


class PartialFit:
    """One fit of an estimator, which it changes in place.

    Args:
        passes: How often the last step learns from every row; the steps before it learn once.
        checkpoint: Where to store the progress, if anywhere.

    Attributes:
        read_s: Seconds spent waiting for rows.
    """

    def __init__(self, estimator: Any, manifest: Manifest, passes: int, checkpoint: Checkpoint | None) -> None:
        self._estimator = estimator
        self._steps = steps(estimator)
        self._manifest = manifest
        self._passes = passes
        self._checkpoint = checkpoint
        self.read_s = 0.0

    def run(self, progress: Progress) -> None:
        """Fits all steps, from ``progress`` on."""
        for number in range(progress.step, len(self._steps)):
            step, is_last = self._steps[number], number == len(self._steps) - 1
            if is_last and is_baseline(step):
                self._fit_baseline(step)
            elif is_last or hasattr(step, "partial_fit"):
                start = progress if number == progress.step else Progress(number)
                self._fit_step(number, start, self._passes if is_last else 1)
        if self._checkpoint is not None:
            self._checkpoint.save(self._estimator, Progress(len(self._steps)))

    def _fit_step(self, number: int, start: Progress, passes: int) -> None:
        for epoch in range(start.epoch, passes):
            first = start.batch if epoch == start.epoch else 0
            for batch, rows in enumerate(self._batches(first), first):
                with estimator_errors("fitted on", self._manifest):
                    self._learn(number, rows)
                if self._checkpoint is not None:
                    self._checkpoint.reached(self._estimator, Progress(number, epoch, batch + 1))

    def _learn(self, number: int, rows: pa.RecordBatch) -> None:
        import numpy as np

        step = self._steps[number]
        features: Any
        features, target = matrix(rows, self._manifest)
        for before in self._steps[:number]:
            features = before.transform(features)
        if number < len(self._steps) - 1:
            step.partial_fit(features)
        elif self._manifest.kind == "classification":
            step.partial_fit(features, target, classes=np.array(self._manifest.classes))
        else:
            step.partial_fit(features, target)

    def _fit_baseline(self, step: Any) -> None:
        """Fits the majority class from counts, or the mean from a sum."""
        import numpy as np

        if self._manifest.kind == "regression":
            total, count = 0.0, 0
            for rows in self._batches():
                target = target_of(rows, self._manifest)
                total, count = total + float(target.sum()), count + len(target)
            step.fit(np.zeros((1, 1)), [total / count])
            return
        counts = dict.fromkeys(self._manifest.classes, 0)
        for rows in self._batches():
            for value, count in zip(*np.unique(target_of(rows, self._manifest), return_counts=True), strict=True):
                counts[value] += int(count)
        seen = [name for name in self._manifest.classes if counts[name]]
        step.fit(np.zeros((len(seen), 1)), np.array(seen), sample_weight=[counts[name] for name in seen])

    def _batches(self, first: int = 0) -> Iterator[pa.RecordBatch]:
        batches = batches_of(self._manifest, "train", first)
        while True:
            started = time.perf_counter()
            rows = next(batches, None)
            self.read_s += time.perf_counter() - started
            if rows is None:
                return
            yield rows


def steps(estimator: Any) -> list[Any]:
    """The steps of a pipeline, with nested pipelines flattened; any other estimator is one step."""
    from sklearn.pipeline import Pipeline

    if not isinstance(estimator, Pipeline):
        return [estimator]
    inner = [step for _, step in estimator.steps if step is not None and step != "passthrough"]
    return [part for step in inner for part in steps(step)]


def is_baseline(step: Any) -> bool:
    """Whether a step is the majority class or the mean, which need no ``partial_fit``."""
    from sklearn.dummy import DummyClassifier, DummyRegressor

    return isinstance(step, DummyClassifier | DummyRegressor) and step.strategy in ("prior", "most_frequent", "mean")


def batches_of(manifest: Manifest, split: Role, first: int = 0) -> Iterator[pa.RecordBatch]:
    """The batches of one split in their order, from number ``first`` on."""
    from include.versions.reading import in_order

    return in_order(manifest, split, first)


def matrix(rows: pa.RecordBatch, manifest: Manifest) -> tuple[pd.DataFrame, NDArray[Any]]:
    """The features and the target of a batch."""
    return rows.select(manifest.features).to_pandas(), target_of(rows, manifest)


def target_of(rows: pa.RecordBatch, manifest: Manifest) -> Any:
    """The target of a batch, shape (rows,)."""
    return rows.column(manifest.target).to_numpy(zero_copy_only=False)
