"""A: a drain is killed at exact moments. Its successor finishes the work, and no record is lost or repeated."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.toolbox import tampering
from tests.faults.toolbox.drains import has_ended
from tests.faults.toolbox.relay import Relay, Trap
from tests.faults.toolbox.stage import Stage
from tests.polling import until

# The drain's transactions before a batch (claim, table, partitions) have ended when these traps are set.
IN_A_BATCH = {
    "a01_before_begin": "client query BEGIN",
    "a02_after_compare_and_set": "server done WITH asked",
    "a03_mid_copy": "client copy rest of COPY .?landing",
    "a04_after_copy_before_commit": "client query COMMIT",
    "a05_during_commit": "server done COMMIT",
}
IN_PARTITION_DDL = {
    "a08_before_partition_is_created": "client query CREATE TABLE .*LIKE",
    "a08_before_partition_is_attached": "client query ALTER TABLE .* ATTACH",
    "a08_after_partition_is_attached": "server done ALTER TABLE .* ATTACH",
}
IN_DEAD_LETTERS = {
    "a09_mid_dead_letters": "client copy rest of COPY .?millrace.?..?dead_letter",
    "a09_after_dead_letters": "server done COPY .?millrace.?..?dead_letter",
}

Tampering = Callable[[], None] | None


def killed_in_a_batch(stage: Stage, moment: str, tamper: Tampering = None, lost: bool = True) -> None:
    """Kills a drain in its second batch. Its message is lost, or arrives after its death."""
    stage.topic.events(2_000)
    drain = stage.drain(tamper=tamper)
    stage.until_landed(2_000)
    trap = stage.postgres.trap(moment)
    stage.topic.events(3_000)
    trap.wait()
    drain.kill()
    gone(stage.postgres, trap, lost)
    no_backend(stage)
    assert not stage.audit().wrong, "a killed drain leaves no partial batch"
    stage.topic.events(1_000)
    stage.finish()


def test_a13_a_drain_ends_with_its_killed_task(stage: Stage) -> None:
    """The draining process is the task's child: it does not continue alongside the retry."""
    stage.topic.events(1_000)
    task = stage.drain(handing_over=True)
    stage.until_landed(1_000)
    child = task.child
    task.kill()
    until("the task's child has ended with it", lambda: has_ended(child), 10)
    no_backend(stage)
    stage.topic.events(1_000)
    stage.finish()


def test_a13_a_task_whose_drain_was_killed_fails(stage: Stage) -> None:
    stage.topic.events(1_000)
    task = stage.drain(handing_over=True)
    stage.until_landed(1_000)
    task.child.kill()
    outcome = task.wait(5)
    assert outcome.kind == "failed" and "SIGKILL" in outcome.message and "[process-killed]" in outcome.message, outcome
    stage.topic.events(1_000)
    stage.finish()


def gone(relay: Relay, trap: Trap, lost: bool) -> None:
    """Drops the held message with its connection, or delivers it and then ends the connection."""
    if lost:
        trap.cut()
    else:
        trap.release()
        relay.cut()


def no_backend(stage: Stage) -> None:
    """Waits until the killed drain's backend has ended."""
    until("the killed drain's backend has ended", lambda: stage.backends("millrace land%") == 0, 10)


@pytest.mark.parametrize("moment", IN_A_BATCH.values(), ids=IN_A_BATCH.keys())
def test_killed_in_a_batch(stage: Stage, moment: str) -> None:
    killed_in_a_batch(stage, moment)


def test_a05_commit_arrives_after_the_death(stage: Stage) -> None:
    killed_in_a_batch(stage, "client query COMMIT", lost=False)


@pytest.mark.parametrize(
    ("moment", "tamper"),
    [
        (IN_A_BATCH["a03_mid_copy"], tampering.position_moves_alone),
        ("server done END", tampering.rows_are_committed_alone),
    ],
    ids=["a03_without_one_transaction", "a05_without_one_transaction"],
)
def test_a_drain_without_one_transaction_is_noticed(stage: Stage, moment: str, tamper: Tampering) -> None:
    with pytest.raises(AssertionError):
        killed_in_a_batch(stage, moment, tamper)


