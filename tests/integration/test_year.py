"""Months of daily windows in fast motion: what is kept stays of one size, and is proven at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from benchmarks.year import Year, dataset
from include.training.verification import verify_run

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

DAYS, KEEP = 32, 4


@pytest.mark.altered("models of forgotten versions")
def test_what_is_kept_stays_of_one_size(topic: Callable[..., str], warehouse: Connection) -> None:
    year = Year(dataset(topic("year").replace("-", "_"), KEEP), DAYS)
    sizes = [year.measure(warehouse, day) for day in year.live(warehouse, keep_models=6, keep_logs=8)]
    middle, end = sizes[DAYS // 2 - 3], sizes[-5]
    assert end.messages <= middle.messages
    assert end.models_mb <= 1.5 * middle.models_mb
    assert end.log_lines <= 1.5 * middle.log_lines + 20
    assert sizes[-1].champions == 4, "one in each season"
    with warehouse.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM millrace.training_run WHERE state <> 'success'")
        assert cursor.fetchone() == (0,)
    warehouse.rollback()
    assert {verify_run(run, "test").outcome for run in year.runs[-KEEP:]} == {"identical"}
