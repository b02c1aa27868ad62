"""A Query as a source: PostgreSQL's types decide the types of a version, whatever its rows are."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from include.datasets import Dataset, HashSplit, Query, TimeSplit
from include.error_codes import Code
from include.training import dispatch
from include.versions import catalog
from include.versions.manifest import Interval, Manifest
from include.versions.publication import NothingToPublish, publish
from include.versions.reading import read
from tests.errors import raises
from tests.integration.registry import ask, change, one_model, seal, the_median, train

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

EVERY_TYPE = """
    select a.*, 'x'::text as text, 'v'::varchar(5) as varchar, 'b'::char(3) as bpchar, '9'::"char" as one, n::int2 as
    int2, n::int4 as int4, n::int8 as int8, (n / 10.0)::float4 as float4, n / 3.0::float8 as float8, n > 1 as bool,
    date '2026-01-05' as date, timestamp '2026-01-05 10:00:00.5' as timestamp, time '10:00:00.25' as time,
    timestamptz '2026-01-05 10:00:00+02' as timestamptz, interval '1 month 2 days' as interval,
    'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid as uuid, '{"a": 1}'::jsonb as jsonb, '[1]'::json as json,
    '\\x00ff'::bytea as bytea, array[1, null, 3] as list, array['a', 'b"c'] as words, '10.0.0.1'::inet as inet,
    int4range(1, 3) as range, 'on'::mood as enum, 7::small as domain, row(1, 'x') as record, '1.50'::money as money,
    array['on'::mood] as moods, point(1, 2) as point
    from (select n, big::numeric(20, 0), price::numeric(10, 2), digit::numeric(3, 0), free from (values
        (1, 12345678901234567890, 1.50, 5, 1::numeric / 3), (2, 12345678901234567891, 'NaN', null, null)
    ) as v (n, big, price, digit, free)) as a
