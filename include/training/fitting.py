"""Fitting: one model of a run, from the sealed version to its result in Postgres."""

from __future__ import annotations

import hashlib
import logging
import resource
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from include.datasets import Dataset
from include.datasets.definition import BASELINE
from include.datasets.sizes import size
from include.durations import duration
from include.errors import NonRetryableError
from include.forked import Killed
from include.provenance import library_versions
from include.registry import probe
from include.registry.artifact import UntrustedArtifact, dumps, loads
from include.training import grid, limits, out_of_core
from include.training.checkpoint import Checkpoint
from include.training.evaluation import Evaluation, evaluate, sliced
from include.training.out_of_core import Learned
from include.training.preparation import prepared
from include.training.run_log import logging_to_run
from include.training.unfittable import in_own_words
from include.versions import leakage
from include.versions.leakage import Repeats
from include.versions.manifest import SPLITS, Manifest, decode
from include.warehouse import queries
from include.warehouse.connection import lasting

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray
    from psycopg2.extensions import connection as Connection

PIECE_BYTES = 2 * 2**20
"""Of what is sent to PostgreSQL at once: as part of a statement it takes five times as much memory."""

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
        identities: The hashes of the test records' ids by every rule, see ``hashing.identities``.
        probe: Some test rows with the model's predictions, see ``probe.record``.
        passes: How often it saw every row, batch by batch; None: all rows were in memory.
        seconds: How long each phase took: read, fit, evaluate.
    """

    unfitted: bytes
    fitted: bytes
    parameters: dict[str, Any]
    evaluation: Evaluation
    outcomes: bytes
    identities: Sequence[NDArray[np.uint64]]
    probe: bytes
    passes: int | None
    seconds: dict[str, float] = field(default_factory=dict)


def fit(dataset: Dataset, run: int, model: str) -> None:
    """Reads the run's version, fits one model of the dataset and writes its result; a former try's is replaced.

    That happens in a process of its own, within the limits of the definition.

    Raises:
        Exceeded: It takes more memory or time than it may.
        UserError: The version is refused, or Kafka or Postgres does not answer.
    """
    about = f"Model {model!r} of dataset {dataset.name!r}"
    seconds = duration(dataset.time_limit).total_seconds()
    try:
        limits.within(size(dataset.memory_limit), seconds, about, lambda: _fit(dataset, run, model))
    except (limits.Exceeded, Killed):
        # Who was ended has written nothing about it.
        with logging_to_run(run, model):
            raise


def _fit(dataset: Dataset, run: int, model: str) -> None:
    with lasting(f"millrace train {dataset.name} {model}") as connection, logging_to_run(run, model, connection):
        _, seed, manifest, parameters = queries.load("training").run_plan(connection(), run=run)
        connection().rollback()
        sealed = decode(bytes(manifest))
        estimator = prepared(grid.estimators(dataset, parameters.get("grid"))[model], seed)
        log.info("Fitting %s with the seed %d.", model, seed)
        passes = dataset.passes if out_of_core.chosen(dataset, sealed, estimator) else None
        plan = f"{sealed.version} {passes} {library_versions()} {sorted(_parameters(estimator).items())}"
        checkpoint = Checkpoint(run, model, plan, connection, dataset.trusted)
        fitted = derive(estimator, sealed, dataset.slices, passes, checkpoint)
        _require_loadable(model, fitted, dataset.trusted)
        # Once for each run is enough, and the baseline has the least to do.
        repeats = _repeats(sealed) if model == BASELINE else None
        _store(connection(), run, model, sealed, fitted)
        if repeats is not None:
            queries.load("training").add_repeats(connection(), version=sealed.version, **asdict(repeats))
        connection().commit()


def _require_loadable(model: str, fitted: Fitted, trusted: Collection[str]) -> None:
    """A model that cannot be loaded, or then predicts otherwise, is no result: it could become champion.

    Raises:
        NonRetryableError: It cannot be, and why.
    """
    try:
        loaded = loads(fitted.fitted, hashlib.sha256(fitted.fitted).hexdigest(), trusted)
        probe.recheck(loaded, fitted.probe)
    except (UntrustedArtifact, probe.PredictionMismatch) as error:
        raise NonRetryableError(
            f"Model {model!r} was fitted, but cannot be used: {error.what}", error.remedy
        ) from error


def derive(
    estimator: Any,
    manifest: Manifest,
    slices: Mapping[str, str],
    passes: int | None = None,
    checkpoint: Checkpoint | None = None,
) -> Fitted:
    """Reads a version, fits an estimator on its train rows and evaluates it on its test rows; no result is written.

    Training and verification both come here: the same estimator and the same version give the same predictions.

    Args:
        slices: Those of the definition, see ``evaluation.sliced``.
        passes: How often the estimator sees every row, batch by batch; None: all rows are in memory.
        checkpoint: Where to go on with passes, and to note how far they came.

    Raises:
        VersionRefused: The version is not what its manifest says.
    """
    from threadpoolctl import threadpool_limits

    unfitted, parameters = dumps(estimator), _parameters(estimator)
    # One thread for each model: predictions depend on the number of threads in their last bits, and several models
    # that each take every core are slower than one after the other.
    with threadpool_limits(1):
        if passes is None:
            learned = _learn(estimator, manifest, slices)
        else:
            learned = out_of_core.learn(estimator, manifest, slices, passes, checkpoint)
        probed = probe.record(learned.estimator, learned.sample.select(manifest.features))
    best = learned.evaluation.metrics[0]
    log.info("Fitted in %.2f s: %s %.4f.", learned.seconds["fit"], best.name, best.value)
    outcomes = _outcomes(learned.identities[0], manifest, learned.evaluation)
    return Fitted(
        unfitted=unfitted,
        fitted=dumps(learned.estimator),
        parameters=parameters,
        evaluation=learned.evaluation,
        outcomes=outcomes,
        identities=learned.identities,
        probe=probed,
        passes=passes,
        seconds=learned.seconds,
    )


def _learn(estimator: Any, manifest: Manifest, slices: Mapping[str, str]) -> Learned:
    from include.datasets.hashing import identities
    from include.versions.reading import read

    seconds: dict[str, float] = {}
    with _timed(seconds, "read"):
        rows = read(manifest)
        train_features, train_target = _matrix(rows.train, manifest)
        test_features, test_target = _matrix(rows.test, manifest)
    log.info("Read %d train and %d test rows in %.2f s.", len(train_target), len(test_target), seconds["read"])
    with _timed(seconds, "fit"), in_own_words("fitted on", manifest):
        estimator.fit(train_features, train_target)
    with _timed(seconds, "evaluate"), in_own_words("evaluated on", manifest):
        evaluation = evaluate(estimator, test_features, test_target, manifest, sliced(rows.test, slices))
    return Learned(estimator, evaluation, identities(rows.test[manifest.record_id]), rows.test, seconds)


def _repeats(manifest: Manifest) -> Repeats:
    from include.versions.reading import in_order

    train, test = (in_order(manifest, split) for split in SPLITS)
    found = leakage.repeats(train, test, manifest.features)
    if found.shared:
        log.warning(
            "%d of %d test records have the very features of a training record: a model can know them by heart.",
            *(found.shared, manifest.rows["test"]),
        )
    return found


def _matrix(rows: pa.Table, manifest: Manifest) -> tuple[pd.DataFrame, NDArray[Any]]:
    # The frame takes over the columns; in one block it would be another copy of all rows.
    return rows.select(manifest.features).to_pandas(split_blocks=True), rows[manifest.target].to_numpy()


def _outcomes(ids: NDArray[Any], manifest: Manifest, evaluation: Evaluation) -> bytes:
    import pyarrow as pa

    from include.versions.packing import stream

    kind = "error" if manifest.kind == "regression" else "correct"
    columns = {"id": ids, "row": pa.array(range(len(ids)), pa.int32()), kind: pa.array(evaluation.outcome)}
    return stream(pa.record_batch(columns))


def _store(connection: Connection, run: int, model: str, manifest: Manifest, fitted: Fitted) -> None:
    sql, evaluation = queries.load("training"), fitted.evaluation
    sql.drop_result(connection, run=run, model=model)
    sql.drop_checkpoint(connection, run=run, model=model)
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
        outcomes=fitted.outcomes[:PIECE_BYTES],
        predictions_sha256=evaluation.predictions,
        probe=fitted.probe,
        passes=fitted.passes,
    )
    for start in range(PIECE_BYTES, len(fitted.outcomes), PIECE_BYTES):
        sql.append_outcomes(connection, result=result, piece=fitted.outcomes[start : start + PIECE_BYTES])
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
