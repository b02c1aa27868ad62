"""Compares every schema that is registered for a stream's topic with the stream's struct."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from include.landing.decoding import avro, json_schema, protobuf
from include.landing.decoding.misfit import Misfit
from include.schemas.registry import SchemaRegistry
from include.schemas.schema import Format, InvalidSchema, Schema
from include.streams.definition import Stream
from include.streams.paths import key_struct

_MISFITS: Mapping[Format, Callable[[Schema, type[msgspec.Struct]], list[Misfit]]] = {
    Format.AVRO: avro.misfits,
    Format.JSON_SCHEMA: json_schema.misfits,
    Format.PROTOBUF: protobuf.misfits,
}


@dataclass(frozen=True)
class Compared:
    """A registered schema.

    Attributes:
        version: Its version in the subject.
        schema_id: Its id.
        stops: Whether its records stop the stream.
        reasons: What does not fit.
    """

    version: int
    schema_id: int
    stops: bool
    reasons: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """What becomes of its records, in a few words."""
        if self.stops:
            return "its records stop the stream"
        return "some of its records may become dead letters" if self.reasons else "fits"


def compare(stream: Stream, *, of_key: bool = False) -> list[Compared]:
    """Every version of the subject of a stream's topic, in order.

    Args:
        of_key: Whether to compare the schemas of Kafka keys, and not those of values.

    Raises:
        UserError: The registry does not answer, or refuses the request.
    """
    with SchemaRegistry(stream.registry) as registry:
        subject = stream.key_subject if of_key else stream.subject
        return [
            _compared(stream, of_key, version, schema_id, schema)
            for version, (schema_id, schema) in registry.versions(subject).items()
        ]


def _compared(stream: Stream, of_key: bool, version: int, schema_id: int, schema: Schema) -> Compared:
    wanted = Format(stream.key_format if of_key else stream.format)
    if schema.kind != wanted.kind:
        option = "key_format" if of_key else "format"
        reason = f"it is a schema of {schema.kind}, and the stream has {option}={str(wanted)!r}"
        return Compared(version, schema_id, True, (reason,))
    try:
        event = key_struct(stream.parts) if of_key else stream.value_event
        # A key that is one value has no fields to compare.
        found = [] if event is None else _MISFITS[wanted](schema, event)
    except InvalidSchema as error:
        return Compared(version, schema_id, True, (str(error),))
    return Compared(version, schema_id, any(each.is_fatal for each in found), tuple(map(str, found)))
