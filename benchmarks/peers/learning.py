"""Ways to learn from many rows, each in a process: called with its name, it prints its figures as JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from benchmarks.peers import process, publishing
from include.datasets import Dataset, HashSplit
from include.training import dispatch, fitting, run
from include.versions.manifest import Interval
from include.versions.publication import publish

MODEL, MEMORY_LIMIT = "sgd", "500 MB"


def models() -> dict[str, Any]:
    """A scaler and a linear model, which both have ``partial_fit``."""
    from sklearn.linear_model import SGDClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return {MODEL: make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", random_state=0))}


def dataset(name: str, file: str) -> Dataset:
    """The rows of the file, a tenth of them for testing, with a memory limit that they exceed."""
    return replace(publishing.dataset(name, file), split=HashSplit(test=0.1), models=models, memory_limit=MEMORY_LIMIT)


def prepare(name: str, file: str) -> dict[str, float]:
    """Publishes and lands the version, and starts two runs."""
    publishing.isolate(name, dispatch)
    found = dataset(name, file)
    measured = _timed(lambda: publish(found, Interval()))
    dispatch.land("bench")
    runs = {f"run_{number}": run.begin(found, f"run {number}", {}, "bench")[0]["run"] for number in (0, 1)}
    return {**measured, **runs}


def fit(name: str, file: str, number: str) -> dict[str, float]:
    """Fits the model as the DAG's task does."""
    return _timed(lambda: fitting.fit(dataset(name, file), int(number), MODEL))


def bare(file: str, train_rows: str) -> dict[str, float]:
    """The same model on the same number of rows, in batches: first the scaler, then the model, then a score."""
    import numpy as np
    from pyarrow import parquet
    from threadpoolctl import threadpool_limits

    from include.versions.packing import rows_of_a_message

    scaler, model = (step for _, step in models()[MODEL].steps)
    most, right, tested = int(train_rows), 0, 0

    def work() -> None:
        nonlocal right, tested
        with parquet.ParquetFile(file) as rows, threadpool_limits(1):
            names = [name for name in rows.schema_arrow.names if name.startswith("x")]
            size = rows_of_a_message(rows.schema_arrow)
            for learning in (scaler, model):
                seen = 0
                for batch in rows.iter_batches(size):
                    features, target = batch.select(names).to_pandas(), batch.column("target").to_numpy()
                    seen += len(target)
                    if seen <= most:
                        if learning is scaler:
                            scaler.partial_fit(features)
                        else:
                            model.partial_fit(scaler.transform(features), target, classes=np.array([0, 1]))
                    elif learning is model:
                        right += int((model.predict(scaler.transform(features)) == target).sum())
                        tested += len(target)

    return {**_timed(work), "accuracy": right / max(1, tested)}


def _timed(work: Callable[[], object]) -> dict[str, float]:
    started = time.perf_counter()
    work()
    return {"seconds": time.perf_counter() - started, "peak_rss": process.peak_rss()}


if __name__ == "__main__":
    ways: dict[str, Callable[..., dict[str, float]]] = {way.__name__: way for way in (prepare, fit, bare)}
    print(json.dumps(ways[sys.argv[1]](*sys.argv[2:])))
