"""Debezium's change events: what each operation and each type becomes, and what is not one."""

from __future__ import annotations

import base64
import io
import json
import pickle
from collections.abc import Iterator, Sequence
from datetime import date, time
from decimal import Decimal
from typing import Annotated, Any, Literal, cast
from uuid import UUID

import fastavro
import msgspec
import pytest

from include.definitions import InvalidDefinition
from include.error_codes import Code
from include.landing import copy, decoders, state
from include.landing.decoder import SkipReason, StopReason
from include.landing.decoding.avro import AvroPlan
from include.landing.decoding.debezium import ChangeDecoder
from include.schemas.registry import SchemaMissing, SchemaRegistry
from include.schemas.schema import Schema
from include.streams import produce
from include.streams.change_events import PLACEHOLDER, Source
from include.streams.connect_types import (
    ConnectDate,
    ConnectDecimal,
    ConnectTime,
    ConnectTimestamp,
    JsonText,
    MicroTime,
    MicroTimestamp,
    NanoTime,
    NanoTimestamp,
    VariableDecimal,
)
from include.streams.definition import Header, Instant, Stream

MS = 1_769_853_600_125
SOURCE = {"connector": "postgresql", "ts_ms": MS, "ts_us": MS * 1_000 + 7, "lsn": 4711, "table": "things"}


class Thing(msgspec.Struct, kw_only=True):
    """A row."""

    id: int
    name: str
    kind: Literal["a", "b"] = "a"
    amount: Annotated[str, ConnectDecimal(2)] | None = None
    body: str | None = None
    data: bytes | None = None
    doc: JsonText | None = None
    tags: list[str] | None = None
    user: str = msgspec.field(name="User Name", default="")
    lsn: Annotated[int, Source("lsn")]
    table: Annotated[str | None, Source("table")] = None


def stream(event: type[msgspec.Struct] = Thing, **options: Any) -> Stream:
    return Stream(**{"name": "things", "envelope": "debezium", "event": event, "event_time": "change_time", **options})


KEYED = stream(key="id", current=True)


def change(op: str | None, *, before: Any = None, after: Any = None, **others: Any) -> dict[str, Any]:
    return {"before": before, "after": after, "source": SOURCE, "op": op, "ts_ms": MS + 50, **others}


def decoded(value: Any, of: Stream = KEYED) -> Any:
    """The row of a change event, or the reason why it has none."""
    [events, bad] = decoders.of(of).events([json.dumps(value).encode()])
    return bad[0] if bad else events[0]


def with_schema(value: dict[str, Any], columns: list[dict[str, Any]]) -> dict[str, Any]:
    row = {"type": "struct", "fields": columns}
    fields = [{**row, "field": "before"}, {**row, "field": "after"}, {"type": "string", "field": "op"}]
    return {"schema": {"type": "struct", "fields": fields}, "payload": value}


BEGIN = {"status": "BEGIN", "id": "571", "event_count": None, "data_collections": None, "ts_ms": MS}
ROW = {"id": 7, "name": "Ada", "User Name": "ada", "amount": "AQI="}


@pytest.mark.parametrize("op", ["c", "r", "u"])
@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: with_schema(value, [])], ids=["plain", "schema"])
def test_the_row_after_a_change_becomes_the_event(op: str, wrap: Any) -> None:
    row = decoded(wrap(change(op, before={"id": 6}, after=ROW)))
    assert (row.id, row.name, row.user, row.lsn, row.table) == (7, "Ada", "ada", 4711, "things")
    assert (row.change_op, row.change_time, row.change_unchanged) == (op, MS * 1_000 + 7, None)


def test_a_delete_may_know_the_key_only() -> None:
    for before in ({"id": 7}, {"id": 7, "name": None, "kind": None, "User Name": None}):
        row = decoded(change("d", before=before))
        assert (row.id, row.name, row.kind, row.user, row.change_op, row.lsn) == (7, None, None, None, "d", 4711)
    assert "valid" in decoded(change("d", before={"name": "Ada"})) or "missing" in decoded(change("d", before={}))


