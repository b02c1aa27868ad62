"""Results: stores a fitted model with its metrics in PostgreSQL."""

from __future__ import annotations

import hashlib
import resource
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from include.warehouse import queries

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from psycopg2.extensions import connection as Connection

    from include.training.evaluation import Evaluation
    from include.versions.manifest import Manifest

PIECE_BYTES = 2 * 2**20
"""The most bytes of outcomes in one statement: psycopg2 needs five times the memory of a parameter."""


@dataclass
class Fitted:
    """A fitted model, ready to be stored.

    Attributes:
        unfitted: The estimator before the fit, in the format of skops.
        fitted: The model, in the format of skops.
        parameters: The estimator's parameters, nested ones with ``__``; as text where JSON lacks the type.
        evaluation: Its metrics and outcomes.
        outcomes: An Arrow stream with the hash of the id, the row number and the outcome of each test record.
        identities: The hashes of the test records' ids by every rule, see ``hashing.identities``.
        probe: Some test rows with the model's predictions, see ``probe.record``.
        passes: How often a model that learns in batches read every row; None if all rows were in memory.
        seconds: The duration of each phase: read, fit, evaluate.
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


def store(connection: Connection, run: int, model: str, manifest: Manifest, fitted: Fitted) -> None:
    """Replaces the result of a run's model, in the caller's transaction; its checkpoint is deleted."""
    sql = queries.load("training")
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
        predictions_sha256=fitted.evaluation.predictions,
        probe=fitted.probe,
        passes=fitted.passes,
    )
    for start in range(PIECE_BYTES, len(fitted.outcomes), PIECE_BYTES):
        sql.append_outcomes(connection, result=result, piece=fitted.outcomes[start : start + PIECE_BYTES])
    _store_metrics(connection, result, fitted.evaluation)
    _store_classes(connection, result, fitted.evaluation)
    _store_slices(connection, result, fitted.evaluation)


def _store_metrics(connection: Connection, result: int, evaluation: Evaluation) -> None:
    metrics = evaluation.metrics
    queries.load("training").add_metrics(
        connection,
        result=result,
        names=[metric.name for metric in metrics],
        values=[metric.value for metric in metrics],
        lows=[metric.low for metric in metrics],
        highs=[metric.high for metric in metrics],
    )


def _store_classes(connection: Connection, result: int, evaluation: Evaluation) -> None:
    sql, classes, confusion = queries.load("training"), evaluation.classes, evaluation.confusion
    sql.add_class_metrics(
        connection,
        result=result,
        classes=[found.name for found in classes],
        precisions=[found.precision for found in classes],
        recalls=[found.recall for found in classes],
        f1s=[found.f1 for found in classes],
        supports=[found.support for found in classes],
    )
    sql.add_confusion(
        connection,
        result=result,
        actual=[cell.actual for cell in confusion],
        predicted=[cell.predicted for cell in confusion],
        counts=[cell.rows for cell in confusion],
    )


def _store_slices(connection: Connection, result: int, evaluation: Evaluation) -> None:
    rows = [(part, metric) for part in evaluation.parts for metric in part.metrics]
    queries.load("training").add_slice_metrics(
        connection,
        result=result,
        slices=[part.slice for part, _ in rows],
        parts=[part.value for part, _ in rows],
        rows=[part.rows for part, _ in rows],
        names=[metric.name for _, metric in rows],
        values=[metric.value for _, metric in rows],
        lows=[metric.low for _, metric in rows],
        highs=[metric.high for _, metric in rows],
    )
