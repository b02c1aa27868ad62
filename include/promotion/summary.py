"""The results of training runs in one line, and the promotions that they led to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from include.gate.verdict import Outcome
from include.promotion.evaluation_queue import GateState
from include.warehouse import queries
from include.warehouse.connection import connected

if TYPE_CHECKING:
    from include.warehouse.queries.signatures.registry import PromotionsOfRow, RunSummaryRow


def line_of_run(run: int) -> str:
    """A run's version, best model and verdict in one line."""
    with connected("millrace summary") as connection:
        row = queries.load("registry").run_summary(connection, run=run)
    return "" if row is None else line(row)


def line(row: RunSummaryRow) -> str:
    """The line about a run."""
    parts = [f"version {row.version}"]
    if row.model is not None and row.value is not None:
        parts.append(f"best {row.model} ({row.metric} {row.value:.4g})")
    parts.append(_verdict(row))
    return ", ".join(parts)


def promotions(runs: Sequence[int]) -> list[PromotionsOfRow]:
    """The changes of champion that promoted a model of these runs, in their order."""
    if not runs:
        return []
    with connected("millrace summary") as connection:
        return list(queries.load("registry").promotions_of(connection, runs=runs))


def _verdict(row: RunSummaryRow) -> str:
    if row.promoted is not None:
        return f"{row.promoted} became champion"
    if row.gate is None:
        return "not compared yet"
    if row.gate != GateState.JUDGED or row.outcome is None:
        return row.gate
    if row.outcome == Outcome.PROMOTE:
        return f"promote {row.judged}: not done"
    return row.outcome
