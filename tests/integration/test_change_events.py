"""Debezium's change events: the current state is the source's table, whatever lands again, and in whatever order."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import pytest

from include.error_codes import Code
from include.kafka.position_errors import PositionError
from include.landing import proof, replay, retry
from include.landing.choice import Choice
from include.landing.drain import drain
from include.landing.recovery import accept
from include.landing.replay_selection import Wanted
from include.streams import produce
from include.streams.change_events import PLACEHOLDER
from include.streams.definition import ConnectDecimal, JsonText, Source, Stream
from tests.errors import raises
from tests.integration.landing import NOW, rows, send

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

MS = int(NOW.timestamp() * 1_000)
UNKNOWN_BYTES = base64.b64encode(PLACEHOLDER.encode()).decode()
CURRENT = "SELECT id, name, body, data, doc FROM landing.things_current ORDER BY id"


class Thing(msgspec.Struct, kw_only=True):
    """A row."""

    id: int
    name: str
    body: str | None = None
    data: bytes | None = None
    doc: JsonText | None = None
    amount: Annotated[str, ConnectDecimal(2)] | None = None
    lsn: Annotated[int, Source("lsn")]


class Strict(Thing, kw_only=True):
    """A row that cannot have some names."""

    def __post_init__(self) -> None:
        if self.name == "late":
            raise ValueError("a name that cannot land yet")


@pytest.fixture
def things(warehouse: Connection, topic: Callable[..., str]) -> Stream:
    """A stream of the rows of a table, with an empty topic."""
    stream = Stream(
        name="things",
        topic=topic("things"),
        envelope="debezium",
        event=Thing,
        event_time="change_time",
        key="id",
        current=True,
        quiet="1 second",
        window="1 minute",
        kafka_partitions=3,
    )
    produce.make_topic(stream)
    return stream


class Log:
    """Makes change events, each at the next position."""

    def __init__(self) -> None:
        self.lsn = 100

    def change(self, op: str, row: dict[str, Any] | None, lsn: int | None = None) -> bytes:
        self.lsn += 1
        before, after = (row, None) if op == "d" else (None, row)
        source = {"ts_ms": MS + self.lsn, "lsn": lsn or self.lsn}
        return msgspec.json.encode({"before": before, "after": after, "source": source, "op": op, "ts_ms": MS})

    def set(self, key: int, name: str, body: str | None = None, **others: Any) -> bytes:
        return self.change("c", {"id": key, "name": name, "body": body, **others})

    def rename(self, key: int, name: str) -> bytes:
        """An update of a row whose large values Debezium does not know."""
        row = {"id": key, "name": name, "body": PLACEHOLDER, "data": UNKNOWN_BYTES, "doc": PLACEHOLDER}
        return self.change("u", row)

    def delete(self, key: int) -> bytes:
        return self.change("d", {"id": key, "name": "", "body": None})


def current(connection: Connection) -> list[tuple[Any, ...]]:
    return [(*row[:3], row[3] and bytes(row[3]), *row[4:]) for row in rows(connection, CURRENT)]


def proven(connection: Connection, stream: Stream) -> None:
    assert proof.prove(connection, stream).wrong == []


def test_the_current_state_is_the_table_of_the_source(things: Stream, warehouse: Connection) -> None:
    log = Log()
    send(things, [log.set(1, "a", "long", data="AQI=", doc='{"x": 1}', amount="AQI="), log.rename(1, "b")])
    send(things, [log.set(2, "c", "old"), log.delete(2), log.set(2, "d", "new"), log.rename(2, "e"), log.delete(3)])
    send(things, [None, b'{"status": "END", "id": "5", "event_count": 1, "data_collections": []}'])
    done = drain(things, "test")
    assert (done.landed, done.dead_letters) == (7, 0)
    assert current(warehouse) == [(1, "b", "long", b"\1\2", {"x": 1}), (2, "e", "new", None, None)]
    send(things, [log.rename(1, "f"), log.rename(1, "g"), log.set(1, "h", "other"), log.rename(1, "i")])
    assert drain(things, "test").landed == 4
    assert current(warehouse)[0] == (1, "i", "other", None, None)
    skipped = rows(warehouse, "SELECT sum(skipped) FROM millrace.landing_ledger")
    assert skipped == [(2,)]
    history = rows(
        warehouse, "SELECT change_op, id, name, body, change_unchanged, amount::text FROM landing.things ORDER BY lsn"
    )
    assert history[:2] == [
        ("c", 1, "a", "long", None, "2.58"),
        ("u", 1, "b", None, ["body", "data", "doc"], None),
    ]
    assert rows(warehouse, "SELECT id, name, kafka_deleted FROM landing.things_state WHERE id = 3") == [(3, None, True)]
    proven(warehouse, things)
    with warehouse, warehouse.cursor() as cursor:
        cursor.execute("UPDATE landing.things_state SET body = 'tampered' WHERE id = 1")
    assert "values that did not change and differ" in str(proof.prove(warehouse, things).wrong)


def test_unknown_values_are_right_whatever_lands_again(things: Stream, warehouse: Connection) -> None:
    log, strict = Log(), replace(things, event=Strict)
    send(things, [log.set(1, "first", "a"), log.set(2, "late", "b")])
    drain(strict, "test")
    send(things, [log.set(1, "late", "c"), log.rename(1, "renamed"), log.rename(2, "kept")])
    drain(strict, "test")
    # The rows with these values could not land yet.
    assert current(warehouse) == [(1, "renamed", "a", None, None), (2, "kept", None, None, None)]
    proven(warehouse, strict)
    assert retry.retry(warehouse, things).landed == 2
    expected = [(1, "renamed", "c", None, None), (2, "kept", "b", None, None)]
    assert current(warehouse) == expected
    proven(warehouse, things)
    replay.replay(warehouse, things, Wanted(), "test")
    assert current(warehouse) == expected
    with warehouse, warehouse.cursor() as cursor:
        cursor.execute("DROP VIEW landing.things_current; DROP TABLE landing.things_state")
    drain(things, "test")
    assert current(warehouse) == expected, "the state is filled from the history"
    proven(warehouse, things)


def test_the_position_in_the_log_orders_changes_in_several_partitions(things: Stream, warehouse: Connection) -> None:
    stream, log = replace(things, order_by="lsn"), Log()
    old, new = log.set(1, "a", "old"), log.set(1, "b", "new")
    renamed = log.rename(1, "c")
    send(stream, [renamed], partition=0)
    drain(stream, "test")
    send(stream, [new], partition=1)
    send(stream, [old], partition=2)
    drain(stream, "test")
    assert current(warehouse) == [(1, "c", "new", None, None)]
    proven(warehouse, stream)


def test_a_truncation_stops_the_stream_until_it_is_accepted(things: Stream, warehouse: Connection) -> None:
    log = Log()
    send(things, [log.set(1, "a"), log.change("t", None)])
    with raises(Code.SOURCE_TRUNCATED, "offset 1", "truncated", kind=PositionError):
        drain(things, "test")
    assert rows(warehouse, "SELECT sum(next_offset) FROM millrace.position") == [(0,)]
    accept(warehouse, things, Choice.BAD, "test")
    assert (done := drain(things, "test")).landed == 1 and done.dead_letters == 1
    proven(warehouse, things)
    history = replace(things, name="things_history", key=None, current=False, deletes=None)
    assert drain(history, "test").landed == 2
    assert rows(warehouse, "SELECT change_op, id FROM landing.things_history ORDER BY lsn") == [("c", 1), ("t", None)]
    proven(warehouse, history)
