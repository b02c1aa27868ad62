"""Comparison: champion and challengers on the same test records of a version, only those that are fresh to both."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from include.datasets.definition import BASELINE
from include.error_codes import Code
from include.promotion.predictions import PredictedRecords, predict
from include.registry import model as registry
from include.registry.artifact import UntrustedArtifact
from include.registry.model import IncompatibleModel, Model
from include.registry.probe import PredictionMismatch
from include.versions.manifest import Manifest
from include.warehouse import queries

if TYPE_CHECKING:
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
        until: The end of the version's interval, or when it was sealed.
        rank: The version's rank in the order of versions.
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
        number: The number of the change that made it champion; 0 before the first champion.
        artifact: The number of its registered model; None for the baseline.
        rank: Its version's rank in the order of versions.
        until: The end of that version.
    """

    number: int = 0
    artifact: int | None = None
    rank: int = 0
    until: datetime | None = None


@dataclass(frozen=True)
class Compared:
    """The models of a run and the champion on the version's test records, in their order.

    Attributes:
        ids: The hashes of the records' ids, shape (rows,).
        truth: The target, shape (rows,).
        outcomes: For each model of the run, and for CHAMPION and FIRST, whether each record was right (bool) or its
            absolute error (float64).
        predictions: The predictions of CHAMPION and FIRST; with a metric, also of the models of the run.
        lines: The model lines of CHAMPION and FIRST.
        digests: The SHA-256 of each model of the run.
        faults: Why a model of the run cannot be loaded, or None; only with a metric, which needs the loaded models.
        trained_on: The hashes of the ids of the version's training records.
        untrained: The records that neither the champion nor the version's models trained on.
        fresh: The untrained records that have not counted against this champion before.
        common: The untrained records that the first champion did not train on either.
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
    """Reads the version, proves each message, and lets the champion predict its test records.

    Raises:
        VersionRefused: The version does not match its manifest.
        IncompatibleModel: The champion predicts another target or rejects the rows, or the stored outcomes belong to
            other records.
        UntrustedArtifact, PredictionMismatch: The stored champion, or the stored baseline, has changed.
    """
    sql = queries.load("registry")
    champions = _champions(connection, dataset, candidate, current)
    results = list(sql.results_to_judge(connection, run=candidate.run))
    digests = {result.model: result.fitted_sha256 for result in results}
    own: dict[str, Model] = {}
    faults: dict[str, str | None] = {}
    if dataset.metric is not None:
        own, faults = _models_of_run(connection, dataset, candidate, digests, champions)
    tested = predict(candidate.manifest, champions | own, optional={FIRST})
    predictions = dict(tested.predictions)
    champions = {name: model for name, model in champions.items() if name in predictions}
    outcomes = {result.model: _stored_outcomes(bytes(result.outcomes), tested.ids) for result in results}
    outcomes |= {name: _outcomes(candidate.manifest, tested.truth, predictions[name]) for name in champions}
    lines = {name: model.name for name, model in champions.items()}
    if CHAMPION not in champions:
        # Without a champion the run is compared with its baseline.
        outcomes[CHAMPION], lines[CHAMPION] = outcomes[BASELINE], BASELINE
        predictions |= {CHAMPION: predictions[BASELINE]} if own else {}
    untrained = ~(_among(tested.ids, tested.trained_on) | _among(tested.ids, _trained_on(champions, CHAMPION)))
    return Compared(
        ids=tested.ids[0],
        truth=tested.truth,
        outcomes=outcomes,
        predictions=predictions,
        lines=lines,
        digests=digests,
        faults=faults,
        trained_on=tested.trained_on,
        untrained=untrained,
        fresh=untrained & ~_counted(connection, dataset, current, tested),
        common=untrained & ~_among(tested.ids, _trained_on(champions, FIRST)),
    )


def read_trained_on(manifest: Manifest) -> NDArray[np.uint64]:
    """The hashes of the ids of a version's training records, ascending.

    Raises:
        VersionRefused: The version does not match its manifest.
    """
    return predict(manifest, {}).trained_on


def leading(kind: str, outcomes: NDArray[Any]) -> tuple[str, float]:
    """The name and value of the main metric: accuracy, or the root mean squared error."""
    if kind == "regression":
        return "rmse", float(np.sqrt(np.mean(np.square(outcomes))))
    return "accuracy", float(np.mean(outcomes))


def _champions(
    connection: Connection, dataset: Dataset, candidate: Candidate, current: CurrentChampion
) -> dict[str, Model]:
    """The champion and the first champion, if they predict the version's target."""
    if current.artifact is None:
        return {}
    champion = registry.load(connection, current.artifact, dataset.trusted)
    champion.require_same_target(candidate.manifest)
    number = queries.load("registry").first_artifact(connection, dataset=dataset.name)
    if number is None or number == current.artifact:
        return {CHAMPION: champion, FIRST: champion}
    try:
        first = registry.load(connection, number, dataset.trusted)
        first.require_same_target(candidate.manifest)
    except (IncompatibleModel, UntrustedArtifact, PredictionMismatch) as error:
        log.warning("The first champion is left out of the value of retraining: %s", error)
        return {CHAMPION: champion}
    return {CHAMPION: champion, FIRST: first}


