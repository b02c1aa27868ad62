"""TrainingState: the state of a training run."""

from __future__ import annotations

from enum import StrEnum


class TrainingState(StrEnum):
    """The column ``state`` of ``millrace.training_run``."""

    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
