"""A training run: planned once, its models fitted one task each, ended when all have a result."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, Any

import msgspec

from include.datasets import Dataset
from include.errors import NonRetryableError, UserError
from include.training import grid
from include.training.grid import Grid
from include.training.preparation import require_storable
from include.warehouse import queries
from include.warehouse.connection import connected

if TYPE_CHECKING:
    from include.versions.manifest import Manifest

log = logging.getLogger(__name__)


def begin(dataset: Dataset, run_id: str, parameters: Mapping[str, Any], cause: str) -> list[dict[str, Any]]:
    """Writes the run down and plans its tasks: one for each model, as ``{"run": number, "model": name}``.

    Args:
        run_id: The run's id in Airflow.
        parameters: The form's. ``version``: its id or the beginning, None for the newest. ``until``: the day on which
            its interval ends, None for any. ``models``: names, None for all. ``grid``: see ``grid.Grid``. ``seed``.
        cause: What started the run, or who.

    Raises:
        NonRetryableError: No such version or model, or no such grid.
    """
    from include.versions import catalog

    manifest = catalog.find(dataset.name, parameters.get("version"), _day(parameters.get("until")))
    models = chosen(dataset, parameters.get("models"), parameters.get("grid"))
    require_storable(dataset, models)
    with connected("millrace train") as connection:
        run = queries.load("training").begin_run(connection, **_facts(dataset, manifest, run_id, parameters, cause))
        if at := queries.load("retention").expired_at(connection, version=manifest.version):
            raise catalog.VersionExpired(manifest, at)
        connection.commit()
    log.info("Run %d trains %s on version %s of %s.", run, ", ".join(models), manifest.short, dataset.name)
    return [{"run": run, "model": model} for model in models]


@contextmanager
def recorded(dataset: Dataset, run_id: str, parameters: Mapping[str, Any], cause: str) -> Iterator[None]:
    """Writes a failure inside the ``with`` block down as a failed run on its version, with the reason in the run's log.

    The arguments are those of ``begin``. A failure without a version, such as one whose name is wrong, has no run.
    """
    try:
        yield
    except Exception as error:
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        # The failure itself is what has to be seen.
        with suppress(Exception):
            _write_failure(dataset, run_id, parameters, cause, reason, kept=["success"])
        raise


def not_planned(dataset: Dataset, run_id: str, parameters: Mapping[str, Any], cause: str) -> None:
    """Writes down that a run has ended without a plan, unless its failure is known: its task was killed, for instance.

    The arguments are those of ``begin``.
    """
    reason = f"The task plan ended without a plan and without a reason. See its log in the UI, run {run_id}."
    with suppress(NonRetryableError):
        _write_failure(dataset, run_id, parameters, cause, reason, kept=["success", "failed"])


def _write_failure(
    dataset: Dataset, run_id: str, parameters: Mapping[str, Any], cause: str, reason: str, kept: list[str]
) -> None:
    from include.versions import catalog

    sql = queries.load("training")
    manifest = catalog.find(dataset.name, parameters.get("version"), _day(parameters.get("until")))
    with connected("millrace train") as connection:
        facts = _facts(dataset, manifest, run_id, parameters, cause)
        if (run := sql.fail_run(connection, kept=kept, **facts)) is not None:
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


def _facts(
    dataset: Dataset, manifest: Manifest, run_id: str, parameters: Mapping[str, Any], cause: str
) -> dict[str, Any]:
    """What is written down about a run, by the columns of ``millrace.training_run``."""
    from include.provenance import code_version, library_versions

    return {
        "dataset": dataset.name,
        "run_id": run_id,
        "version": manifest.version,
        "seed": parameters.get("seed") or 0,
        "parameters": msgspec.json.encode(dict(parameters)).decode(),
        "cause": cause,
        "asked_by": manifest.asked_by if run_id == sealed_run_id(manifest.version) else cause,
        "definition": dataset.digest,
        "code": code_version(),
        "libraries": msgspec.json.encode(library_versions()).decode(),
    }


def settle(planned: Sequence[Mapping[str, Any]]) -> list[str]:
    """Notes whether a run has all of its results; may be repeated. Returns the models that have none."""
    sql, run = queries.load("training"), planned[0]["run"]
    with connected("millrace train") as connection:
        found = {model for model, *_ in sql.results_of(connection, run=run)}
        missing = sorted({task["model"] for task in planned} - found)
        sql.end_run(connection, run=run, state="failed" if missing else "success")
        connection.commit()
    return missing


def end(planned: Sequence[Mapping[str, Any]] | None) -> None:
    """Ends a run.

    Args:
        planned: What ``begin`` returned; None when it failed.

    Raises:
        NonRetryableError: A model has no result; the run has failed.
    """
    if not planned:
        raise NonRetryableError("The run ended before it began to train.", "See the log of the task plan.")
    missing, run = settle(planned), planned[0]["run"]
    with connected("millrace train") as connection:
        results = list(queries.load("training").results_of(connection, run=run))
    for model, value, low, high, metric in results:
        interval = f" ({low:.3f} to {high:.3f})" if low is not None else ""
        log.info("%-20s %s %.3f%s", model, metric, value, interval)
    if missing:
        raise NonRetryableError(f"Run {run} has no result of {', '.join(missing)}.", "See the logs of these tasks.")


def chosen(dataset: Dataset, asked: Sequence[str] | None, candidates: Grid | None) -> list[str]:
    """The models that a run fits.

    Args:
        asked: Names; None for all of the dataset's.
        candidates: See ``grid.Grid``.

    Raises:
        NonRetryableError: There is no such model, or no such grid.
    """
    from include.datasets.definition import BASELINE

    known = list(dataset.estimators())
    if unknown := sorted(set(asked or ()) - set(known)):
        raise NonRetryableError(
            f"Dataset {dataset.name!r} has no model {', '.join(unknown)}; it has {', '.join(known)}."
        )
    added = [name for name in grid.estimators(dataset, candidates) if name not in known]
    # Every run has its baseline: without it an accuracy says little.
    return [model for model in known if not asked or model in asked or model == BASELINE] + added


def sealed_run_id(version: str) -> str:
    """The id, in Airflow, of the one run that a version's sealing starts."""
    return f"train__{version[:16]}"


def _day(text: str | None) -> datetime | None:
    if not text:
        return None
    try:
        return datetime.combine(date.fromisoformat(text), time(), UTC)
    except ValueError as error:
        raise NonRetryableError(f"The parameter until is {text!r}, which is no day.", "Write 2015-01-01.") from error
