"""The peers of the landing benchmark: each lands every event once, and removes its tables and positions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from benchmarks import landing
from benchmarks.peers import topic as topics

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

EVENTS = 20_000


@pytest.fixture(scope="module")
def topic(services: object) -> Iterator[str]:
    with topics.filled(EVENTS) as name:
        yield name


@pytest.mark.parametrize("name", ["ours", "current_2", "bare_2", "operator_insert", "operator_copy"])
def test_a_peer_lands_every_event_once_and_cleans_up(warehouse: Connection, topic: str, name: str) -> None:
    with landing.observing() as connection:
        landed = landing.land(landing.PEERS[name], topic, EVENTS, connection)
        assert landed.samples[-1][1] == EVENTS
        assert landed.peak_rss > 0
    with warehouse.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM information_schema.tables WHERE table_schema IN ('bench', 'landing')")
        assert cursor.fetchone() == (0,)
        cursor.execute("SELECT count(*) FROM millrace.position")
        assert cursor.fetchone() == (0,)
