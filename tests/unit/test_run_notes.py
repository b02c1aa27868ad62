"""The notes of DAG runs, from the results of their tasks."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from include.airflow import run_notes
from include.promotion import summary
from include.warehouse.queries.signatures.registry import RunSummaryRow


@pytest.mark.parametrize(
    ("results", "note"),
    [
        ([], ""),
        (["version 0a1b, 12 rows"], "version 0a1b, 12 rows"),
        ([{"landed": 1200, "dead letters": 0, "quarantined": 3}], "1,200 landed, 3 quarantined"),
        ([{"landed": 0, "dead letters": 0}], "0 landed"),
        ([{"landed": 1, "dead letters": 2}, {"landed": 10, "dead letters": 0}], "11 landed, 2 dead letters"),
        (["failed: a", "failed: a", "failed: b"], "failed: a; failed: b"),
        (["failed: a", {"landed": 5}], "5 landed; failed: a"),
        (["x" * 2_000], "x" * 999 + "…"),
    ],
    ids=str,
)
def test_a_note_joins_phrases_and_adds_up_numbers(results: list[str | Mapping[str, int]], note: str) -> None:
    assert run_notes.text(results) == note


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "version 0a1b2c3d4e5f, best forest (accuracy 0.9312), inconclusive"),
        ({"promoted": "forest"}, "version 0a1b2c3d4e5f, best forest (accuracy 0.9312), forest became champion"),
        ({"gate": None}, "version 0a1b2c3d4e5f, best forest (accuracy 0.9312), not compared yet"),
        ({"gate": "superseded"}, "version 0a1b2c3d4e5f, best forest (accuracy 0.9312), superseded"),
        ({"outcome": "promote"}, "version 0a1b2c3d4e5f, best forest (accuracy 0.9312), promote tree: not done"),
        ({"metric": "rmse", "value": 53.1234}, "version 0a1b2c3d4e5f, best forest (rmse 53.12), inconclusive"),
        ({"model": None, "value": None}, "version 0a1b2c3d4e5f, inconclusive"),
    ],
    ids=str,
)
def test_the_line_of_a_run_has_version_best_model_and_verdict(changes: dict[str, object], line: str) -> None:
    row = RunSummaryRow("0a1b2c3d4e5f", "forest", "accuracy", 0.93124, "judged", "inconclusive", "tree", None)
    assert summary.line(row._replace(**changes)) == line  # type: ignore[arg-type]
