"""Indexes and storage parameters that a definition declares, in tables that are new and in those that have rows."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING

import pytest

from include.error_codes import Code
from include.errors import NonRetryableError
from include.landing import indexes, maintenance, proof, replay, table
from include.landing.drain import drain
from include.landing.locks import Locked
from include.streams.definition import Stream
from include.streams.indexes import indexes_of
from include.warehouse.connection import connect
from tests.errors import raises
from tests.integration.landing import NOW, event, kept_aside, one_disposition_each, rows, send, stream
from tests.integration.test_landing_tables import execute

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

__all__ = ["stream"]

DECLARED = ("text", ("text", "ts"))


def declared(stream: Stream) -> Stream:
    return replace(stream, indexes=DECLARED, brin=True)


def landed(stream: Stream) -> None:
    """Lands events of three days."""
    send(stream, [event(str(day), NOW - timedelta(days=day)) for day in range(3)])
    assert drain(stream, "test").landed == 3


def found(connection: Connection) -> list[tuple[str, bool, int]]:
    """The indexes besides the primary key: what they index, whether they are valid, and the number of their parts."""
    return rows(
        connection,
        "SELECT regexp_replace(pg_get_indexdef(indexrelid), '.* USING ', ''), indisvalid, "
        "(SELECT count(*)::int FROM pg_inherits WHERE inhparent = indexrelid) "
        "FROM pg_index WHERE indrelid = 'landing.readings'::regclass AND NOT indisprimary ORDER BY 1",
    )


def partitions(connection: Connection) -> int:
    count: int = rows(connection, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'landing.readings'::regclass")[0][
        0
    ]
    return count


def test_a_new_table_has_the_indexes_and_the_storage_parameters(stream: Stream, warehouse: Connection) -> None:
    stream = replace(declared(stream), storage={"fillfactor": 80, "toast.autovacuum_enabled": False})
    landed(stream)
    count = partitions(warehouse)
    assert found(warehouse) == [
        ("brin (ts)", True, count),
        ("btree (text)", True, count),
        ("btree (text, ts)", True, count),
    ]
    options = rows(
        warehouse,
        "SELECT DISTINCT reloptions::text FROM pg_class JOIN pg_inherits ON inhrelid = oid "
        "WHERE inhparent = 'landing.readings'::regclass",
    )
    assert options == [("{fillfactor=80}",)]
    assert table.find_changes(warehouse, stream) == []


def test_indexes_follow_the_definition(stream: Stream, warehouse: Connection) -> None:
    landed(stream)
    execute(warehouse, "CREATE INDEX mine ON landing.readings (kafka_offset)")
    before = partitions(warehouse)
    wanted = declared(stream)
    assert [change.description for change in table.find_changes(warehouse, wanted)] == [
        "create the index on text of landing.readings",
        "create the index on text, ts of landing.readings",
        "create the BRIN index on ts of landing.readings",
    ]
    # The drain creates them for new partitions; it does not wait for those that exist.
    send(wanted, [event("new", NOW - timedelta(days=5))])
    assert drain(wanted, "test").landed == 1
    after = partitions(warehouse)
    assert after > before
    mine = ("btree (kafka_offset)", True, after)
    own = ["brin (ts)", "btree (text)", "btree (text, ts)"]
    assert sorted(found(warehouse)) == sorted([mine, *((each, False, after - before) for each in own)])
    maintenance.maintain(warehouse, wanted)
    count = partitions(warehouse)
    assert sorted(found(warehouse)) == sorted(
        [("btree (kafka_offset)", True, count), *((each, True, count) for each in own)]
    )
    assert indexes.build(warehouse, wanted) == []
    replay.replay(warehouse, wanted, replay.Wanted(), "test")
    assert not proof.prove(warehouse, wanted).wrong
    one_disposition_each(warehouse, wanted)
    # Without them in the definition, they are dropped; a user's index stays.
    maintenance.maintain(warehouse, stream)
    assert found(warehouse) == [("btree (kafka_offset)", True, partitions(warehouse))]


def test_a_build_that_was_interrupted_is_repeated(
    stream: Stream, warehouse: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    landed(stream)
    wanted = replace(stream, indexes=("text",))
    table.bring_up_to_date(warehouse, wanted)
    monkeypatch.setattr(indexes, "BUILD_TIMEOUT_MS", 200)
    with closing(connect("a user's session")) as other, other.cursor() as cursor:
        # A transaction that has written to a partition.
        cursor.execute("UPDATE landing.readings SET text = text")
        with raises(Code.LOCK_TIMEOUT, "the index on text", "a user's session", kind=Locked):
            indexes.build(warehouse, wanted)
        other.rollback()
    name = indexes_of(wanted)[0].name_for("ix")
    invalid = "SELECT count(*) FROM pg_index WHERE indexrelid::regclass::text ~ %s AND NOT indisvalid"
    assert rows(warehouse, invalid, name)[0][0] == 1
    count = partitions(warehouse)
    assert len(indexes.build(warehouse, wanted)) == count
    assert found(warehouse) == [("btree (text)", True, count)]
    assert rows(warehouse, invalid, name)[0][0] == 0
    # One that was built and not attached is only attached.
    execute(warehouse, f"DROP INDEX landing.{indexes_of(wanted)[0].name_for('readings')}")
    table.bring_up_to_date(warehouse, wanted)
    newest, oid = rows(
        warehouse,
        "SELECT inhrelid::regclass::text, inhrelid::bigint FROM pg_inherits "
        "WHERE inhparent = 'landing.readings'::regclass ORDER BY 1 DESC LIMIT 1",
    )[0]
    execute(warehouse, f"CREATE INDEX {name}_{oid} ON {newest} (text)")
    built = rows(warehouse, "SELECT %s::regclass::oid::bigint", f"landing.{name}_{oid}")
    indexes.build(warehouse, wanted)
    assert rows(warehouse, "SELECT %s::regclass::oid::bigint", f"landing.{name}_{oid}") == built
    assert found(warehouse) == [("btree (text)", True, count)]


def test_a_text_that_is_too_long_for_an_index_becomes_a_dead_letter(stream: Stream, warehouse: Connection) -> None:
    stream = replace(stream, indexes=("text",))
    # Random digits, because PostgreSQL compresses texts.
    long = "".join(map(str, Random(1).choices(range(10**6), k=2_000)))
    send(stream, [event("a"), event(long), event("b")])
    drained = drain(stream, "test")
    assert (drained.landed, drained.dead_letters) == (2, 1)
    assert "index row requires" in kept_aside(warehouse)[1][1]
    one_disposition_each(warehouse, stream)


def test_a_long_text_prevents_an_index_of_its_partition_and_nothing_else(stream: Stream, warehouse: Connection) -> None:
    long = [Random(day).randbytes(4_000).hex() for day in (0, 2)]
    send(stream, [event(text, NOW - timedelta(days=day)) for text, day in zip(long, (0, 2), strict=True)])
    send(stream, [event("short", NOW - timedelta(days=day)) for day in (1, 6)])
    assert drain(stream, "test").landed == 4
    count = partitions(warehouse)
    wanted = replace(stream, indexes=("text",), keep="5 days", late="1 day")
    old, first, second = (f"readings_{NOW - timedelta(days=day):%Y%m%d}" for day in (6, 0, 2))
    with raises(Code.INDEX_NOT_BUILT, "the index on text", first, second, kind=NonRetryableError):
        maintenance.maintain(warehouse, wanted)
    left = partitions(warehouse)
    assert left < count + maintenance.PARTITIONS_AHEAD
    assert rows(warehouse, "SELECT to_regclass(%s)", f"landing.{old}") == [(None,)]
    assert found(warehouse) == [("btree (text)", False, left - 2)]
    # What is left of the index would refuse rows, and the partition takes long texts as before.
    leftovers = "SELECT count(*) FROM pg_index WHERE NOT indisvalid AND indrelid <> 'landing.readings'::regclass"
    assert rows(warehouse, leftovers) == [(0,)]
    send(wanted, [event(long[1])])
    assert drain(wanted, "test").landed == 1
