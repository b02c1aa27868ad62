"""Encodes simulated events in the format of their stream, and registers a schema that is made from the struct."""

from __future__ import annotations

import io
import json
import re
import struct
from collections.abc import Callable
from datetime import date, datetime, time
from time import time_ns
from typing import Any
from uuid import UUID

import msgspec
from msgspec import inspect

from include.error_codes import Code
from include.errors import UserError
from include.schemas import framing, protobuf
from include.schemas.registry import SchemaRegistry
from include.schemas.schema import Format, Schema
from include.streams.change_events import Changes
from include.streams.definition import Stream
from include.streams.parts import PLAIN, KeyPart, PartField, ValuePart
from include.streams.paths import Paths
from include.streams.times import Epoch, notation_of

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_JSON_SCHEMA = "http://json-schema.org/draft-07/schema#"
_PRIMITIVES: dict[type[inspect.Type], Any] = {
    inspect.StrType: "string",
    inspect.IntType: "long",
    inspect.FloatType: "double",
    inspect.BoolType: "boolean",
    inspect.BytesType: "bytes",
    inspect.NoneType: "null",
    # The precision of decimals is not declared.
    inspect.DecimalType: "string",
    inspect.DateType: {"type": "int", "logicalType": "date"},
    inspect.TimeType: {"type": "long", "logicalType": "time-micros"},
    inspect.UUIDType: {"type": "string", "logicalType": "uuid"},
}
_PROTOBUF: dict[type[inspect.Type], str] = {
    inspect.StrType: "string",
    inspect.IntType: "int64",
    inspect.FloatType: "double",
    inspect.BoolType: "bool",
    inspect.BytesType: "bytes",
    inspect.DateTimeType: "google.protobuf.Timestamp",
    **dict.fromkeys((inspect.DecimalType, inspect.DateType, inspect.TimeType, inspect.UUIDType), "string"),
}
# The types that the encoder of Avro takes as they are.
_KEPT = (datetime, date, time, UUID, bytes)


def encoder(stream: Stream) -> Callable[[Any], bytes]:
    """The function that encodes an event of a stream. Registers the schema first, if the format has one.

    Raises:
        UserError: No schema can be made from the struct, or the registry does not take it.
    """
    if stream.is_json:
        whole = next(part.name for part in stream.parts if isinstance(part.part, ValuePart))
        to_json = msgspec.json.Encoder().encode
        return lambda event: to_json(getattr(event, whole) if isinstance(event, stream.event) else event)
    if stream.parts:
        encode_value, names = _encoder_of_values(stream), stream.value_event.__struct_fields__
        return lambda event: encode_value(stream.value_event(**{name: getattr(event, name) for name in names}))
    return _encoder_of_values(stream)


def _encoder_of_values(stream: Stream) -> Callable[[Any], bytes]:
    encode: Callable[[Any], bytes] = msgspec.json.Encoder().encode
    if stream.changes is not None:
        if stream.format != Format.JSON:
            raise UserError(
                f"The stream {stream.name!r} has change events with format={str(stream.format)!r}, which cannot be "
                "simulated.",
                'Omit simulate, or set format="json".',
                code=Code.SIMULATION_FAILED,
            )
        return lambda row: encode(_change(row, stream.changes))
    if stream.format == Format.JSON:
        return encode
    if stream.format == Format.AVRO:
        schema = avro_schema(stream.value_event)
        return _framed(stream, json.dumps(schema), _avro_encoder(schema))
    if stream.format == Format.JSON_SCHEMA:
        return _framed(stream, json.dumps(json_schema(stream.value_event)), encode)
    text = protobuf_schema(stream.value_event)
    return _framed(stream, text, _protobuf_encoder(text))


