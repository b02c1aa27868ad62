"""Events behind a JSON Schema, and how schemas are compared with the struct."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from include.landing.decoding import json_schema
from include.landing.decoding.json_schema import JsonSchemaPlan
from include.landing.decoding.misfit import Incompatible
from include.schemas.schema import InvalidSchema, Schema
from include.streams import encoding, payments, sensor_readings, vehicle_positions
from include.streams.definition import EpochMillis, Instant


class Event(msgspec.Struct):
    ts: Instant
    number: int
    text: str | None = None
    inner: dict[str, int] = {}


def found(document: Any, event: Any = Event) -> set[tuple[str, bool]]:
    misfits = json_schema.misfits(Schema("JSON", json.dumps(document)), event)
    return {(each.path, each.is_fatal) for each in misfits}


def of(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required}


TEXT, WHOLE = {"type": "string"}, {"type": "integer"}


@pytest.mark.parametrize("event", [Event, vehicle_positions.VehiclePosition, payments.Payment])
def test_the_schema_of_a_struct_fits_it(event: Any) -> None:
    assert found(encoding.json_schema(event), event) == set()
    assert found(encoding.json_schema(sensor_readings.SensorReading), sensor_readings.SensorReading) == set()


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (of(["ts", "number"], ts=TEXT, number=WHOLE), set()),
        (True, set()),
        ({}, set()),
        (of(["ts"], ts=TEXT, number=WHOLE), {("number", False)}),
        (of(["ts", "number"], ts=TEXT, number=TEXT), {("number", True)}),
        (of(["ts", "number"], ts=TEXT, number={"type": ["integer", "null"]}), {("number", False)}),
        (of(["ts", "number"], ts=TEXT, number={"anyOf": [WHOLE, TEXT]}), {("number", False)}),
        (of(["ts", "number"], ts=TEXT, number={"oneOf": [TEXT, {"type": "null"}]}), {("number", True)}),
        (of(["ts", "number"], ts=TEXT, number=WHOLE, text=WHOLE), {("text", False)}),
        ({**of(["ts"], ts=TEXT), "additionalProperties": False}, {("number", True)}),
        (of(["ts"], ts=TEXT), {("number", False)}),
        ({"type": "array"}, {("", True)}),
        (
            {
                "$ref": "#/$defs/E",
                "$defs": {"E": of(["ts", "number"], ts={"$ref": "#/$defs/T"}, number=WHOLE), "T": WHOLE},
            },
            {("ts", True)},
        ),
        ({"$ref": "elsewhere.json"}, set()),
        ({"$ref": "#"}, set()),
    ],
)
def test_what_does_not_fit(document: Any, expected: set[tuple[str, bool]]) -> None:
    assert found(document) == expected


def test_times_as_numbers_fit() -> None:
    event = msgspec.defstruct("E", [("ts", EpochMillis)])
    assert found(of(["ts"], ts=WHOLE), event) == set()


@pytest.mark.parametrize("text", ["", "{", "5", '"text"'])
def test_text_that_is_not_a_schema_is_invalid(text: str) -> None:
    with pytest.raises(InvalidSchema):
        JsonSchemaPlan(Schema("JSON", text), Event)


def test_a_schema_of_which_no_record_can_land_is_incompatible() -> None:
    with pytest.raises(Incompatible, match="field 'number': the schema has string, the definition int"):
        JsonSchemaPlan(Schema("JSON", json.dumps(of(["ts", "number"], ts=TEXT, number=TEXT))), Event)


def test_values_are_decoded_behind_their_prefix() -> None:
    plan = JsonSchemaPlan(Schema("JSON", "{}"), Event)
    good, bad = b'12345{"ts": "2026-01-15T10:00Z", "number": 1}', b'12345{"number": "x"}'
    events, errors = plan.events([bad, good, b"12345", good], 5, [])
    assert [event and event.number for event in events] == [None, 1, None, 1]
    assert set(errors) == {0, 2} and "Expected `int`" in str(errors[0])
    events, errors = plan.events([good[5:]], 0, [])
    assert not errors and events[0].number == 1
