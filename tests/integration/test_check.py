"""What `check` prints about real tables, topics and versions, and that it changes none."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from pyarrow import csv, parquet

import include.datasets.definitions
import include.streams.definitions
from cli.check import check
from include.datasets import Dataset, File, HashSplit, Packaged, Query
from include.datasets.sources import Source
from include.datasets.sources.file import CHECK_BYTES
from include.definitions import Found
from include.error_codes import Code
from include.errors import UserError
from include.kafka import client
from include.landing import table
from include.landing.drain import drain
from include.streams import produce
from include.streams.definition import Instant, Stream
from tests.integration.registry import ask, given, seal, signal, the_median, train

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


class Reading(msgspec.Struct):
    ts: Instant
    text: str
    number: int | None = None


class Renamed(msgspec.Struct):
    """Reading without `text`, with another name for `number`, and with an optional `words`."""

    ts: Instant
    count: int | None = None
    words: str | None = None


class Retyped(msgspec.Struct):
    ts: Instant
    text: int


class Demanding(msgspec.Struct):
    ts: Instant
    text: str
    must: str
    number: int | None = None


@pytest.fixture
def define(warehouse: Connection, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes these the only definitions, and `check` use the test's own warehouse."""
    monkeypatch.setenv("MILLRACE_CONN_POSTGRES", os.environ["AIRFLOW_CONN_MILLRACE_POSTGRES"])

    def define(*definitions: Dataset | Stream, broken: dict[str, UserError] | None = None) -> None:
        for module, kind in ((include.datasets.definitions, Dataset), (include.streams.definitions, Stream)):
            found = {one.name: one for one in definitions if isinstance(one, kind)}
            monkeypatch.setattr(module, "find", lambda found=found: Found(found, broken or {}))

    return define


@pytest.fixture
def stream(topic: Callable[..., str]) -> Stream:
    return Stream(name="readings", topic=topic("readings"), event=Reading, event_time="ts", quiet="1 second")


def checked() -> Result:
    return CliRunner().invoke(check)


def about_definitions(done: Result) -> list[str]:
    """The lines about definitions. Topics that other tests have left on the broker are orphans."""
    lines = done.stdout.splitlines()
    return [line for line in lines if not line.startswith(("orphan", "No definition names"))]


def columns(connection: Connection) -> list[str]:
    return [
        row.attname
        for row in ask(connection, "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass", "landing.readings")
    ]


def test_a_table_that_does_not_exist_yet(define: Callable[..., None], stream: Stream, warehouse: Connection) -> None:
    define(stream)
    done = checked()
    assert done.exit_code == 0
    assert about_definitions(done) == [
        "stream   readings: valid",
        "         its next run will create the table landing.readings",
    ]
    assert not ask(warehouse, "SELECT 1 WHERE to_regclass('landing.readings') IS NOT NULL"), "check made the table"


def test_the_changes_of_a_table_are_listed(define: Callable[..., None], stream: Stream, warehouse: Connection) -> None:
    table.bring_up_to_date(warehouse, stream)
    define(stream)
    assert about_definitions(checked()) == ["stream   readings: valid"]

    before = columns(warehouse)
    changed = replace(stream, event=Renamed)
    define(changed)
    done = checked()
    assert done.exit_code == 0
    assert about_definitions(done) == [
        "stream   readings: valid",
        "         its next run will add the column 'count' (bigint) to landing.readings",
        "         its next run will add the column 'words' (text) to landing.readings",
        "         its next run will allow null in landing.readings.text",
        "         landing.readings.text is no longer a field; new rows have null there",
        "         landing.readings.number is no longer a field; new rows have null there",
    ]
    assert columns(warehouse) == before, "check changed the table"
    table.bring_up_to_date(warehouse, changed)
    assert [line for line in checked().stdout.splitlines() if "next run" in line] == []


