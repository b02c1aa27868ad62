"""A training run: planned once, each model fitted by a task of its own, ended when every model has a result."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, Any, TypedDict

import msgspec

from include.datasets import Dataset
from include.error_codes import Code
from include.errors import NonRetryableError, UserError
from include.training import grid
from include.training.grid import Grid
from include.training.preparation import require_storable
from include.versions.training_state import TrainingState
from include.warehouse import queries
from include.warehouse.connection import connected

if TYPE_CHECKING:
    from include.versions.manifest import Manifest

log = logging.getLogger(__name__)


class RunRow(TypedDict):
    """What is stored of a run when it begins; the keys are columns of ``millrace.training_run``."""

    dataset: str
    run_id: str
    version: str
    seed: int
    parameters: str
    cause: str
    asked_by: str
    definition: str
    code: str
    libraries: str


def begin(dataset: Dataset, run_id: str, parameters: Mapping[str, Any], cause: str) -> list[dict[str, Any]]:
    """Stores a new run and plans its tasks, one for each model, as ``{"run": number, "model": name}``.

    Args:
        run_id: The run's id in Airflow.
        parameters: Those of the form. ``version``: an id or its first digits, None for the newest. ``until``: the day
            on which the version's interval ends, None for any. ``models``: names, None for all. ``grid``: see
            ``grid.Grid``. ``seed``.
        cause: What, or who, started the run.

    Raises:
        NonRetryableError: The version or a model does not exist, the version has expired, or the grid is invalid.
    """
    from include.versions import catalog

    manifest = catalog.find(dataset.name, parameters.get("version"), _day(parameters.get("until")))
    models = chosen(dataset, parameters.get("models"), parameters.get("grid"))
    require_storable(dataset, models)
    with connected("millrace train") as connection:
        row = _row(dataset, manifest, run_id, parameters, cause)
        run: int = queries.load("training").begin_run(connection, **row)
        if at := queries.load("retention").expired_at(connection, version=manifest.version):
            raise catalog.VersionExpired(manifest, at)
        connection.commit()
    log.info("Run %d trains %s on version %s of %s.", run, ", ".join(models), manifest.short, dataset.name)
    return [{"run": run, "model": model} for model in models]


@contextmanager
def recorded(dataset: Dataset, run_id: str, parameters: Mapping[str, Any], cause: str) -> Iterator[None]:
    """Stores a failure inside the ``with`` block as a failed run of its version, with the reason in the run's log.

    The arguments are those of ``begin``. A failure that has no version, such as a misspelt name, is stored nowhere.
    """
    try:
        yield
    except Exception as error:
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        # An error of the recording must not hide the failure.
        with suppress(Exception):
            _record_failure(dataset, run_id, parameters, cause, reason, kept=[TrainingState.SUCCESS])
        raise


def record_missing_plan(dataset: Dataset, run_id: str, parameters: Mapping[str, Any], cause: str) -> None:
    """Stores that a run ended without a plan, for example because its task was killed; a stored failure stays.

    The arguments are those of ``begin``.
    """
    reason = f"The task plan ended without a plan and without an error. Read its log in Airflow, run {run_id}."
    with suppress(NonRetryableError):
        _record_failure(dataset, run_id, parameters, cause, reason, kept=[TrainingState.SUCCESS, TrainingState.FAILED])


def _record_failure(
    dataset: Dataset, run_id: str, parameters: Mapping[str, Any], cause: str, reason: str, kept: list[TrainingState]
) -> None:
    from include.versions import catalog

    sql = queries.load("training")
    manifest = catalog.find(dataset.name, parameters.get("version"), _day(parameters.get("until")))
    with connected("millrace train") as connection:
        row = _row(dataset, manifest, run_id, parameters, cause)
        if (run := sql.fail_run(connection, kept=kept, **row)) is not None:
            sql.log_lines(
                connection,
                run=run,
                model=None,
                ats=[datetime.now(UTC).timestamp()],
                levels=["ERROR"],
                loggers=[__name__],
                messages=[reason.replace("\0", "")],
            )
        connection.commit()


def _row(dataset: Dataset, manifest: Manifest, run_id: str, parameters: Mapping[str, Any], cause: str) -> RunRow:
    from include.provenance import code_version, library_versions

    return RunRow(
        dataset=dataset.name,
        run_id=run_id,
        version=manifest.version,
        seed=parameters.get("seed") or 0,
        parameters=msgspec.json.encode(dict(parameters)).decode(),
        cause=cause,
        asked_by=manifest.asked_by if run_id == sealed_run_id(manifest.version) else cause,
        definition=dataset.digest,
        code=code_version(),
        libraries=msgspec.json.encode(library_versions()).decode(),
    )


def settle(planned: Sequence[Mapping[str, Any]]) -> list[str]:
    """Stores whether a run has all of its results; may be repeated. Returns the models without a result."""
    sql, run = queries.load("training"), planned[0]["run"]
    with connected("millrace train") as connection:
        found = {result.model for result in sql.results_of(connection, run=run)}
        missing = sorted({task["model"] for task in planned} - found)
        sql.end_run(connection, run=run, state=TrainingState.FAILED if missing else TrainingState.SUCCESS)
        connection.commit()
    return missing


def end(planned: Sequence[Mapping[str, Any]] | None) -> None:
    """Ends a run and logs its results.

    Args:
        planned: What ``begin`` returned; None when it failed.

    Raises:
        NonRetryableError: A model has no result; the run has failed.
    """
    if not planned:
        raise NonRetryableError(
            "The run failed before any model was fitted.", "Read the log of the task plan.", code=Code.RUN_FAILED
        )
    missing, run = settle(planned), planned[0]["run"]
    with connected("millrace train") as connection:
        results = list(queries.load("training").results_of(connection, run=run))
    for result in results:
        interval = f" ({result.low:.3f} to {result.high:.3f})" if result.low is not None else ""
        log.info("%-20s %s %.3f%s", result.model, result.metric, result.value, interval)
    if missing:
        raise NonRetryableError(
            f"Run {run} failed: it has no result of {', '.join(missing)}.",
            "Read the logs of these fit tasks.",
            code=Code.RUN_FAILED,
        )


def chosen(dataset: Dataset, asked: Sequence[str] | None, candidates: Grid | None) -> list[str]:
    """The models that a run fits.

    Args:
        asked: Names; None for all models of the dataset.
        candidates: See ``grid.Grid``.

    Raises:
        NonRetryableError: A model does not exist, or the grid is invalid.
    """
    from include.datasets.definition import BASELINE

    known = list(dataset.estimators())
    if unknown := sorted(set(asked or ()) - set(known)):
        raise NonRetryableError(
            f"Dataset {dataset.name!r} has no model {', '.join(unknown)}.",
            f"Use one of {', '.join(known)}.",
            code=Code.UNKNOWN_MODEL,
        )
    added = [name for name in grid.estimators(dataset, candidates) if name not in known]
    # Every run trains the baseline: an accuracy means little without it.
    return [model for model in known if not asked or model in asked or model == BASELINE] + added


def sealed_run_id(version: str) -> str:
    """The id in Airflow of the one run that a sealed version starts."""
    return f"train__{version[:16]}"


def _day(text: str | None) -> datetime | None:
    if not text:
        return None
    try:
        return datetime.combine(date.fromisoformat(text), time(), UTC)
    except ValueError as error:
        raise NonRetryableError(
            f"The parameter until is {text!r}, which is not a date.",
            "Write it as 2015-01-01.",
            code=Code.INVALID_PARAMETER,
        ) from error
