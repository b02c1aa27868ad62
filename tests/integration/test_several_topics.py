"""Several topics, or all that match a pattern, land in one table: each record once, with its topic."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from include.error_codes import Code
from include.kafka import backlog, client, topics
from include.kafka.position_errors import TopicMissing, TopicRecreated
from include.landing import drain as drains
from include.landing import incarnation, proof, recovery, replay, retry, status, table
from include.landing.choice import Choice
from include.landing.drain import drain
from include.landing.replay_selection import Wanted
from include.monitoring import lag
from include.streams import produce
from include.streams.definition import Instant, Pattern, Stream
from include.warehouse import migrations
from tests.errors import raises
from tests.integration.landing import NOW, Reading, event, rows
from tests.polling import until

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


@pytest.fixture
def prefix(topic: Callable[..., str]) -> str:
    """The beginning of the names of a test's topics."""
    return topic("several")


@pytest.fixture
def stream(warehouse: Connection, prefix: str) -> Iterator[Stream]:
    """A stream of all topics that begin with the prefix; none exists."""
    yield Stream(
        name="readings",
        topics=Pattern(rf"{prefix}\..+"),
        event=Reading,
        event_time="ts",
        quiet="1 second",
        window="1 minute",
        drains=1,
    )


def create(name: str, partitions: int = 2) -> None:
    topics.create(name, partitions=partitions, config=produce.TOPIC_CONFIG)


def drop(name: str) -> None:
    brokers = client.admin()
    brokers.delete_topics([name])[name].result()


def send(name: str, *values: bytes | None, partition: int = 0) -> None:
    producer = client.producer()
    for value in values:
        producer.produce(name, value, b"key", partition=partition)
    assert producer.flush(20) == 0


def found(connection: Connection) -> list[tuple[Any, ...]]:
    return rows(
        connection, "SELECT kafka_topic, kafka_partition, kafka_offset, text FROM landing.readings ORDER BY 1, 2, 3"
    )


def numbers(connection: Connection) -> list[tuple[Any, ...]]:
    return rows(connection, "SELECT number, topic FROM millrace.topic_incarnation WHERE stream = 'readings' ORDER BY 1")


def proven(connection: Connection, stream: Stream) -> int:
    done = proof.prove(connection, stream)
    assert done.wrong == []
    coordinates = rows(connection, "SELECT kafka_incarnation, kafka_partition, kafka_offset FROM landing.readings")
    assert len(coordinates) == len(set(coordinates))
    unaccounted = "SELECT sum(unaccounted) FROM millrace.reconciliation WHERE stream = 'readings'"
    assert rows(connection, unaccounted) == [(0,)]
    return done.compared


def test_topics_land_in_one_table_and_later_ones_are_read_from_their_beginning(
    stream: Stream, warehouse: Connection, prefix: str
) -> None:
    eu, us, asia = (f"{prefix}.{name}" for name in ("eu", "us", "asia"))
    create(f"__{prefix}.internal")
    create(f"{prefix}-other")
    assert drain(stream, "test").reason == "no topic exists"
    assert status.of(stream, warehouse).lag == 0
    create(eu)
    create(us, 1)
    send(eu, event("a"), None, b"bad")
    send(eu, event("b"), partition=1)
    send(us, event("c"), event("d", real=0.5))
    assert status.of(stream, warehouse).topics == {eu: 4, us: 2}
    measured = lag.measure(warehouse, {"readings": stream.topic})["readings"]
    assert isinstance(measured, lag.Lag) and measured.records == 6 and measured.topics == {eu: 4, us: 2}
    done = drain(stream, "test")
    assert (done.landed, done.dead_letters) == (4, 1)
    assert found(warehouse) == [(eu, 0, 0, "a"), (eu, 1, 0, "b"), (us, 0, 0, "c"), (us, 0, 1, "d")]
    assert numbers(warehouse) == [(1, eu), (2, us)]
    assert proven(warehouse, stream) == 6
    # Records that were sent before the topic was found.
    create(asia)
    send(asia, event("e"), partition=1)
    send(us, event("f"))
    assert status.of(stream, warehouse).topics == {asia: 1, eu: 0, us: 1}
    assert drain(stream, "test").landed == 2
    assert found(warehouse)[:1] == [(asia, 1, 0, "e")]
    assert numbers(warehouse) == [(1, eu), (2, us), (3, asia)]
    assert proven(warehouse, stream) == 8


