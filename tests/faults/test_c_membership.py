"""C: partitions get another drain, another number or another broker. Without a consumer group, none is rebalanced."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from confluent_kafka import ConsumerGroupState
from confluent_kafka.admin import AdminClient

from tests.faults.toolbox.events import READINGS, WAIT_S
from tests.faults.toolbox.stage import Stage


def test_c19_a_drain_joins(stage: Stage) -> None:
    """One drain becomes two. The old one still runs, and the first new one that claims its partitions fences it."""
    stage.topic.events(600)
    old = stage.drain(replace(stage.stream, quiet="20 seconds"))
    stage.until_landed(600)
    two = replace(stage.stream, drains=2)
    new = [stage.drain(two, postgres=stage.relay(), shard=shard) for shard in (0, 1)]
    stage.until_claimed(2)
    stage.topic.events(600)
    assert {drain.wait().kind for drain in new} == {"drained"}
    assert old.wait().kind == "fenced"
    stage.finish()


def test_c20_a_drain_leaves(stage: Stage) -> None:
    """Two drains become one, which owns all partitions."""
    two = replace(stage.stream, drains=2, quiet="20 seconds")
    stage.topic.events(600)
    old = [stage.drain(two, shard=0), stage.drain(two, shard=1)]
    stage.until_landed(600)
    one = stage.drain(postgres=stage.relay())
    stage.until_claimed(2)
    stage.topic.events(600)
    assert one.wait().kind == "drained"
    assert {drain.wait().kind for drain in old} == {"fenced"}
    stage.finish()


def test_c20_one_of_two_drains_dies(stage: Stage) -> None:
    """One drain continues. The partitions of the dead one wait for its retry, which claims no others."""
    two = replace(stage.stream, drains=2, quiet="3 seconds")
    stage.topic.events(600)
    dying, living = stage.drain(two, shard=0), stage.drain(two, shard=1)
    stage.until_landed(600)
    dying.kill()
    stage.topic.events(600)
    retry = stage.drain(two, shard=0)
    stage.until_landed(1_200)
    assert [retry.wait().kind, living.wait().kind] == ["drained", "drained"]
    stage.finish()


def test_c21_c22_no_group_has_members(stage: Stage) -> None:
    """No process joins a group, so no assignor and no static membership applies."""
    stage.topic.events(600)
    drain = stage.drain(replace(stage.stream, quiet="4 seconds"))
    stage.until_landed(600)
    admin = AdminClient({"bootstrap.servers": stage.world.broker.direct})
    group = stage.stream.reader
    reported = threading.Event()
    while drain.alive and not reported.wait(0.2):
        listed = admin.list_consumer_groups(request_timeout=WAIT_S).result()
        if group in {each.group_id for each in listed.valid}:
            reported.set()
    assert reported.is_set(), "the drain commits offsets to Kafka"
    described = admin.describe_consumer_groups([group])[group].result(WAIT_S)
    assert (described.state, list(described.members)) == (ConsumerGroupState.EMPTY, [])
    stage.finish()


def test_c23_brokers_bounce_one_after_the_other(stage: Stage) -> None:
    """The broker stops and starts twice. The drain continues without help."""
    stage.topic.events(600)
    drain = stage.drain(replace(stage.stream, quiet="40 seconds", window="3 minutes"))
    stage.until_landed(600)
    for bounce in (1, 2):
        stage.world.broker.stop()
        stage.world.broker.start()
        stage.topic.events(600)
        stage.until_landed(600 * (bounce + 1), 60)
    drain.end()
    stage.finish()


def test_c24_partitions_are_added(stage: Stage) -> None:
    """Records of new partitions are read from offset 0, including those sent before the drain noticed them."""
    stage.topic.events(600)
    drain = stage.drain()
    stage.until_landed(600)
    stage.topic.grow(5)
    stage.topic.events(1_000)
    assert drain.wait().kind == "drained"
    assert stage.finish().dispositions["landed"] == 1_600


def test_c24_partitions_are_added_to_two_drains(staged: Callable[..., Stage]) -> None:
    stage = staged(replace(READINGS, drains=2))
    stage.topic.events(600)
    shards = [stage.drain(shard=shard) for shard in (0, 1)]
    stage.until_landed(600)
    stage.topic.grow(6)
    stage.topic.events(1_200)
    assert {drain.wait().kind for drain in shards} == {"drained"}
    shards = [stage.drain(shard=shard) for shard in (0, 1)]
    assert {drain.wait().kind for drain in shards} == {"drained"}
    assert stage.prove().dispositions["landed"] == 1_800
