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


def compare(stream: Stream) -> list[Compared]:
    """Every version of the subject of a stream's topic, in order.

    Raises:
        UserError: The registry does not answer, or refuses the request.
    """
    with SchemaRegistry(stream.registry) as registry:
        return [
            _compared(stream, version, schema_id, schema)
            for version, (schema_id, schema) in registry.versions(stream.subject).items()
        ]


def _compared(stream: Stream, version: int, schema_id: int, schema: Schema) -> Compared:
    wanted = Format(stream.format)
    if schema.kind != wanted.kind:
        reason = f"it is a schema of {schema.kind}, and the stream has format={str(wanted)!r}"
        return Compared(version, schema_id, True, (reason,))
    try:
        found = _MISFITS[wanted](schema, stream.event)
    except InvalidSchema as error:
        return Compared(version, schema_id, True, (str(error),))
    return Compared(version, schema_id, any(each.is_fatal for each in found), tuple(map(str, found)))
