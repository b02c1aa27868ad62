"""The stored position on a real PostgreSQL: one owner, compare-and-set, and no writes of a former owner."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg2
import pytest

from include.error_codes import Code
from include.kafka import position
from include.kafka.position_errors import Fenced, TopicRecreated
from include.kafka.topics import Topic
from include.warehouse.connection import connect
from tests.errors import raises

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

TOPIC = Topic("orders", "incarnation-1", (0, 1))


def claim(connection: Connection, owner: str = "test", topic: Topic = TOPIC) -> dict[int, position.Position]:
    return position.claim(connection, "landing:orders", topic, topic.partitions, owner)


def next_offsets(connection: Connection) -> dict[int, int]:
    found = position.read_positions(connection, "landing:orders", "orders")
    connection.rollback()
    return {partition: stored.position.next_offset for partition, stored in found.items()}


def test_new_partitions_begin_at_offset_0(warehouse: Connection) -> None:
    claim(warehouse)
    grown = claim(warehouse, topic=Topic("orders", "incarnation-1", (0, 1, 2)))
    assert {partition: (one.next_offset, one.epoch) for partition, one in grown.items()} == {
        0: (0, 2),
        1: (0, 2),
        2: (0, 1),
    }


def test_the_position_moves_with_the_transaction(warehouse: Connection) -> None:
    mine = claim(warehouse)
    position.advance(warehouse, "landing:orders", "orders", mine, {0: (5, 1)})
    warehouse.rollback()
    assert next_offsets(warehouse) == {0: 0, 1: 0}
    mine = position.advance(warehouse, "landing:orders", "orders", mine, {0: (5, 1)})
    warehouse.commit()
    mine = position.advance(warehouse, "landing:orders", "orders", mine, {0: (9, None), 1: (3, 2)})
    warehouse.commit()
    assert next_offsets(warehouse) == {0: 9, 1: 3}
    assert mine[0].leader_epoch == 1, "a batch without records keeps the last known leader epoch"


def test_a_former_owner_is_fenced(warehouse: Connection) -> None:
    with closing(connect()) as second:
        old = claim(warehouse, "old")
        new = claim(second, "new")
        with raises(Code.POSITIONS_TAKEN_OVER, "partitions [0]", kind=Fenced):
            position.advance(warehouse, "landing:orders", "orders", old, {0: (5, 1)})
        warehouse.rollback()
        position.advance(second, "landing:orders", "orders", new, {0: (5, 1)})
        second.commit()
    assert next_offsets(warehouse) == {0: 5, 1: 0}


def test_the_same_offsets_never_move_twice(warehouse: Connection) -> None:
    mine = claim(warehouse)
    position.advance(warehouse, "landing:orders", "orders", mine, {1: (5, 1)})
    warehouse.commit()
    with raises(Code.POSITIONS_TAKEN_OVER, kind=Fenced):
        position.advance(warehouse, "landing:orders", "orders", mine, {1: (5, 1)})


def test_a_stopped_owner_that_holds_the_locks_is_terminated(
    warehouse: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(connect("millrace test")) as stopped:
        old = claim(stopped, "stopped")
        position.advance(stopped, "landing:orders", "orders", old, {0: (5, 1)})
        monkeypatch.setattr(position, "TAKEOVER_AFTER_MS", 500)
        claim(warehouse, "successor")
        with pytest.raises(psycopg2.OperationalError):
            stopped.commit()
    assert next_offsets(warehouse) == {0: 0, 1: 0}, "the stopped owner's transaction was rolled back"


def test_concurrent_claims_leave_one_owner(warehouse: Connection) -> None:
    def contend() -> None:
        with closing(connect()) as connection:
            claim(connection, threading.current_thread().name)

    contenders = [threading.Thread(target=contend) for _ in range(8)]
    for one in contenders:
        one.start()
    for one in contenders:
        one.join()
    found = position.read_positions(warehouse, "landing:orders", "orders")
    assert {stored.position.epoch for stored in found.values()} == {8}
    assert len({stored.owner for stored in found.values()}) == 1


def test_a_recreated_topic_is_reported(warehouse: Connection) -> None:
    claim(warehouse)
    with raises(Code.TOPIC_RECREATED, "incarnation-1", "incarnation-2", kind=TopicRecreated):
        claim(warehouse, topic=Topic("orders", "incarnation-2", (0, 1)))
    assert next_offsets(warehouse) == {0: 0, 1: 0}
