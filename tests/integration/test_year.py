"""Sixteen daily windows in fast motion: the stored data does not grow, nothing waits, and everything is verified."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.peers.topic import forget
from benchmarks.year import Kept, Year, fast_warehouse
from benchmarks.year_of_landing import Landing
from benchmarks.year_of_retraining import Retraining

DAYS = 16
KEPT = Kept(versions=2, rows=4, in_kafka=DAYS // 2, ledger=2, models=2, run_logs=2, airflow=2)


@pytest.mark.usefixtures("services")
def test_the_stored_data_does_not_grow(topic: Callable[..., str], tmp_path: Path) -> None:
    """A drain lasts four days, with the maintenance of each, until the next takes over."""
    name = topic("year").replace("-", "_")
    landing, retraining = Landing(f"{name}.events", KEPT.rows, KEPT.in_kafka), Retraining(name, DAYS, KEPT.versions)
    year = Year(landing, retraining, KEPT, DAYS, a_drain_lasts=4)
    with fast_warehouse(DAYS) as connection, landing.ending(connection):
        assert list(year.live(connection, None, tmp_path)) == list(range(1, DAYS + 1))
        assert year.wrong(connection) == []
    for used in (landing.topic, retraining.dataset.topic):
        forget(used)
    quarters = list(year.sizes.values())
    assert [size["millrace.champion_change"] for size in quarters] == [1, 2, 3, 4], "a champion in each season"
    assert [size["millrace.dead_letter"] for size in quarters] == [8, 16, 24, 32], "two records a day"
    assert len({size["partitions"] for size in quarters}) == 1
    assert quarters[-1]["millrace.landing_ledger"] <= 9