"""
TYPES = {
    "n": pa.int32(),
    "big": pa.decimal128(20, 0),
    "price": pa.decimal128(10, 2),
    "digit": pa.int64(),
    "free": pa.decimal256(76, 38),
    **dict.fromkeys(("text", "varchar", "bpchar", "one", "uuid", "inet", "enum"), pa.string()),
    **dict.fromkeys(("json", "jsonb", "interval", "range", "record", "money", "point"), pa.string()),
    "int2": pa.int16(),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "float4": pa.float32(),
    "float8": pa.float64(),
    "bool": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"),
    "time": pa.time64("us"),
    "bytea": pa.binary(),
    "list": pa.list_(pa.int32()),
    "words": pa.list_(pa.string()),
    "moods": pa.list_(pa.string()),
    "domain": pa.int64(),
}
UNFIT = {"json", "jsonb", "interval", "range", "record", "money", "point", "bytea", "list", "words", "moods", "time"}


@pytest.fixture
def types(warehouse: Connection) -> Connection:
    change(warehouse, "create type mood as enum ('on', 'off'); create domain small as numeric(4, 0)")
    return warehouse


@pytest.fixture
def queried(warehouse: Connection, topic: Callable[..., str]) -> Callable[..., Dataset]:
    """A dataset with a query as its source, the ids id and the target y."""

    def dataset(sql: str, **changes: Any) -> Dataset:
        fields: dict[str, Any] = {
            "name": topic("queried").replace("-", "_"),
            "source": Query(sql),
            "record_id": "id",
            "target": "y",
            "split": HashSplit(test=0.5),
            "models": one_model,
        }
        return Dataset(**fields | changes)

    return dataset


def sealed(dataset: Dataset, interval: Interval | None = None) -> Manifest:
    publish(dataset, interval or Interval())
    dispatch.land("test")
    return catalog.find(dataset.name)


def day(number: int) -> Interval:
    return Interval(datetime(2026, 1, number, tzinfo=UTC), datetime(2026, 1, number + 1, tzinfo=UTC))


def test_every_type_has_one_arrow_type_whatever_the_rows_are(types: Connection) -> None:
    full, none = Query(EVERY_TYPE).rows(None, None), Query(f"{EVERY_TYPE} where false").rows(None, None)
    assert {field.name: field.type for field in full.schema} == TYPES
    assert none.schema == full.schema and none.num_rows == 0
    nulls = Query(f"select e.* from (values (1)) as one (n) left join ({EVERY_TYPE}) as e on false").rows(None, None)
    assert nulls.schema == full.schema
    assert {column.null_count for column in nulls.columns} == {1}


def test_values_are_those_of_postgresql(types: Connection) -> None:
    first, second = Query(EVERY_TYPE).rows(None, None).to_pylist()
    assert (first["big"], second["big"]) == (Decimal(12345678901234567890), Decimal(12345678901234567891))
    assert (first["price"], second["price"]) == (Decimal("1.50"), None), "NaN is missing"
    assert (first["digit"], second["digit"], first["domain"]) == (5, None, 7)
    assert first["free"] == Decimal("0." + "3" * 20)
    assert (first["bool"], second["bool"]) == (False, True)
    assert first["float8"] == 1 / 3
    assert (first["date"], first["time"]) == (date(2026, 1, 5), time(10, 0, 0, 250_000))
    assert first["timestamp"] == datetime(2026, 1, 5, 10, 0, 0, 500_000)
    assert first["timestamptz"] == datetime(2026, 1, 5, 8, tzinfo=UTC)
    assert (first["bytea"], first["list"], first["words"]) == (b"\x00\xff", [1, None, 3], ["a", 'b"c'])
    assert json.loads(first["jsonb"]) == {"a": 1}
    assert (first["uuid"], first["inet"], first["enum"]) == ("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "10.0.0.1", "on")


@pytest.mark.parametrize(
    ("type_", "arrow", "values"),
    [
        ("numeric(18, 0)", pa.int64(), ["999999999999999999", "-5"]),
        ("numeric(19, 0)", pa.decimal128(19, 0), ["9999999999999999999", "-5"]),
        ("numeric(5, -2)", pa.int64(), ["1234500", "100"]),
        ("numeric(3, 5)", pa.decimal128(5, 5), ["0.00123", "-0.00001"]),
        ("numeric(60, 20)", pa.decimal256(60, 20), ["1" * 40 + "." + "1" * 20, "0.5"]),
        ("numeric(100, 2)", pa.float64(), ["0.5", "1e80"]),
        ("numeric", pa.decimal256(76, 38), ["1" * 38, "1e-38"]),
        ("bigint", pa.int64(), ["9223372036854775807", "-9223372036854775808"]),
        ("real", pa.float32(), ["Infinity", "1e-40"]),
        ("float8", pa.float64(), ["-Infinity", "0.1"]),
        ("date", pa.date32(), ["0001-01-01", "9999-12-31"]),
        ("timestamptz", pa.timestamp("us", "UTC"), ["0001-01-01 00:00:00+00", "9999-12-31 23:59:59.999999+00"]),
    ],
)
def test_the_limits_of_types(warehouse: Connection, type_: str, arrow: pa.DataType, values: list[str]) -> None:
    listed = ", ".join(f"('{value}'::{type_})" for value in values)
    found = Query(f"select x from (values {listed}) as v (x)").rows(None, None)["x"]
    assert found.type == arrow
    back = ask(
        warehouse,
        f"select {' and '.join(['%s::text::' + type_ + ' = %s'] * len(values))}",
        *(value for pair in zip([str(v) for v in found.to_pylist()], values, strict=True) for value in pair),
    )
    assert back == [(True,)]


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("'infinity'::date", "'x' is date and has the value 'infinity'"),
        ("'-infinity'::timestamptz", "'x' is timestamp with time zone and has the value '-infinity'"),
        ("'4713-01-01 BC'::timestamp", "'x' is timestamp without time zone and has the value '4713-01-01 00:00:00 BC'"),
        ("'24:00'::time", "'x' is time without time zone and has the value '24:00:00'"),
        ("1e40::numeric", "'x' is numeric and has the value '1000"),
        ("array[array[1]]", "'x' is integer[] and has the value '{{1}}'"),
    ],
)
def test_a_value_that_arrow_cannot_hold_is_an_error_if_its_column_is_read(
    warehouse: Connection, sql: str, value: str
) -> None:
    source = Query(f"select n as id, {sql} as x from generate_series(1, 3) as n")
    with raises(Code.TYPE_MISMATCH, value):
        source.rows(None, None)
    with source.scan(None, None) as scan:
        assert sum(batch.num_rows for batch in scan.batches(["id"])) == 3


def test_labels_keep_their_classes_when_some_are_null(queried: Callable[..., Dataset]) -> None:
    dataset = queried(
        """select n as id, (n % 7)::float as x, case when n > 3 then n % 2 end as y from generate_series(1, 500) n""",
        guards={"recall of 1": 0.0},
    )
    manifest = sealed(dataset)
    assert [repr(name) for name in manifest.classes] == ["0", "1"]
    assert sum(manifest.rows.values()) == 497
    assert {column.name: column.type for column in manifest.columns} == {"id": "int32", "x": "double", "y": "int32"}
    train(dataset, manifest.version)


@pytest.mark.parametrize(
    ("label", "classes"),
    [
        ("case when n % 9 > 0 then n % 2 = 0 end", [False, True]),
        ("(case when n % 9 > 0 then n % 2 end)::numeric(1, 0)", [0, 1]),
        ("(case when n % 9 > 0 then n % 2 end)::smallint", [0, 1]),
        ("case when n % 9 > 0 then (array['no', 'yes'])[n % 2 + 1] end", ["no", "yes"]),
    ],
)
def test_classes_are_those_of_the_labels_type(queried: Callable[..., Dataset], label: str, classes: list[Any]) -> None:
    sql = f"select n as id, n::float as x, {label} as y from generate_series(1, 200) n"
    dataset = queried(sql)
    manifest = sealed(dataset)
    assert [(type(name), name) for name in manifest.classes] == [(type(name), name) for name in classes]
    train(dataset, manifest.version)


def test_columns_that_the_definition_does_not_name_may_have_any_type(
    queried: Callable[..., Dataset], types: Connection
) -> None:
    dataset = queried(
        f"""select e.*, k as id, k % 2 as y, 'infinity'::date as never
            from ({EVERY_TYPE}) as e, generate_series(1, 200) as k where n = 1""",
        features=["int4", "price", "bool"],
    )
    manifest = sealed(dataset)
    assert manifest.features == ["int4", "price", "bool"]
    assert read(manifest).train.schema.field("price").type == pa.float64()
    train(dataset, manifest.version)


def test_by_default_columns_that_models_cannot_use_are_left_out(
    queried: Callable[..., Dataset], types: Connection
) -> None:
    dataset = queried(
        f"select {', '.join(sorted(UNFIT))}, price, k as id, k % 2 as y from ({EVERY_TYPE}) e, generate_series(1, 99) k"
        " where n = 1"
    )
    assert sealed(dataset).features == ["price"]


@pytest.mark.parametrize(
    ("changes", "value"),
    [
        ({"features": ["payload"]}, "field features: the column 'payload' is jsonb"),
        ({"target": "payload"}, "field target: the column 'payload' is jsonb"),
        ({"record_id": "parts"}, "field record_id: the column 'parts' is integer[]"),
    ],
)
def test_an_unusable_column_is_named_with_its_type(
    queried: Callable[..., Dataset], changes: dict[str, Any], value: str
) -> None:
    dataset = queried(
        "select n as id, n % 2 as y, '{}'::jsonb as payload, array[n] as parts from generate_series(1, 9) n"
    )
    with raises(Code.COLUMN_UNUSABLE, value):
        publish(replace(dataset, **changes), Interval())


@pytest.mark.parametrize("type_", ["numeric(20, 0)", "numeric", "bigint", "text", "numeric(25, 3)"])
def test_ids_are_exact(queried: Callable[..., Dataset], type_: str) -> None:
    first = 9223372036854775000 - 500
    sql = f"select ({first} + n)::{type_} as id, n::float as x, n % 2 as y from generate_series(1, 500) n"
    dataset = queried(sql)
    rows = read(sealed(dataset))
    found = pa.concat_tables([rows.train, rows.test])["id"].to_pylist()
    assert sorted(int(value) for value in found) == list(range(first + 1, first + 501))
    if type_ == "numeric(20, 0)":
        train(dataset, seal(dataset))


def test_decimals_are_doubles_for_models(queried: Callable[..., Dataset]) -> None:
    sql = "select n as id, (n / 7.0)::numeric(10, 3) as x, avg(n) over () as mean, n * 1.5 as y from many"
    sql = f"with many as (select n from generate_series(1, 90) n) {sql}"
    dataset = queried(sql, kind="regression", models=the_median)
    manifest = sealed(dataset)
    assert {column.name: column.type for column in manifest.columns} == {
        "id": "int32",
        "x": "double",
        "mean": "double",
        "y": "double",
    }
    train(dataset, manifest.version)


@pytest.mark.parametrize(
    ("sql", "code", "value"),
    [
        ("select 1 as id, 2 as id", Code.COLUMN_DUPLICATED, "name id."),
        ("set local work_mem = '1MB'", Code.QUERY_FAILED, "returns no rows"),
        ("select 1 / 0 as id", Code.QUERY_FAILED, "division by zero"),
        ("insert into millrace.refused_manifest values (1)", Code.QUERY_FAILED, "INSERT"),
        ("", Code.QUERY_FAILED, "can't execute an empty query"),
    ],
)
def test_a_statement_that_is_not_a_valid_query_is_an_error(
    warehouse: Connection, sql: str, code: Code, value: str
) -> None:
    with raises(code, value):
        Query(sql).rows(None, None)


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("select 1 as id, date '2026-01-01' as at, 1.0 as x, 1 as y where false", "is empty"),
        (
            "select n as id, %(start)s::timestamptz as at, 1.0 as x, 1 as y from generate_series(1, 9) n where n > 9",
            "is empty",
        ),
        (
            "select n as id, date '2026-01-09' as at, 1.0 as x, 1 as y from generate_series(1, 9) n",
            "from 2026-01-09",
        ),
        (
            "select n as id, date '2026-01-03' as at, 1.0 as x, null::int as y from generate_series(1, 9) n",
            "with a value of y",
        ),
        (
            "select n as id, date '2026-01-03' as at, 1.0 as x, n % 2 as y from generate_series(1, 9) n",
            "none of them to train on",
        ),
    ],
)
def test_an_interval_without_usable_rows_is_skipped_with_its_reason(
    queried: Callable[..., Dataset], sql: str, value: str
) -> None:
    dataset = queried(sql, event_time="at", split=TimeSplit("1 day"))
    with raises(Code.NOTHING_TO_PUBLISH, "from 2026-01-03 00:00 to 2026-01-04", value, kind=NothingToPublish):
        publish(dataset, day(3))
