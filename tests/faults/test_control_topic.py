"""The control topic of manifests loses records, as by the election of a replica that lagged behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from include.error_codes import Code
from include.kafka import client, topics
from include.kafka.position_errors import LogTruncated
from include.training import dispatch
from include.versions.manifest import CONTROL_TOPIC
from include.versions.publication import TOPIC_CONFIG
from tests.errors import raises
from tests.faults.toolbox.stage import Stage

KEPT, LOST = 3, 2


@pytest.fixture
def truncated(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """A dispatch has landed five records of the control topic; then the broker loses the last two."""
    for name, value in stage.connections().items():
        monkeypatch.setenv(name, value)
    topics.create(CONTROL_TOPIC, partitions=1, config=TOPIC_CONFIG)
    send(KEPT)
    broker = stage.world.broker
    size = broker.segment(CONTROL_TOPIC, 0).stat().st_size
    send(LOST)
    assert dispatch.land("test") == KEPT + LOST
    broker.stop()
    broker.truncate(CONTROL_TOPIC, 0, size)
    broker.start()
    yield stage
    brokers = client.admin()
    brokers.delete_topics([CONTROL_TOPIC])[CONTROL_TOPIC].result(30)


def send(records: int) -> None:
    producer = client.producer()
    for _ in range(records):
        producer.produce(CONTROL_TOPIC, b"not a manifest", partition=0)
    assert producer.flush(30) == 0


def next_offset(stage: Stage) -> int:
    ((offset,),) = stage.query("SELECT next_offset FROM millrace.position WHERE reader = %s", dispatch.READER)
    return int(offset)


def test_a_truncated_control_topic_stops_the_dispatch(truncated: Stage) -> None:
    with raises(Code.LOG_TRUNCATED, CONTROL_TOPIC, KEPT + LOST, f"'{dispatch.READER}'", kind=LogTruncated):
        dispatch.land("test")
    assert next_offset(truncated) == KEPT + LOST


def test_a_truncated_control_topic_that_was_filled_again_stops_the_dispatch(truncated: Stage) -> None:
    """The position lies within the log again; only the leader epoch shows that other records are below it."""
    send(10)
    with raises(Code.LOG_TRUNCATED, CONTROL_TOPIC, KEPT + LOST, kind=LogTruncated):
        dispatch.land("test")
    assert next_offset(truncated) == KEPT + LOST
    truncated.query("DELETE FROM millrace.position WHERE reader = %s", dispatch.READER)
    assert dispatch.land("test") == KEPT + 10, "the remedy reads the topic from its beginning"
