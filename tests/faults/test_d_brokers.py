"""D: faults of brokers, topics and logs. A drain waits for a broker that returns, and stops when records are lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from include.error_codes import Code
from include.kafka import topics
from include.kafka.position_errors import TopicMissing
from include.landing import recovery
from include.landing.choice import Choice
from include.streams.definition import Stream
from tests.errors import raises
from tests.faults.toolbox import tampering
from tests.faults.toolbox.audit import snapshot
from tests.faults.toolbox.events import READINGS, WAIT_S
from tests.faults.toolbox.stage import Stage
from tests.polling import until


def patient(stream: Stream) -> Stream:
    """The stream with a quiet time that is longer than a broker's start, which takes long next to other tests."""
    return replace(stream, quiet="40 seconds", window="3 minutes")


def accept(stage: Stage, choice: str) -> None:
    """Accepts a choice, as ``./millrace accept`` does."""
    with stage.connected() as connection:
        assert recovery.accept(connection, stage.stream, Choice(choice), "a test")


@pytest.fixture(params=["stop", "kill"], ids=["d26_clean_bounce", "d27_hard_kill"])
def ending(request: pytest.FixtureRequest) -> str:
    """How the broker ends."""
    return str(request.param)


def test_the_broker_goes_and_comes_back(stage: Stage, ending: str) -> None:
    """A running drain waits, and continues by itself."""
    stage.topic.events(1_000)
    drain = stage.drain(patient(stage.stream))
    stage.until_landed(1_000)
    stage.topic.events(2_000)
    getattr(stage.world.broker, ending)()
    stage.world.broker.start()
    stage.topic.events(1_000)
    stage.until_landed(4_000, 60)
    assert drain.alive
    drain.end()
    stage.finish()


def test_d27_a_drain_starts_while_the_broker_is_down(stage: Stage) -> None:
    stage.topic.events(1_000)
    stage.world.broker.kill()
    drain = stage.drain()
    time.sleep(1)
    stage.world.broker.start()
    outcomes = [drain.wait(90)]
    assert outcomes[0].kind in ("drained", "failed"), outcomes
    stage.finish()


def test_d28_the_log_is_truncated(stage: Stage) -> None:
    """Kafka lost records that were landed, and will use their offsets again: the drain stops with LogTruncated."""
    stage.topic.events(1_000, partition=0)
    size = stage.world.broker.segment(stage.stream.topic, 0).stat().st_size
    stage.topic.events(1_000, partition=0)
    stage.land()
    before = stage.snapshot()
    broker = stage.world.broker
    broker.stop()
    broker.truncate(stage.stream.topic, 0, size)
    broker.start()
    assert snapshot(broker.direct, stage.stream.topic).logs[0].stable_end == 1_000
    outcome = stage.drain().wait()
    assert (outcome.kind, outcome.error) == ("stop", "LogTruncated"), outcome
    assert stage.positions()[0] == 2_000
    assert stage.landed() == 2_000
    accept(stage, "truncated")
    stage.topic.reconnect()
    stage.topic.events(500, partition=0)
    stage.land()
    findings = stage.audit_of(before, stage.snapshot(), begins={0: 1_000})
    assert not findings.wrong, findings.wrong
    assert stage.landed() == 2_500


def test_d28_the_log_is_truncated_and_filled_again(stage: Stage) -> None:
    """The position lies within the log again, but the records below it are not those that were landed."""
    stage.topic.events(1_000, partition=0)
    size = stage.world.broker.segment(stage.stream.topic, 0).stat().st_size
    stage.topic.events(1_000, partition=0)
    stage.land()
    broker = stage.world.broker
    broker.stop()
    broker.truncate(stage.stream.topic, 0, size)
    broker.start()
    stage.topic.reconnect()
    stage.topic.events(3_000, partition=0)
    outcome = stage.drain().wait()
    assert (outcome.kind, outcome.error) == ("stop", "LogTruncated"), outcome


