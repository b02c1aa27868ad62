"""Verification: reads a version again, or trains a run again, and stores whether the result is the same."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

from include.error_codes import Code
from include.errors import NonRetryableError, UserError
from include.registry import artifact
from include.registry.model import trusted
from include.training.fitting import derive
from include.training.results import Fitted
from include.training.unfittable import Unfittable
from include.versions import catalog
from include.versions.manifest import Manifest, decode
from include.versions.reading import VersionRefused, prove
from include.versions.training_state import TrainingState
from include.warehouse import queries
from include.warehouse.connection import connected, reconnecting

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

    from include.warehouse.queries.signatures.verification import ResultToVerifyRow

RTOL, ATOL = 1e-9, 1e-12
"""The tolerance for numbers that other versions of the libraries computed."""

Libraries = Mapping[str, tuple[str | None, str | None]]

log = logging.getLogger(__name__)


class Outcome(StrEnum):
    """The column ``outcome`` of ``millrace.verification``."""

    IDENTICAL = "identical"
    OTHER_LIBRARIES = "same data, other library versions"
    DIFFERENT = "different"


@dataclass(frozen=True)
class Verified:
    """The result of a verification.

    Attributes:
        manifest: The manifest of the version that was read again.
        models: The models that were fitted again, by name.
        findings: What differs, one sentence each; empty when nothing does.
        libraries: The libraries whose version has changed since the training: then and now, None where not installed.
    """

    manifest: Manifest
    models: Sequence[str] = ()
    findings: Sequence[str] = ()
    libraries: Libraries = field(default_factory=dict)

    @property
    def outcome(self) -> Outcome:
        """The result in one word: any finding makes it different."""
        if self.findings:
            return Outcome.DIFFERENT
        return Outcome.OTHER_LIBRARIES if self.libraries else Outcome.IDENTICAL

    def __str__(self) -> str:
        return "\n".join([self.outcome, *self.findings, *_library_lines(self.libraries)])


def verify_version(dataset: str, version: str | None, asked_by: str) -> Verified:
    """Reads every message of a version again, and proves its digest and that the split holds.

    Args:
        version: Its id or its first digits; the newest when None.
        asked_by: Who started the verification; stored with the result.

    Raises:
        UnknownVersion: The version does not exist.
        UserError: Kafka or PostgreSQL is unavailable.
    """
    manifest = catalog.find(dataset, version)
    with reconnecting(f"millrace verify {dataset}") as connection:
        number = _begin(connection(), manifest, None, asked_by)
        return _end(connection(), number, Verified(manifest, findings=list(_refusal(manifest))))


def verify_run(run: int | str, asked_by: str) -> Verified:
    """Fits every model of a successful run again and compares the results with the stored ones.

    The estimators are those that the run stored before the fit, with their parameters and seeds. Of the present
    definition only the field ``trusted`` is used.

    Args:
        run: Its number, or its id in Airflow.
        asked_by: Who started the verification; stored with the result.

    Raises:
        NonRetryableError: The run does not exist or did not succeed, or its version has expired.
        UserError: Kafka or PostgreSQL is unavailable.
    """
    sql = queries.load("verification")
    with reconnecting(f"millrace verify run {run}") as connection:
        row = sql.run_to_verify(connection(), run=str(run))
        if row is None:
            raise NonRetryableError(
                f"The training run {run!r} does not exist.",
                "See the table millrace.training_run.",
                code=Code.RUN_NOT_FOUND,
            )
        number = row.run
        if row.state != TrainingState.SUCCESS:
            raise NonRetryableError(
                f"Run {number} of {row.dataset!r} cannot be verified: its state is {row.state}.",
                "Verify a run whose state is success.",
                code=Code.RUN_UNSUCCESSFUL,
            )
        manifest = decode(bytes(row.manifest))
        models = [found.model for found in sql.models_of(connection(), run=number)]
        if row.expired_at is not None:
            raise catalog.VersionExpired(manifest, row.expired_at)
        verification = _begin(connection(), manifest, number, asked_by)
        changed, findings = _changed(row.libraries), list[str]()
        try:
            for model in models:
                findings += _reproduce(connection, number, model, manifest, is_close=bool(changed))
        except VersionRefused as error:
            findings.append(str(error))
        return _end(connection(), verification, Verified(manifest, models, findings, changed))


def verify_one(run: int | None, asked_by: str) -> str | None:
    """Verifies a run; when None, the one that was verified longest ago.

    Returns:
        The outcome; None when no run has succeeded yet.

    Raises:
        NonRetryableError: The run came out different.
    """
    if run is None:
        with connected("millrace verify") as connection:
            run = queries.load("verification").run_to_sample(connection)
    if run is None:
        log.info("No training run has succeeded yet.")
        return None
    found = verify_run(run, asked_by)
    if found.findings:
        raise NonRetryableError(
            f"Run {run} of {found.manifest.dataset!r} was not reproduced. {' '.join(found.findings)}",
            code=Code.RUN_NOT_REPRODUCED,
        )
    return found.outcome.value


def _refusal(manifest: Manifest) -> Iterator[str]:
    """Reads a version without keeping its rows; why it is refused, if it is."""
    try:
        prove(manifest)
    except VersionRefused as error:
        yield str(error)


def _reproduce(
    connection: Callable[[], Connection], run: int, model: str, manifest: Manifest, *, is_close: bool
) -> Iterator[str]:
    """What differs when a model is fitted again. With ``is_close``, numbers may differ in their last bits."""
    stored = queries.load("verification").result_to_verify(connection(), run=run, model=model)
    connection().rollback()
    content = bytes(stored.unfitted)
    try:
        # The unfitted bytes have no digest of their own: changed bytes would give other predictions.
        estimator = artifact.loads(content, hashlib.sha256(content).hexdigest(), trusted(manifest.dataset))
        fitted = derive(estimator, manifest, {}, stored.passes)
    except artifact.UntrustedArtifact as error:
        yield f"{model}: {error}"
        return
    except Unfittable as error:
        yield f"{model}: {error.what}"
        return
    except UserError:
        raise
    except Exception as error:
        # A newer library may reject what an older one accepted.
        yield f"{model}: the fit fails now: {type(error).__name__}: {error}"
        return
    for finding in _differences(fitted, stored, is_close):
        yield f"{model}: {finding}"


def _differences(fitted: Fitted, stored: ResultToVerifyRow, is_close: bool) -> Iterator[str]:
    import numpy as np

    before, now = _rows(bytes(stored.outcomes)), _rows(fitted.outcomes)
    ids = before["id"].to_numpy()
    if not any(np.array_equal(ids, found) for found in fitted.identities):
        yield f"the {now.num_rows} test records are not the {before.num_rows} that it was tested on."
        return
    kind = before.column_names[-1]
    pair = before[kind].to_numpy(), now[kind].to_numpy()
    numbers = kind == "error"
    same = np.isclose(*pair, RTOL, ATOL) if numbers and is_close else pair[0] == pair[1]
    if not same.all():
        first = int(np.argmin(same))
        yield (
            f"{np.count_nonzero(~same)} of {len(same)} test records have another outcome, first row {first}: "
            f"{kind} was {pair[0][first]} and is {pair[1][first]}."
        )
    elif stored.predictions_sha256 not in (None, fitted.evaluation.predictions) and not (numbers and is_close):
        yield "predictions differ for records that were wrong then and are wrong now."
    for metric in fitted.evaluation.metrics:
        then = (stored.metrics or {}).get(metric.name)
        if then is not None and not (np.isclose(then, metric.value, RTOL, ATOL) if is_close else then == metric.value):
            yield f"{metric.name} was {then!r} and is {metric.value!r}."


def _rows(stream: bytes) -> Any:
    import pyarrow as pa

    with pa.ipc.open_stream(stream) as reader:
        return reader.read_all()


def _changed(then: Mapping[str, str]) -> Libraries:
    from include.provenance import library_versions

    now = library_versions()
    return {name: (then.get(name), now.get(name)) for name in sorted({*then, *now}) if then.get(name) != now.get(name)}


def _library_lines(libraries: Libraries) -> list[str]:
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