def test_too_little_room_for_the_locks_of_all_partitions_is_reported(
    define: Callable[..., None], stream: Stream, warehouse: Connection
) -> None:
    (setting,) = ask(warehouse, "SELECT current_setting('max_connections')::int AS connections")
    table.bring_up_to_date(warehouse, stream)
    define(stream, replace(stream, name="kept", keep="400000 days"), replace(stream, name="hourly", partition="1 hour"))
    done = checked()
    assert done.exit_code == 0
    lines = [line for line in about_definitions(done) if "next run" not in line]
    # 400,000 days, the present one and three ahead; each with its primary key and a reserve.
    needed = -(-3 * 400_004 // setting.connections)
    room = 256 * setting.connections
    assert lines == [
        "stream   hourly: valid",
        "stream   kept: valid",
        f"         a new column locks all of up to 400,004 partitions, and PostgreSQL has room for {room:,} locks; set "
        f"max_locks_per_transaction = {needed} and restart it",
        "stream   readings: valid",
    ]


@pytest.mark.parametrize(
    ("event", "field"),
    [
        (Retyped, "event.text"),
        (Demanding, "event.must"),
    ],
)
def test_a_change_that_stops_the_stream_is_an_error(
    define: Callable[..., None], stream: Stream, warehouse: Connection, event: type, field: str
) -> None:
    table.bring_up_to_date(warehouse, stream)
    define(replace(stream, event=event))
    done = checked()
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("wrong    Stream 'readings'")
    assert field in line and "landing.readings" in line
    assert line.endswith(f"[{Code.TABLE_INCOMPATIBLE}]")
    assert "valid" not in done.stdout


def test_orphans_are_listed_and_stay(
    define: Callable[..., None], stream: Stream, topic: Callable[..., str], warehouse: Connection
) -> None:
    produce.make_topic(stream)
    producer = client.producer()
    now = ask(warehouse, "SELECT now()")[0][0]
    for value in (*(msgspec.json.encode(Reading(now, "x")) for _ in range(3)), b"nothing"):
        producer.produce(stream.topic, value)
    producer.flush()
    # On a slow machine a drain may end before all records have arrived.
    while ask(warehouse, "SELECT coalesce(sum(next_offset), 0) AS read FROM millrace.position")[0].read < 4:
        drain(stream, "test")
    dataset = given(topic, signal(200))
    train(dataset, seal(dataset))

    define(dataset, stream)
    assert not [line for line in checked().stdout.splitlines() if stream.name in line and "orphan" in line]

    define(replace(stream, name="renamed"))
    for _ in range(2):  # the first call must not delete anything
        done = checked()
        assert done.exit_code == 0
        lines = done.stdout.splitlines()
        assert (
            "orphan   stream readings: table landing.readings, 3 records landed, 1 dead letter, "
            f"positions in topic {stream.topic}"
        ) in lines
        assert f"orphan   dataset {dataset.name}: topic {dataset.topic}, 1 version, 1 training run" in lines
        assert lines[-1] == "No definition names these orphans. Millrace does not delete them."


def test_the_stream_of_a_broken_definition_is_not_an_orphan(
    define: Callable[..., None], stream: Stream, warehouse: Connection
) -> None:
    table.bring_up_to_date(warehouse, stream)
    broken = UserError("include/streams/readings.py, line 1: it is broken.", code=Code.BROKEN_DEFINITION)
    define(broken={"include/streams/readings.py": broken})
    done = checked()
    assert done.exit_code == 1
    assert "orphan  " not in done.stdout
    assert "Orphaned streams were not searched for" in done.stdout


def test_without_postgresql_check_reports_what_it_did_not_check(
    define: Callable[..., None], stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    define(stream)
    monkeypatch.setenv("MILLRACE_CONN_POSTGRES", '{"conn_type": "postgres", "host": "127.0.0.1", "port": 1}')
    done = checked()
    assert done.exit_code == 0
    first, second = done.stdout.splitlines()
    assert first == "stream   readings: valid"
    assert second.startswith("Tables were not compared, and orphans were not searched for: PostgreSQL at 127.0.0.1:1 ")


def classes(rows: int) -> pa.Table:
    return pa.table(
        {"id": range(rows), "x": [float(n % 7) for n in range(rows)], "target": ["no", "yes"] * (rows // 2)}
    )


def saved(path: Path, rows: pa.Table) -> File:
    csv.write_csv(rows, path)
    return File(str(path))


def long(path: Path, rows: pa.Table, end: str) -> File:
    """A file that is too large for `check` to read completely, whose last row differs from the others."""
    source = saved(path, rows)
    with path.open("a") as file:
        file.write(end)
    assert path.stat().st_size > CHECK_BYTES
    return source


def test_sources_that_cannot_be_published_are_errors(
    define: Callable[..., None], topic: Callable[..., str], tmp_path: Path
) -> None:
    rows, many = classes(60), classes(400_000)
    lists = rows.append_column("list", pa.array([[1]] * 60))
    parquet.write_table(lists, tmp_path / "lists.parquet")
    large = many.append_column("noise", pa.array(np.random.default_rng(0).random(len(many))))
    parquet.write_table(large.append_column("list", pa.array([[1]] * len(many))), tmp_path / "large.parquet")
    assert (tmp_path / "large.parquet").stat().st_size * 8 > CHECK_BYTES
    (tmp_path / "empty.csv").touch()
    (tmp_path / "header.csv").write_text("id,x,target\n")
    long_file = long(tmp_path / "long.csv", many, "400000,1.0\n")
    wrong: dict[str, tuple[Dataset, Code, str]] = {}

    def add(code: Code, value: str, source: Source, **changes: Any) -> None:
        dataset = replace(given(topic, rows, split=HashSplit(test=0.25), **changes), source=source)
        wrong[dataset.name] = dataset, code, value

    small = saved(tmp_path / "small.csv", rows)
    regression: dict[str, Any] = {"kind": "regression", "models": the_median}
    large_file, integers = File(str(tmp_path / "large.parquet")), {"target": "integer"}
    add(Code.FILE_NOT_FOUND, "nothing.csv", File(str(tmp_path / "nothing.csv")))
    add(Code.INVALID_PATH, str(tmp_path), File(str(tmp_path)))
    add(Code.FILE_EMPTY, "empty.csv", File(str(tmp_path / "empty.csv")))
    add(Code.NOTHING_TO_PUBLISH, "header.csv", File(str(tmp_path / "header.csv")))
    add(Code.COLUMN_MISSING, "features: its source has no column y; it has id, x, target.", small, features=["y"])
    add(Code.COLUMN_MISSING, "field target: its source has no column label", small, target="label")
    add(Code.COLUMN_MISSING, "field record_id: its source has no column key", small, record_id="key")
    add(Code.COLUMN_MISSING, "field event_time: its source has no column at", small, event_time="at")
    wide = saved(tmp_path / "wide.csv", rows.append_column("noise", pa.array(range(60))))
    timed: dict[str, Any] = {"event_time": "target", "target": "x", "features": ["noise"]}
    add(Code.COLUMN_UNUSABLE, "field event_time: the column 'target' is string", wide, **timed)
    add(Code.COLUMN_UNUSABLE, "field event_time: the column 'target' is string", large_file, **timed)
    add(Code.TARGET_UNUSABLE, "the column 'target' is string", small, **regression)
    add(Code.COLUMN_MISSING, "'zip'", File(small.path, types={"zip": "text"}))
    add(Code.TYPE_MISMATCH, "'target' has values that are not int64: 'no', 'yes'", File(small.path, types=integers))
    add(Code.RECORD_ID_NOT_UNIQUE, "the column 'x' repeats values", small, record_id="x", features=["id"])
    add(Code.COLUMN_UNUSABLE, "the column 'list' is list", File(str(tmp_path / "lists.parquet")), features=["list"])
    add(Code.COLUMN_UNUSABLE, "the column 'list' is list", large_file, features=["list"])
    add(Code.COLUMN_MISSING, "field features: its source has no column y", large_file, features=["y"])
    add(Code.COLUMN_MISSING, "features: its source has no column y; it has id, x, target.", long_file, features=["y"])
    add(Code.TARGET_UNUSABLE, "the column 'target' is string", long_file, **regression)
    add(Code.TYPE_MISMATCH, "'target' has values that are not int64: 'no', 'yes'", File(long_file.path, types=integers))
    add(Code.PACKAGE_UNAVAILABLE, "load_nothing", Packaged("sklearn.datasets:load_nothing"))
    add(Code.COLUMN_MISSING, "record_id: its source has no column id", Packaged("sklearn.datasets:load_iris", IRIS))
    add(Code.QUERY_FAILED, 'relation "nowhere" does not exist', Query("SELECT * FROM nowhere"))
    add(Code.QUERY_FAILED, "syntax error", Query("DELETE FROM millrace.position"))
    add(Code.COLUMN_DUPLICATED, "name a.", Query("SELECT 1 AS a, 2 AS a"))
    add(Code.COLUMN_MISSING, "x; it has id, target", Query("SELECT 1 AS id, 'yes' AS target -- all"), features=["x"])
    unfit = Query("SELECT 1 AS id, '{}'::jsonb AS x, 'a' AS target")
    add(Code.COLUMN_UNUSABLE, "features: the column 'x' is jsonb", unfit, features=["x"])
    add(Code.TARGET_UNUSABLE, "target::integer or target::text", TEN)

    ready = replace(given(topic, rows), source=small)
    valid = [ready, replace(ready, name="long_file", source=long_file), replace(ready, name="own")]
    # `check` does not run a query; this one would divide by zero.
    valid.append(
        replace(
            ready,
            name="query",
            source=Query("SELECT id, 1 / (id - 1) AS x, 'yes' AS target FROM generate_series(1, 9) AS id;"),
        )
    )
    define(*valid, *(dataset for dataset, _, _ in wrong.values()))
    done = CliRunner().invoke(check, catch_exceptions=False)
    assert done.exit_code == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("wrong ")]
    assert len(lines) == len(wrong), done.stderr
    # Both are in the order of the names.
    for (_, (_, code, value)), line in zip(sorted(wrong.items()), lines, strict=True):
        assert line.endswith(f"[{code}]"), line
        assert value in line
    assert [line for line in done.stdout.splitlines() if line.startswith("dataset")] == sorted(
        f"dataset  {dataset.name}: valid" for dataset in valid
    )


IRIS = {"as_frame": True}
TEN = Query("SELECT 1 AS id, 1.0 AS x, 10::numeric AS target")


def test_an_interval_without_rows_is_not_an_error_of_a_scheduled_dataset(
    define: Callable[..., None], topic: Callable[..., str], tmp_path: Path
) -> None:
    days = pa.array([datetime(2014, 1, 1, tzinfo=UTC)] * 60, pa.timestamp("us"))
    source = saved(tmp_path / "old.csv", classes(60).append_column("at", days))
    dataset = replace(given(topic, classes(60), event_time="at"), source=source)
    define(replace(dataset, schedule="@yearly", start=date(2010, 1, 1)))
    assert checked().exit_code == 0


def test_without_postgresql_queries_are_not_checked(
    define: Callable[..., None], topic: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    define(replace(given(topic, classes(60)), name="asked", source=Query("SELECT * FROM nowhere")))
    monkeypatch.setenv("MILLRACE_CONN_POSTGRES", '{"conn_type": "postgres", "host": "127.0.0.1", "port": 1}')
    done = checked()
    assert done.exit_code == 0
    first, second, _ = done.stdout.splitlines()
    assert first == "dataset  asked: valid"
    assert second.startswith("The query of dataset 'asked' was not checked: PostgreSQL at 127.0.0.1:1 does not answer")