@pytest.mark.parametrize("end", ["commit", "abort"])
def test_d28_a_transaction_that_ends_under_another_leader_is_no_truncation(stage: Stage, end: str) -> None:
    """The last record has one leader epoch, and the marker after it the next one. The position is after both."""
    stage.topic.events(500, partition=0)
    producer = stage.topic.transaction(100, "open", partition=0)
    stage.world.broker.stop()
    stage.world.broker.start()
    (producer.commit_transaction if end == "commit" else producer.abort_transaction)(60)
    stage.land()
    assert stage.positions()[0] == 601
    outcome = stage.drain().wait()
    assert outcome.kind == "drained", outcome
    with raises(Code.NOTHING_TO_ACCEPT, "truncated"):
        accept(stage, "truncated")
    stage.topic.events(10, partition=0)
    stage.land()
    assert stage.positions()[0] == 611


@pytest.mark.parametrize("again", [500, 2_000], ids=["fewer_records", "more_records"])
def test_d29_the_topic_is_recreated(stage: Stage, again: int) -> None:
    """The same name with other records: none is read, whether the position is within the new log or past its end."""
    stage.topic.events(1_000)
    stage.land()
    before = stage.snapshot()
    recreate(stage)
    stage.topic.events(again)
    outcome = stage.drain().wait()
    assert (outcome.kind, outcome.error) == ("stop", "TopicRecreated"), outcome
    assert f"./millrace accept {stage.stream.name} recreated" in outcome.message
    assert stage.landed() == 1_000
    accept(stage, "recreated")
    stage.land()
    assert stage.prove(before).dispositions["landed"] == 1_000 + again


def test_d29_the_topic_is_recreated_during_a_drain(stage: Stage) -> None:
    """A running drain notices within seconds, and lands no record of the new topic as one of the old."""
    stage.topic.events(3_000)
    before = stage.snapshot()
    drain = stage.drain(patient(stage.stream))
    stage.until_landed(3_000)
    recreate(stage)
    stage.topic.events(6_000)
    outcome = drain.wait(60)
    assert (outcome.kind, outcome.error) in (("stop", "TopicRecreated"), ("stop", "TopicMissing")), outcome
    assert {row[0] for row in stage.query("SELECT topic_id FROM millrace.topic_incarnation")} == {before.topic_id}
    assert stage.landed() == 3_000


def test_d29_the_topic_is_deleted(stage: Stage) -> None:
    stage.topic.events(1_000)
    stage.land()
    stage.topic.delete()
    outcome = stage.drain().wait()
    assert (outcome.kind, outcome.error) == ("stop", "TopicMissing"), outcome
    assert stage.landed() == 1_000


def test_d29_describing_a_topic_does_not_create_it(stage: Stage) -> None:
    """Not even if the brokers create topics automatically, as those of the tests do."""
    with stage.connected():
        brokers = topics.connected()
        with raises(Code.KAFKA_REQUEST_FAILED, "Unknown topic"):
            topics.extents("nobodys", [0], brokers)
        with raises(Code.TOPIC_MISSING, "nobodys", kind=TopicMissing):
            topics.describe("nobodys", brokers)
        assert not {"nobodys", topics.NO_TOPIC} & set(topics.names())


def test_d30_the_cluster_is_replaced(stage: Stage) -> None:
    """Another cluster answers at the same address, with a topic of the same name."""
    stage.topic.events(1_000)
    stage.land()
    before = stage.snapshot()
    stage.world.broker.replace()
    stage.topic.acknowledged.clear()
    stage.topic.make()
    stage.topic.events(2_000)
    outcome = stage.drain().wait()
    assert (outcome.kind, outcome.error) == ("stop", "TopicRecreated"), outcome
    assert stage.landed() == 1_000
    accept(stage, "recreated")
    stage.land()
    assert stage.prove(before).dispositions["landed"] == 3_000


def trimmed(stage: Stage, tamper: Callable[[], None] | None = None) -> None:
    """Retention passes the position while no drain runs."""
    stage.topic.events(1_000, partition=0)
    stage.land()
    stage.topic.events(1_000, partition=0)
    stage.topic.trim(0, 1_500)
    outcome = stage.drain(tamper=tamper).wait()
    assert (outcome.kind, outcome.error) == ("stop", "OffsetsGone"), outcome
    assert "1000 to 1499" in outcome.message
    assert stage.landed() == 1_000


