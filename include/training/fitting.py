"""Fitting: trains one model of a run on a sealed version, and stores the result in PostgreSQL."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from include.datasets import Dataset
from include.datasets.definition import BASELINE
from include.datasets.sizes import size
from include.durations import duration
from include.errors import NonRetryableError
from include.forked import Killed
from include.provenance import library_versions
from include.registry import probe
from include.registry.artifact import UntrustedArtifact, dumps, loads
from include.training import grid, limits, out_of_core, results
from include.training.checkpoint import Checkpoint
from include.training.evaluation import Evaluation, evaluate
from include.training.out_of_core import Learned
from include.training.preparation import prepared
from include.training.results import Fitted
from include.training.run_log import logging_to_run
from include.training.slices import sliced
from include.training.unfittable import estimator_errors
from include.versions import leakage
from include.versions.leakage import Repeats
from include.versions.manifest import SPLITS, Manifest, decode
from include.warehouse import queries
from include.warehouse.connection import reconnecting

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray

log = logging.getLogger(__name__)


def fit(dataset: Dataset, run: int, model: str) -> None:
    """Reads the run's version, fits one model of the dataset and stores its result; an earlier try's is replaced.

    The work runs in a child process, within the limits of the definition.

    Raises:
        Exceeded: The fit exceeded a limit.
        UserError: The version is refused, or Kafka or PostgreSQL is unavailable.
    """
    about = f"Model {model!r} of dataset {dataset.name!r}"
    seconds = duration(dataset.time_limit).total_seconds()
    try:
        limits.within(size(dataset.memory_limit), seconds, about, lambda: _fit(dataset, run, model))
    except (limits.Exceeded, Killed):
        # A killed process could not log the error itself.
        with logging_to_run(run, model):
            raise


def _fit(dataset: Dataset, run: int, model: str) -> None:
    with reconnecting(f"millrace train {dataset.name} {model}") as connection, logging_to_run(run, model, connection):
        _, seed, manifest, parameters = queries.load("training").run_plan(connection(), run=run)
        connection().rollback()
        sealed = decode(bytes(manifest))
        estimator = prepared(grid.estimators(dataset, parameters.get("grid"))[model], seed)
        log.info("Fitting %s with seed %d.", model, seed)
        passes = dataset.passes if out_of_core.chosen(dataset, sealed, estimator) else None
        plan = f"{sealed.version} {passes} {library_versions()} {sorted(_parameters(estimator).items())}"
        checkpoint = Checkpoint(run, model, plan, connection, dataset.trusted)
        fitted = derive(estimator, sealed, dataset.slices, passes, checkpoint)
        _require_loadable(model, fitted, dataset.trusted)
        # Counted once for each run, by the task with the least work.
        repeats = _repeats(sealed) if model == BASELINE else None
        results.store(connection(), run, model, sealed, fitted)
        if repeats is not None:
            queries.load("training").add_repeats(connection(), version=sealed.version, **asdict(repeats))
        connection().commit()


def _require_loadable(model: str, fitted: Fitted, trusted: Collection[str]) -> None:
    """Checks that a model can be loaded and then predicts the same: any result may become champion.

    Raises:
        NonRetryableError: It cannot be loaded, or predicts something else.
    """
    try:
        loaded = loads(fitted.fitted, hashlib.sha256(fitted.fitted).hexdigest(), trusted)
        probe.recheck(loaded, fitted.probe)
    except (UntrustedArtifact, probe.PredictionMismatch) as error:
        what = f"Model {model!r} was fitted, but cannot be used: {error.what}"
        raise NonRetryableError(what, error.remedy, code=error.code) from error


def derive(
    estimator: Any,
    manifest: Manifest,
    slices: Mapping[str, str],
    passes: int | None = None,
    checkpoint: Checkpoint | None = None,
) -> Fitted:
    """Reads a version, fits an estimator on its train rows and evaluates it on its test rows; stores no result.

    Training and verification both use it: the same estimator and the same version give the same predictions.

    Args:
        slices: Those of the definition, see ``slices.sliced``.
        passes: How often an estimator that learns in batches reads every row; None holds all rows in memory.
        checkpoint: Where a fit in batches continues from, and stores its progress.

    Raises:
        VersionRefused: The version does not match its manifest.
    """
    from threadpoolctl import threadpool_limits

    unfitted, parameters = dumps(estimator), _parameters(estimator)
    # One thread for each model: the last bits of predictions depend on the number of threads, and models that each use
    # every core are slower side by side than one after the other.
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
    with _timed(seconds, "fit"), estimator_errors("fitted on", manifest):
        estimator.fit(train_features, train_target)
    with _timed(seconds, "evaluate"), estimator_errors("evaluated on", manifest):
        evaluation = evaluate(estimator, test_features, test_target, manifest, sliced(rows.test, slices))
    return Learned(estimator, evaluation, identities(rows.test[manifest.record_id]), rows.test, seconds)


def _repeats(manifest: Manifest) -> Repeats:
    from include.versions.reading import in_order

    train, test = (in_order(manifest, split) for split in SPLITS)
    found = leakage.repeats(train, test, manifest.features)
    if found.shared:
        log.warning(
            "%d of %d test records have exactly the features of a training record: a model can memorise them.",
            *(found.shared, manifest.rows["test"]),
        )
    return found


def _matrix(rows: pa.Table, manifest: Manifest) -> tuple[pd.DataFrame, NDArray[Any]]:
    # With split_blocks the frame uses the columns; a single block would be another copy of all rows.
    return rows.select(manifest.features).to_pandas(split_blocks=True), rows[manifest.target].to_numpy()


def _outcomes(ids: NDArray[Any], manifest: Manifest, evaluation: Evaluation) -> bytes:
    import pyarrow as pa

    from include.versions.packing import stream

    kind = "error" if manifest.kind == "regression" else "correct"
    columns = {"id": ids, "row": pa.array(range(len(ids)), pa.int32()), kind: pa.array(evaluation.outcome)}
    return stream(pa.record_batch(columns))


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
