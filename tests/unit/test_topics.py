"""Topics, as far as no broker is needed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from include.errors import UserError
from include.kafka import client, topics


class Brokers:
    """An admin client whose brokers have made the topic, but answer for it with these errors first."""

    def __init__(self, *errors: int) -> None:
        self.errors = list(errors)
        self._is_asked = False

    def create_topics(self, asked: list[Any], **_: Any) -> dict[str, Future[None]]:
        return {topic.topic: _Answer(None) for topic in asked}

    def list_offsets(self, asked: dict[Any, Any], **_: Any) -> dict[Any, Future[Any]]:
        assert not self._is_asked, "librdkafka may crash: the question before this one is not answered yet"
        self._is_asked = True
        value = KafkaException(KafkaError(self.errors.pop(0))) if self.errors else type("Found", (), {"offset": 0})
        return dict.fromkeys(asked, _Answer(value, self._answered))

    def _answered(self) -> None:
        self._is_asked = False


class _Answer(Future[Any]):
    """An answer that is there, and tells when it is looked at."""

    def __init__(self, value: object, looked_at: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self._looked_at = looked_at
        if isinstance(value, Exception):
            self.set_exception(value)
        else:
            self.set_result(value)

    def result(self, timeout: float | None = None) -> Any:
        self._looked_at()
        return super().result(timeout)


@pytest.mark.parametrize(
    "error", [KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError._NOENT]
)
def test_a_topic_is_made_when_its_partitions_have_leaders_that_know_them(
    error: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    brokers: Any = Brokers(error)
    monkeypatch.setattr(client, "admin", lambda: brokers)
    assert topics.create("orders", partitions=2, config={}, brokers=brokers)
    assert brokers.errors == []


def test_a_question_for_offsets_waits_for_the_answer_of_the_one_before() -> None:
    brokers: Any = Brokers()
    assert topics.extents("orders", [0, 1], brokers) == {0: topics.Extent(0, 0, 0), 1: topics.Extent(0, 0, 0)}


def test_a_topic_that_gets_no_leader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, "MADE_LEADERLESS_S", 0.2)
    brokers: Any = Brokers(*[KafkaError.LEADER_NOT_AVAILABLE] * 100)
    with pytest.raises(UserError, match="Leader not available"):
        topics.create("orders", partitions=1, config={}, brokers=brokers)
