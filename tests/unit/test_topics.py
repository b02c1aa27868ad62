"""Topics, as far as no broker is needed."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from include.errors import UserError
from include.kafka import topics


class Brokers:
    """An admin client whose brokers have made the topic, but answer for it with these errors first.

    Args:
        unled: How often they have no leader for its partitions before that.
    """

    def __init__(self, *errors: int, unled: int = 0) -> None:
        self.errors, self.unled = list(errors), unled
        self._knows_leaders = False

    def create_topics(self, asked: list[Any], **_: Any) -> dict[str, Future[None]]:
        return {topic.topic: _answer(None) for topic in asked}

    def list_topics(self, topic: str, timeout: float) -> Any:
        leader = 1 if self.unled == 0 else -1
        self._knows_leaders, self.unled = leader == 1, max(0, self.unled - 1)
        partitions = {number: SimpleNamespace(leader=leader) for number in range(2)}
        return SimpleNamespace(topics={topic: SimpleNamespace(error=None, partitions=partitions)})

    def list_offsets(self, asked: dict[Any, Any], **_: Any) -> dict[Any, Future[Any]]:
        assert self._knows_leaders, "librdkafka may crash"
        if self.errors:
            return dict.fromkeys(asked, _answer(KafkaException(KafkaError(self.errors.pop(0)))))
        return dict.fromkeys(asked, _answer(type("Found", (), {"offset": 0})))


def _answer(value: object) -> Future[Any]:
    future: Future[Any] = Future()
    if isinstance(value, Exception):
        future.set_exception(value)
    else:
        future.set_result(value)
    return future


@pytest.mark.parametrize(
    "error", [KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError._NOENT]
)
def test_a_topic_is_made_when_its_partitions_have_leaders_that_know_them(error: int) -> None:
    # One look asks twice before it waits for an answer.
    brokers: Any = Brokers(error, error)
    assert topics.create("orders", partitions=2, config={}, brokers=brokers)
    assert brokers.errors == []


def test_nobody_is_asked_for_offsets_before_the_leaders_are_known() -> None:
    brokers: Any = Brokers(unled=3)
    assert topics.create("orders", partitions=2, config={}, brokers=brokers)
    assert brokers.unled == 0


def test_a_partition_that_is_not_there() -> None:
    brokers: Any = Brokers()
    with pytest.raises(UserError, match="Unknown partition"):
        topics.extents("orders", [2], brokers)


def test_a_topic_that_gets_no_leader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, "LEADERLESS_S", 0.2)
    brokers: Any = Brokers(*[KafkaError.LEADER_NOT_AVAILABLE] * 100)
    with pytest.raises(UserError, match="Leader not available"):
        topics.create("orders", partitions=1, config={}, brokers=brokers)
