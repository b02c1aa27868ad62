"""Making a stream's topic and sending events to it."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from random import Random
from typing import TYPE_CHECKING

import msgspec

from include.errors import UserError
from include.kafka import client, topics
from include.streams.definition import Stream

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message

# LogAppendTime: late and early are judged against the broker's clock, which no producer can set wrong.
TOPIC_CONFIG = {"message.timestamp.type": "LogAppendTime"}
REPORT_EVERY_S = 1.0
_PACE_EVERY_S = 0.02


def make_topic(stream: Stream) -> bool:
    """Makes the stream's topic when there is none yet, and returns whether it did so."""
    return topics.create(stream.topic, partitions=stream.kafka_partitions, config=TOPIC_CONFIG)


def produce(
    stream: Stream,
    events: int,
    rate: float | None = None,
    *,
    seed: int | None = None,
    progress: Callable[[int], None] = lambda sent: None,
) -> None:
    """Sends simulated events to the stream's topic, which is made when there is none; returns once all are stored.

    Args:
        events: How many.
        rate: Events a second; as fast as possible when None.
        seed: Makes the simulation repeatable, but for its times.
        progress: Called before the first event and then about once a second, with the number sent so far.

    Raises:
        UserError: The stream has no simulation, or Kafka did not take an event.
    """
    if stream.simulate is None:
        raise UserError(
            f"The stream {stream.name!r} has no simulation.",
            f"Give it simulate=… in its definition, or send your own events to the topic {stream.topic!r}.",
        )
    make_topic(stream)
    sender = _Sender(stream)
    simulated = _simulated(stream, seed)
    progress(0)
    started = reported = time.monotonic()
    for sent in range(events):
        if (now := time.monotonic()) - reported > REPORT_EVERY_S:
            progress(sent)
            reported = now
        if rate is not None and (ahead := sent / rate - (now - started)) > _PACE_EVERY_S:
            sender.flush()
            time.sleep(ahead)
        sender.send(*next(simulated))
    sender.flush()
    progress(events)


def _simulated(stream: Stream, seed: int | None) -> Iterator[tuple[bytes | None, bytes]]:
    """Keys and values of simulated events; whatever the definition's code raises is one error that names it."""
    assert stream.simulate is not None
    encode = msgspec.json.Encoder().encode
    try:
        for event in stream.simulate(Random(seed)):
            yield None if stream.key is None else str(getattr(event, stream.key)).encode(), encode(event)
    except GeneratorExit:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)[1:]
        where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
        raise UserError(
            f"simulate of stream {stream.name!r} raised {type(error).__name__}: {error}{where}.",
            "Correct it: it takes a random.Random and yields events.",
        ) from error
    raise UserError(
        f"simulate of stream {stream.name!r} makes no more events.", "Let it yield endlessly, as in while True: yield …"
    )


class _Sender:
    """Hands events to an idempotent producer; raises what the brokers refused."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._producer = client.producer(linger_ms=20)
        self._refused: KafkaError | None = None

    def send(self, key: bytes | None, value: bytes) -> None:
        while True:
            try:
                self._producer.produce(self._stream.topic, value, key, on_delivery=self._delivered)
            except BufferError:
                self._producer.poll(0.1)
            else:
                self._producer.poll(0)
                break
        self._raise_refusal()

    def flush(self) -> None:
        self._producer.flush()
        self._raise_refusal()

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        self._refused = self._refused or error

    def _raise_refusal(self) -> None:
        if self._refused is not None:
            raise UserError(f"Kafka did not take an event of {self._stream.name!r}: {self._refused.str()}.")
