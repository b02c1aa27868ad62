"""The decoder of a stream, by its format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from include.landing.decoder import Decoder, EventDecoder, Others, Reason
from include.schemas.schema import Format
from include.streams.definition import Stream

if TYPE_CHECKING:
    from confluent_kafka import Message


def of(stream: Stream) -> EventDecoder:
    """The decoder of a stream's records."""
    decoder = _of_values(stream)
    if stream.changes is not None:
        from include.landing.decoding.debezium import ChangeDecoder

        decoder = ChangeDecoder(stream, decoder)
    elif stream.parts:
        from include.landing.parts import RecordDecoder

        decoder = RecordDecoder(stream, decoder)
    if stream.mask:
        from include.landing.masked import MaskedDecoder

        decoder = MaskedDecoder(stream, decoder)
    return decoder


def events_of(
    decoder: EventDecoder, values: Sequence[bytes], messages: Sequence[Message]
) -> tuple[list[Any], dict[int, Reason]]:
    """The events of messages; see ``EventDecoder``.

    Args:
        values: The values of the messages; empty for a tombstone.
    """
    headers: Any = [message.headers() for message in messages] if decoder.reads_headers else None
    return decoder.events(values, headers, others_of(messages) if decoder.reads_others else None)


def others_of(messages: Sequence[Message]) -> Others:
    """The keys and timestamps of messages."""
    key: Callable[[Message], str | bytes | None] = cast(Any, lambda message: message.key())
    keys = [found.encode() if isinstance(found, str) else found for found in map(key, messages)]
    return Others(keys, [message.timestamp()[1] for message in messages])


def _of_values(stream: Stream) -> EventDecoder:
    if stream.is_json:
        from include.landing.parts import UndecodedValues

        return UndecodedValues()
    if stream.format == Format.JSON:
        return Decoder(stream.value_event)
    from include.landing.decoding.framed import FramedDecoder

    return FramedDecoder(stream)
