"""The recipes of docs/streams.md: each definition decodes the records that it is shown with."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from decimal import Decimal
from types import ModuleType
from typing import Any

import fastavro
import msgspec
import pytest
from google.protobuf import json_format, message_factory

from include.landing import decoders
from include.landing.decoder import Decoder, Others
from include.landing.decoding.framed import PLANS
from include.project import ROOT
from include.schemas.protobuf import ProtobufFile
from include.schemas.schema import Format, Schema
from include.streams.definition import Stream

# What the definitions of the page import.
_IMPORTS = """
from __future__ import annotations
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID
import msgspec
from include.streams.definition import *
"""
_RECIPE = re.compile(r"^## (?P<title>.+?)$.*?```json\n(?P<records>.*?)```.*?```python\n(?P<source>.*?)```", re.M | re.S)


_SCHEMA = re.compile(r"^```(?:avro|proto|json-schema)\n(?P<schema>.*?)```", re.M | re.S)


def sections() -> list[str]:
    return re.split(r"^(?=## )", (ROOT / "docs/streams.md").read_text(), flags=re.M)


def recipes() -> list[tuple[str, str, str]]:
    """The title of each recipe, its records and its definition."""
    found = filter(None, map(_RECIPE.match, sections()))
    return [(each["title"], each["records"], each["source"]) for each in found]


def test_the_page_has_recipes() -> None:
    assert len(recipes()) >= 20


@pytest.mark.parametrize(("title", "records", "source"), recipes(), ids=[title for title, _, _ in recipes()])
def test_the_definition_decodes_the_records(
    title: str, records: str, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # msgspec resolves the types of a struct in its module.
    module = ModuleType("recipe")
    monkeypatch.setitem(sys.modules, "recipe", module)
    exec(_IMPORTS + source, module.__dict__)
    stream = module.__dict__["stream"]
    assert isinstance(stream, Stream)
    values = [line.encode() for line in records.splitlines()]
    if stream.is_json:
        others = Others([None] * len(values), [0] * len(values))
        events, bad = decoders.of(stream).events(values, [None] * len(values), others)
    elif stream.format == Format.JSON:
        events, bad = Decoder(stream.value_event).events(values)
    else:
        events, bad = in_format(stream, schema_of(title), values)
    assert (len(events), bad) == (len(values), {})
    assert None not in events


def schema_of(title: str) -> str:
    """The schema that a recipe shows before its records."""
    section = next(each for each in sections() if each.startswith(f"## {title}\n"))
    found = _SCHEMA.search(section)
    assert found is not None
    return found["schema"]


def in_format(stream: Stream, schema: str, values: list[bytes]) -> tuple[list[Any], dict[int, Any]]:
    """The events of records that are encoded with a schema; the records are shown as JSON."""
    encode: dict[Format, Callable[[str, bytes], bytes]] = {
        Format.AVRO: in_avro,
        Format.PROTOBUF: in_protobuf,
        Format.JSON_SCHEMA: lambda _, value: value,
    }
    format = Format(stream.format)
    encoded = [encode[format](schema, value) for value in values]
    plan = PLANS[format](Schema(format.kind, schema), stream.event)
    return plan.events(encoded, 0, [b""] * len(encoded))


def in_avro(schema: str, value: bytes) -> bytes:
    record, out = msgspec.json.decode(value), io.BytesIO()
    for field in json.loads(schema)["fields"]:
        if isinstance(field["type"], dict) and field["type"].get("logicalType") == "decimal":
            record[field["name"]] = Decimal(record[field["name"]])
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(schema)), record)
    return out.getvalue()


def in_protobuf(schema: str, value: bytes) -> bytes:
    message = ProtobufFile(Schema(Format.PROTOBUF.kind, schema)).message((0,))
    found = json_format.Parse(value, message_factory.GetMessageClass(message)())
    return bytes(found.SerializeToString())
