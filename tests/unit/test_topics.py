"""Topics: what needs no broker."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from include.error_codes import Code
from include.kafka import client, topics
from tests.errors import raises


class Brokers:
    """An admin client whose brokers created the topic, but first answer requests for it with these errors."""

    def __init__(self, *errors: int) -> None:
        self.errors = list(errors)
        self._is_busy = False

    def create_topics(self, new: list[Any], **_: Any) -> dict[str, Future[None]]:
        return {topic.topic: _Answer(None) for topic in new}

    def list_topics(self, topic: str, **_: Any) -> SimpleNamespace:
        partition = SimpleNamespace(leader=1)
        return SimpleNamespace(
            topics={topic: SimpleNamespace(error=None, partitions=dict.fromkeys(range(2), partition))}
        )

    def list_offsets(self, wanted: dict[Any, Any], **_: Any) -> dict[Any, Future[Any]]:
        assert not self._is_busy, "librdkafka can crash: the request before this one is not answered yet"
        self._is_busy = True
        value = KafkaException(KafkaError(self.errors.pop(0))) if self.errors else type("Found", (), {"offset": 0})
        return dict.fromkeys(wanted, _Answer(value, self._answered))

    def _answered(self) -> None:
        self._is_busy = False


class _Answer(Future[Any]):
    """An answer that has arrived, and reports when it is read."""

    def __init__(self, value: object, on_read: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self._on_read = on_read
        if isinstance(value, Exception):
            self.set_exception(value)
        else:
            self.set_result(value)

    def result(self, timeout: float | None = None) -> Any:
        self._on_read()
        return super().result(timeout)


@pytest.mark.parametrize(
    "error", [KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError._NOENT]
)
def test_creating_a_topic_waits_for_its_leaders(error: int, monkeypatch: pytest.MonkeyPatch) -> None:
    brokers: Any = Brokers(error)
    monkeypatch.setattr(client, "admin", lambda: brokers)
    assert topics.create("orders", partitions=2, config={}, brokers=brokers)
    assert brokers.errors == []


def test_requests_for_offsets_do_not_overlap() -> None:
    brokers: Any = Brokers()
    assert topics.extents("orders", [0, 1], brokers) == {0: topics.Extent(0, 0, 0), 1: topics.Extent(0, 0, 0)}


def test_a_topic_without_a_leader_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, "CREATED_LEADERLESS_S", 0.2)
    brokers: Any = Brokers(*[KafkaError.LEADER_NOT_AVAILABLE] * 100)
    with raises(Code.KAFKA_REQUEST_FAILED, "Leader not available"):
        topics.create("orders", partitions=1, config={}, brokers=brokers)