def _models_of_run(
    connection: Connection, dataset: Dataset, candidate: Candidate, names: Iterable[str], champions: Collection[str]
) -> tuple[dict[str, Model], dict[str, str | None]]:
    """The models of a run that can be loaded, and for each challenger why it cannot be loaded, or None.

    The baseline is included if there is no champion.
    """
    sql = queries.load("registry")
    found: dict[str, Model] = {}
    faults: dict[str, str | None] = {}
    for model in names:
        if model == BASELINE and CHAMPION in champions:
            continue
        content, sha256, probed = sql.fitted(connection, run=candidate.run, model=model)
        no_ids = np.empty(0, np.uint64)
        try:
            found[model] = registry.checked(
                model, candidate.manifest, bytes(content), sha256, bytes(probed or b""), dataset.trusted, no_ids
            )
            faults[model] = None
        except (UntrustedArtifact, PredictionMismatch) as error:
            if model == BASELINE:
                raise
            faults[model] = error.what.rstrip(".")
    return found, faults


def _outcomes(manifest: Manifest, truth: NDArray[Any], predicted: NDArray[Any]) -> NDArray[Any]:
    if manifest.kind == "regression":
        return np.asarray(np.abs(truth.astype(float) - predicted))
    return np.asarray(truth == predicted)


def _stored_outcomes(stream: bytes, ids: Sequence[NDArray[np.uint64]]) -> NDArray[Any]:
    import pyarrow as pa

    with pa.ipc.open_stream(stream) as reader:
        rows = reader.read_all()
    stored = rows["id"].to_numpy()
    if not any(np.array_equal(stored, found) for found in ids):
        raise IncompatibleModel(
            "The stored outcomes do not belong to the test records of the version.",
            "Train on the version again.",
            code=Code.OUTCOMES_MISMATCH,
        )
    outcomes: NDArray[Any] = rows.column(rows.num_columns - 1).to_numpy()
    return outcomes


def _counted(
    connection: Connection, dataset: Dataset, current: CurrentChampion, tested: PredictedRecords
) -> NDArray[np.bool_]:
    """The records that have counted against this champion before."""
    counted = queries.load("registry").records_counted(connection, dataset=dataset.name, champion_number=current.number)
    return _among(tested.ids, *(np.frombuffer(bytes(hashes), "<u8") for (hashes,) in counted))


def _trained_on(champions: Mapping[str, Model], name: str) -> NDArray[np.uint64]:
    return champions[name].trained_on if name in champions else np.empty(0, np.uint64)


def _among(ids: Sequence[NDArray[np.uint64]], *others: Any) -> NDArray[np.bool_]:
    """For each record, whether one of its ids is among ``others``."""
    known = np.concatenate([np.empty(0, np.uint64), *(np.asarray(other, np.uint64) for other in others)])
    found: NDArray[np.bool_] = np.any([np.isin(hashes, known) for hashes in ids], axis=0)
    return found
