"""Creates a stream's topic and sends simulated events to it."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec

from include.error_codes import Code
from include.errors import UserError
from include.kafka import client, topics
from include.streams import encoding
from include.streams.definition import Header, Stream

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message

# LogAppendTime: late and early are relative to the broker's clock, which producers cannot change.
TOPIC_CONFIG = {"message.timestamp.type": "LogAppendTime"}
SentHeaders = list[tuple[str, str | bytes | None]] | None
"""The headers of a record to send."""

REPORT_EVERY_S = 1.0
_PACE_EVERY_S = 0.02


def make_topic(stream: Stream) -> bool:
    """Creates the topics that the stream names, if they do not exist; returns whether it did."""
    # A list: each of them is created.
    return any([_make(stream, name) for name in stream.topic_choice.names])


def _make(stream: Stream, topic: str) -> bool:
    return topics.create(topic, partitions=stream.kafka_partitions, config=TOPIC_CONFIG)


def produce(
    stream: Stream,
    events: int,
    rate: float | None = None,
    *,
    seed: int | None = None,
    topic: str | None = None,
    progress: Callable[[int], None] = lambda sent: None,
) -> None:
    """Sends simulated events to the stream's topic, and creates the topic if needed; returns once all are stored.

    Args:
        events: The number of events.
        rate: Events per second; None for as fast as possible.
        seed: Makes the simulation repeatable, except for its times.
        topic: The topic to send to, if the stream reads several; None sends the events to all that it names, in turn.
        progress: Called before the first event and then about once a second, with the number sent so far.

    Raises:
        UserError: The stream has no simulation, the simulation fails, or Kafka rejects an event.
    """
    if stream.simulate is None:
        raise UserError(
            f"The stream {stream.name!r} has no simulation.",
            f"Add simulate=… to its definition, or send your own events to the topic {stream.topic!r}.",
            code=Code.SIMULATION_MISSING,
        )
    targets = _targets(stream, topic)
    for each in targets:
        _make(stream, each)
    sender = _Sender(stream, targets)
    simulated = _simulated(stream.of_topic(targets[0]), seed)
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


def _targets(stream: Stream, topic: str | None) -> list[str]:
    """The topics to send to."""
    choice = stream.topic_choice
    if topic is None and not choice.names:
        raise UserError(
            f"The stream {stream.name!r} reads all topics that match {choice}, so it is not known where to send "
            "events.",
            "Name a topic, with --topic.",
            code=Code.INVALID_USAGE,
        )
    if topic is not None and not choice.includes(topic):
        raise UserError(
            f"The stream {stream.name!r} does not read a topic {topic!r}. It reads {choice}.",
            "Name one that it reads.",
            code=Code.INVALID_USAGE,
        )
    return list(choice.names) if topic is None else [topic]


def _simulated(stream: Stream, seed: int | None) -> Iterator[tuple[bytes | None, bytes, SentHeaders]]:
    """Keys, values and headers of simulated events. Any exception of the definition's code becomes a UserError."""
    assert stream.simulate is not None
    encode, key_of, headers_of = encoding.encoder(stream), _key_encoder(stream), _headers(stream)
    try:
        for event in stream.simulate(Random(seed)):
            yield key_of(event), encode(event), headers_of(event)
    except GeneratorExit:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)[1:]
        where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
        raise UserError(
            f"The function simulate of stream {stream.name!r} raised {type(error).__name__}: {error}{where}.",
            "Correct it: it takes a random.Random and yields events.",
            code=Code.SIMULATION_FAILED,
        ) from error
    raise UserError(
        f"The function simulate of stream {stream.name!r} ended.",
        "Yield events without end, as in while True: yield …",
        code=Code.SIMULATION_FAILED,
    )


def _key_encoder(stream: Stream) -> Callable[[Any], bytes | None]:
    """The function that encodes the Kafka key of an event."""
    found = encoding.key_encoder(stream) if stream.parts else None
    return partial(_key, stream) if found is None else found


def _headers(stream: Stream) -> Callable[[Any], SentHeaders]:
    """The function that makes the headers of an event."""
    named = [(field.name, field.part.name) for field in stream.parts if isinstance(field.part, Header)]
    if not named:
        return lambda event: None
    return lambda event: [
        (header, text) for name, header in named if (text := encoding.part_text(getattr(event, name))) is not None
    ]


def _key(stream: Stream, event: Any) -> bytes | None:
    """The Kafka key of an event: the text of one field, or several fields, or those of a row, as a JSON object."""
    if not stream.keys or (len(stream.keys) == 1 and stream.changes is None):
        return str(getattr(event, stream.keys[0])).encode() if stream.keys else None
    encoded = msgspec.to_builtins(event, str_keys=True)
    names = dict(zip(event.__struct_fields__, event.__struct_encode_fields__, strict=True))
    return msgspec.json.encode({names[name]: encoded[names[name]] for name in stream.keys})


class _Sender:
    """Sends events with an idempotent producer; raises the error of an event that the brokers reject."""

    def __init__(self, stream: Stream, targets: Sequence[str]) -> None:
        self._stream = stream
        self._targets = cycle(targets)
        self._producer = client.producer(linger_ms=20)
        self._rejection: KafkaError | None = None

    def send(self, key: bytes | None, value: bytes, headers: SentHeaders) -> None:
        topic = next(self._targets)
        while True:
            try:
                self._producer.produce(topic, value, key, on_delivery=self._delivered, headers=headers)
            except BufferError:
                self._producer.poll(0.1)
            else:
                self._producer.poll(0)
                break
        self._raise_rejection()

    def flush(self) -> None:
        self._producer.flush()
        self._raise_rejection()

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        self._rejection = self._rejection or error

    def _raise_rejection(self) -> None:
        if self._rejection is not None:
            raise UserError(
                f"Kafka rejected an event of {self._stream.name!r}: {self._rejection.str()}.",
                f"Check the settings of the topic {self._stream.topic!r}, and the size of the events.",
                code=Code.EVENT_REJECTED,
            )