def test_a_change_must_have_the_fields_of_the_definition() -> None:
    assert "missing required field `name` - at `$.after`" in decoded(change("u", after={"id": 7}))
    assert "$.payload.after" in decoded(with_schema(change("u", after={"id": 7}), []))
    assert "no 'after'" in decoded(change("c"))
    assert "REPLICA IDENTITY" in decoded(change("d"))
    assert "op is 'x'" in decoded(change("x", after=ROW))
    assert "no source.lsn" in decoded({**change("c", after=ROW), "source": {"ts_ms": MS}})
    assert "no time" in decoded({"op": "c", "after": ROW})


def test_the_time_is_that_of_the_source_as_exactly_as_it_is_known() -> None:
    for source, expected in (
        ({"lsn": 1, "ts_ms": MS}, MS * 1_000),
        ({"lsn": 1, "ts_ms": 0}, (MS + 50) * 1_000),
        ({"lsn": 1}, (MS + 50) * 1_000),
    ):
        assert decoded({**change("c", after=ROW), "source": source}).change_time == expected


@pytest.mark.parametrize(
    "value",
    [
        change("m", message={"prefix": "a", "content": "AQ=="}),
        BEGIN,
        {"ts_ms": MS},
        {"ts_ms": MS, "ts_us": MS * 1_000, "ts_ns": MS * 1_000_000},
        with_schema({"ts_ms": MS}, []),
        {"schema": {"type": "struct", "optional": True, "fields": []}, "payload": None},
    ],
    ids=["message", "transaction", "heartbeat", "exact", "schema", "null"],
)
def test_what_is_not_a_change_of_a_row_is_skipped(value: dict[str, Any]) -> None:
    assert isinstance(decoded(value), SkipReason)


FLAT = {"id": 7, "name": "Ada", "__deleted": "false"}


@pytest.mark.parametrize(
    "value",
    [
        {},
        FLAT,
        with_schema(FLAT, []),
        {"id": 7, "ts_ms": MS},
        {"id": 7, "status": "paid", "ts_ms": MS},
        {"schema": "public", "payload": None, "id": 7},
    ],
    ids=["empty", "flattened", "schema", "time", "status", "payload"],
)
def test_a_foreign_object_is_a_dead_letter_that_says_what_to_do(value: dict[str, Any]) -> None:
    reason = decoded(value)
    assert isinstance(reason, str) and not isinstance(reason, SkipReason | StopReason)
    assert "not a change event of Debezium" in reason and "omit 'envelope'" in reason


def test_a_foreign_object_with_an_impossible_value_is_a_dead_letter() -> None:
    for value in (b'{"x": 1e999}', b'{"x": "\xff"}', b'{"\xff": 1}', b'{"x": ' + b"[" * 400 + b"]" * 400 + b"}"):
        events, bad = decoders.of(KEYED).events([value])
        assert events == [] and isinstance(bad[0], str) and not isinstance(bad[0], SkipReason), value


