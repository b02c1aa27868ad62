"""Comparison: champion and challengers on the same test records of a version, those alone that are fresh to both."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from include.datasets.definition import BASELINE
from include.errors import NonRetryableError
from include.registry import model as registry
from include.registry.artifact import UntrustedArtifact
from include.registry.model import IncompatibleModel, Model
from include.registry.probe import PredictionMismatch
from include.versions.manifest import Manifest
from include.warehouse import queries

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray
    from psycopg2.extensions import connection as Connection

    from include.datasets import Dataset

CHAMPION = "champion"
FIRST = "first champion"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """A training run that the gate compares with the champion.

    Attributes:
        run: Its number.
        seed: Its seed.
        manifest: Its version.
        until: Where the version ends: the end of its interval, or when it was sealed.
        rank: The version's place in the order of versions.
    """

    run: int
    seed: int
    manifest: Manifest
    until: datetime
    rank: int


@dataclass(frozen=True)
class CurrentChampion:
    """The champion that a run is compared with.

    Attributes:
        number: Of the change that made it champion; 0 for the baseline before the first.
        artifact: The number of its model; None for the baseline.
        rank: Its version's place in the order of versions.
        until: Where that version ends.
    """

    number: int = 0
    artifact: int | None = None
    rank: int = 0
    until: datetime | None = None


@dataclass(frozen=True)
class Compared:
    """The models of a run beside the champion, on the version's test records in their order.

    Attributes:
        ids: Hashes of the records' ids, shape (rows,).
        truth: The target, shape (rows,).
        outcomes: For each model of the run, and by the names CHAMPION and FIRST for those, for each record whether it
            was right (bool) or its absolute error (float64).
        predictions: What CHAMPION and FIRST predicted; where a metric is compared, also the models of the run.
        lines: The names that CHAMPION and FIRST have in the definition.
        digests: The SHA-256 of each model of the run.
        faults: Why a model of the run cannot be loaded, by model; of those that were loaded, which only a metric needs.
        trained_on: Hashes of the ids of the version's training records.
        untrained: Which records neither the champion nor the version's models trained on.
        fresh: Which of these have not counted against this champion before.
        common: Which of those untrained the first champion did not train on either.
    """

    ids: NDArray[np.uint64]
    truth: NDArray[Any]
    outcomes: Mapping[str, NDArray[Any]]
    predictions: Mapping[str, NDArray[Any]]
    lines: Mapping[str, str]
    digests: Mapping[str, str]
    faults: Mapping[str, str | None]
    trained_on: NDArray[np.uint64]
    untrained: NDArray[np.bool_]
    fresh: NDArray[np.bool_]
    common: NDArray[np.bool_]


def compare(connection: Connection, dataset: Dataset, candidate: Candidate, current: CurrentChampion) -> Compared:
    """Reads the version, each message proven, and lets the champion predict its test records.

    Raises:
        VersionRefused: The version is not what its manifest says.
        IncompatibleModel: The champion predicts something else or cannot take its rows, or the stored outcomes are of
            others.
        UntrustedArtifact, PredictionMismatch: The artifact of the champion, or of the baseline, has changed.
    """
    sql = queries.load("registry")
    champions = _champions(connection, dataset, candidate, current)
    results = list(sql.results_to_judge(connection, run=candidate.run))
    digests = {model: sha256 for model, _, sha256 in results}
    own, faults = _own(connection, dataset, candidate, digests, champions) if dataset.metric is not None else ({}, {})
    tested = _predict(candidate.manifest, champions | own, optional={FIRST})
    predictions = dict(tested.predictions)
    champions = {name: model for name, model in champions.items() if name in predictions}
    outcomes = {model: _stored(bytes(stream), tested.ids) for model, stream, _ in results}
    outcomes |= {name: _outcome(candidate.manifest, tested.truth, predictions[name]) for name in champions}
    lines = {name: model.name for name, model in champions.items()}
    if CHAMPION not in champions:
        # Before the first promotion the baseline plays the champion.
        outcomes[CHAMPION], lines[CHAMPION] = outcomes[BASELINE], BASELINE
        predictions |= {CHAMPION: predictions[BASELINE]} if own else {}
    trained_on = champions[CHAMPION].trained_on if CHAMPION in champions else ()
    firsts = champions[FIRST].trained_on if FIRST in champions else ()
    counted = sql.records_counted(connection, dataset=dataset.name, champion_number=current.number)
    untrained = ~(_among(tested.ids, tested.trained_on) | _among(tested.ids, trained_on))
    return Compared(
        tested.ids[0],
        tested.truth,
        outcomes,
        predictions,
        lines,
        digests,
        faults,
        tested.trained_on,
        untrained,
        fresh=untrained & ~_among(tested.ids, *(np.frombuffer(bytes(hashes), "<u8") for (hashes,) in counted)),
        common=untrained & ~_among(tested.ids, firsts),
    )


def read_trained_on(manifest: Manifest) -> NDArray[np.uint64]:
    """Hashes of the ids of a version's training records, ascending.

    Raises:
        VersionRefused: The version is not what its manifest says.
    """
    return _predict(manifest, {}, optional=()).trained_on


def leading(kind: str, outcomes: NDArray[Any]) -> tuple[str, float]:
    """Name and value of the metric that leads: the accuracy, or the root of the mean squared error."""
    if kind == "regression":
        return "rmse", float(np.sqrt(np.mean(np.square(outcomes))))
    return "accuracy", float(np.mean(outcomes))


def _champions(
    connection: Connection, dataset: Dataset, candidate: Candidate, current: CurrentChampion
) -> dict[str, Model]:
    """The champion and the first champion, as far as they can be held against the version's labels."""
    if current.artifact is None:
        return {}
    champion = registry.load(connection, current.artifact, dataset.trusted)
    champion.require_same_question(candidate.manifest)
    number = queries.load("registry").first_artifact(connection, dataset=dataset.name)
    if number is None or number == current.artifact:
        return {CHAMPION: champion, FIRST: champion}
    try:
        first = registry.load(connection, number, dataset.trusted)
        first.require_same_question(candidate.manifest)
    except (IncompatibleModel, UntrustedArtifact, PredictionMismatch) as error:
        log.warning("The first champion is left out of what retraining gained: %s", error)
        return {CHAMPION: champion}
    return {CHAMPION: champion, FIRST: first}


