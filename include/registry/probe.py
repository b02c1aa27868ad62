"""Probes: some test rows with what the model predicted for them at its training, to see that it still predicts so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from include.errors import LastingError

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 32


class Drifted(LastingError):
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
        Drifted: A prediction is another one; numbers may differ in their last bits.
    """
    import numpy as np
    import pyarrow as pa

    with pa.ipc.open_stream(probe) as reader:
        rows = reader.read_all()
    expected = rows.column(rows.num_columns - 1)
    predicted = _column(model.predict(rows.remove_column(rows.num_columns - 1).to_pandas()))
    if predicted.type == expected.type and pa.types.is_floating(predicted.type):
        same = np.isclose(predicted.to_numpy(), expected.to_numpy(), rtol=1e-9, atol=1e-12, equal_nan=True)
    else:
        pairs = zip(predicted.to_pylist(), expected.to_pylist(), strict=True)
        same = np.array([found == before for found, before in pairs])
    if not same.all():
        raise Drifted(
            f"The loaded model predicts {np.count_nonzero(~same)} of {len(same)} stored rows otherwise than at its "
            "training: a library or the machine is another one.",
            "Install the versions of its training run, or train again.",
        )


def _column(predicted: Any) -> pa.Array:
    import pyarrow as pa

    return pa.array(predicted)
