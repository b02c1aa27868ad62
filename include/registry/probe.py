"""Probes: some test rows with the model's predictions at its training, to check that it still predicts the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from include.error_codes import Code
from include.errors import NonRetryableError

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 32
_REMEDY = "Install the library versions of its training run, or train again."


class PredictionMismatch(NonRetryableError):
    """A loaded model does not predict what it predicted when it was trained."""

    def __init__(self, what: str) -> None:
        super().__init__(what, _REMEDY, code=Code.PREDICTION_MISMATCH)


def record(model: Any, features: pa.Table) -> bytes:
    """An Arrow stream of the first rows, with the model's predictions as the last column."""
    from include.versions.packing import stream

    rows = features.slice(0, ROWS)
    predicted = _column(model.predict(rows.to_pandas()))
    return stream(rows.append_column("prediction", predicted).combine_chunks().to_batches()[0])


def recheck(model: Any, probe: bytes) -> None:
    """Predicts a probe again and compares.

    Raises:
        PredictionMismatch: A prediction differs or fails; numbers may differ in their last bits.
    """
    import numpy as np
    import pyarrow as pa

    try:
        with pa.ipc.open_stream(probe) as reader:
            rows = reader.read_all()
        expected = rows.column(rows.num_columns - 1)
    except (pa.ArrowException, OSError, IndexError) as error:
        raise PredictionMismatch(f"The probe of the model, its stored predictions, cannot be read: {error}.") from error
    try:
        predicted = _column(model.predict(rows.remove_column(rows.num_columns - 1).to_pandas()))
    except MemoryError:
        raise
    except Exception as error:
        # A model made by another version of a library can raise any error.
        what = f"{type(error).__name__}: {str(error).rstrip('.')}"
        raise PredictionMismatch(f"The loaded model fails to predict its stored rows: {what}.") from error
    if len(predicted) != len(expected):
        raise PredictionMismatch(
            f"The loaded model returns {len(predicted)} predictions for {len(expected)} stored rows."
        )
    if predicted.type == expected.type and pa.types.is_floating(predicted.type):
        same = np.isclose(predicted.to_numpy(), expected.to_numpy(), rtol=1e-9, atol=1e-12, equal_nan=True)
    else:
        pairs = zip(predicted.to_pylist(), expected.to_pylist(), strict=True)
        same = np.array([found == before for found, before in pairs])
    if not same.all():
        raise PredictionMismatch(
            f"The loaded model predicts {np.count_nonzero(~same)} of {len(same)} stored rows differently than at its "
            "training: a library or the machine has changed."
        )


def _column(predicted: Any) -> pa.Array:
    import pyarrow as pa

    return pa.array(predicted)
