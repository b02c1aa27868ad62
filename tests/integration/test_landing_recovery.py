"""Errors that need a decision: the stream stops, names the command, and continues once a user has accepted it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from include.airflow.backlog import BacklogTrigger
from include.error_codes import Code
from include.kafka import client, position, topics
from include.kafka.position_errors import OffsetsGone, TopicMissing, TopicRecreated
from include.landing import incarnation, recovery, status
from include.landing.choice import Choice
from include.landing.drain import drain
from include.landing.recovery import AllRecordsRejected
from include.streams.definition import Stream
from tests.errors import raises
from tests.integration.landing import (
    count_landed,
    event,
    kept_aside,
    landed,
    one_disposition_each,
    patient,
    recreate,
    refusing,
    rows,
    send,
    stream,
)
from tests.polling import until

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

__all__ = ["stream"]


@pytest.mark.parametrize("by", ["decoding", "postgresql"])
def test_bad_records_alone_stop_the_stream_and_do_not_move_the_position(
    stream: Stream, warehouse: Connection, by: str
) -> None:
    refusing(warehouse, stream)
    send(stream, [event("good")])
    drain(stream, "test")
    send(stream, [b"bad" if by == "decoding" else event(number=-1)] * 500)
    with raises(Code.ALL_RECORDS_REJECTED, 500, "accept readings bad", kind=AllRecordsRejected):
        drain(patient(stream), "test")
    assert not kept_aside(warehouse)
    assert position.read_positions(warehouse, stream.reader, stream.topic)[0].position.next_offset == 1
    assert recovery.accept(warehouse, stream, Choice.BAD, "somebody")
    assert drain(stream, "test").dead_letters == 500
    one_disposition_each(warehouse, stream)


def test_a_recreated_topic_stops_the_stream(stream: Stream, warehouse: Connection) -> None:
    send(stream, [event()])
    drain(stream, "test")
    recreate(stream)
    send(stream, [event()])
    with raises(Code.TOPIC_RECREATED, stream.topic, kind=TopicRecreated):
        drain(stream, "test")
    assert len(landed(warehouse)) == 1
    assert incarnation.number(warehouse, stream.name, topics.describe(stream.topic)) == 2


def test_a_recreated_topic_is_landed_once_accepted(stream: Stream, warehouse: Connection) -> None:
    send(stream, [event("old")])
    drain(stream, "test")
    recreate(stream)
    send(stream, [event("new")])
    with raises(Code.TOPIC_RECREATED, stream.topic, "./millrace accept readings recreated", kind=TopicRecreated):
        drain(stream, "test")
    recovery.accept(warehouse, stream, Choice.RECREATED, "somebody")
    assert drain(stream, "test").landed == 1
    found = rows(warehouse, "SELECT kafka_incarnation, kafka_offset, text FROM landing.readings ORDER BY 1")
    assert found == [(1, 0, "old"), (2, 0, "new")]
    gaps = rows(
        warehouse, "SELECT choice, kafka_partition, first_offset, next_offset, accepted_by FROM millrace.landing_gap"
    )
    assert gaps == [("recreated", p, int(p == 0), None, "somebody") for p in range(3)]
    with raises(Code.NOTHING_TO_ACCEPT, "recreated", "readings"):
        recovery.accept(warehouse, stream, Choice.RECREATED, "somebody")


def test_a_topic_recreated_during_a_drain_stops_it(stream: Stream, warehouse: Connection) -> None:
    send(stream, [event("old")] * 10)
    outcome: list[BaseException] = []

    def run() -> None:
        try:
            drain(replace(stream, quiet="30 seconds"), "test")
        except BaseException as error:
            outcome.append(error)

    draining = threading.Thread(target=run)
    draining.start()
    until("all records of the old topic have landed", lambda: count_landed(warehouse) == 10, 20)
    recreate(stream)
    send(stream, [event("new")] * 20)
    draining.join(20)
    assert isinstance(outcome[0], TopicRecreated | TopicMissing)
    assert {text for _, _, text in landed(warehouse)} == {"old"}


def test_the_stream_continues_after_removed_offsets_once_accepted(stream: Stream, warehouse: Connection) -> None:
    from confluent_kafka import TopicPartition

    send(stream, [event("a")] * 5)
    assert drain(stream, "test").landed == 5
    send(stream, [event("b")] * 5)
    brokers = client.admin()
    for removed in brokers.delete_records([TopicPartition(stream.topic, 0, 8)]).values():
        removed.result()
    with raises(Code.OFFSETS_REMOVED, "5 to 7", "./millrace accept readings lost", kind=OffsetsGone):
        drain(patient(stream), "test")
    with raises(Code.OFFSETS_REMOVED, "5 to 7", kind=OffsetsGone):
        status.of(stream, warehouse)
    assert recovery.accept(warehouse, stream, Choice.LOST, "somebody") == [
        "partition 0: offsets 5 to 7 are lost; continues at 8"
    ]
    assert drain(stream, "test").landed == 2
    assert [offset for _, offset, _ in landed(warehouse)] == [0, 1, 2, 3, 4, 8, 9]


def test_the_sensor_ends_if_the_topic_was_recreated(stream: Stream, warehouse: Connection) -> None:
    """The new topic ends below the position, so its lag alone does not show that it was recreated."""
    send(stream, [event()] * 3)
    drain(stream, "test")
    recreate(stream)

    async def wait() -> list[Any]:
        return [event async for event in BacklogTrigger(stream.reader, stream.topic, 0.1, 60).run()]

    assert len(asyncio.run(asyncio.wait_for(wait(), 40))) == 1
    with raises(Code.TOPIC_RECREATED, stream.topic, kind=TopicRecreated):
        drain(stream, "test")


def test_a_stream_that_was_never_read_has_nothing_to_accept(
    stream: Stream, warehouse: Connection, topic: Callable[..., str]
) -> None:
    unread = replace(stream, topic=topic("unread"))
    for choice in (Choice.RECREATED, Choice.LOST):
        with raises(Code.TOPIC_MISSING, unread.topic, "Create it", kind=TopicMissing):
            recovery.accept(warehouse, unread, choice, "somebody")
    assert unread.topic not in topics.names()


def test_the_error_of_a_deleted_topic_names_the_choice_that_helps(stream: Stream, warehouse: Connection) -> None:
    send(stream, [event()])
    drain(stream, "test")
    brokers = client.admin()
    brokers.delete_topics([stream.topic])[stream.topic].result()
    with raises(Code.TOPIC_MISSING, "./millrace accept readings recreated", kind=TopicMissing):
        recovery.accept(warehouse, stream, Choice.LOST, "somebody")
