"""Checkpoints: how far a model that learns batch by batch has come, so that a task that is killed goes on there."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Collection
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

from include.registry.artifact import UntrustedArtifact, dumps, loads
from include.training.out_of_core import Place
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

EVERY_S = 30.0

log = logging.getLogger(__name__)


class Checkpoint:
    """The one checkpoint of a run's model, in ``millrace.checkpoint``: each replaces the one before, all or nothing.

    Args:
        plan: What the model is fitted by, its parameters included: a checkpoint of another plan is not gone on with.
        connection: Gives a connection to the warehouse.
        trusted: The definition's own types, see ``artifact.loads``.
    """

    def __init__(
        self, run: int, model: str, plan: str, connection: Callable[[], Connection], trusted: Collection[str] = ()
    ) -> None:
        self._run, self._model = run, model
        self._plan = hashlib.sha256(plan.encode()).hexdigest()
        self._connection = connection
        self._trusted = trusted
        self._saved_at = time.monotonic()

    def load(self) -> tuple[Any, Place] | None:
        """The estimator as it was, and where it goes on; None when there is no checkpoint that is good for it."""
        connection = self._connection()
        found = queries.load("training").checkpoint_of(connection, run=self._run, model=self._model, plan=self._plan)
        connection.rollback()
        if found is None:
            return None
        step, epoch, batch, estimator, sha256 = found
        try:
            return loads(bytes(estimator), sha256, self._trusted), Place(step, epoch, batch)
        except UntrustedArtifact as error:
            log.warning("Starting over, since the checkpoint cannot be used: %s", error)
            return None

    def reached(self, estimator: Any, place: Place) -> None:
        """Notes how far it came, every ``EVERY_S`` seconds."""
        if time.monotonic() - self._saved_at >= EVERY_S:
            self.save(estimator, place)

    def save(self, estimator: Any, place: Place) -> None:
        """Notes how far it came, in one transaction."""
        content, (step, epoch, batch) = dumps(estimator), astuple(place)
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
