"""What Debezium sends that is not a change of a row: heartbeats and the metadata of transactions."""

from __future__ import annotations

import msgspec

from include.landing.decoding import avro_schema
from include.schemas import framing
from include.schemas.framing import Headers, SchemaKey
from include.schemas.registry import SchemaMissing, SchemaRegistry
from include.schemas.schema import Format
from include.streams.definition import Stream

_TIMES = frozenset(("ts_ms", "ts_us", "ts_ns"))
_TRANSACTION = frozenset(("status", "id", "event_count", "data_collections"))
_CONNECT = {"schema", "payload"}
_MAX_MESSAGES = 1_000
# Only names are read: the other fields of a foreign object may have values that no type takes.
_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

Names = frozenset[str]


class ChangeMetadata:
    """Recognizes the values of one stream that are metadata of change events, by the names of their fields.

    A decoder calls it only for a value that has none of the fields of a change event: it would take any object for a
    change event in which every field is missing.
    """

    def __init__(self, stream: Stream) -> None:
        self._format = Format(stream.format)
        self._registry = SchemaRegistry(stream.registry)
        self._names: dict[tuple[SchemaKey, tuple[int, ...]], Names] = {}

    def has(self, value: bytes, headers: Headers | None) -> bool:
        """Whether a value, which was decoded before, is metadata, or Kafka Connect's null with a schema.

        Raises:
            RegistryUnavailable: The schema of the value cannot be read now.
        """
        if self._format in (Format.JSON, Format.JSON_SCHEMA):
            # No text in JSON begins with 0, as the name of a schema does.
            found = _parts(value[framing.PREFIX_BYTES :] if value[:1] == b"\0" else value)
            if found.keys() >= _CONNECT:
                if bytes(found["payload"]) == b"null":
                    return found.keys() == _CONNECT
                found = _parts(found["payload"])
            return _is_metadata(frozenset(found))
        return _is_metadata(self._names_of(value, headers))

    def _names_of(self, value: bytes, headers: Headers | None) -> Names:
        """The names of the fields that the schema of a value has."""
        key, start, rest = framing.schema_of(value, headers)
        indexes: tuple[int, ...] = ()
        if self._format is Format.PROTOBUF:
            indexes, _ = framing.message_indexes(value, start) if start else framing.message_indexes(rest or b"\0", 0)
        if (key, indexes) not in self._names:
            if len(self._names) >= _MAX_MESSAGES:
                self._names.clear()
            self._names[key, indexes] = self._read(key, indexes)
        return self._names[key, indexes]

    def _read(self, key: SchemaKey, indexes: tuple[int, ...]) -> Names:
        try:
            schema = self._registry.schema(key)
        except SchemaMissing:
            # It was deleted after the decoder had read it. The value is kept as a dead letter.
            return frozenset()
        if self._format is Format.AVRO:
            return frozenset(name for name, _ in avro_schema.parse(schema.text, schema.references).fields)
        from include.schemas.protobuf import ProtobufFile

        return frozenset(field.name for field in ProtobufFile(schema).message(indexes).fields)


def _parts(text: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    """The fields of a JSON object; none if it is not one, or if a name is not valid."""
    try:
        return _decode(text)
    except (msgspec.DecodeError, ValueError):
        return {}


def _is_metadata(names: Names) -> bool:
    """Whether these are the fields of a heartbeat, or of the beginning or end of a transaction."""
    others = names - _TIMES
    return others == _TRANSACTION or (not others and "ts_ms" in names)
