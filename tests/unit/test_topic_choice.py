"""Which topics a stream reads: one, several, or all that match a pattern."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from include.definitions import InvalidDefinition
from include.kafka.topic_choice import Pattern, TopicChoice, parse
from include.streams.definition import RECORD_TIMESTAMP, Instant, Stream


class Order(msgspec.Struct):
    """An event."""

    ts: Instant
    id: int = 0


def orders(**fields: Any) -> Stream:
    values: dict[str, Any] = {"name": "orders", "event": Order, "event_time": "ts"} | fields
    return Stream(**values)


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        (TopicChoice(("orders.eu",)), "orders.eu"),
        (TopicChoice(("orders.eu", "orders.us")), "orders.eu, orders.us"),
        (TopicChoice((), r"orders\..*"), r"/orders\..*/"),
        (TopicChoice((), "a, b/c"), "/a, b/c/"),
        (TopicChoice((), ""), "//"),
    ],
)
def test_a_choice_is_a_text_and_back(choice: TopicChoice, text: str) -> None:
    assert str(choice) == text
    assert parse(text) == choice


def test_a_pattern_matches_whole_names_and_no_internal_topic() -> None:
    choice = TopicChoice((), r"(__)?orders\..*|.*offsets")
    names = [
        "orders.us",
        "orders.eu",
        "orders",
        "orders-eu",
        "old.orders.eu",
        "__orders.eu",
        "__consumer_offsets",
        "orders.eu",
    ]
    assert choice.of(names) == ["orders.eu", "orders.us"]
    assert not choice.is_one
    assert TopicChoice(("a", "b")).of(["c", "b"]) == ["b"]


def test_a_stream_of_several_topics_has_a_column_with_the_topic() -> None:
    one = orders()
    assert (one.topic, one.topic_choice.names, one.record_fields) == ("orders", ("orders",), ())
    several = orders(topics=("orders.eu", "orders.us"))
    assert several.topic == "orders.eu, orders.us"
    assert [field.name for field in several.record_fields] == ["kafka_topic"]
    matching = orders(topics=Pattern(r"orders\..*"), event_time=RECORD_TIMESTAMP)
    assert matching.topic == r"/orders\..*/"
    assert [field.name for field in matching.record_fields] == ["kafka_timestamp", "kafka_topic"]
    # A copy, and one that reads a single topic.
    assert replace(matching, window="1 minute").topic_choice == matching.topic_choice
    assert (
        replace(several, topic="orders.eu", topics=None) == several.of_topic("orders.eu") == orders(topic="orders.eu")
    )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"topics": "orders"}, "topics: 'orders' is not a tuple of topics or a Pattern. Write"),
        ({"topics": ()}, r"topics: \(\) is not a tuple of topics or a Pattern"),
        ({"topics": ("a", "b*")}, r"topics: 'b\*' is not a valid name for a Kafka topic.*topics=Pattern"),
        ({"topics": ("a", "a")}, "topics: it names a topic twice"),
        ({"topics": Pattern("orders(")}, r"topics: 'orders\(' is not a regular expression: missing \)"),
        ({"topics": Pattern(5)}, "topics: 5 is not a regular expression"),  # type: ignore[arg-type]
        ({"topics": ("a", "b"), "topic": "a"}, "topic: topics names the topics already"),
        ({"topic": "orders.*"}, r"topic: 'orders\.\*' is not a valid name for a Kafka topic.*topics=Pattern"),
        (
            {"topics": ("a", "b"), "key": "id", "current": True},
            'order_by: offsets do not say which record of two topics is newer.*order_by="ts"',
        ),
    ],
)
def test_an_invalid_choice_is_refused(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(InvalidDefinition) as refused:
        orders(**fields)
    assert re.search(expected, str(refused.value)), refused.value


def test_a_current_state_of_several_topics_is_ordered_by_a_field() -> None:
    assert orders(topics=("a", "b"), key="id", current=True, order_by="ts").order_by == "ts"