def test_d31_retention_passed_the_position(stage: Stage) -> None:
    trimmed(stage)
    accept(stage, "lost")
    stage.land()
    gaps = stage.query(
        "SELECT kafka_partition, first_offset, next_offset FROM millrace.landing_gap WHERE choice = 'lost'"
    )
    assert gaps == [(0, 1_000, 1_500)]
    assert (stage.landed(), stage.positions()[0]) == (1_500, 2_000)


def test_d31_skipped_offsets_are_noticed(stage: Stage) -> None:
    with pytest.raises(AssertionError):
        trimmed(stage, tampering.lost_offsets_are_skipped)
    with pytest.raises(AssertionError):
        stage.prove()


def test_d31_retention_passes_the_position_during_a_drain(stage: Stage) -> None:
    """The drain is stopped while retention removes the records that it would read next."""
    stage.topic.events(1_000, partition=0)
    drain = stage.drain()
    stage.until_landed(1_000)
    drain.freeze()
    stage.topic.events(2_000, partition=0)
    stage.topic.trim(0, 2_500)
    drain.thaw()
    outcome = drain.wait()
    # The drain may have fetched the records before they were removed.
    assert outcome.kind == "stop" or stage.landed() == 3_000, outcome
    if outcome.kind == "stop":
        assert outcome.error == "OffsetsGone"
        assert stage.landed() == stage.positions()[0]


def test_d31_removing_records_below_the_position_loses_nothing(stage: Stage) -> None:
    stage.topic.events(2_000, partition=0)
    stage.land()
    before = stage.snapshot()
    stage.topic.trim(0, 1_500)
    stage.topic.events(500, partition=0)
    stage.land()
    after = stage.snapshot()
    findings = stage.audit_of(before | after)
    assert not findings.wrong, findings
    assert stage.landed() == 2_500


def test_d32_compaction_leaves_gaps(staged: Callable[..., Stage]) -> None:
    """Offsets that compaction removed have no record; the remaining records land, and tombstones are skipped."""
    stage = staged(
        replace(READINGS, kafka_partitions=1),
        cleanup_policy="compact",
        segment_ms="500",
        min_cleanable_dirty_ratio="0.01",
        max_compaction_lag_ms="500",
        delete_retention_ms="60000",
    )
    for _ in range(6):
        stage.topic.send([stage.topic.value() for _ in range(100)], key=b"same")
        stage.topic.send([None], key=b"other")
        time.sleep(0.6)
    until("the log is compacted", lambda: len(stage.snapshot().logs[0].committed) < 300, 60, every_s=0.5)
    # The audit would miss records that are compacted after the drain has read them.
    stage.topic.configure(cleanup_policy="delete")
    time.sleep(1)
    stage.topic.acknowledged.clear()
    stage.topic.events(50)
    stage.land()
    findings = stage.prove()
    assert findings.dispositions["no record"] > 300
    assert findings.dispositions["landed"] >= 50


def with_transactions(stage: Stage, tamper: Callable[[], None] | None = None) -> None:
    for number in range(6):
        stage.topic.transaction(100, "abort" if number % 2 else "commit")
    stage.topic.events(60)
    for number in range(3):
        stage.topic.transaction(50, "abort", partition=number)
    drain = stage.drain(tamper=tamper)
    assert drain.wait().kind == "drained"
    findings = stage.prove()
    assert findings.dispositions["landed"] == 360
    # 450 aborted records, and a marker for each transaction in each of its partitions.
    assert findings.dispositions["no record"] == 450 + 6 * 3 + 3


def test_d33_aborted_transactions_and_markers(stage: Stage) -> None:
    """The position ends after the last marker, so that no lag is left."""
    with_transactions(stage)


def test_d33_aborted_records_that_land_are_noticed(stage: Stage) -> None:
    with pytest.raises(AssertionError):
        with_transactions(stage, tampering.aborted_records_are_read)


