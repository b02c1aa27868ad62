"""Verification: a version read again, a run derived again; each proof is kept with who asked and what came out."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from include.errors import NonRetryableError, UserError
from include.registry import artifact
from include.registry.model import trusted
from include.training.fitting import Fitted, derive
from include.training.unfittable import Unfittable
from include.versions import catalog
from include.versions.manifest import Manifest, decode
from include.versions.reading import VersionRefused, prove
from include.warehouse import queries
from include.warehouse.connection import connected, lasting

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

IDENTICAL: Outcome = "identical"
OTHER_LIBRARIES: Outcome = "same data, other library versions"
DIFFERENT: Outcome = "different"

RTOL, ATOL = 1e-9, 1e-12
"""How far numbers may lie apart that other versions of the libraries computed."""

Outcome = Literal["identical", "same data, other library versions", "different"]
Libraries = Mapping[str, tuple[str | None, str | None]]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verified:
    """What came out of a proof.

    Attributes:
        manifest: Of the version that was read again.
        models: What was derived again, by name.
        outcome: In a word: the same, the same although libraries are others, or not the same.
        findings: What differs, a sentence each; empty when nothing does.
        libraries: Those that are others now than at the training: versions then and now, None where there was none.
    """

    manifest: Manifest
    models: Sequence[str] = ()
    findings: Sequence[str] = ()
    libraries: Libraries = field(default_factory=dict)

    @property
    def outcome(self) -> Outcome:
        if self.findings:
            return DIFFERENT
        return OTHER_LIBRARIES if self.libraries else IDENTICAL

    def __str__(self) -> str:
        return "\n".join([self.outcome, *self.findings, *_told(self.libraries)])


def verify_version(dataset: str, version: str | None, asked_by: str) -> Verified:
    """Reads every message of a version again and proves each, and that its split holds.

    Args:
        version: Its id or the beginning of it; the newest when None.
        asked_by: Who wants to know.

    Raises:
        UnknownVersion: There is none.
        UserError: Kafka or Postgres does not answer.
    """
    manifest = catalog.find(dataset, version)
    with lasting(f"millrace verify {dataset}") as connection:
        number = _begin(connection(), manifest, None, asked_by)
        return _end(connection(), number, Verified(manifest, findings=list(_refusal(manifest))))


def verify_run(run: int | str, asked_by: str) -> Verified:
    """Fits every model of a finished run again and compares what comes out with what was stored.

    The estimators are those stored before the fit, with their parameters and seeds; the definition of today counts
    for nothing but the types that its models may hold.

    Args:
        run: Its number, or its id in Airflow.
        asked_by: Who wants to know.

    Raises:
        NonRetryableError: There is no such run, it has not finished, or its version is expired.
        UserError: Kafka or Postgres does not answer.
    """
    sql = queries.load("verification")
    with lasting(f"millrace verify run {run}") as connection:
        row = sql.run_to_verify(connection(), run=str(run))
        if row is None:
            raise NonRetryableError(
                f"There is no training run {run!r}.", "See millrace.training_run for those that are."
            )
        number, dataset, state, libraries, content, expired_at = row
        if state != "success":
            raise NonRetryableError(
                f"Run {number} of {dataset!r} has not ended well: {state}.", "Verify a finished one."
            )
        manifest, models = decode(bytes(content)), [model for (model,) in sql.models_of(connection(), run=number)]
        if expired_at is not None:
            raise catalog.VersionExpired(manifest, expired_at)
        verification = _begin(connection(), manifest, number, asked_by)
        others, findings = _others(libraries), list[str]()
        try:
            for model in models:
                findings += _derived_again(connection, number, model, manifest, close=bool(others))
        except VersionRefused as error:
            findings.append(str(error))
        return _end(connection(), verification, Verified(manifest, models, findings, others))


def verify_one(run: int | None, asked_by: str) -> Outcome | None:
    """Verifies a run, or, when None, the one whose last proof lies furthest back. Returns the outcome.

    None is returned where no run has finished yet.

    Raises:
        NonRetryableError: The run came out different.
    """
    if run is None:
        with connected("millrace verify") as connection:
            run = queries.load("verification").run_to_sample(connection)
    if run is None:
        log.info("No training run has finished yet.")
        return None
    found = verify_run(run, asked_by)
    if found.findings:
        raise NonRetryableError(f"Run {run} of {found.manifest.dataset!r} is {found}")
    return found.outcome


def _refusal(manifest: Manifest) -> Iterator[str]:
    """Reads a version without keeping it; why it is refused, if it is."""
    try:
        prove(manifest)
    except VersionRefused as error:
        yield str(error)


def _derived_again(
    connection: Callable[[], Connection], run: int, model: str, manifest: Manifest, *, close: bool
) -> Iterator[str]:
    """What differs when a model is fitted again. With ``close``, numbers may differ in their last bits."""
    unfitted, passes, outcomes, predictions, metrics = queries.load("verification").result_to_verify(
        connection(), run=run, model=model
    )
    connection().rollback()
    content = bytes(unfitted)
    try:
        # The stored bytes have no digest of their own: others would not give the predictions that were stored.
        estimator = artifact.loads(content, hashlib.sha256(content).hexdigest(), trusted(manifest.dataset))
        fitted = derive(estimator, manifest, {}, passes)
    except artifact.UntrustedArtifact as error:
        yield f"{model}: {error}"
        return
    except Unfittable as error:
        yield f"{model}: {error.what}"
        return
    except UserError:
        raise
    except Exception as error:
        # Another version of a library may refuse what it took before.
        yield f"{model}: it cannot be fitted any more: {type(error).__name__}: {error}"
        return
    for finding in _differences(fitted, bytes(outcomes), predictions, metrics or {}, close):
        yield f"{model}: {finding}"


def _differences(
    fitted: Fitted, outcomes: bytes, predictions: str | None, metrics: Mapping[str, float], close: bool
) -> Iterator[str]:
    import numpy as np

    before, now = _rows(outcomes), _rows(fitted.outcomes)
    ids = before["id"].to_numpy()
    if not any(np.array_equal(ids, found) for found in fitted.identities):
        yield f"it was tested on {before.num_rows} records, and these are {now.num_rows} others."
        return
    kind = before.column_names[-1]
    pair = before[kind].to_numpy(), now[kind].to_numpy()
    numbers = kind == "error"
    same = np.isclose(*pair, RTOL, ATOL) if numbers and close else pair[0] == pair[1]
    if not same.all():
        first = int(np.argmin(same))
        yield (
            f"{np.count_nonzero(~same)} of {len(same)} test records came out otherwise, the first in row {first}: "
            f"its {kind} was {pair[0][first]} and is {pair[1][first]}."
        )
    elif predictions not in (None, fitted.evaluation.predictions) and not (numbers and close):
        yield "it predicts otherwise for records that it got wrong then and now."
    for metric in fitted.evaluation.metrics:
        then = metrics.get(metric.name)
        if then is not None and not (np.isclose(then, metric.value, RTOL, ATOL) if close else then == metric.value):
            yield f"its {metric.name} was {then!r} and is {metric.value!r}."


def _rows(stream: bytes) -> Any:
    import pyarrow as pa

    with pa.ipc.open_stream(stream) as reader:
        return reader.read_all()


def _others(then: Mapping[str, str]) -> Libraries:
    from include.provenance import library_versions

    now = library_versions()
    return {name: (then.get(name), now.get(name)) for name in sorted({*then, *now}) if then.get(name) != now.get(name)}


def _told(libraries: Libraries) -> list[str]:
    return [f"{name}: {then or 'none'} then, {now or 'none'} now" for name, (then, now) in libraries.items()]


def _begin(connection: Connection, manifest: Manifest, run: int | None, asked_by: str) -> int:
    number: int = queries.load("verification").begin_verification(
        connection, dataset=manifest.dataset, version=manifest.version, run=run, asked_by=asked_by
    )
    connection.commit()
    return number


def _end(connection: Connection, number: int, found: Verified) -> Verified:
    queries.load("verification").end_verification(
        connection,
        verification=number,
        outcome=found.outcome,
        findings=list(found.findings),
        libraries=msgspec.json.encode(found.libraries).decode(),
    )
    connection.commit()
    for line in str(found).splitlines():
        log.info("%s", line)
    return found