@pytest.mark.parametrize(
    ("names", "is_skipped"),
    [(["ts_ms"], True), ([*BEGIN], True), (["id", "ts_ms"], False), (["id", "name"], False)],
)
@pytest.mark.parametrize("form", ["avro", "protobuf"])
def test_the_schema_of_a_value_tells_metadata_from_foreign_objects(
    form: str, names: list[str], is_skipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = [{"name": name, "type": ["null", "string" if name == "name" else "long"]} for name in names]
    text = json.dumps({"type": "record", "name": "Other", "fields": fields})
    if form == "protobuf":
        declared = " ".join(f"optional int64 {name} = {at};" for at, name in enumerate(names, 1))
        text = f'syntax = "proto3"; message Other {{ {declared} }}'
    asked: list[Any] = []

    def schema(_: Any, key: Any) -> Schema:
        asked.append(key)
        return Schema(form.upper(), text, {})

    monkeypatch.setattr(SchemaRegistry, "schema", schema)
    value = b"\0\0\0\0\7" + (bytes(len(names)) if form == "avro" else b"\0")
    [events, bad] = decoders.of(stream(key="id", current=True, format=form)).events([value] * 3)
    assert events == [] and [isinstance(bad[index], SkipReason) for index in range(3)] == [is_skipped] * 3
    assert len(asked) == 2, "once to decode, once for the names"


def test_a_value_without_changes_whose_schema_was_deleted_meanwhile_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps({"type": "record", "name": "Heartbeat", "fields": [{"name": "ts_ms", "type": "long"}]})
    found = iter([Schema("AVRO", text, {})])

    def schema(*_: Any) -> Schema:
        if (known := next(found, None)) is None:
            raise SchemaMissing
        return known

    monkeypatch.setattr(SchemaRegistry, "schema", schema)
    _, bad = decoders.of(stream(format="avro")).events([b"\0\0\0\0\7\2"])
    assert not isinstance(bad[0], SkipReason) and "not a change event" in bad[0]


def test_a_truncation_stops_a_stream_with_a_current_state_and_lands_in_a_history() -> None:
    found = decoded(change("t"))
    assert isinstance(found, StopReason) and found.code is Code.SOURCE_TRUNCATED
    row = decoded(change("t"), stream())
    assert (row.change_op, row.id, row.name, row.lsn) == ("t", None, None, 4711)


def test_the_block_of_a_transaction_is_ignored() -> None:
    block = {"id": "571", "total_order": 1, "data_collection_order": 1}
    assert decoded(change("c", after=ROW, transaction=block)).id == 7


def test_values_that_the_change_does_not_have_are_noted() -> None:
    unknown = base64.b64encode(PLACEHOLDER.encode()).decode()
    row = decoded(
        change("u", after={**ROW, "body": PLACEHOLDER, "data": unknown, "doc": PLACEHOLDER, "tags": [PLACEHOLDER]})
    )
    assert row.change_unchanged == ["body", "data", "doc", "tags"]
    assert (row.name, row.body, row.data, row.doc, row.tags) == ("Ada", None, None, None, None)
    row = decoded(change("u", after={**ROW, "body": f"a text with {PLACEHOLDER}"}))
    assert row.change_unchanged is None and row.body.endswith(PLACEHOLDER)


def test_a_schema_that_contradicts_the_definition_makes_dead_letters() -> None:
    amount = {"field": "amount", "type": "bytes", "name": "org.apache.kafka.connect.data.Decimal"}
    fits = {**amount, "parameters": {"scale": "2"}}
    assert decoded(with_schema(change("c", after=ROW), [fits])).id == 7
    other = {**amount, "parameters": {"scale": "3"}}
    assert "scale 3" in decoded(with_schema(change("c", after=ROW), [other]))
    as_date = {"field": "amount", "type": "int32", "name": "io.debezium.time.Date"}
    assert "io.debezium.time.Date" in decoded(with_schema(change("c", after=ROW), [as_date]))


def text(number: int) -> str:
    return base64.b64encode(number.to_bytes(9, "big", signed=True)).decode()


def variable(number: int, scale: int) -> dict[str, Any]:
    return {"scale": scale, "value": text(number)}


@pytest.mark.parametrize(
    ("declared", "sent", "expected"),
    [
        (ConnectDate, 0, date(1970, 1, 1)),
        (ConnectDate, -719_162, date(1, 1, 1)),
        (ConnectDate, 2_932_897, ValueError),
        (ConnectTime, 86_399_999, time(23, 59, 59, 999_000)),
        (MicroTime, 1, time(0, 0, 0, 1)),
        (NanoTime, 1_999, time(0, 0, 0, 1)),
        (MicroTime, 86_400_000_000, ValueError),
        (MicroTime, -1, ValueError),
        (Annotated[str, ConnectDecimal(2)], "AQI=", Decimal("2.58")),
        (Annotated[str, ConnectDecimal(3)], text(-1), Decimal("-0.001")),
        (Annotated[str, ConnectDecimal(0)], text(10**20), Decimal(10**20)),
        (Annotated[str, ConnectDecimal(-2)], text(5), Decimal("5E+2")),
        (Annotated[str, ConnectDecimal(2)], "no base64!", ValueError),
        (Annotated[str, ConnectDecimal(2)], "", Decimal("0.00")),
        (VariableDecimal, variable(123, 1), Decimal("12.3")),
        (VariableDecimal, variable(-123, 40), Decimal("-123E-40")),
        (VariableDecimal, variable(1, 10**6), ValueError),
        (JsonText, '{"a": 1.50}', msgspec.Raw(b'{"a": 1.50}')),
        (JsonText, "{", ValueError),
        (JsonText, '"\\u0000"', ValueError),
    ],
)
def test_types_of_connect(declared: Any, sent: Any, expected: Any) -> None:
    event = msgspec.defstruct("Row", [("id", int), ("value", declared | None)])
    of = stream(event, key="id", current=True)
    row = decoded(change("c", after={"id": 1, "value": sent}), of)
    column = next(column for column in copy.columns_of_stream(of) if column.name == "value")
    if expected is ValueError:
        assert list(copy.refused([column], [row])) == [0]
        return
    [found] = column.read([row])
    assert bytes(found) == bytes(expected) if isinstance(expected, msgspec.Raw) else str(found) == str(expected)
    assert len(copy.buffer([column], [row])) == 1
    nothing = decoded(change("c", after={"id": 1, "value": None}), of)
    assert column.read([nothing]) == [None]


@pytest.mark.parametrize(
    ("declared", "per_second"), [(ConnectTimestamp, 10**3), (MicroTimestamp, 10**6), (NanoTimestamp, 10**9)]
)
def test_a_timestamp_of_connect_is_never_taken_for_another_unit(declared: Any, per_second: int) -> None:
    event = msgspec.defstruct("Row", [("id", int), ("value", declared)])
    column = next(c for c in copy.columns_of_stream(stream(event, key="id", current=True)) if c.name == "value")
    for seconds in (-(10**9), 0, 40, 40_000, 40_000_000, 1_700_000_000, 9_000_000_000):
        row = decoded(
            change("c", after={"id": 1, "value": seconds * per_second}), stream(event, key="id", current=True)
        )
        assert copy.times(column, column.read([row])).tolist() == [seconds * 10**6]


def test_the_columns_of_a_stream_of_changes() -> None:
    columns = {field.name: (field.sql, field.nullable) for field in KEYED.fields}
    assert list(columns)[:4] == ["change_op", "change_time", "change_unchanged", "id"]
    assert columns["id"] == ("bigint", False)
    assert columns["name"] == ("text", True), "a delete may not have it"
    assert columns["lsn"] == ("bigint", False)
    assert columns["table"] == ("text", True)
    assert columns["amount"] == ("numeric", True)
    assert columns["doc"] == ("jsonb", True)
    assert KEYED.deletes == ("change_op", "d")
    assert {field.name: field.nullable for field in stream().fields}["id"], "a truncation has no key"


class Keeps(msgspec.Struct):
    """A row with a column of the stream's own name."""

    id: int
    change_op: str


class Tagged(msgspec.Struct, tag="a"):
    """A row with a tag."""

    id: int


class WithHeader(msgspec.Struct):
    """A row with a field of the record."""

    id: int
    trace: Annotated[str | None, Header("trace")] = None


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"envelope": "maxwell"}, "envelope"),
        ({"event": Keeps}, "event.change_op"),
        ({"event": Tagged}, "event"),
        ({"event": WithHeader}, "event.trace"),
        ({"key": "lsn", "current": True}, "key"),
        ({"event_time": "name"}, "event_time"),
        ({"order_by": "table", "key": "id", "current": True}, "order_by"),
        ({"where": lambda row: row.name == "a", "key": "id", "current": True}, "where"),
    ],
)
def test_wrong_definitions(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidDefinition) as error:
        stream(**options)
    assert error.value.field == field


