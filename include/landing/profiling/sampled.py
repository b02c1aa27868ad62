"""Decodes the records of a sample that name schemas of a registry, without a struct."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

import msgspec

from include.error_codes import Code
from include.errors import UserError
from include.kafka.reader import place
from include.landing.decoding.framed import PLANS
from include.landing.decoding.plan import MIN_BATCH
from include.landing.profiling import avro, json_schema, protobuf
from include.schemas import framing
from include.schemas import registry as registries
from include.schemas.framing import Headers, NotFramed, SchemaKey
from include.schemas.protobuf import ProtobufFile
from include.schemas.registry import SchemaMissing, SchemaRegistry
from include.schemas.schema import Format, InvalidSchema, Schema, shown
from include.streams.profiling.schema import Decoded, Place, merged
from include.streams.profiling.types import Field

if TYPE_CHECKING:
    from confluent_kafka import Message

_FORMATS = {Format(each).kind: each for each in (Format.AVRO, Format.PROTOBUF, Format.JSON_SCHEMA)}
MAX_KEY_SCHEMAS = 20
"""The most schemas of keys in a sample. Numbers in binary look like the names of many schemas."""

Indexes = tuple[int, ...]
Kind = tuple[SchemaKey, Indexes]
"""What names the type of a record: its schema and, in Protobuf, the message in it."""


@dataclass
class _Group:
    """The records of one type.

    Attributes:
        schema: Their schema.
        start: Where the data begin in each value.
        places, values, rests: Their places, their values, and what their headers have after the name of the schema.
    """

    schema: Schema
    start: int
    places: list[Place] = field(default_factory=list)
    values: list[bytes] = field(default_factory=list)
    rests: list[bytes] = field(default_factory=list)


def decoded(topic: str, messages: Sequence[Message], registry: str) -> Decoded | None:
    """Decodes the records that name schemas; None if most of the values name none.

    Args:
        topic: The topic, for messages.
        registry: The connection to the schema registry.

    Raises:
        UserError: The registry is not defined, does not answer, refuses a request, or has none of the schemas.
    """
    named, unnamed = _named(messages)
    if len(named) <= unnamed:
        return None
    try:
        with SchemaRegistry(registry) as client:
            schemas, missing = _schemas(client, named)
            names = {key: shown(key, client.subjects(key)) for key in schemas}
    except UserError as error:
        example = shown(next(iter(named.values()))[0])
        raise UserError(
            f"The values of topic {topic!r} name schemas of a schema registry, such as {example}. {error.what}",
            f"{error.remedy} To use another connection, add --registry NAME.",
            code=error.code,
        ) from error
    if not schemas:
        key = next(iter(missing))
        raise UserError(
            f"The values of topic {topic!r} name a schema, but {registries.missing(key, registry)}.",
            "Register the schema under this id, or name the connection to the topic's registry with --registry NAME.",
            code=Code.SCHEMA_UNKNOWN,
        )
    return _decoded(named, schemas, names, missing, registry)


def values(messages: Sequence[Message], registry: str) -> list[dict[str, Any]]:
    """The fields of the events of records, as far as they can be decoded."""
    named, _ = _named(messages)
    with SchemaRegistry(registry) as client:
        schemas, _ = _schemas(client, named)
    found = _decoded(named, schemas, {}, {}, registry).values if schemas else {}
    return [value for value in found.values() if isinstance(value, dict)]


def key_format(messages: Sequence[Message], registry: str) -> Format | None:
    """How the Kafka keys are encoded, if they name schemas; None if they do not, or if the registry does not say."""
    keys = [key.encode() if isinstance(key, str) else key for message in messages if (key := message.key()) is not None]
    if not keys or not all(len(key) > framing.PREFIX_BYTES and key[0] == 0 for key in keys):
        return None
    try:
        with SchemaRegistry(registry) as client:
            kinds = {
                client.schema(framing.schema_of(key, None)[0]).kind for key in {key[:5]: key for key in keys}.values()
            }
    except (SchemaMissing, UserError):
        return None
    return _FORMATS.get(kinds.pop()) if len(kinds) == 1 else None


_Named = Mapping[Place, tuple[SchemaKey, int, bytes, bytes]]
"""For each record what names its schema, where its data begin, its value, and the rest of its header."""


def _named(messages: Sequence[Message]) -> tuple[_Named, int]:
    """The records that name a schema, and the number of the others that have a value."""
    named: dict[Place, tuple[SchemaKey, int, bytes, bytes]] = {}
    unnamed = 0
    for message in messages:
        value = message.value()
        if value is None:
            continue
        headers = cast("Headers | None", message.headers())
        try:
            key, start, rest = framing.schema_of(value, headers)
        except NotFramed:
            unnamed += 1
            continue
        named[place(message)] = (key, start, value, rest)
    return named, unnamed


def _schemas(client: SchemaRegistry, named: _Named) -> tuple[dict[SchemaKey, Schema], dict[SchemaKey, str]]:
    """The schemas that records name, the newest first, and those that the registry does not have."""
    found: dict[SchemaKey, Schema] = {}
    missing: dict[SchemaKey, str] = {}
    for key in sorted({key for key, *_ in named.values()}, key=lambda key: (isinstance(key, int), key), reverse=True):
        try:
            found[key] = client.schema(key)
        except SchemaMissing:
            missing[key] = registries.missing(key, client.name)
    return found, missing


def _decoded(
    named: _Named,
    schemas: Mapping[SchemaKey, Schema],
    names: Mapping[SchemaKey, str],
    missing: Mapping[SchemaKey, str],
    registry: str,
) -> Decoded:
    kinds = Counter(schemas[key].kind for key, *_ in named.values() if key in schemas)
    kind = kinds.most_common(1)[0][0]
    format = _FORMATS.get(kind, Format.JSON_SCHEMA)
    found: dict[Place, dict[str, Any] | str] = {}
    groups: dict[Kind, _Group] = {}
    for where, (key, start, value, rest) in named.items():
        if key in missing:
            found[where] = f"records of {shown(key)}, which the registry does not have,"
        elif schemas[key].kind != kind:
            found[where] = f"records of {shown(key)}, which is a schema of {schemas[key].kind},"
        else:
            group = groups.setdefault((key, _indexes(format, value, start, rest)), _Group(schemas[key], start))
            group.places.append(where)
            group.values.append(value)
            group.rests.append(rest)
    fields = []
    newest_first = list(schemas)
    for (_, indexes), group in sorted(groups.items(), key=lambda item: newest_first.index(item[0][0])):
        try:
            fields.append(declared := _fields(format, group.schema, indexes))
            found |= dict(zip(group.places, _events(format, group, declared), strict=True))
        except InvalidSchema as error:
            found |= dict.fromkeys(group.places, f"{format} that no struct can have, because {error},")
    used = [names.get(key, shown(key)) for key in schemas if any(key == known for known, _ in groups)]
    return Decoded(format, registry, used, merged(filter(None, fields)), found)


def _indexes(format: Format, value: bytes, start: int, rest: bytes) -> Indexes:
    if format is not Format.PROTOBUF:
        return ()
    try:
        return framing.message_indexes(value, start)[0] if start else framing.message_indexes(rest or b"\0", 0)[0]
    except NotFramed:
        return (0,)


def _fields(format: Format, schema: Schema, indexes: Indexes) -> tuple[Field, ...]:
    """What a schema says about the fields. Raises InvalidSchema if its values are not objects."""
    if format is Format.AVRO:
        return avro.fields_of(schema)
    if format is Format.PROTOBUF:
        return protobuf.fields_of(ProtobufFile(schema).message(indexes))
    return json_schema.fields_of(schema)


def _events(format: Format, group: _Group, fields: Sequence[Field]) -> list[dict[str, Any] | str]:
    """The fields of each event, or why a value is not one."""
    if format is Format.JSON_SCHEMA:
        return [_object(value[group.start :]) for value in group.values]
    # A struct that takes everything, since the decoders need one.
    names = {f"field_{number}": each.name for number, each in enumerate(fields)}
    struct = msgspec.defstruct("Sampled", [(name, Any, None) for name in names], rename=names)
    plan = PLANS[format](group.schema, struct)
    found: list[dict[str, Any] | str] = []
    # Few values at a time are decoded one by one, which all types allow.
    for at in range(0, len(group.values), size := MIN_BATCH // 2):
        events, errors = plan.events(group.values[at : at + size], group.start, group.rests[at : at + size])
        for number, event in enumerate(events):
            wrong = number in errors
            found.append(f"{format} that does not fit its schema" if wrong else _as_dict(event, names))
    return found


def _as_dict(event: Any, names: Mapping[str, str]) -> dict[str, Any]:
    return {name: getattr(event, attribute) for attribute, name in names.items()}


def _object(value: bytes) -> dict[str, Any] | str:
    try:
        msgspec.json.decode(value)
        found = json.loads(value, parse_float=Decimal)
    except (ValueError, RecursionError):
        return "values that are not JSON"
    return found if isinstance(found, dict) else "JSON that is not an object"