def test_a_drain_ends_for_a_topic_that_is_created_meanwhile(
    stream: Stream, warehouse: Connection, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while records of another topic arrive all the time."""
    monkeypatch.setattr(drains, "CHECK_EVERY_S", 0.2)
    eu, us = f"{prefix}.eu", f"{prefix}.us"
    create(eu)
    stop = threading.Event()

    def send_on() -> None:
        while not stop.wait(0.05):
            send(eu, event())

    def create_and_send() -> None:
        create(us)
        send(us, event("first"))

    sending = threading.Thread(target=send_on)
    sending.start()
    try:
        created = threading.Timer(1, create_and_send)
        created.start()
        ended = drain(replace(stream, window="2 minutes", quiet="30 seconds"), "test")
        created.join()
    finally:
        stop.set()
        sending.join()
    assert ended.reason == "there are new topics or partitions"
    drain(stream, "test")
    assert (us, 0, 0, "first") in found(warehouse)
    proven(warehouse, stream)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_drain_of_several_topics_that_is_killed_loses_nothing(
    stream: Stream, warehouse: Connection, prefix: str, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Killed in the middle of its batches, around a COMMIT: each topic continues where its own transaction ended."""
    monkeypatch.setattr(drains, "MAX_RECORDS", 40)
    names = [f"{prefix}.{number}" for number in range(3)]
    for name in names:
        create(name, 1)
        send(name, *(event(f"{name} {number}", number=number) for number in range(100)), b"bad", None)
    selecting = replace(stream, where=lambda found: found.number % 10 > 0)
    child = os.fork()
    if not child:
        # Collecting a Kafka client, whose threads are not in this process, would crash it.
        gc.disable()
        kill_at_the_fifth(moment)
        drain(selecting, "killed")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    before = rows(warehouse, "SELECT coalesce(sum(landed), 0) FROM millrace.landing_ledger")[0][0]
    assert 0 < before < 270
    assert drain(selecting, "successor").landed == 270 - before
    assert [row[3] for row in found(warehouse)] == [f"{name} {n}" for name in names for n in range(100) if n % 10]
    counts = "sum(landed)::int, sum(filtered)::int, sum(dead_letters)::int, sum(skipped)::int"
    assert rows(warehouse, f"SELECT {counts} FROM millrace.landing_ledger") == [(270, 30, 3, 3)]
    assert proven(warehouse, selecting) == 306


def kill_at_the_fifth(moment: str) -> None:
    """Kills this process at its fifth transaction, before its COMMIT or after it."""
    killing, land = itertools.count(1), drains.Drain._land
    forget = drains.Drain._forget_failures

    def kill_before(self: drains.Drain) -> None:
        forget(self)
        if next(killing) == 5:
            os.kill(os.getpid(), signal.SIGKILL)

    def kill_after(self: drains.Drain, batch: Any, find_refused: bool) -> None:
        land(self, batch, find_refused)
        if next(killing) == 5:
            os.kill(os.getpid(), signal.SIGKILL)

    if moment == "before":
        drains.Drain._forget_failures = kill_before  # type: ignore[method-assign]
    else:
        drains.Drain._land = kill_after  # type: ignore[method-assign]


def test_replay_and_retry_keep_topics_apart(
    stream: Stream, warehouse: Connection, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    eu, us = f"{prefix}.eu", f"{prefix}.us"
    for name in (eu, us):
        create(name, 1)
        send(name, event(name[-2:], number=-1), b"bad", event("x"))
    table.bring_up_to_date(warehouse, stream)
    warehouse.cursor().execute("ALTER TABLE landing.readings ADD CONSTRAINT mine CHECK (number >= 0)")
    warehouse.commit()
    assert drain(stream, "test").dead_letters == 4
    warehouse.cursor().execute("ALTER TABLE landing.readings DROP CONSTRAINT mine")
    warehouse.commit()
    # A drain meets the topics after the retry has begun.
    read_topics = incarnation.topics_of
    asked: list[str] = []

    def topics_of(connection: Connection, name: str) -> dict[int, str]:
        asked.append(name)
        return {} if len(asked) == 1 else read_topics(connection, name)

    monkeypatch.setattr(incarnation, "topics_of", topics_of)
    assert retry.retry(warehouse, stream) == (2, 2, 0)
    assert found(warehouse) == [(eu, 0, 0, "eu"), (eu, 0, 2, "x"), (us, 0, 0, "us"), (us, 0, 2, "x")]
    proven(warehouse, stream)
    with raises(Code.INVALID_USAGE, "--topic"):
        replay.replay(warehouse, stream, Wanted([0], 0, 1), "test")
    with raises(Code.NOTHING_TO_REPLAY, f"Its topics are {eu}, {us}"):
        replay.replay(warehouse, stream, Wanted(topic="other"), "test")
    no_x = replace(stream, where=lambda found: found.text != "x")
    (done,) = replay.replay(warehouse, no_x, Wanted([0], 0, 3, topic=us), "test")
    assert (done.span.topic, done.records, str(done)[: len(us)]) == (us, 3, us)
    assert found(warehouse) == [(eu, 0, 0, "eu"), (eu, 0, 2, "x"), (us, 0, 0, "us")]
    assert [done.span.topic for done in replay.replay(warehouse, no_x, Wanted(), "test")] == [eu, us]
    assert found(warehouse) == [(eu, 0, 0, "eu"), (us, 0, 0, "us")]
    proven(warehouse, no_x)


def test_a_topic_that_is_gone_stops_the_stream_until_it_is_accepted(
    stream: Stream, warehouse: Connection, prefix: str
) -> None:
    eu, us = f"{prefix}.eu", f"{prefix}.us"
    for name in (eu, us):
        create(name, 1)
        send(name, event("old"))
    drain(stream, "test")
    # Recreated: as for a stream of one topic.
    drop(eu)
    until("the topic is created", lambda: topics.create(eu, partitions=1, config=produce.TOPIC_CONFIG), 20, every_s=0.2)
    send(eu, event("new"))
    send(us, event("later"))
    with raises(Code.TOPIC_RECREATED, eu, kind=TopicRecreated):
        drain(stream, "test")
    (line,) = recovery.accept(warehouse, stream, Choice.RECREATED, "somebody")
    assert line.startswith(f"{eu}, partition 0: records of the old topic from offset 1 on are lost")
    assert drain(stream, "test").landed == 2
    assert numbers(warehouse) == [(1, eu), (2, us), (3, eu)]
    proven(warehouse, stream)
    # Deleted: the stream continues without it.
    drop(us)
    until("the topic is gone", lambda: us not in topics.names(), 20)
    with raises(Code.TOPIC_MISSING, us, "To continue without it", kind=TopicMissing):
        drain(stream, "test")
    (line,) = recovery.accept(warehouse, stream, Choice.RECREATED, "somebody")
    assert line.startswith(f"{us}, partition 0: records of the topic from offset 2 on are lost; continues without")
    send(eu, event("alone"))
    assert drain(stream, "test").landed == 1
    assert proven(warehouse, stream) == 2
    create(us, 1)
    send(us, event("again"))
    assert drain(stream, "test").landed == 1
    assert numbers(warehouse)[-1] == (4, us)
    proven(warehouse, stream)
    # Records that retention removed before they were read.
    send(us, event("x"), event("y"))
    topics.drop_below(us, {0: 2})
    with raises(Code.OFFSETS_REMOVED, us):
        drain(stream, "test")
    (line,) = recovery.accept(warehouse, stream, Choice.LOST, "somebody")
    assert line.startswith(f"{us}, partition 0: offsets 1 to 1 are lost")
    assert drain(stream, "test").landed == 1
    proven(warehouse, stream)


def test_a_stream_of_one_topic_becomes_one_of_several(stream: Stream, warehouse: Connection, prefix: str) -> None:
    eu, us = f"{prefix}.eu", f"{prefix}.us"
    one = stream.of_topic(eu)
    produce.make_topic(one)
    send(eu, event("old"))
    drain(one, "test")
    create(us)
    send(us, event("other"))
    (change,) = table.changes(warehouse, stream)
    assert change.description == "add the column 'kafka_topic' (text) to landing.readings"
    warehouse.rollback()
    assert drain(stream, "test").landed == 1
    assert found(warehouse) == [(eu, 0, 0, "old"), (us, 0, 0, "other")]
    proven(warehouse, stream)
    # Named, and back to one topic.
    send(us, event("named"))
    named = replace(stream, topics=(us, f"{prefix}.later"), topic="")
    assert drain(named, "test").landed == 1
    send(us, event("alone"))
    assert drain(stream.of_topic(us), "test").landed == 1
    assert [row[0] for row in found(warehouse)] == [eu, us, us, None]
    assert numbers(warehouse) == [(1, eu), (2, us)]


def test_drains_share_topics_of_one_partition(stream: Stream, warehouse: Connection, prefix: str) -> None:
    shared = replace(stream, drains=2)
    names = [f"{prefix}.{number}" for number in range(6)]
    for name in names:
        create(name, 1)
        send(name, event(name))
    landed = [drain(shared, "test", shard).landed for shard in range(2)]
    assert sum(landed) == 6 and min(landed) > 0
    proven(warehouse, shared)
    assert len({number for number, _ in numbers(warehouse)}) == 6


def test_named_topics_that_do_not_exist_are_created_by_produce(
    stream: Stream, warehouse: Connection, prefix: str
) -> None:
    eu, us = f"{prefix}.eu", f"{prefix}.us"

    def simulate(_: Any) -> Iterator[Reading]:
        while True:
            yield Reading(NOW, "x")

    named = replace(stream, topics=(eu, us), topic="", simulate=simulate)
    with suppress(TopicMissing), pytest.raises(TopicMissing):
        backlog.measure(client.admin(), warehouse, named.reader, named.topic)
    produce.produce(named, 10)
    produce.produce(named, 5, topic=us)
    assert status.of(named, warehouse).topics == {eu: 5, us: 10}
    with raises(Code.INVALID_USAGE, "does not read a topic 'other'"):
        produce.produce(named, 1, topic="other")
    with raises(Code.INVALID_USAGE, "--topic"):
        produce.produce(replace(stream, simulate=simulate), 1)


class Account(msgspec.Struct):
    """The state of an account."""

    id: int
    ts: Instant
    name: str = ""


def test_a_key_in_two_topics_has_the_state_of_its_newest_event(warehouse: Connection, prefix: str) -> None:
    eu, us = f"{prefix}.eu", f"{prefix}.us"
    accounts = Stream(
        name="accounts",
        topics=(eu, us),
        event=Account,
        event_time="ts",
        key="id",
        current=True,
        order_by="ts",
        quiet="1 second",
    )

    def account(id: int, name: str, second: int) -> bytes:
        return msgspec.json.encode(Account(id, NOW + timedelta(seconds=second), name))

    for name in (eu, us):
        create(name, 1)
    send(eu, account(1, "new", 2), account(2, "old", 0))
    send(us, account(1, "old", 1), account(2, "new", 1))
    drain(accounts, "test")

    def current() -> list[tuple[Any, ...]]:
        return rows(warehouse, "SELECT id, name, kafka_topic FROM landing.accounts_current ORDER BY id")

    assert current() == [(1, "new", eu), (2, "new", us)]
    assert proof.prove(warehouse, accounts).wrong == []
    replay.replay(warehouse, accounts, Wanted(), "test")
    assert current() == [(1, "new", eu), (2, "new", us)]
    assert proof.prove(warehouse, accounts).wrong == []


def test_an_upgrade_numbers_the_topics_of_each_stream(warehouse: Connection) -> None:
    """Two streams of one topic, which was recreated, and a topic that no stream has read."""
    with warehouse.cursor() as cursor:
        # As before the upgrade.
        cursor.execute(
            "DROP VIEW millrace.reconciliation; ALTER TABLE millrace.topic_incarnation DROP COLUMN stream, "
            "ADD PRIMARY KEY (topic, number); "
            "INSERT INTO millrace.topic_incarnation (topic, number, topic_id) VALUES ('t', 1, 'a'), ('t', 2, 'b'), "
            "('unread', 1, 'c'); "
            "INSERT INTO millrace.position (reader, topic, partition, topic_id, next_offset, owner, backend_pid, "
            "backend_start) SELECT reader, 't', partition, 'b', 0, 'x', 1, now() FROM "
            "unnest(ARRAY['landing:one', 'landing:two', 'other']) AS reader, generate_series(0, 1) AS partition"
        )
        cursor.execute(migrations.statements("several_topics").replace("%", "%%"), ())
    warehouse.commit()
    numbered = rows(
        warehouse, "SELECT stream, topic, number, topic_id FROM millrace.topic_incarnation ORDER BY 1, 2, 3"
    )
    assert numbered == [
        ("", "unread", 1, "c"),
        ("one", "t", 1, "a"),
        ("one", "t", 2, "b"),
        ("two", "t", 1, "a"),
        ("two", "t", 2, "b"),
    ]
    assert incarnation.number(warehouse, "one", topics.Topic("t", "b", (0,))) == 2
    assert incarnation.number(warehouse, "one", topics.Topic("u", "d", (0,))) == 3
    found = rows(warehouse, "SELECT stream, kafka_incarnation, unaccounted FROM millrace.reconciliation ORDER BY 1, 2")
    assert found == [("one", 2, 0), ("one", 2, 0), ("two", 2, 0), ("two", 2, 0)]