def _change(row: Any, changes: Changes | None) -> dict[str, Any]:
    """A change event that inserts or updates a row, as Debezium writes it."""
    assert changes is not None
    now = time_ns() // 1_000
    names = dict(zip(row.__struct_fields__, row.__struct_encode_fields__, strict=True))
    columns = {names[name]: getattr(row, name) for name in names if name not in changes.sources}
    source = {there: getattr(row, name) for name, there in changes.sources.items()}
    stamps = {"ts_us": now, "ts_ms": now // 1_000}
    return {"before": None, "after": columns, "source": {**stamps, **source}, "op": "u", **stamps}


def key_encoder(stream: Stream) -> Callable[[Any], bytes | None] | None:
    """The function that encodes the Kafka key of an event; None if no field comes from it.

    Raises:
        UserError: No schema can be made for the key, or the registry does not take it.
    """
    fields = [field for field in stream.parts if isinstance(field.part, KeyPart)]
    if not fields:
        return None
    whole = next((field for field in fields if not field.part.path), None)  # type: ignore[union-attr]
    if whole is not None:
        encode = _encoder_of(stream, whole)
        name = whole.name

        def encode_whole(event: Any) -> bytes | None:
            value = getattr(event, name)
            return None if value is None else encode(value)

        return encode_whole
    paths = [(field.part.path, field) for field in fields if isinstance(field.part, KeyPart)]
    document_type = Paths(paths).struct
    encode_document = _encoder_of_struct(stream, document_type)

    def encode_fields(event: Any) -> bytes | None:
        document: dict[str, Any] = {}
        for path, field in paths:
            inner = document
            for each in path[:-1]:
                inner = inner.setdefault(each, {})
            inner[path[-1]] = msgspec.to_builtins(getattr(event, field.name), builtin_types=_KEPT)
        return encode_document(msgspec.convert(document, document_type, strict=False))

    return encode_fields


def part_text(value: Any) -> bytes | None:
    """A value as the text or JSON of a header or a Kafka key."""
    if value is None or value is msgspec.UNSET:
        return None
    if isinstance(value, bytes):
        return value
    found = msgspec.to_builtins(value)
    return found.encode() if isinstance(found, str) else msgspec.json.encode(found)


def _encoder_of(stream: Stream, field: PartField) -> Callable[[Any], bytes]:
    assert isinstance(field.part, KeyPart)
    if stream.key_format == PLAIN:
        return _binary if field.part.is_binary else lambda value: part_text(value) or b""
    if isinstance(field.kind, type) and issubclass(field.kind, msgspec.Struct):
        return _encoder_of_struct(stream, field.kind)
    if stream.key_format == Format.AVRO:
        schema = _Avro().of(inspect.type_info(field.kind), field.name)
        return _framed_key(stream, json.dumps(schema), _avro_encoder(schema))
    described = {"$schema": _JSON_SCHEMA, **msgspec.json.schema(field.kind)}
    return _framed_key(stream, json.dumps(described), msgspec.json.Encoder().encode)


def _encoder_of_struct(stream: Stream, declared: type[msgspec.Struct]) -> Callable[[Any], bytes]:
    if stream.key_format == PLAIN:
        return msgspec.json.Encoder().encode
    if stream.key_format == Format.AVRO:
        schema = avro_schema(declared)
        return _framed_key(stream, json.dumps(schema), _avro_encoder(schema))
    if stream.key_format == Format.JSON_SCHEMA:
        return _framed_key(stream, json.dumps(json_schema(declared)), msgspec.json.Encoder().encode)
    text = protobuf_schema(declared)
    return _framed_key(stream, text, _protobuf_encoder(text))


def _framed_key(stream: Stream, schema: str, encode: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    with SchemaRegistry(stream.registry) as registry:
        prefix = framing.prefix(registry.register(stream.key_subject, Format(stream.key_format).kind, schema))
    return lambda value: prefix + encode(value)


def _binary(value: Any) -> bytes:
    if isinstance(value, UUID):
        return value.bytes
    return struct.pack(">q" if isinstance(value, int) else ">d", value)


def avro_schema(event: type[msgspec.Struct]) -> Any:
    """An Avro schema for the events of a struct. Raises UserError if a field has no type in Avro."""
    return _Avro().of(inspect.type_info(event), event.__name__)


def protobuf_schema(event: type[msgspec.Struct]) -> str:
    """The text of a Protobuf schema for the events of a struct. Raises UserError if a field has no type in Protobuf."""
    return _Protobuf().file(inspect.type_info(event))


def json_schema(event: type[msgspec.Struct]) -> dict[str, Any]:
    """A JSON Schema for the events of a struct."""
    return {"$schema": _JSON_SCHEMA, **msgspec.json.schema(event)}


def _framed(stream: Stream, schema: str, encode: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    with SchemaRegistry(stream.registry) as registry:
        prefix = framing.prefix(registry.register(stream.subject, Format(stream.format).kind, schema))
    return lambda event: prefix + encode(event)


def _avro_encoder(schema: Any) -> Callable[[Any], bytes]:
    import fastavro

    parsed = fastavro.parse_schema(schema)

    def encode(event: Any) -> bytes:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, parsed, msgspec.to_builtins(event, builtin_types=_KEPT))
        return out.getvalue()

    return encode


def _protobuf_encoder(text: str) -> Callable[[Any], bytes]:
    from google.protobuf import json_format, message_factory

    make = message_factory.GetMessageClass(protobuf.ProtobufFile(Schema(Format.PROTOBUF.kind, text)).message((0,)))
    # The indexes of the first message.
    first = b"\0"
    parse = json_format.ParseDict
    return lambda event: first + parse(msgspec.to_builtins(event, str_keys=True), make()).SerializeToString()


class _Protobuf:
    """Writes the text of a schema; all messages but the first are those of nested structs."""

    def __init__(self) -> None:
        self._messages: dict[str, str] = {}

    def file(self, event: inspect.Type) -> str:
        assert isinstance(event, inspect.StructType)
        self._message(event)
        head = ['syntax = "proto3";', 'import "google/protobuf/timestamp.proto";']
        return "\n".join([*head, *self._messages.values()]) + "\n"

    def _message(self, declared: inspect.StructType) -> str:
        name = declared.cls.__name__
        if name not in self._messages:
            self._messages[name] = ""
            fields = [
                f"  {self._type(each.type, f'{name}.{each.name}')} {each.encode_name} = {number};"
                for number, each in enumerate(declared.fields, 1)
            ]
            self._messages[name] = "\n".join([f"message {name} {{", *fields, "}"])
        return name

    def _type(self, declared: inspect.Type, path: str) -> str:
        if isinstance(declared, inspect.Metadata):
            return "int64" if isinstance(notation_of(declared.extra), Epoch) else self._type(declared.type, path)
        if isinstance(declared, inspect.UnionType):
            members = [each for each in declared.types if not isinstance(each, inspect.NoneType)]
            if {type(each) for each in members} == {inspect.IntType, inspect.FloatType}:
                members = [inspect.FloatType()]
            if len(members) == 1:
                found = self._type(members[0], path)
                is_plain = not found.startswith(("optional ", "repeated ", "map<"))
                return f"optional {found}" if is_plain and len(members) < len(declared.types) else found
        if isinstance(declared, inspect.StructType) and not declared.array_like:
            return self._message(declared)
        if isinstance(declared, inspect.DictType) and isinstance(declared.key_type, inspect.StrType):
            return f"map<string, {self._type(declared.value_type, path)}>"
        if isinstance(declared, inspect.ListType | inspect.SetType | inspect.FrozenSetType | inspect.VarTupleType):
            return f"repeated {self._type(declared.item_type, path)}"
        if isinstance(declared, inspect.EnumType | inspect.LiteralType):
            values = (
                [each.value for each in declared.cls] if isinstance(declared, inspect.EnumType) else declared.values
            )
            return "int64" if all(isinstance(value, int) for value in values) else "string"
        found = _PROTOBUF.get(type(declared), "")
        if not found:
            name = type(declared).__name__.removesuffix("Type")
            raise _impossible(path, f"the type {name} has no counterpart in Protobuf")
        return found


class _Avro:
    def __init__(self) -> None:
        self._named: set[str] = set()

    def of(self, declared: inspect.Type, path: str) -> Any:
        if isinstance(declared, inspect.Metadata):
            if isinstance(notation_of(declared.extra), Epoch):
                return ["long", "double", "string"]
            return self.of(declared.type, path)
        if isinstance(declared, inspect.UnionType):
            return self._union(declared, path)
        if isinstance(declared, inspect.DateTimeType):
            return {"type": "long", "logicalType": "timestamp-micros" if declared.tz else "local-timestamp-micros"}
        if isinstance(declared, inspect.EnumType | inspect.LiteralType):
            return self._enum(declared, path)
        if isinstance(declared, inspect.StructType) and not declared.array_like:
            return self._record(declared)
        if isinstance(declared, inspect.DictType) and isinstance(declared.key_type, inspect.StrType):
            return {"type": "map", "values": self.of(declared.value_type, path)}
        if isinstance(declared, inspect.ListType | inspect.SetType | inspect.FrozenSetType | inspect.VarTupleType):
            return {"type": "array", "items": self.of(declared.item_type, path)}
        found = _PRIMITIVES.get(type(declared))
        if found is None:
            name = type(declared).__name__.removesuffix("Type")
            raise _impossible(path, f"the type {name} has no counterpart in Avro")
        return found

    def _union(self, declared: inspect.UnionType, path: str) -> Any:
        branches: list[Any] = []
        for each in declared.types:
            found = self.of(each, path)
            branches += [one for one in (found if isinstance(found, list) else [found]) if one not in branches]
        if "long" in branches and "double" in branches and "string" not in branches:
            branches.remove("long")
        branches.sort(key=lambda branch: branch != "null")
        return branches if len(branches) > 1 else branches[0]

    def _enum(self, declared: inspect.EnumType | inspect.LiteralType, path: str) -> Any:
        if isinstance(declared, inspect.EnumType):
            values: list[Any] = [member.value for member in declared.cls]
            name = declared.cls.__name__
        else:
            values, name = list(declared.values), path.replace(".", "_")
        if all(isinstance(value, int) for value in values):
            return "long"
        if not all(isinstance(value, str) and _NAME.fullmatch(value) for value in values) or name in self._named:
            return name if name in self._named else "string"
        self._named.add(name)
        return {"type": "enum", "name": name, "symbols": values}

    def _record(self, declared: inspect.StructType) -> Any:
        name = declared.cls.__name__
        if name in self._named:
            return name
        self._named.add(name)
        fields = []
        if declared.tag_field is not None:
            fields.append({"name": declared.tag_field, "type": "string" if isinstance(declared.tag, str) else "long"})
        for field in declared.fields:
            path = f"{name}.{field.name}"
            if not _NAME.fullmatch(field.encode_name):
                raise _impossible(path, f"{field.encode_name!r} is not a name in Avro")
            kind = self.of(field.type, path)
            # A field that is unset is not encoded.
            optional = isinstance(kind, list) and kind[0] == "null"
            fields.append({"name": field.encode_name, "type": kind} | ({"default": None} if optional else {}))
        return {"type": "record", "name": name, "fields": fields}


def _impossible(where: str, reason: str) -> UserError:
    return UserError(
        f"No schema can be made for {where}: {reason}.",
        "Change the type of the field, or send your own events to the topic.",
        code=Code.SCHEMA_NOT_MADE,
    )
