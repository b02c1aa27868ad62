"""Progress: how far an estimator that learns in batches has come."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Where to continue: the next batch, of a pass (``epoch``), of a step of the pipeline; all from 0."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