def test_d34_a_transaction_stays_open(stage: Stage) -> None:
    """Later records wait and are reported as blocked. Once the transaction ends, all of them land."""
    from include.kafka import backlog

    stage.topic.events(300)
    producer = stage.topic.transaction(90, "open")
    stage.topic.events(300)
    assert stage.drain().wait().kind == "drained"
    assert stage.landed() == 300
    with stage.connected():
        found = backlog.BacklogReader().measure(stage.stream.reader, stage.stream.topic)
        assert (found.lag, found.blocked) == (0, True)
        producer.commit_transaction(WAIT_S)
        until("the transaction's end reached the partitions", lambda: stage.lag() > 0, 10)
        found = backlog.BacklogReader().measure(stage.stream.reader, stage.stream.topic)
        assert found.lag > 0
    assert stage.finish().dispositions["landed"] == 690


def test_d35_an_idle_partition(stage: Stage) -> None:
    """Two of three partitions never get a record. Their positions stay at 0, and the third one lands."""
    stage.topic.events(1_000, partition=1)
    stage.finish()
    assert stage.positions() == {0: 0, 1: 1_000, 2: 0}


def test_d36_the_network_to_the_broker_is_cut(stage: Stage) -> None:
    """Every connection is reset, and for five seconds none is accepted."""
    stage.topic.events(1_000)
    drain = stage.drain(patient(stage.stream))
    stage.until_landed(1_000)
    with stage.kafka.away():
        stage.topic.events(1_000)
        time.sleep(5)
    stage.until_landed(2_000)
    drain.end()
    stage.finish()


def test_d36_the_network_to_the_broker_is_silent(stage: Stage) -> None:
    """Connections stay open, but no data passes, for longer than the request timeout."""
    stage.kafka_settings = {"socket.timeout.ms": 3_000}
    stage.topic.events(1_000)
    drain = stage.drain(patient(stage.stream))
    stage.until_landed(1_000)
    stage.kafka.freeze()
    stage.topic.events(1_000)
    time.sleep(8)
    stage.kafka.thaw()
    stage.until_landed(2_000)
    drain.end()
    stage.finish()


def test_d36_every_fetch_breaks(stage: Stage) -> None:
    """Replies are cut in the middle repeatedly. Records that were fetched twice land once."""
    stage.topic.events(3_000)
    drain = stage.drain(patient(stage.stream))
    for _ in range(6):
        trap = stage.kafka.trap("server fetch reply", skip=2)
        stage.topic.events(300)
        trap.wait()
        trap.cut()
    stage.until_landed(4_800, 60)
    drain.end()
    stage.finish()


def test_d36_a_slow_network(stage: Stage) -> None:
    """80 ms of latency in each direction, to both servers."""
    stage.kafka.latency_s = stage.postgres.latency_s = 0.08
    stage.topic.events(2_000)
    assert stage.drain(replace(stage.stream, quiet="2 seconds")).wait().kind == "drained"
    stage.prove()


@pytest.mark.parametrize(
    ("event", "disposition"),
    [
        (timedelta(days=-6, hours=-23), "landed"),
        (timedelta(days=-8), "quarantined"),
        (timedelta(hours=2), "quarantined"),
    ],
    ids=["late_within_the_window", "too_late", "too_early"],
)
def test_d37_clocks_differ(staged: Callable[..., Stage], event: timedelta, disposition: str) -> None:
    """Late and early count from the record's timestamp in Kafka, not from a worker's clock, here 40 days ahead."""
    stage = staged(READINGS, message_timestamp_type="CreateTime", retention_ms="-1")
    appended = datetime.now(UTC) - timedelta(days=40)
    values = [stage.topic.value(appended + event) for _ in range(50)]
    stage.topic.send(values, expect=disposition, timestamp=appended)  # type: ignore[arg-type]
    assert stage.finish().dispositions == {disposition: 50}


def recreate(stage: Stage) -> None:
    """Deletes the topic, and creates another with its name."""
    stage.topic.delete()
    until("the topic is created again", lambda: created(stage), 20, every_s=0.3)
    # Until the broker has deleted the old logs, it appends new records to them, and loses these.
    until("the new topic's logs are empty", lambda: not any(stage.topic.stable_ends().values()), 20)


def created(stage: Stage) -> bool:
    """Creates the topic, unless its deletion has not finished yet."""
    from confluent_kafka import KafkaException

    try:
        stage.topic.make()
    except KafkaException:
        return False
    return True
