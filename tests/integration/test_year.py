"""Months of daily windows in fast motion: what is kept stays of one size, and is proven at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from benchmarks.year import SEASONS, Year, dataset
from include.training.verification import verify_run

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

DAYS, KEEP = 24, 3


@pytest.mark.altered("models of forgotten versions")
def test_what_is_kept_stays_of_one_size(topic: Callable[..., str], warehouse: Connection) -> None:
    year = Year(dataset(topic("year").replace("-", "_"), KEEP), DAYS)
    sizes = [year.measure(warehouse, day) for day in year.live(warehouse, keep_models=5, keep_logs=8, every=2)]
    season = DAYS // SEASONS
    third, last = sizes[2 * season : 3 * season], sizes[-season:]
    # Versions behind the one that the champion trained on stay in Kafka, so that the size goes up and down.
    assert max(size.messages for size in last) <= 1.2 * max(size.messages for size in third)
    assert max(size.models_mb for size in last) <= 1.2 * max(size.models_mb for size in third)
    # What the run of each champion logged is kept.
    assert max(size.log_lines for size in last) <= 1.2 * max(size.log_lines for size in third)
    assert sizes[-1].champions == 4, "one in each season"
    with warehouse.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM millrace.training_run WHERE state <> 'success'")
        assert cursor.fetchone() == (0,)
    warehouse.rollback()
    assert {verify_run(run, "test").outcome for run in year.runs[-KEEP:]} == {"identical"}
