"""Records that the definition filters: counted in the ledger, in no table, and decided alike by every path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from include.landing import ledger, proof, replay, retry, status
from include.landing.drain import drain
from include.landing.replay_selection import Wanted
from include.streams import produce
from include.streams.definition import RECORD_TIMESTAMP, Instant, Stream
from include.warehouse import queries
from tests.integration.landing import NOW, event, kept_aside, landed, one_disposition_each, rows, send, stream

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

__all__ = ["stream"]

COUNTS = "landed, dead_letters, quarantined, filtered, skipped, no_records"


def is_even(found: Any) -> bool:
    """Raises ZeroDivisionError for the number 7."""
    return found.number % 2 == 0 if 1 // (found.number - 7) is not None else False


def counts(connection: Connection, table: str = "landing_ledger") -> tuple[int, ...]:
    summed = ", ".join(f"sum({name})::bigint" for name in COUNTS.split(", "))
    return rows(connection, f"SELECT {summed} FROM millrace.{table}")[0]


@pytest.fixture
def even(stream: Stream, warehouse: Connection) -> Stream:
    """A stream with two windows of records of all kinds, of which only those with an even number land."""
    even = replace(stream, where=is_even)
    for _ in range(2):
        good = [event(str(number), number=number) for number in range(10)]
        late = event("late", number=3, ts=NOW - timedelta(days=30))
        quarantined = event("late", number=4, ts=NOW - timedelta(days=30))
        send(even, [*good, b"bad", None, late, quarantined])
        drain(even, "test")
    return even


def test_a_record_that_is_filtered_is_counted_and_stored_nowhere(even: Stream, warehouse: Connection) -> None:
    assert [text for _, _, text in landed(warehouse)] == 2 * ["0", "2", "4", "6", "8"]
    letters = kept_aside(warehouse)
    assert sorted(letters) == [7, 10, 13, 21, 24, 27]
    assert letters[7] == ("dead letter", "where: ZeroDivisionError: integer division or modulo by zero")
    # An event that is too late and is filtered need not be quarantined.
    assert letters[13][0] == "quarantined"
    # 1, 3, 5, 9 and the late 3, twice.
    assert counts(warehouse) == (10, 4, 2, 10, 2, 0)
    assert counts(warehouse, "landing_total") == (10, 4, 2, 10, 2, 0)
    found = rows(warehouse, "SELECT filtered, unaccounted FROM millrace.reconciliation WHERE kafka_partition = 0")
    assert found == [(10, 0)]
    assert rows(warehouse, "SELECT filtered FROM millrace.stream_overview WHERE stream = 'readings'") == [(10,)]
    assert status.of(even, warehouse).filtered == 10
    one_disposition_each(warehouse, even)
    assert proof.prove(warehouse, even).wrong == []
    # Maintenance merges the entries, and their sums stay.
    tomorrow = queries.load("landing").read_clock(warehouse) + timedelta(days=1)
    ledger.merge(warehouse, even, tomorrow)
    assert counts(warehouse) == (10, 4, 2, 10, 2, 0)
    assert proof.prove(warehouse, even).wrong == []


def test_a_replay_follows_a_change_of_where(even: Stream, warehouse: Connection) -> None:
    """Forth and back, in ranges that cut the ledger's entries, and at last without where."""
    large = replace(even, where=lambda found: found.number > 5)
    proof_of_change = proof.prove(warehouse, large).wrong
    assert any("rows of records that the definition filters: 0, 2, 4" in wrong for wrong in proof_of_change)
    assert any("records without a row or dead letter: 9" in wrong for wrong in proof_of_change)
    (done,) = replay.replay(warehouse, large, Wanted([0], 3, 20), "test")
    assert (done.before[replay.Disposition.FILTERED], done.after[replay.Disposition.FILTERED]) == (7, 11)
    assert [offset for _, offset, _ in landed(warehouse)] == [0, 2, 6, 7, 8, 9, 20, 22]
    replay.replay(warehouse, large, Wanted(), "test")
    assert [text for _, _, text in landed(warehouse)] == 2 * ["6", "7", "8", "9"]
    # 0 to 5, and the late 3 and 4, twice.
    assert counts(warehouse) == counts(warehouse, "landing_total") == (8, 2, 0, 16, 2, 0)
    assert proof.prove(warehouse, large).wrong == []
    replay.replay(warehouse, even, Wanted(), "test")
    assert counts(warehouse) == (10, 4, 2, 10, 2, 0)
    assert proof.prove(warehouse, even).wrong == []
    replayed = rows(warehouse, "SELECT sum(filtered), sum(more_filtered) FROM millrace.landing_replay")
    assert replayed == [(11 + 16 + 10, 0)]
    everything = replace(even, where=None)
    replay.replay(warehouse, everything, Wanted(), "test")
    assert counts(warehouse) == (20, 2, 4, 0, 2, 0)
    assert proof.prove(warehouse, everything).wrong == []
    one_disposition_each(warehouse, everything)