@pytest.mark.parametrize("lost", [True, False], ids=["a05_refused", "a05_reply_lost"])
def test_unknown_outcome_of_commit(stage: Stage, lost: bool) -> None:
    """The drain's connection breaks during COMMIT. Only the position shows whether it was applied."""
    stage.topic.events(1_000)
    drain = stage.drain()
    stage.until_landed(1_000)
    trap = stage.postgres.trap("client query COMMIT" if lost else "server done COMMIT")
    stage.topic.events(2_000)
    trap.wait()
    trap.cut()
    stage.until_landed(3_000)
    assert drain.wait().kind == "drained"
    stage.prove()


def test_a05_commit_arrives_late(stage: Stage) -> None:
    """The connection breaks, the drain connects again, and only then the COMMIT of the first connection arrives."""
    stage.topic.events(1_000)
    drain = stage.drain()
    stage.until_landed(1_000)
    trap = stage.postgres.trap("client query COMMIT")
    stage.topic.events(2_000)
    trap.wait()
    stage.postgres.hide_ends()
    stage.postgres.hang_up()
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"
    until("the new connection waits for the old one's locks", lambda: stage.query(waiting, stage.name) == [(1,)], 10)
    trap.release()
    outcome = drain.wait()
    assert (outcome.kind, outcome.drained["landed"]) == ("drained", 3_000), outcome
    stage.finish()


@pytest.mark.parametrize(
    "moment",
    ["client offset commit request", "server offset commit reply"],
    ids=["a06_before_kafka_commit", "a07_during_kafka_commit"],
)
def test_killed_in_kafka_commit(stage: Stage, moment: str) -> None:
    """Kafka's group offset is only for display. The position in PostgreSQL decides."""
    trap = stage.kafka.trap(moment)
    stage.topic.events(2_000)
    drain = stage.drain()
    stage.until_landed(2_000)
    while not trap.sprung:
        assert drain.alive, "the drain ended without committing an offset to Kafka"
        stage.topic.events(100)
    drain.kill()
    trap.cut()
    assert not stage.audit().wrong
    stage.topic.events(1_000)
    stage.finish()


def test_a07_group_offset_is_never_read_back(stage: Stage) -> None:
    from confluent_kafka import Consumer, TopicPartition

    stage.topic.events(3_000, partition=0)
    stage.land()
    stage.topic.events(1_000, partition=0)
    config = {"bootstrap.servers": stage.world.broker.direct, "group.id": stage.stream.reader, "log_level": 0}
    other = Consumer(config)
    other.commit(offsets=[TopicPartition(stage.stream.topic, 0, 4_000)], asynchronous=False)
    other.close()
    stage.finish()
    assert stage.landed() == 4_000


@pytest.mark.parametrize("moment", IN_PARTITION_DDL.values(), ids=IN_PARTITION_DDL.keys())
def test_killed_in_partition_ddl(stage: Stage, moment: str) -> None:
    trap = stage.postgres.trap(moment)
    stage.topic.events(2_000)
    drain = stage.drain()
    trap.wait()
    drain.kill()
    trap.cut()
    no_backend(stage)
    assert not stage.audit().wrong
    stage.finish()


def killed_in_dead_letters(stage: Stage, moment: str, tamper: Tampering = None) -> None:
    """Kills a drain in a batch with good and bad records: all of it lands, or none."""
    stage.topic.events(500)
    drain = stage.drain(tamper=tamper)
    stage.until_landed(500)
    trap = stage.postgres.trap(moment)
    stage.topic.send([b"{broken", b"[]"] * 20, expect="dead letter")
    stage.topic.events(500)
    trap.wait(10)
    drain.kill()
    trap.cut()
    no_backend(stage)
    assert not stage.audit().wrong
    assert stage.query("SELECT count(*) FROM millrace.dead_letter") == [(0,)]
    assert stage.finish().dispositions["dead letter"] == 40


@pytest.mark.parametrize("moment", IN_DEAD_LETTERS.values(), ids=IN_DEAD_LETTERS.keys())
def test_killed_in_dead_letters(stage: Stage, moment: str) -> None:
    killed_in_dead_letters(stage, moment)


def test_a09_dropped_dead_letters_are_noticed(stage: Stage) -> None:
    stage.topic.send([b"{broken"] * 3, expect="dead letter")
    stage.topic.events(100)
    stage.drain(tamper=tampering.dead_letters_are_dropped).wait()
    with pytest.raises(AssertionError, match="dead letter"):
        stage.finish()