def test_a_history_of_changes_can_be_a_selection() -> None:
    assert stream(where=lambda row: row.name == "a", key="id").where is not None


def test_a_definition_can_order_by_the_position_in_the_log() -> None:
    assert stream(key="id", current=True, order_by="lsn").order_by == "lsn"


def test_other_events_decode_as_before() -> None:
    class Event(msgspec.Struct):
        ts: Instant
        uid: UUID

    plain = Stream(name="plain", event=Event, event_time="ts")
    assert plain.value_event is Event and plain.changes is None


def test_a_stream_can_be_sent_to_another_process() -> None:
    decoded(change("c", after=ROW))
    copied = pickle.loads(pickle.dumps(KEYED))
    assert decoded(change("c", after=ROW), copied).id == 7


def test_simulated_changes_decode_and_have_the_keys_of_debezium() -> None:
    def simulate(random: Any) -> Iterator[Thing]:
        while True:
            yield Thing(id=7, name="Ada", user="ada", lsn=5, table="t")

    simulated = stream(key="id", current=True, simulate=simulate)
    key, value, *_ = next(produce._simulated(simulated, 1))
    assert key == b'{"id":7}'
    row = decoded(json.loads(value or b""), simulated)
    assert (row.id, row.user, row.lsn, row.table, row.change_op) == (7, "ada", 5, "t", "u")


