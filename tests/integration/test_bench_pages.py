"""The benchmark of the pages: its data have a row for every query that it times."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks import pages

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


@pytest.mark.altered("the runs are made with SQL and have no models")
def test_every_query_finds_rows(warehouse: Connection) -> None:
    pages.fill(warehouse, {"versions": 60, "models": 14, "rows": 10_000, "partitions": 5, "letters": 100})
    for name, call in pages.calls().items():
        found = call(warehouse)
        warehouse.rollback()
        assert found, name
    assert pages.measure(pages.calls()["model: dataset"], warehouse) > (0, 0)
    with warehouse.cursor() as cursor:
        cursor.execute("SELECT count(*), count(DISTINCT tableoid) FROM landing.stream_1")
        assert cursor.fetchone() == (10_000, 5)
