"""Predictions: reads the test records of a version and lets models predict them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from include.error_codes import Code
from include.errors import NonRetryableError
from include.registry.model import IncompatibleModel, Model
from include.versions.manifest import Manifest

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PredictedRecords:
    """The test records of a version, in their order, with predictions.

    Attributes:
        ids: The hashes of the records' ids by every rule, see ``hashing.identities``; each of shape (rows,).
        truth: The target, shape (rows,).
        trained_on: The hashes of the ids of the training records, ascending.
        predictions: By model; each of shape (rows,).
    """

    ids: Sequence[NDArray[np.uint64]]
    truth: NDArray[Any]
    trained_on: NDArray[np.uint64]
    predictions: Mapping[str, NDArray[Any]]


def predict(manifest: Manifest, models: Mapping[str, Model], optional: Collection[str] = ()) -> PredictedRecords:
    """Reads a version, proves each message, and predicts the test records with each model.

    Args:
        optional: Models to leave out if they cannot predict the records.

    Raises:
        VersionRefused: The version does not match its manifest.
        IncompatibleModel: A model that is not optional cannot predict the records.
    """
    import pyarrow as pa
    from threadpoolctl import threadpool_limits

    from include.datasets.hashing import hash64, identities
    from include.versions.reading import VersionReader

    train: list[NDArray[np.uint64]] = []
    test: dict[int, tuple[Sequence[NDArray[np.uint64]], NDArray[Any]]] = {}
    predicted: dict[str, dict[int, NDArray[Any]]] = {name: {} for name in models}
    with threadpool_limits(1):
        for message, batch in VersionReader(manifest).batches():
            rows = pa.Table.from_batches([batch])
            if message.split == "train":
                train.append(hash64(rows[manifest.record_id]))
                continue
            test[message.batch] = identities(rows[manifest.record_id]), rows[manifest.target].to_numpy()
            for name in list(predicted):
                try:
                    predicted[name][message.batch] = _predictions(models[name], rows, manifest)
                except IncompatibleModel as error:
                    if name not in optional:
                        raise
                    log.warning("Left out the %s: %s", name, error)
                    del predicted[name]
    ids, truth = zip(*(test[number] for number in sorted(test)), strict=True)
    return PredictedRecords(
        ids=[np.concatenate(found) for found in zip(*ids, strict=True)],
        truth=np.concatenate(truth),
        trained_on=np.sort(np.concatenate(train)),
        predictions={name: np.concatenate([by[number] for number in sorted(by)]) for name, by in predicted.items()},
    )


def _predictions(model: Model, rows: pa.Table, manifest: Manifest) -> NDArray[Any]:
    try:
        return model.predict(rows)
    except (NonRetryableError, MemoryError):
        raise
    except Exception as error:
        # An estimator raises any error for rows that it rejects, such as those with an unknown category.
        raise IncompatibleModel(
            f"{model} cannot predict the records of version {manifest.short}: {type(error).__name__}: "
            f"{str(error).rstrip('.')}.",
            "Make the model accept such rows.",
            code=Code.PREDICTION_FAILED,
        ) from error
