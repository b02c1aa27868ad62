"""The current state: one row for each key, whatever lands again, and in whatever order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
import pytest

from include import orphans
from include.error_codes import Code
from include.errors import NonRetryableError, UserError
from include.kafka.position_errors import Fenced
from include.landing import maintenance, proof, replay, retry, spans, state, table
from include.landing.drain import Drain, drain
from include.landing.replay_selection import Wanted
from include.streams import payments, produce
from include.streams.definition import RECORD_TIMESTAMP, Instant, Stream
from include.warehouse.connection import connected
from tests.errors import raises
from tests.integration.landing import NOW, kept_aside, rows, send

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


class Account(msgspec.Struct):
    """The state of an account."""

    id: int
    ts: Instant
    name: str = ""
    op: str = "u"
    version: int = 0
    note: str | None = None


class Grown(Account):
    more: str | None = None


class Strict(Account):
    """The event, of which a name is never 'bad'."""

    def __post_init__(self) -> None:
        if self.name == "bad":
            raise ValueError("a bad name")


@pytest.fixture
def accounts(warehouse: Connection, topic: Callable[..., str]) -> Stream:
    """A stream with the current state of accounts, and an empty topic."""
    stream = Stream(
        name="accounts",
        topic=topic("accounts"),
        event=Account,
        event_time="ts",
        key="id",
        current=True,
        quiet="1 second",
        window="1 minute",
        kafka_partitions=3,
    )
    produce.make_topic(stream)
    return stream


def account(id: int, name: str = "", ts: datetime = NOW, **fields: Any) -> bytes:
    return msgspec.json.encode({"id": id, "ts": ts, "name": name, **fields})


def current(connection: Connection, columns: str = "id, name") -> list[tuple[Any, ...]]:
    return rows(connection, f"SELECT {columns} FROM landing.accounts_current ORDER BY 1")


def stored(connection: Connection) -> list[tuple[Any, ...]]:
    return rows(
        connection,
        "SELECT id, name, kafka_partition, kafka_offset, kafka_deleted FROM landing.accounts_state ORDER BY 1",
    )


def proven(connection: Connection, stream: Stream) -> None:
    assert proof.prove(connection, stream).wrong == []


def test_the_state_has_the_last_record_of_each_key(accounts: Stream, warehouse: Connection) -> None:
    send(accounts, [account(1, "a"), account(2, "b"), account(1, "c")])
    send(accounts, [account(3, "d", note="x")], partition=1)
    assert drain(accounts, "test").landed == 4
    assert stored(warehouse) == [(1, "c", 0, 2, False), (2, "b", 0, 1, False), (3, "d", 1, 0, False)]
    send(accounts, [account(2, "e"), account(4, "f"), account(3, "g")], partition=0)
    with raises(Code.KEY_MOVED, "id=3", "partitions 0 and 1", accounts.topic, kind=NonRetryableError):
        drain(accounts, "test")
    assert len(rows(warehouse, "SELECT FROM landing.accounts")) == 4
    ordered = replace(accounts, order_by="version")
    assert drain(ordered, "test").landed == 3
    assert current(warehouse) == [(1, "c"), (2, "e"), (3, "d"), (4, "f")]
    proven(warehouse, ordered)
    assert rows(warehouse, "SELECT order_by, deletes FROM millrace.landing_current") == [("version", None)]


def test_a_key_in_two_partitions_of_a_batch_stops_the_stream(accounts: Stream, warehouse: Connection) -> None:
    stream = replace(accounts, deletes="tombstone")
    send(stream, [account(1, "a"), account(2, "b")])
    send(stream, [None], partition=2, key=b"2")
    with raises(Code.KEY_MOVED, "id=2", "partitions 0 and 2", kind=NonRetryableError):
        drain(stream, "test")
    assert rows(warehouse, "SELECT FROM landing.accounts") == []
    assert rows(warehouse, "SELECT sum(next_offset) FROM millrace.position") == [(0,)]


def test_a_key_of_several_fields_in_every_type(accounts: Stream, warehouse: Connection) -> None:
    class Measured(msgspec.Struct):
        ts: Instant
        day: Instant
        uid: UUID
        text: str
        flag: bool
        value: float

    stream = replace(accounts, event=Measured, key=("text", "uid", "flag", "day"), deletes="tombstone")

    def measured(text: str, value: float, flag: bool = True) -> dict[str, Any]:
        return {"ts": NOW, "day": NOW, "uid": UUID(int=1), "text": text, "flag": flag, "value": value}

    send(
        stream,
        map(msgspec.json.encode, [measured("a", 1), measured("b", 2), measured("a", 3), measured("a", 4, False)]),
    )
    send(stream, [None], key=msgspec.json.encode(measured("b", 2)))
    assert drain(stream, "test").landed == 4
    found = rows(warehouse, "SELECT text, flag, value FROM landing.accounts_current ORDER BY 1, 2")
    assert found == [("a", False, 4.0), ("a", True, 3.0)]
    proven(warehouse, stream)


def test_a_replay_of_an_old_range_does_not_change_the_state(accounts: Stream, warehouse: Connection) -> None:
    send(accounts, [account(number % 5, f"{number}") for number in range(20)])
    drain(accounts, "test")
    before = stored(warehouse)
    for wanted in (Wanted([0], 0, 7), Wanted([0], 3, 19), Wanted()):
        replay.replay(warehouse, accounts, wanted, "test")
        assert stored(warehouse) == before
        proven(warehouse, accounts)


def test_a_retry_of_an_old_dead_letter_does_not_change_the_state(accounts: Stream, warehouse: Connection) -> None:
    strict = replace(accounts, event=Strict)
    send(accounts, [account(1, "bad"), account(2, "bad"), account(1, "good"), account(2, "older"), account(2, "bad")])
    assert drain(strict, "test").dead_letters == 3
    assert current(warehouse) == [(1, "good"), (2, "older")]
    assert retry.retry(warehouse, accounts) == (3, 0, 0)
    assert current(warehouse) == [(1, "good"), (2, "bad")]
    proven(warehouse, accounts)


def test_tombstones_delete_and_nothing_old_comes_back(accounts: Stream, warehouse: Connection) -> None:
    stream = replace(accounts, deletes="tombstone")
    send(stream, [account(1, "a"), account(2, "b"), account(3, "c")])
    send(stream, [None], key=b"1")
    send(stream, [None], key=b'{"id": 3}')
    send(stream, [None], key=b"9")
    drained = drain(stream, "test")
    assert (drained.landed, drained.dead_letters) == (3, 0)
    assert current(warehouse) == [(2, "b")]
    assert stored(warehouse) == [
        (1, None, 0, 3, True),
        (2, "b", 0, 1, False),
        (3, None, 0, 4, True),
        (9, None, 0, 5, True),
    ]
    assert rows(warehouse, "SELECT landed, skipped FROM millrace.landing_ledger WHERE kafka_partition = 0") == [(3, 3)]
    replay.replay(warehouse, stream, Wanted([0], 0, 2), "test")
    assert current(warehouse) == [(2, "b")]
    proven(warehouse, stream)
    send(stream, [account(1, "again"), account(9, "first")])
    drain(stream, "test")
    replay.replay(warehouse, stream, Wanted(), "test")
    assert current(warehouse) == [(1, "again"), (2, "b"), (9, "first")]
    proven(warehouse, stream)


def test_a_tombstone_without_a_usable_key_is_a_dead_letter_until_a_replay(
    accounts: Stream, warehouse: Connection
) -> None:
    stream = replace(accounts, deletes="tombstone")
    send(stream, [account(1, "a")])
    send(stream, [None], key=b"one")
    send(stream, [None])
    assert drain(stream, "test").dead_letters == 2
    assert kept_aside(warehouse)[1][1].startswith("Kafka key: ValidationError")
    assert kept_aside(warehouse)[2] == ("dead letter", "the tombstone has no Kafka key, so it deletes nothing")
    assert retry.retry(warehouse, stream) == (0, 0, 0)
    proven(warehouse, stream)
    # Without deletes, tombstones are skipped.
    replay.replay(warehouse, accounts, Wanted(), "test")
    assert kept_aside(warehouse) == {}
    assert rows(
        warehouse, "SELECT landed, dead_letters, skipped FROM millrace.landing_ledger WHERE next_offset > 0"
    ) == [(1, 0, 2)]
    proven(warehouse, accounts)
    replay.replay(warehouse, stream, Wanted(), "test")
    assert len(kept_aside(warehouse)) == 2
    proven(warehouse, stream)


def test_a_field_deletes(accounts: Stream, warehouse: Connection) -> None:
    stream = replace(accounts, deletes=("op", "d", "t"))
    send(stream, [account(1, "a", op="c"), account(2, "b", op="c"), account(1, "a", op="d"), account(3, "c", op="t")])
    send(stream, [None], key=b"2")
    drain(stream, "test")
    assert current(warehouse) == [(2, "b")]
    assert [row[1] for row in stored(warehouse)] == [None, "b", None]
    replay.replay(warehouse, stream, Wanted([0], 0, 1), "test")
    assert current(warehouse) == [(2, "b")]
    proven(warehouse, stream)
    # Another rule fills the state again from the history.
    assert table.bring_up_to_date(warehouse, accounts) == ["fill landing.accounts_state from landing.accounts"]
    assert current(warehouse) == [(1, "a"), (2, "b"), (3, "c")]
    proven(warehouse, accounts)


def test_records_are_ordered_by_a_field(accounts: Stream, warehouse: Connection) -> None:
    stream = replace(accounts, order_by="version", deletes=("op", "d"))
    send(stream, [account(1, "new", version=5), account(1, "old", version=4)])
    send(stream, [account(1, "newest", version=6), account(2, "x", version=1)], partition=1)
    send(stream, [account(2, "gone", version=2, op="d"), account(2, "late", version=1)], partition=2)
    drain(stream, "test")
    assert current(warehouse) == [(1, "newest")]
    replay.replay(warehouse, stream, Wanted(), "test")
    assert current(warehouse) == [(1, "newest")]
    proven(warehouse, stream)


def test_records_and_tombstones_are_ordered_by_their_timestamps(accounts: Stream, warehouse: Connection) -> None:
    stream = replace(accounts, event_time=RECORD_TIMESTAMP, order_by=RECORD_TIMESTAMP, deletes="tombstone")
    send(stream, [account(1, "a"), account(2, "b")])
    send(stream, [None], partition=1, key=b"1")
    send(stream, [account(2, "c")], partition=2)
    drain(stream, "test")
    assert current(warehouse) == [(2, "c")]
    replay.replay(warehouse, stream, Wanted(), "test")
    assert current(warehouse) == [(2, "c")]
    proven(warehouse, stream)


def test_a_record_that_no_longer_lands_gives_way_to_the_one_before(accounts: Stream, warehouse: Connection) -> None:
    send(accounts, [account(1, "a"), account(1, "bad"), account(2, "bad"), account(3, "bad"), account(3, "c")])
    drain(accounts, "test")
    strict = replace(accounts, event=Strict)
    replay.replay(warehouse, strict, Wanted(), "test")
    assert current(warehouse) == [(1, "a"), (3, "c")]
    assert stored(warehouse) == [(1, "a", 0, 0, False), (3, "c", 0, 4, False)]
    proven(warehouse, strict)
    replay.replay(warehouse, accounts, Wanted(), "test")
    assert current(warehouse) == [(1, "bad"), (2, "bad"), (3, "c")]


def test_a_replay_moves_a_record_to_another_key(accounts: Stream, warehouse: Connection) -> None:
    class Renumbered(Account):
        def __post_init__(self) -> None:
            self.id %= 10

    send(accounts, [account(1, "a"), account(11, "b"), account(2, "c")])
    drain(accounts, "test")
    renumbered = replace(accounts, event=Renumbered)
    replay.replay(warehouse, renumbered, Wanted(), "test")
    assert current(warehouse) == [(1, "b"), (2, "c")]
    assert len(stored(warehouse)) == 2
    proven(warehouse, renumbered)


def test_a_state_that_is_added_later_is_filled_and_fences(accounts: Stream, warehouse: Connection) -> None:
    plain = replace(accounts, current=False)
    send(plain, [account(1, "a"), account(2, "b"), account(1, "c")])
    drain(plain, "test")
    assert not rows(warehouse, "SELECT FROM pg_class WHERE relname LIKE 'accounts_state%%'")
    changes = [change.description for change in table.find_changes(warehouse, accounts)]
    assert changes == [
        "create the table landing.accounts_state, with one row for each key",
        "write the view landing.accounts_current",
        "fill landing.accounts_state from landing.accounts",
    ]
    # A drain with the former definition cannot land anything after the state was filled.
    old, fenced = patient_drain(plain, warehouse)
    send(plain, [account(2, "d")])
    old.start()
    old.join()
    assert fenced == [Fenced]
    assert current(warehouse) == [(1, "c"), (2, "b")]
    drain(accounts, "test")
    assert current(warehouse) == [(1, "c"), (2, "d")]
    proven(warehouse, accounts)


def patient_drain(plain: Stream, warehouse: Connection) -> tuple[threading.Thread, list[type[BaseException]]]:
    """A drain that has claimed the positions, and continues only after the state was added."""
    from include.kafka import reader
    from include.landing.drain import _claim, _describe

    brokers, (topic,) = _describe(plain)
    connection, claims, pending = _claim(plain, {topic: list(topic.partitions)}, "old")
    consumer = reader.connected(group_id=plain.reader)
    running = Drain(plain, claims, connection, brokers, consumer, pending)
    table.bring_up_to_date(warehouse, replace(plain, current=True))
    failed: list[type[BaseException]] = []

    def work() -> None:
        import time

        try:
            running.run(time.monotonic() + 30)
        except BaseException as error:
            failed.append(type(error))

    return threading.Thread(target=work), failed


def test_the_shipped_payments_continue_with_a_state(warehouse: Connection, topic: Callable[..., str]) -> None:
    """Payments that landed before they had a state are in it, and corrections replace them."""
    now = replace(payments.stream, topic=topic("payments"), quiet="1 second", window="1 minute")
    former = replace(now, key="merchant", current=False)
    produce.produce(former, 1_000, seed=1)
    assert drain(former, "test").landed == 1_000
    produce.produce(former, 500, seed=2)
    produce.produce(now, 1_000, seed=3)
    assert drain(now, "test").landed == 1_500
    ((events, distinct, current),) = rows(
        warehouse,
        "SELECT count(*), count(DISTINCT payment), (SELECT count(*) FROM landing.payments_current)"
        " FROM landing.payments",
    )
    assert events == 2_500 and current == distinct < 2_500
    assert proof.prove(warehouse, now).wrong == []


def test_a_replay_and_a_retry_of_the_former_definition_stop(accounts: Stream, warehouse: Connection) -> None:
    plain = replace(accounts, current=False, event=Strict)
    send(plain, [account(1, "a"), account(2, "bad")])
    drain(plain, "test")
    with connected("other") as other:
        table.bring_up_to_date(other, accounts)
    # What a process does whose definition is that of before.
    with raises(Code.DEFINITION_CHANGED, kind=UserError):
        state.require_as_defined(warehouse, plain)
    warehouse.rollback()


def test_a_state_that_is_no_longer_defined_is_not_silently_continued(accounts: Stream, warehouse: Connection) -> None:
    send(accounts, [account(1, "a")])
    drain(accounts, "test")
    plain = replace(accounts, current=False)
    assert list(orphans.streams(warehouse, {"accounts": accounts})) == []
    assert table.bring_up_to_date(warehouse, plain) == ["no longer keep landing.accounts_state up to date"]
    send(accounts, [account(1, "b")])
    drain(plain, "test")
    assert current(warehouse) == [(1, "a")]
    with raises(Code.NAME_TAKEN, "landing.accounts_state", kind=NonRetryableError):
        table.bring_up_to_date(warehouse, accounts)
    warehouse.cursor().execute("DROP TABLE landing.accounts_state CASCADE")
    warehouse.commit()
    drain(accounts, "test")
    assert current(warehouse) == [(1, "b")]


def test_another_key_needs_a_new_table(accounts: Stream, warehouse: Connection) -> None:
    send(accounts, [account(1, "a"), account(2, "a")])
    drain(accounts, "test")
    named = replace(accounts, key="name")
    with raises(Code.TABLE_INCOMPATIBLE, "key is name", "is id", kind=NonRetryableError):
        table.bring_up_to_date(warehouse, named)
    warehouse.cursor().execute("DROP TABLE landing.accounts_state CASCADE")
    warehouse.commit()
    drain(named, "test")
    assert current(warehouse, "name, id") == [("a", 2)]
    proven(warehouse, named)


def test_a_new_field_is_added_to_both_tables_and_the_view(accounts: Stream, warehouse: Connection) -> None:
    send(accounts, [account(1, "a", more="x"), account(2, "b")])
    drain(accounts, "test")
    grown = replace(accounts, event=Grown)
    assert table.bring_up_to_date(warehouse, grown) == [
        "add the column 'more' (text) to landing.accounts",
        "add the column 'more' (text) to landing.accounts_state",
        "write the view landing.accounts_current",
    ]
    replay.replay(warehouse, grown, Wanted(), "test")
    assert current(warehouse, "id, more") == [(1, "x"), (2, None)]
    proven(warehouse, grown)
    assert table.bring_up_to_date(warehouse, accounts) == []
    drain(accounts, "test")


def test_a_row_keeps_no_value_of_a_field_that_was_removed(accounts: Stream, warehouse: Connection) -> None:
    grown = replace(accounts, event=Grown)
    send(grown, [account(1, "a", more="x"), account(2, "b", more="y")])
    drain(grown, "test")
    send(accounts, [account(1, "c", more="z")])
    drain(accounts, "test")
    assert current(warehouse, "id, name, more") == [(1, "c", None), (2, "b", "y")]
    proven(warehouse, accounts)
    warehouse.cursor().execute("UPDATE landing.accounts_state SET more = 'x' WHERE id = 1")
    warehouse.commit()
    assert "rows that differ" in proof.prove(warehouse, accounts).wrong[0]


def test_while_a_new_column_waits_for_a_lock_the_state_goes_on(accounts: Stream, warehouse: Connection) -> None:
    send(accounts, [account(1, "a")])
    drain(accounts, "test")
    grown = replace(accounts, event=Grown)
    send(grown, [account(1, "b", more="x"), account(2, "c")])
    with connected("a user") as user:
        user.cursor().execute("LOCK TABLE landing.accounts IN ACCESS SHARE MODE")
        assert drain(grown, "test").landed == 2
        assert rows(warehouse, "SELECT id, name FROM landing.accounts_state ORDER BY 1") == [(1, "b"), (2, "c")]
        user.rollback()
    maintenance.maintain(warehouse, grown)
    assert current(warehouse, "id, name, more") == [(1, "b", "x"), (2, "c", None)]
    proven(warehouse, grown)


def test_retention_does_not_touch_the_state(accounts: Stream, warehouse: Connection) -> None:
    stream = replace(accounts, late="20 days", keep="30 days")
    send(stream, [account(1, "old", NOW - timedelta(days=15)), account(2, "new")])
    drain(stream, "test")
    table_before = current(warehouse)
    dropped = maintenance.drop_until(warehouse, stream, NOW - timedelta(days=10))
    assert dropped == [spans.name_of(stream, spans.span_of(stream, NOW - timedelta(days=15)))]
    assert current(warehouse) == table_before == [(1, "old"), (2, "new")]
    warehouse.rollback()
    kept = proof.prove(warehouse, stream).wrong
    assert not any("accounts_state" in each for each in kept)


def test_a_constraint_of_the_state_stops_the_stream(accounts: Stream, warehouse: Connection) -> None:
    table.bring_up_to_date(warehouse, accounts)
    warehouse.cursor().execute("ALTER TABLE landing.accounts_state ADD CONSTRAINT mine CHECK (name <> 'bad')")
    warehouse.commit()
    send(accounts, [account(1, "bad")])
    with raises(Code.STATE_REFUSED, "mine", kind=NonRetryableError):
        drain(accounts, "test")
    assert rows(warehouse, "SELECT FROM landing.accounts") == []


def test_a_row_that_postgres_refuses_gives_way_to_the_one_before(accounts: Stream, warehouse: Connection) -> None:
    table.bring_up_to_date(warehouse, accounts)
    warehouse.cursor().execute("ALTER TABLE landing.accounts ADD CONSTRAINT mine CHECK (name <> 'bad')")
    warehouse.commit()
    send(accounts, [account(1, "good"), account(1, "bad"), account(2, "bad")])
    assert drain(accounts, "test").dead_letters == 2
    assert current(warehouse) == [(1, "good")]
    proven(warehouse, accounts)


def test_a_topic_that_is_created_again_is_newer(accounts: Stream, warehouse: Connection) -> None:
    from include.landing import recovery
    from include.landing.choice import Choice
    from tests.integration.landing import recreate

    send(accounts, [account(1, "a"), account(2, "b"), account(1, "c")])
    drain(accounts, "test")
    recreate(accounts)
    recovery.accept(warehouse, accounts, Choice.RECREATED, "test")
    send(accounts, [account(1, "d")], partition=2)
    drain(accounts, "test")
    assert current(warehouse) == [(1, "d"), (2, "b")]
    proven(warehouse, accounts)


def test_the_proof_finds_that_the_state_is_missing(accounts: Stream, warehouse: Connection) -> None:
    send(accounts, [account(1, "a")])
    drain(accounts, "test")
    warehouse.cursor().execute("DROP TABLE landing.accounts_state CASCADE")
    warehouse.commit()
    assert proof.prove(warehouse, accounts).wrong == ["the table landing.accounts_state is missing"]
    drain(accounts, "test")
    proven(warehouse, accounts)


@pytest.mark.parametrize(
    ("tampering", "found"),
    [
        ("UPDATE landing.accounts_state SET name = 'x' WHERE id = 1", "rows that differ"),
        ("DELETE FROM landing.accounts_state WHERE id = 1", "records that are newer"),
        ("UPDATE landing.accounts_state SET kafka_offset = 0, name = 'a' WHERE id = 1", "records that are newer"),
        ("UPDATE landing.accounts_state SET kafka_deleted = true WHERE id = 1", "rows that differ"),
        ("UPDATE landing.accounts_state SET kafka_deleted = false WHERE id = 2", "tombstones whose key is not deleted"),
        ("DELETE FROM landing.accounts_state WHERE id = 2", "tombstones whose key is not deleted"),
        ("UPDATE landing.accounts_state SET kafka_offset = 99 WHERE id = 2", "past the ledger's end"),
        ("UPDATE landing.accounts_state SET id = 7 WHERE id = 1", "rows that differ"),
    ],
)
def test_the_proof_finds_a_wrong_state(accounts: Stream, warehouse: Connection, tampering: str, found: str) -> None:
    stream = replace(accounts, deletes="tombstone")
    send(stream, [account(1, "a"), account(2, "b"), account(1, "c")])
    send(stream, [None], key=b"2")
    drain(stream, "test")
    proven(warehouse, stream)
    warehouse.cursor().execute(tampering)
    warehouse.commit()
    assert any(found in wrong for wrong in proof.prove(warehouse, stream).wrong)


def test_two_drains_share_the_keys(accounts: Stream, warehouse: Connection) -> None:
    stream = replace(accounts, drains=3, order_by="version")
    table.bring_up_to_date(warehouse, stream)
    for partition in range(3):
        send(stream, [account(n % 50, f"{partition}", version=n) for n in range(2000)], partition)
    failed: list[BaseException] = []

    def work(shard: int) -> None:
        try:
            drain(stream, f"test {shard}", shard)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(shard,)) for shard in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert current(warehouse, "id, version") == [(key, 1950 + key) for key in range(50)]
    proven(warehouse, stream)


def test_a_stream_without_a_state_has_none(accounts: Stream, warehouse: Connection) -> None:
    plain = replace(accounts, current=False)
    send(plain, [account(1, "a"), None])
    drained = drain(plain, "test")
    assert (drained.landed, drained.dead_letters) == (1, 0)
    assert rows(warehouse, "SELECT FROM pg_class WHERE relname LIKE 'accounts_%%state%%'") == []
