"""Fitting: one model of a run, from the sealed version to its result in Postgres."""

from __future__ import annotations

import hashlib
import logging
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from include.datasets import Dataset
from include.training import grid, probe
from include.training.artifact import dumps
from include.training.evaluation import Evaluation, evaluate, sliced
from include.training.grid import Grid
from include.training.journal import journal
from include.versions.manifest import Manifest, decode
from include.warehouse import queries
from include.warehouse.connection import lasting

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray
    from psycopg2.extensions import connection as Connection

log = logging.getLogger(__name__)


@dataclass
class Fitted:
    """A fitted model and how it came about.

    Attributes:
        unfitted: The estimator before the fit, by skops.
        fitted: The model, by skops.
        parameters: The estimator's parameters, nested ones with ``__``, as text where JSON has no such type.
        evaluation: What it is worth.
        outcomes: For each test record an Arrow stream of its id's hash, its row and its outcome.
        probe: Some test rows with the model's predictions, see ``probe.record``.
        seconds: How long each phase took: read, fit, evaluate.
    """

    unfitted: bytes
    fitted: bytes
    parameters: dict[str, Any]
    evaluation: Evaluation
    outcomes: bytes
    probe: bytes
    seconds: dict[str, float] = field(default_factory=dict)


def fit(dataset: Dataset, run: int, model: str) -> None:
    """Reads the run's version, fits one model of the dataset and writes its result; a former try's is replaced.

    Raises:
        Refused: The version is not what its manifest says.
        UserError: Kafka or Postgres does not answer.
    """
    with journal(run, model), lasting(f"millrace train {dataset.name} {model}") as connection:
        _, seed, manifest, parameters = queries.load("training").run_plan(connection(), run=run)
        connection().rollback()
        sealed = decode(bytes(manifest))
        fitted = train(dataset, sealed, model, seed, parameters.get("grid"))
        _store(connection(), run, model, sealed, fitted)
        connection().commit()


def train(dataset: Dataset, manifest: Manifest, model: str, seed: int, candidates: Grid | None = None) -> Fitted:
    """Reads a version, fits one model on its train rows and evaluates it on its test rows; nothing is written.

    Args:
        model: One of the dataset's, or of the candidates of a grid.
    """
    from threadpoolctl import threadpool_limits

    from include.versions.reading import read

    seconds: dict[str, float] = {}
    with _timed(seconds, "read"):
        rows = read(manifest)
        train_features, train_target = _matrix(rows.train, manifest)
        test_features, test_target = _matrix(rows.test, manifest)
    log.info("Read %d train and %d test rows in %.2f s.", len(train_target), len(test_target), seconds["read"])
    estimator = seeded(grid.estimators(dataset, candidates)[model], seed)
    unfitted = dumps(estimator)
    # One thread for each model: predictions depend on the number of threads in their last bits, and several models
    # that each take every core are slower than one after the other.
    with threadpool_limits(1):
        with _timed(seconds, "fit"):
            estimator.fit(train_features, train_target)
        with _timed(seconds, "evaluate"):
            slices = sliced(rows.test, dataset.slices)
            evaluation = evaluate(estimator, test_features, test_target, manifest, slices)
        probed = probe.record(estimator, rows.test.select(manifest.features))
    best = evaluation.metrics[0]
    log.info("Fitted %s in %.2f s: %s %.4f.", model, seconds["fit"], best.name, best.value)
    outcomes = _outcomes(rows.test, manifest, evaluation)
    return Fitted(unfitted, dumps(estimator), _parameters(estimator), evaluation, outcomes, probed, seconds)


def seeded(estimator: Any, seed: int) -> Any:
    """The estimator with every random state that is left open set to the seed, also inside pipelines."""
    open_states = {
        name: seed
        for name, value in estimator.get_params(deep=True).items()
        if name.rpartition("__")[2] == "random_state" and value is None
    }
    return estimator.set_params(**open_states)


def _matrix(rows: pa.Table, manifest: Manifest) -> tuple[pd.DataFrame, NDArray[Any]]:
    return rows.select(manifest.features).to_pandas(), rows[manifest.target].to_numpy()


def _outcomes(rows: pa.Table, manifest: Manifest, evaluation: Evaluation) -> bytes:
    import pyarrow as pa

    from include.datasets.hashing import hash64
    from include.versions.publication import stream

    kind = "error" if manifest.kind == "regression" else "correct"
    columns = {
        "id": hash64(rows[manifest.record_id]),
        "row": pa.array(range(rows.num_rows), pa.int32()),
        kind: pa.array(evaluation.outcome),
    }
    return stream(pa.record_batch(columns))


def _store(connection: Connection, run: int, model: str, manifest: Manifest, fitted: Fitted) -> None:
    sql, evaluation = queries.load("training"), fitted.evaluation
    sql.drop_result(connection, run=run, model=model)
    result = sql.add_result(
        connection,
        run=run,
        model=model,
        parameters=msgspec.json.encode(fitted.parameters).decode(),
        train_rows=manifest.rows["train"],
        test_rows=manifest.rows["test"],
        read_s=fitted.seconds["read"],
        fit_s=fitted.seconds["fit"],
        evaluate_s=fitted.seconds["evaluate"],
        peak_memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        unfitted=fitted.unfitted,
        fitted=fitted.fitted,
        fitted_sha256=hashlib.sha256(fitted.fitted).hexdigest(),
        outcomes=fitted.outcomes,
        probe=fitted.probe,
    )
    metrics, classes = evaluation.metrics, evaluation.classes
    sql.add_metrics(
        connection,
        result=result,
        names=[metric.name for metric in metrics],
        values=[metric.value for metric in metrics],
        lows=[metric.low for metric in metrics],
        highs=[metric.high for metric in metrics],
    )
    sql.add_class_metrics(
        connection,
        result=result,
        classes=[found.name for found in classes],
        precisions=[found.precision for found in classes],
        recalls=[found.recall for found in classes],
        f1s=[found.f1 for found in classes],
        supports=[found.support for found in classes],
    )
    flat = [(part, metric) for part in evaluation.parts for metric in part.metrics]
    sql.add_slice_metrics(
        connection,
        result=result,
        slices=[part.slice for part, _ in flat],
        parts=[part.value for part, _ in flat],
        rows=[part.rows for part, _ in flat],
        names=[metric.name for _, metric in flat],
        values=[metric.value for _, metric in flat],
        lows=[metric.low for _, metric in flat],
        highs=[metric.high for _, metric in flat],
    )
    sql.add_confusion(
        connection,
        result=result,
        actual=[actual for actual, _, _ in evaluation.confusion],
        predicted=[predicted for _, predicted, _ in evaluation.confusion],
        counts=[count for _, _, count in evaluation.confusion],
    )


def _parameters(estimator: Any) -> dict[str, Any]:
    plain = (str, int, float, bool, type(None))
    return {
        name: value if isinstance(value, plain) else repr(value)
        for name, value in estimator.get_params(deep=True).items()
    }


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[phase] = time.perf_counter() - started
