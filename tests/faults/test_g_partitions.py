"""G: the partitions of a stream's table: created on demand, ahead and concurrently, and dropped while rows arrive."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg2
import pytest

from include.definitions import InvalidDefinition
from include.error_codes import Code
from include.landing import maintenance
from include.streams.definition import MAX_NAME
from tests.errors import raises
from tests.faults.toolbox.events import READINGS, WAIT_S
from tests.faults.toolbox.stage import Stage
from tests.polling import until

DAY = timedelta(days=1)
TICK = timedelta(microseconds=1)


def now() -> datetime:
    return datetime.now(UTC)


def midnight() -> datetime:
    """The last midnight."""
    return now().replace(hour=0, minute=0, second=0, microsecond=0)


def tables(stage: Stage) -> set[str]:
    """The partitions of the stream, attached or not."""
    rows = stage.query(
        "SELECT relname FROM pg_class JOIN pg_namespace AS schema ON schema.oid = relnamespace"
        " WHERE nspname = 'landing' AND relkind = 'r' AND starts_with(relname, %s)",
        stage.stream.name,
    )
    return {name for (name,) in rows} - {f"{stage.stream.name}_state"}


def attached(stage: Stage) -> set[str]:
    """The partitions of the stream's table."""
    rows = stage.query(
        "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid"
        " WHERE inhparent = to_regclass(%s) AND NOT inhdetachpending",
        f"landing.{stage.stream.name}",
    )
    return {name for (name,) in rows}


@pytest.mark.parametrize(
    ("width", "edge"),
    [("1 day", midnight()), ("1 hour", now().replace(minute=0, second=0, microsecond=0)), ("6 hours", midnight())],
    ids=["midnight", "hour", "six_hours"],
)
def test_g66_boundaries(staged: Callable[..., Stage], width: str, edge: datetime) -> None:
    """A moment on the boundary belongs to the span that begins there, and a microsecond earlier to the one before."""
    stage = staged(replace(READINGS, partition=width))
    for moment in (edge - TICK, edge, edge + TICK):
        stage.topic.events(30, ts=moment)
    assert stage.finish().dispositions == {"landed": 90}
    rows = stage.query(
        f"SELECT tableoid::regclass::text, count(*) FROM landing.{stage.stream.name} GROUP BY 1 ORDER BY 2"
    )
    assert [count for _, count in rows] == [30, 60]


def test_g67_late_by_days(stage: Stage) -> None:
    """An event within the limit gets its partition; one outside is quarantined, and no partition is created."""
    stage.topic.events(100)
    stage.topic.events(100, ts=now() - 6 * DAY)
    stage.topic.send([stage.topic.value(now() - 8 * DAY) for _ in range(100)], expect="quarantined")
    stage.topic.events(100, ts=now() - 3 * DAY)
    assert stage.finish().dispositions == {"landed": 300, "quarantined": 100}
    assert len(attached(stage)) == 3


def test_g68_the_far_future(stage: Stage) -> None:
    """Ten thousand events, each of another future day, create no partition."""
    stage.topic.events(100)
    stage.topic.send([stage.topic.value(now() + (number + 1) * DAY) for number in range(10_000)], expect="quarantined")
    assert stage.finish().dispositions == {"landed": 100, "quarantined": 10_000}
    assert len(tables(stage)) <= 2


def test_g69_a_partition_is_dropped_while_late_rows_arrive(stage: Stage) -> None:
    """The drain has used the partition; it is dropped, and created again for a late row."""
    late = midnight() - 5 * DAY
    stage.topic.events(100)
    stage.topic.events(100, ts=late)
    drain = stage.drain(replace(stage.stream, quiet="5 seconds"))
    stage.until_landed(200)
    with stage.connected() as connection:
        assert len(maintenance.drop_until(connection, stage.stream, late + DAY)) == 1
    rest = stage.landed()
    assert rest == 100
    stage.topic.events(100, ts=late)
    assert drain.wait().kind in ("drained", "failed")
    stage.land()
    assert stage.landed() == 200
    # Only the dropped rows are missing, in each of the three partitions, by rows and by ledger.
    wrong = stage.audit().wrong
    assert len(wrong) == 6, wrong


@pytest.mark.parametrize("moment", ["detaching", "detached"])
def test_g70_dropping_is_interrupted(stage: Stage, moment: str) -> None:
    """While it waits for a reader, or between its two steps. The next maintenance finishes it."""
    late = midnight() - 5 * DAY
    stage.topic.events(100)
    stage.topic.events(100, ts=late)
    stage.land()
    [old] = [table for table in attached(stage) if f"{late:%Y%m%d}" in table]
    interrupt(stage, late + DAY, moment)
    assert stage.landed() == 100, "the old partition is no longer part of the table"
    assert old in tables(stage)
    stage.topic.events(100)
    stage.topic.events(100, ts=late)
    stage.land()
    with stage.connected() as connection:
        maintenance.drop_until(connection, stage.stream, late + DAY)
    assert old not in tables(stage)
    assert stage.landed() == 200