def _own(
    connection: Connection, dataset: Dataset, candidate: Candidate, names: Iterable[str], champions: Collection[str]
) -> tuple[dict[str, Model], dict[str, str | None]]:
    """The models of a run that can be loaded, and for each challenger why it cannot be.

    The baseline is among them where it plays the champion.
    """
    sql = queries.load("registry")
    found: dict[str, Model] = {}
    faults: dict[str, str | None] = {}
    for model in names:
        if model == BASELINE and CHAMPION in champions:
            continue
        content, sha256, probed = sql.fitted(connection, run=candidate.run, model=model)
        nothing = np.empty(0, np.uint64)
        try:
            found[model] = registry.proven(
                model, candidate.manifest, bytes(content), sha256, bytes(probed or b""), dataset.trusted, nothing
            )
            faults[model] = None
        except (UntrustedArtifact, PredictionMismatch) as error:
            if model == BASELINE:
                raise
            faults[model] = error.what.rstrip(".")
    return found, faults


@dataclass(frozen=True)
class _Tested:
    """The test records of a version, in their order, and what models predict for them.

    Attributes:
        ids: The hashes of the records' ids by every rule, see ``hashing.identities``; each of shape (rows,).
        truth: The target, shape (rows,).
        trained_on: Hashes of the ids of the training records, ascending.
        predictions: By model; each of shape (rows,).
    """

    ids: Sequence[NDArray[np.uint64]]
    truth: NDArray[Any]
    trained_on: NDArray[np.uint64]
    predictions: Mapping[str, NDArray[Any]]


def _predict(manifest: Manifest, models: Mapping[str, Model], optional: Collection[str]) -> _Tested:
    """Reads a version, each message proven, and lets the models predict its test records.

    Args:
        optional: Which of the models are left out when they cannot predict the records.

    Raises:
        VersionRefused: The version is not what its manifest says.
        IncompatibleModel: A model that is not optional cannot predict the records.
    """
    import pyarrow as pa
    from threadpoolctl import threadpool_limits

    from include.datasets.hashing import hash64, identities
    from include.versions.reading import Proof

    train: list[NDArray[np.uint64]] = []
    test: dict[int, tuple[Sequence[NDArray[np.uint64]], NDArray[Any]]] = {}
    predicted: dict[str, dict[int, NDArray[Any]]] = {name: {} for name in models}
    with threadpool_limits(1):
        for message, batch in Proof(manifest).batches():
            rows = pa.Table.from_batches([batch])
            if message.split == "train":
                train.append(hash64(rows[manifest.record_id]))
                continue
            test[message.batch] = identities(rows[manifest.record_id]), rows[manifest.target].to_numpy()
            for name in list(predicted):
                try:
                    predicted[name][message.batch] = _answers(models[name], rows, manifest)
                except IncompatibleModel as error:
                    if name not in optional:
                        raise
                    log.warning("%s is left out: %s", name, error)
                    del predicted[name]
    ids, truth = zip(*(test[number] for number in sorted(test)), strict=True)
    return _Tested(
        ids=[np.concatenate(found) for found in zip(*ids, strict=True)],
        truth=np.concatenate(truth),
        trained_on=np.sort(np.concatenate(train)),
        predictions={name: np.concatenate([by[number] for number in sorted(by)]) for name, by in predicted.items()},
    )


def _answers(model: Model, rows: pa.Table, manifest: Manifest) -> NDArray[Any]:
    try:
        return model.predict(rows)
    except (NonRetryableError, MemoryError):
        raise
    except Exception as error:
        # An estimator says in its own words what it does not take, such as a category that it has never seen.
        what = f"{type(error).__name__}: {str(error).rstrip('.')}"
        raise IncompatibleModel(f"{model} cannot predict the records of version {manifest.short}: {what}.") from error


def _outcome(manifest: Manifest, truth: NDArray[Any], predicted: NDArray[Any]) -> NDArray[Any]:
    return np.abs(truth.astype(float) - predicted) if manifest.kind == "regression" else truth == predicted


def _stored(stream: bytes, ids: Sequence[NDArray[np.uint64]]) -> NDArray[Any]:
    import pyarrow as pa

    with pa.ipc.open_stream(stream) as reader:
        rows = reader.read_all()
    stored = rows["id"].to_numpy()
    if not any(np.array_equal(stored, found) for found in ids):
        raise IncompatibleModel("The stored outcomes are not those of the version's test records.", "Train again.")
    return rows.column(rows.num_columns - 1).to_numpy()


def _among(ids: Sequence[NDArray[np.uint64]], *others: Any) -> NDArray[np.bool_]:
    """For each record, whether one of its ids is among the others."""
    known = np.concatenate([np.empty(0, np.uint64), *(np.asarray(other, np.uint64) for other in others)])
    return np.any([np.isin(found, known) for found in ids], axis=0)
