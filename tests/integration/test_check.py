"""What `check` says of real tables, topics and versions, and that it changes none."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import pytest
from click.testing import CliRunner, Result

import include.datasets.definitions
import include.streams.definitions
from include.datasets import Dataset
from include.definitions import Found
from include.errors import UserError
from include.kafka import client
from include.landing import table
from include.landing.drain import drain
from include.platform.commands.check import check
from include.streams import produce
from include.streams.definition import Instant, Stream
from tests.integration.registry import ask, given, seal, signal, train

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


class Reading(msgspec.Struct):
    ts: Instant
    text: str
    number: int | None = None


class Renamed(msgspec.Struct):
    """As Reading, but `text` is gone, `number` has another name, and `words` may be left out."""

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
    """Makes these the only definitions, and `check` look into the test's own warehouse."""
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


def columns(connection: Connection) -> list[str]:
    return [
        row.attname
        for row in ask(connection, "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass", "landing.readings")
    ]


def test_a_table_that_does_not_exist_yet(define: Callable[..., None], stream: Stream, warehouse: Connection) -> None:
    define(stream)
    done = checked()
    assert (done.exit_code, done.stdout) == (
        0,
        "stream   readings: good\n         its next run will make the table landing.readings\n",
    )
    assert not ask(warehouse, "SELECT 1 WHERE to_regclass('landing.readings') IS NOT NULL"), "check made the table"


def test_what_a_change_does_to_the_table(define: Callable[..., None], stream: Stream, warehouse: Connection) -> None:
    table.bring_up_to_date(warehouse, stream)
    define(stream)
    assert checked().stdout == "stream   readings: good\n"

    before = columns(warehouse)
    changed = replace(stream, event=Renamed)
    define(changed)
    done = checked()
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "stream   readings: good",
        "         its next run will add the column landing.readings.count, bigint",
        "         its next run will add the column landing.readings.words, text",
        "         its next run will let landing.readings.text be null",
        "         landing.readings.text stays, named by no field; new rows hold null there",
        "         landing.readings.number stays, named by no field; new rows hold null there",
    ]
    assert columns(warehouse) == before, "check changed the table"
    table.bring_up_to_date(warehouse, changed)
    assert [line for line in checked().stdout.splitlines() if "next run" in line] == []


@pytest.mark.parametrize(
    ("event", "says"),
    [
        (Retyped, "event.text: it is bigint in the definition and text in the table landing.readings. Keep its type"),
        (Demanding, "event.must: the field is new, and the rows in landing.readings have no value for it. Let it be"),
    ],
)
def test_a_change_that_stops_the_stream_is_wrong(
    define: Callable[..., None], stream: Stream, warehouse: Connection, event: type, says: str
) -> None:
    table.bring_up_to_date(warehouse, stream)
    define(replace(stream, event=event))
    done = checked()
    assert done.exit_code == 1
    assert done.stderr.startswith("wrong    Stream 'readings', ")
    assert says in done.stderr
    assert "good" not in done.stdout


def test_what_no_definition_names_is_listed_and_stays(
    define: Callable[..., None], stream: Stream, topic: Callable[..., str], warehouse: Connection
) -> None:
    produce.make_topic(stream)
    producer = client.producer()
    now = ask(warehouse, "SELECT now()")[0][0]
    for value in (*(msgspec.json.encode(Reading(now, "x")) for _ in range(3)), b"nothing"):
        producer.produce(stream.topic, value)
    producer.flush()
    # A drain ends when a slow machine brings nothing for a second.
    while ask(warehouse, "SELECT coalesce(sum(next_offset), 0) AS read FROM millrace.position")[0].read < 4:
        drain(stream, "test")
    dataset = given(topic, signal(200))
    train(dataset, seal(dataset))

    define(dataset, stream)
    assert not [line for line in checked().stdout.splitlines() if stream.name in line and "orphan" in line]

    define(replace(stream, name="renamed"))
    for _ in range(2):  # the first has deleted nothing
        done = checked()
        assert done.exit_code == 0
        lines = done.stdout.splitlines()
        assert (
            "orphan   stream readings: table landing.readings, 3 records landed, 1 record kept aside, "
            f"positions in topic {stream.topic}"
        ) in lines
        assert f"orphan   dataset {dataset.name}: topic {dataset.topic}, 1 version, 1 training run" in lines
        assert lines[-1] == "no definition names what is orphaned; nothing of it is deleted"


def test_a_definition_that_cannot_be_read_is_not_taken_for_removed(
    define: Callable[..., None], stream: Stream, warehouse: Connection
) -> None:
    table.bring_up_to_date(warehouse, stream)
    define(broken={"include/streams/readings.py": UserError("include/streams/readings.py, line 1: it is broken.")})
    done = checked()
    assert done.exit_code == 1
    assert "orphan  " not in done.stdout
    assert "orphaned streams were not looked for" in done.stdout


def test_without_postgres_it_says_so_and_nothing_else_changes(
    define: Callable[..., None], stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    define(stream)
    monkeypatch.setenv("MILLRACE_CONN_POSTGRES", '{"conn_type": "postgres", "host": "127.0.0.1", "port": 1}')
    done = checked()
    assert done.exit_code == 0
    first, second = done.stdout.splitlines()
    assert first == "stream   readings: good"
    assert second.startswith("tables were not compared, nor orphans looked for: PostgreSQL at 127.0.0.1:1 does not ans")