def interrupt(stage: Stage, cut_off: datetime, moment: str) -> None:
    """Drops partitions through the proxy, which breaks the connection at a moment."""
    failed: list[BaseException] = []

    def drop() -> None:
        try:
            with stage.connected() as connection:
                maintenance.drop_until(connection, stage.stream, cut_off)
        except psycopg2.Error as error:
            failed.append(error)

    reader = stage.world.database.superuser(stage.name)
    with closing(reader), reader.cursor() as cursor:
        if moment == "detaching":
            reader.autocommit = False
            cursor.execute(f"SELECT count(*) FROM landing.{stage.stream.name}")
            dropping = threading.Thread(target=drop)
            dropping.start()
            until("the partition's detachment is pending", lambda: len(attached(stage)) == 1, WAIT_S)
            stage.query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
                " AND query LIKE '%%DETACH%%CONC%%' AND pid <> pg_backend_pid()",
                stage.name,
            )
            dropping.join()
            reader.rollback()
        else:
            with stage.connected(stage.postgres) as connection:
                trap = stage.postgres.trap("client query DROP TABLE", act=lambda link: link.cut())
                with pytest.raises(psycopg2.Error):
                    maintenance.drop_until(connection, stage.stream, cut_off)
                assert trap.sprung
            return
    assert failed


def test_g71_a_users_default_partition(stage: Stage) -> None:
    """Millrace creates none. It reports one that a user adds, with the remedy."""
    stage.topic.events(100)
    stage.land()
    stage.query(f"CREATE TABLE landing.catchall PARTITION OF landing.{stage.stream.name} DEFAULT")
    stage.topic.events(100, ts=now() - 2 * DAY)
    outcome = stage.drain().wait()
    assert (outcome.kind, outcome.error) == ("failed", "NonRetryableError"), outcome
    assert "catchall" in outcome.message and "[default-partition]" in outcome.message
    stage.query(f"ALTER TABLE landing.{stage.stream.name} DETACH PARTITION landing.catchall")
    stage.finish()


def test_g72_a_long_reader(stage: Stage) -> None:
    """While a report reads the table, partitions are created and rows land."""
    stage.topic.events(100)
    stage.land()
    with closing(stage.world.database.superuser(stage.name)) as reader, reader.cursor() as cursor:
        reader.autocommit = False
        cursor.execute(f"SELECT count(*) FROM landing.{stage.stream.name}")
        began = time.monotonic()
        stage.topic.events(100, ts=now() - 2 * DAY)
        stage.land()
        with stage.connected() as connection:
            created, _ = maintenance.maintain(connection, stage.stream)
        assert time.monotonic() - began < 15
        assert len(created) >= 3
        reader.rollback()
    stage.prove()


def test_g73_several_maintainers_and_a_drain(stage: Stage) -> None:
    """All of them need the same partitions at the same moment."""
    stage.topic.events(100)
    stage.land()
    for days in range(6):
        stage.topic.events(30, ts=now() - days * DAY)
    faults: list[BaseException] = []
    with stage.connected():
        threads = [threading.Thread(target=maintained, args=(stage, faults)) for _ in range(3)]
        drain = stage.drain()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not faults
    assert drain.wait().kind == "drained"
    stage.finish()
    # Today, the five days before, and the three days after.
    assert len(attached(stage)) == len(tables(stage)) == 9


def maintained(stage: Stage, faults: list[BaseException]) -> None:
    from include.warehouse.connection import connected

    try:
        with connected("faults") as connection:
            for _ in range(3):
                maintenance.maintain(connection, stage.stream)
    except Exception as error:  # the test asserts that there is none
        faults.append(error)


def test_g74_long_names(staged: Callable[..., Stage]) -> None:
    """The longest name gives every partition a distinct name. A longer one is refused in the definition."""
    name = "a" * (MAX_NAME - 4)
    stage = staged(replace(READINGS, name=name, partition="1 hour"))
    for hours in range(4):
        stage.topic.events(30, ts=now() - timedelta(hours=hours))
    assert stage.finish().dispositions == {"landed": 120}
    assert len(attached(stage)) == 4
    with raises(Code.INVALID_DEFINITION, "name", kind=InvalidDefinition):
        replace(READINGS, name="a" * (MAX_NAME + 1))


def test_g75_a_thousand_partitions(staged: Callable[..., Stage]) -> None:
    """An event for each of a thousand hours, in one batch."""
    stage = staged(replace(READINGS, partition="1 hour", late="60 days"))
    hour = now().replace(minute=30)
    stage.topic.send([stage.topic.value(hour - timedelta(hours=hours)) for hours in range(1, 1_001)])
    assert stage.finish().dispositions == {"landed": 1_000}
    assert len(attached(stage)) == 1_000
    stage.topic.events(3_000)
    began = time.monotonic()
    stage.land()
    assert time.monotonic() - began < 15
