"""The decoder of a stream, by its format."""

from __future__ import annotations

from include.landing.decoder import Decoder, EventDecoder
from include.schemas.schema import Format
from include.streams.definition import Stream


def of(stream: Stream) -> EventDecoder:
    """The decoder of a stream's records."""
    if stream.format == Format.JSON:
        return Decoder(stream.event)
    from include.landing.decoding.framed import FramedDecoder

    return FramedDecoder(stream)