def test_a_key_in_two_partitions_is_ordered_by_the_position_in_the_log() -> None:
    assert 'order_by="lsn", and unpause' in str(state.moved(KEYED, [7], 0, 1))
    without = stream(msgspec.defstruct("Row", [("id", int)]), key="id", current=True)
    assert 'order_by="lsn" and lsn: Annotated[int, Source("lsn")], and' in str(state.moved(without, [7], 0, 1))


BLOCK = {
    "type": "record",
    "name": "Block",
    "fields": [{"name": "ts_ms", "type": "long"}, {"name": "lsn", "type": ["null", "long"]}],
}


class Copied(msgspec.Struct):
    """A row, whose decimals have their type in Avro."""

    id: int
    born: ConnectDate | None
    made: MicroTimestamp | None
    credit: Decimal | None
    body: str | None
    data: bytes | None
    lsn: Annotated[int, Source("lsn")]


def test_change_events_in_avro() -> None:
    optional = {
        "born": {"type": "int", "connect.name": "io.debezium.time.Date"},
        "made": {"type": "long", "connect.name": "io.debezium.time.MicroTimestamp"},
        "credit": {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2},
        "body": "string",
        "data": "bytes",
    }
    columns: list[dict[str, Any]] = [{"name": "id", "type": "long"}]
    columns += [{"name": name, "type": ["null", each], "default": None} for name, each in optional.items()]
    row = {"type": "record", "name": "Value", "fields": columns}
    schema = {
        "type": "record",
        "name": "Envelope",
        "fields": [
            {"name": "before", "type": ["null", row], "default": None},
            {"name": "after", "type": ["null", "Value"], "default": None},
            {"name": "source", "type": BLOCK},
            {"name": "op", "type": "string"},
            {"name": "ts_ms", "type": ["null", "long"], "default": None},
        ],
    }
    of = stream(Copied, key="id", current=True, format="avro")
    after = {"id": 7, "born": 20_000, "made": MS * 1_000, "credit": Decimal("2.58"), "body": "a", "data": b"\1"}
    block = {"ts_ms": MS, "lsn": 5}
    sent = [
        {"after": after, "source": block, "op": "u"},
        {"after": {**after, "body": PLACEHOLDER, "data": PLACEHOLDER.encode()}, "source": block, "op": "u"},
        {"before": {"id": 8}, "source": block, "op": "d"},
    ]
    parsed, values = fastavro.parse_schema(schema), []
    for each in sent:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, parsed, each)
        values.append(out.getvalue())

    class Planned:
        reads_headers = reads_others = False

        def events(self, values: Sequence[bytes], *_: Any) -> tuple[list[Any], dict[int, Any]]:
            plan = AvroPlan(Schema("AVRO", json.dumps(schema), {}), of.value_event)
            events, errors = plan.events(values, 0, [b""] * len(values))
            assert errors == {}
            return events, {}

    rows, bad = ChangeDecoder(of, cast(Any, Planned())).events(values * 40)
    assert bad == {}
    columns_of = copy.columns_of_stream(of)
    assert len(copy.buffer(columns_of, rows)) == 120
    read = {column.name: column.read(rows[:3]) for column in columns_of}
    assert read["born"] == [date(2024, 10, 4)] * 2 + [None]
    assert read["credit"] == [Decimal("2.58")] * 2 + [None]
    assert (read["body"], read["data"]) == (["a", None, None], [b"\1", None, None])
    assert read["change_unchanged"] == [None, ["body", "data"], None]
    assert (read["id"], read["change_op"], read["lsn"]) == ([7, 7, 8], ["u", "u", "d"], [5, 5, 5])
