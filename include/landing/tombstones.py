"""The keys of tombstones: a record without a value names in its Kafka key what it deletes."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from include.landing import copy
from include.landing.copy import Column
from include.landing.decoder import reason_of
from include.landing.masked import Masks
from include.landing.parts import PartsDecoder
from include.schemas.framing import Headers
from include.streams.definition import Stream

if TYPE_CHECKING:
    from confluent_kafka import Message

NO_KEY = "the tombstone has no Kafka key, so it deletes nothing"


class KeyDecoder:
    """Decodes Kafka keys to objects with the fields of a stream's key.

    A Kafka key is a JSON object with these fields, or, for a key of one field, the field's JSON or its plain text.
    """

    def __init__(self, stream: Stream, columns: Sequence[Column]) -> None:
        self._columns = columns
        self._masks = Masks(stream, stream.keys) if stream.mask else None
        self._parts = _parts_of_key(stream)
        if self._parts is not None:
            self._key = msgspec.defstruct("Key", stream.keys)
            return
        hints = typing.get_type_hints(stream.event, include_extras=True)
        encoded = dict(zip(stream.event.__struct_fields__, stream.event.__struct_encode_fields__, strict=True))
        self._key = msgspec.defstruct(
            "Key", [(name, hints[name], msgspec.field(name=encoded[name])) for name in stream.keys]
        )
        self._decode = msgspec.json.Decoder(self._key).decode
        self._single = hints[stream.keys[0]] if len(stream.keys) == 1 else None

    @property
    def reads_headers(self) -> bool:
        """Whether ``keys`` needs the headers of the tombstones, which may name the schemas of their keys."""
        return self._parts is not None

    def keys(
        self, texts: Sequence[bytes | None], headers: Sequence[Headers | None] | None = None
    ) -> tuple[list[Any], dict[int, str]]:
        """Decodes Kafka keys. Returns the keys in order, and for each text that is not one the reason, by its index.

        Args:
            headers: The headers of each tombstone, if ``reads_headers``.
        """
        found: list[Any] = []
        bad: dict[int, str] = {}
        if self._parts is not None:
            return self._keys_of_parts(self._parts, texts, headers)
        for index, text in enumerate(texts):
            try:
                found.append(self._plain_key(text))
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # the definition's own types may raise anything
                bad[index] = NO_KEY if text is None else f"Kafka key: {reason_of(error)}"
        return self._fitting(texts, found, bad)

    def _keys_of_parts(
        self, parts: PartsDecoder, texts: Sequence[bytes | None], headers: Sequence[Headers | None] | None
    ) -> tuple[list[Any], dict[int, str]]:
        """The keys of a stream whose fields of ``key`` come from the Kafka key."""
        columns, reasons = parts.columns(texts, headers, None, len(texts))
        bad: dict[int, str] = {at: NO_KEY if texts[at] is None else reason for at, reason in reasons.items()}
        rows = zip(*(columns[name] for name in self._key.__struct_fields__), strict=True)
        found = [self._key(*row) for at, row in enumerate(rows) if at not in bad]
        return self._fitting(texts, found, bad)

    def _fitting(
        self, texts: Sequence[bytes | None], found: list[Any], bad: dict[int, str]
    ) -> tuple[list[Any], dict[int, str]]:
        """The keys that fit the columns, and the reasons for the others."""
        if self._masks is not None:
            self._masks.apply(found)
            bad = {index: self._masks.safe(reason) for index, reason in bad.items()}
        good = [index for index in range(len(texts)) if index not in bad]
        unfit = copy.refused(self._columns, found)
        bad |= {good[position]: f"Kafka key: {reason}" for position, reason in unfit.items()}
        return [key for position, key in enumerate(found) if position not in unfit], bad

    def keys_of(self, messages: Sequence[Message]) -> tuple[list[Any], dict[int, str]]:
        """The keys of messages; see ``keys``."""
        headers: Any = [message.headers() for message in messages] if self.reads_headers else None
        return self.keys([_key_of(message) for message in messages], headers)

    def _plain_key(self, text: bytes | None) -> Any:
        if text is None:
            raise ValueError(NO_KEY)
        if self._single is None:
            return self._decode(text)
        if text.startswith(b"{"):
            try:
                return self._decode(text)
            except msgspec.DecodeError:
                pass
        try:
            return self._key(msgspec.json.decode(text, type=self._single))
        except msgspec.DecodeError:
            return self._key(msgspec.convert(text.decode(), type=self._single, strict=False))


def _key_of(message: Message) -> bytes | None:
    key = message.key()
    return key.encode() if isinstance(key, str) else key


def _parts_of_key(stream: Stream) -> PartsDecoder | None:
    """The decoder of the fields of ``key``, if they come from the Kafka key."""
    fields = [field for field in stream.parts if field.name in stream.keys]
    return PartsDecoder(stream, fields) if fields else None
