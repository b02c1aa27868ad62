"""Probes: some test rows with what the model predicted for them at its training, to see that it still predicts so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from include.errors import NonRetryableError

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 32
_REMEDY = "Install the versions of its training run, or train again."


class PredictionMismatch(NonRetryableError):
    """A loaded model does not predict what it predicted when it was trained."""


def record(model: Any, features: pa.Table) -> bytes:
    """An Arrow stream of the first rows, with the model's predictions as the last column."""
    from include.versions.packing import stream

    rows = features.slice(0, ROWS)
    predicted = _column(model.predict(rows.to_pandas()))
    return stream(rows.append_column("prediction", predicted).combine_chunks().to_batches()[0])


def recheck(model: Any, probe: bytes) -> None:
    """Lets the model predict a probe again.

    Raises:
        PredictionMismatch: A prediction is another one, or there is none; numbers may differ in their last bits.
    """
    import numpy as np
    import pyarrow as pa

    try:
        with pa.ipc.open_stream(probe) as reader:
            rows = reader.read_all()
        expected = rows.column(rows.num_columns - 1)
    except (pa.ArrowException, OSError, IndexError) as error:
        raise PredictionMismatch(
            f"Whether the model predicts as before is unknown: its probe cannot be read: {error}."
        ) from error
    try:
        predicted = _column(model.predict(rows.remove_column(rows.num_columns - 1).to_pandas()))
    except MemoryError:
        raise
    except Exception as error:
        # A model made by another version of a library fails in that library's own words.
        what = f"{type(error).__name__}: {str(error).rstrip('.')}"
        raise PredictionMismatch(f"The loaded model cannot predict its stored rows: {what}.", _REMEDY) from error
    if len(predicted) != len(expected):
        raise PredictionMismatch(
            f"The loaded model gives {len(predicted)} predictions for {len(expected)} stored rows.", _REMEDY
        )
    if predicted.type == expected.type and pa.types.is_floating(predicted.type):
        same = np.isclose(predicted.to_numpy(), expected.to_numpy(), rtol=1e-9, atol=1e-12, equal_nan=True)
    else:
        pairs = zip(predicted.to_pylist(), expected.to_pylist(), strict=True)
        same = np.array([found == before for found, before in pairs])
    if not same.all():
        raise PredictionMismatch(
            f"The loaded model predicts {np.count_nonzero(~same)} of {len(same)} stored rows otherwise than at its "
            "training: a library or the machine is another one.",
            _REMEDY,
        )


def _column(predicted: Any) -> pa.Array:
    import pyarrow as pa

    return pa.array(predicted)
