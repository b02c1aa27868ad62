"""RunState: how far a training run has come."""

from __future__ import annotations

from enum import StrEnum


class RunState(StrEnum):
    """The column ``state`` of ``millrace.training_run``."""

    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
