"""Checkpoints: how far a model that learns in batches has come, so that a killed task continues from there."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Collection
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

from include.registry.artifact import UntrustedArtifact, dumps, loads
from include.training.progress import Progress
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

SAVE_EVERY_S = 30.0

log = logging.getLogger(__name__)


class Checkpoint:
    """The checkpoint of a run's model in ``millrace.checkpoint``; each replaces the previous one in one transaction.

    Args:
        plan: The version, the parameters and everything else that decides the fit. A checkpoint of another plan is
            ignored.
        connection: Returns a connection to the warehouse.
        trusted: Types of the definition, see ``artifact.loads``.
    """

    def __init__(
        self, run: int, model: str, plan: str, connection: Callable[[], Connection], trusted: Collection[str] = ()
    ) -> None:
        self._run, self._model = run, model
        self._plan = hashlib.sha256(plan.encode()).hexdigest()
        self._connection = connection
        self._trusted = trusted
        self._saved_at = time.monotonic()

    def load(self) -> tuple[Any, Progress] | None:
        """The estimator as it was stored, and where to continue; None without a usable checkpoint of this plan."""
        connection = self._connection()
        found = queries.load("training").checkpoint_of(connection, run=self._run, model=self._model, plan=self._plan)
        connection.rollback()
        if found is None:
            return None
        step, epoch, batch, estimator, sha256 = found
        try:
            return loads(bytes(estimator), sha256, self._trusted), Progress(step, epoch, batch)
        except UntrustedArtifact as error:
            log.warning("The checkpoint cannot be used, so the fit starts again: %s", error)
            return None

    def reached(self, estimator: Any, progress: Progress) -> None:
        """Saves a checkpoint if the last one is older than ``SAVE_EVERY_S`` seconds."""
        if time.monotonic() - self._saved_at >= SAVE_EVERY_S:
            self.save(estimator, progress)

    def save(self, estimator: Any, progress: Progress) -> None:
        """Saves a checkpoint and commits."""
        content, (step, epoch, batch) = dumps(estimator), astuple(progress)
        connection = self._connection()
        queries.load("training").save_checkpoint(
            connection,
            run=self._run,
            model=self._model,
            plan=self._plan,
            step=step,
            epoch=epoch,
            batch=batch,
            estimator=content,
            sha256=hashlib.sha256(content).hexdigest(),
        )
        connection.commit()
        self._saved_at = time.monotonic()