def test_a_retry_lands_or_filters_what_where_could_not_decide(even: Stream, warehouse: Connection) -> None:
    assert retry.retry(warehouse, even) == (0, 4, 0)
    without_seven = replace(even, where=lambda found: found.number % 2 == 0)
    done = retry.retry(warehouse, without_seven)
    assert (done, str(done)) == ((0, 2, 2), "0 landed, 2 filtered, 2 remain dead letters")
    assert counts(warehouse) == counts(warehouse, "landing_total") == (10, 2, 2, 12, 2, 0)
    assert proof.prove(warehouse, without_seven).wrong == []
    one_disposition_each(warehouse, without_seven)


def test_a_stream_does_not_stop_for_a_batch_that_is_filtered(stream: Stream, warehouse: Connection) -> None:
    nothing = replace(stream, where=lambda found: False)
    send(nothing, [event(number=number) for number in range(300)])
    assert (done := drain(nothing, "test")).filtered == 300 and not done.landed
    assert proof.prove(warehouse, nothing).wrong == []
    assert replay.replay(warehouse, nothing, Wanted(), "test")[0].after[replay.Disposition.FILTERED] == 300


class Account(msgspec.Struct):
    """The state of an account."""

    id: int
    ts: Instant
    name: str = ""
    gone: bool = False


@pytest.mark.parametrize("order_by", [None, "ts"])
def test_a_record_that_is_filtered_does_not_change_the_state(
    warehouse: Connection, topic: Callable[..., str], order_by: str | None
) -> None:
    accounts = Stream(
        name="accounts",
        topic=topic("accounts"),
        event=Account,
        event_time="ts",
        key="id",
        current=True,
        order_by=order_by,
        deletes="gone",
        where=lambda found: found.name != "test",
        quiet="1 second",
        kafka_partitions=1,
    )
    produce.make_topic(accounts)

    def account(id: int, name: str, second: int, gone: bool = False) -> bytes:
        return msgspec.json.encode(Account(id, NOW + timedelta(seconds=second), name, gone))

    values = [account(1, "a", 0), account(1, "test", 1), account(2, "b", 0), account(2, "test", 1, True)]
    send(accounts, [*values, account(3, "test", 0)])
    drain(accounts, "test")

    def current() -> list[tuple[Any, ...]]:
        return rows(warehouse, "SELECT id, name, kafka_offset FROM landing.accounts_current ORDER BY id")

    assert current() == [(1, "a", 0), (2, "b", 2)]
    assert proof.prove(warehouse, accounts).wrong == []
    everything = replace(accounts, where=None)
    replay.replay(warehouse, everything, Wanted(), "test")
    assert current() == [(1, "test", 1), (3, "test", 4)]
    assert proof.prove(warehouse, everything).wrong == []
    replay.replay(warehouse, accounts, Wanted(), "test")
    assert current() == [(1, "a", 0), (2, "b", 2)]
    assert rows(warehouse, "SELECT id FROM landing.accounts_state ORDER BY id") == [(1,), (2,)]
    assert proof.prove(warehouse, accounts).wrong == []


@pytest.mark.parametrize("order_by", [None, RECORD_TIMESTAMP])
def test_a_tombstone_in_an_earlier_range_deletes_a_key_that_falls_back(
    warehouse: Connection, topic: Callable[..., str], order_by: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tombstone is older than the state when its range is replayed, and newer than the record that remains."""
    accounts = Stream(
        name="accounts",
        topic=topic("accounts"),
        event=Account,
        event_time=order_by or "ts",
        key="id",
        current=True,
        order_by=order_by,
        deletes="tombstone",
        quiet="1 second",
        kafka_partitions=2,
    )
    produce.make_topic(accounts)

    def sent(id: int, name: str | None, partition: int = 0) -> None:
        value = None if name is None else msgspec.json.encode(Account(id, NOW, name))
        send(accounts, [value], partition, key=str(id).encode())

    for id in (1, 2, 3):
        sent(id, "a")
    for id in (1, 2, 4):
        sent(id, None)
    sent(2, "b")
    # With an order, the records of a key may be in several partitions.
    for id in (1, 2, 3, 4):
        sent(id, "test", partition=1 if order_by else 0)
    drain(accounts, "test")

    def current() -> list[tuple[Any, ...]]:
        return rows(warehouse, "SELECT id, name FROM landing.accounts_current ORDER BY id")

    assert current() == [(1, "test"), (2, "test"), (3, "test"), (4, "test")]
    monkeypatch.setattr(replay, "RECORDS_PER_TRANSACTION", 3)
    filtered = replace(accounts, where=lambda found: found.name != "test")
    replay.replay(warehouse, filtered, Wanted(), "test")
    assert current() == [(2, "b"), (3, "a")]
    assert proof.prove(warehouse, filtered).wrong == []
    replay.replay(warehouse, accounts, Wanted(), "test")
    assert current() == [(1, "test"), (2, "test"), (3, "test"), (4, "test")]
    assert proof.prove(warehouse, accounts).wrong == []
    # The next replay in this session does not know the tombstones of this one.
    replay.replay(warehouse, filtered, Wanted([0], 6, 7), "test")
    assert rows(warehouse, "SELECT count(*) FROM pg_temp.read_tombstones") == [(0,)]
