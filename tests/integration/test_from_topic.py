"""Definitions that are written from real topics: everything lands with them, unedited."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from click.testing import CliRunner, Result

from cli.check import check
from cli.new import new
from cli.scaffold import stream as scaffold
from cli.scaffold import topic_stream
from include.error_codes import Code
from include.errors import UserError
from include.kafka import client, reader, sample, topics
from include.landing.drain import drain
from include.streams import definitions
from include.streams.definition import Stream
from tests.errors import raises
from tests.integration.landing import rows

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

Sent = tuple[bytes | None, bytes | None]
"""The key and the value of a record."""

NOW = datetime.now(UTC)
NAME = "sampled"


def fill(topic: str, sent: Sequence[Sent], partitions: int = 3, **options: Any) -> None:
    """Creates a topic and sends records, in turn to each partition."""
    topics.create(topic, partitions=partitions, config={"message.timestamp.type": "LogAppendTime"})
    producer = client.producer()
    for number, (key, value) in enumerate(sent):
        producer.produce(topic, value, key, partition=number % partitions, **options)
        producer.poll(0)
    assert producer.flush(30) == 0


def values(count: int, make: Callable[[Random, int], Any]) -> list[Sent]:
    """Records without keys whose values are what a function returns, as JSON unless they are bytes."""
    random = Random(1)
    made = [make(random, number) for number in range(count)]
    return [(None, each if isinstance(each, bytes | None) else json.dumps(each).encode()) for each in made]


def ago(number: int, **unit: float) -> datetime:
    return NOW - timedelta(seconds=number % 600, **unit)


def click(random: Random, number: int) -> dict[str, Any]:
    return {
        "ts": ago(number).isoformat(),
        "user": str(UUID(int=random.getrandbits(128))),
        "page": f"/page/{random.randrange(1000)}",
        "status": random.choice(("open", "closed", "pending")),
        "dwell": random.choice((1, 2.5, None)),
        "mobile": random.random() < 0.5,
        "day": f"{NOW:%Y-%m-%d}",
    }


def nested(random: Random, number: int) -> dict[str, Any]:
    return {
        "eventTime": f"{ago(number):%Y-%m-%dT%H:%M:%S.%f}Z",
        "order": {
            "id": number,
            "lines": [{"sku": "a", "amount": 1.5} for _ in range(random.randrange(3))],
            "address": random.choice((None, {"city": "Rome", "geo": {"lat": 1, "lon": 2.5}})),
        },
        "tags": random.choice(([], ["a"], ["a", "b"])),
    }


def decimal_texts(random: Random, number: int) -> dict[str, Any]:
    return {
        "timestamp": f"{ago(number):%Y-%m-%d %H:%M}Z",
        "price": f"{random.randrange(9999)}.50",
        "zip": f"{number:05}",
    }


def odd_names(random: Random, number: int) -> dict[str, Any]:
    return {
        "@timestamp": ago(number).isoformat(),
        "user-id": number,
        "class": "a",
        "__deleted": "false",
        "ctid": number,
        "kafka_offset": number,
        "date": f"{NOW:%Y-%m-%d}",
        "float": 1.5,
        "größe": "x",
        "x" * 80: 1,
        "User": "u",
        "user": "u",
    }


def sparse(random: Random, number: int) -> dict[str, Any]:
    found: dict[str, Any] = {"ts": ago(number).isoformat()}
    for field in range(30):
        if random.random() < 0.2:
            found[f"f{field}"] = random.choice((None, number, field))
    return found


def mixed(random: Random, number: int) -> dict[str, Any]:
    return {
        "ts": ago(number).isoformat(),
        "value": random.choice((1, "one", True, [1], {"a": 1})),
        "nothing": None,
        "counts": {f"user-{random.randrange(5000)}": 1},
        "big": 2**63 + number,
    }


def several_types(random: Random, number: int) -> dict[str, Any]:
    kind = random.choice(("signup", "order", "refund"))
    own: dict[str, dict[str, Any]] = {
        "signup": {"email": "a@example.org", "value": "text"},
        "order": {"order": number, "value": 1.5},
        "refund": {"refund": number, "reason": {"code": 1}},
    }
    return {"type": kind, "occurred_at": ago(number).isoformat(), **own[kind]}


def history(random: Random, number: int) -> dict[str, Any]:
    return {"ts": (NOW - timedelta(days=number % 300)).isoformat(), "value": random.random()}


def with_tombstones(random: Random, number: int) -> dict[str, Any] | None:
    return None if number % 10 == 0 else {"ts": ago(number).isoformat(), "id": number}


def cloud_event(random: Random, number: int) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": str(UUID(int=random.getrandbits(128))),
        "source": "/sensors/1",
        "type": "org.example.reading",
        "time": ago(number).isoformat(),
        "data": {"value": random.random()},
    }


def lone(random: Random, number: int) -> dict[str, Any]:
    return {"ts": ago(number).isoformat()}


def offsets_of_zones(random: Random, number: int) -> dict[str, Any]:
    zone = random.choice(("Z", "+00", "+00:00", "+0000"))
    fraction = random.choice(("", ".1", ".123456789", ",5"))
    return {"ts": f"{ago(number):%Y-%m-%dT%H:%M:%S}{fraction}{zone}", "also": f"{ago(number):%Y%m%dT%H%M}Z"}


def wide(random: Random, number: int) -> dict[str, Any]:
    return {"ts": ago(number).isoformat(), **{f"column {field}": random.random() for field in range(300)}}


KINDS: dict[str, list[Sent]] = {
    "click": values(1_500, click),
    "larger than its sample": values(10_000, click),
    "nested": values(300, nested),
    "decimal texts": values(300, decimal_texts),
    "odd names": values(100, odd_names),
    "sparse": values(1_500, sparse),
    "mixed": values(1_500, mixed),
    "several types": values(900, several_types),
    "history": values(900, history),
    "tombstones": values(300, with_tombstones),
    "cloud events": values(300, cloud_event),
    "one field": values(3, lone),
    "one record": values(1, click),
    "zones": values(900, offsets_of_zones),
    "wide": values(200, wide),
    "keyed": [(json.loads(value or b"")["user"].encode(), value) for _, value in values(300, click)],
    "long": values(20, lambda random, number: {"ts": ago(number).isoformat(), "text": "x" * 200_000}),
}


def epoch(random: Random, number: int) -> dict[str, Any]:
    seconds = int(ago(number).timestamp())
    return {
        "ts": seconds * 1000,
        "s": seconds,
        "us": seconds * 10**6 + 7,
        "ns": seconds * 10**9 + 7,
        "f": seconds + 0.25,
        "text": str(seconds),
    }


def change(random: Random, number: int) -> dict[str, Any] | None:
    """A change event of Debezium; a tombstone follows a delete."""
    if number % 50 == 49:
        return None
    op = "d" if number % 50 == 48 else random.choice("cur")
    row = {"id": number, "name": "a", "created": int(ago(number).timestamp() * 10**6)}
    return {
        "before": row if op in "ud" else None,
        "after": row if op != "d" else None,
        "source": {
            "version": "3",
            "connector": "postgresql",
            "ts_ms": int(ago(number).timestamp() * 1000),
            "lsn": number,
        },
        "transaction": None,
        "op": op,
        "ts_ms": int(ago(number).timestamp() * 1000),
    }


def change_with_schema(random: Random, number: int) -> dict[str, Any] | None:
    payload = change(random, number)
    return payload and {"schema": {"type": "struct", "fields": [], "optional": False}, "payload": payload}


def connect(random: Random, number: int) -> dict[str, Any]:
    schema = {"type": "struct", "fields": [{"type": "int64", "optional": False, "field": "id"}]}
    return {"schema": schema, "payload": {"id": number, "at": int(ago(number).timestamp() * 1000)}}


def local(random: Random, number: int) -> dict[str, Any]:
    return {"at": f"{ago(number):%Y-%m-%dT%H:%M:%S}", "id": number}


KINDS |= {
    "epochs": values(900, epoch),
    "Debezium": values(900, change),
    "Debezium with schema": values(900, change_with_schema),
    "Connect": values(900, connect),
    "times without a zone": values(300, local),
    "no time": values(300, lambda random, number: {"id": number}),
}


@pytest.fixture
def folder(tmp_path: Path, warehouse: Connection, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the commands find definitions and write them; they use the test's own warehouse."""
    find = definitions.find
    monkeypatch.setattr(definitions, "find", lambda folder=tmp_path: find(folder))
    for function in (scaffold.free, scaffold.write, topic_stream.write):
        monkeypatch.setattr(function, "__defaults__", (tmp_path,))
    monkeypatch.setenv("MILLRACE_CONN_POSTGRES", os.environ["AIRFLOW_CONN_MILLRACE_POSTGRES"])
    return tmp_path


def run(command: Any, *arguments: str) -> Result:
    done = CliRunner().invoke(command, arguments)
    if isinstance(done.exception, UserError):
        raise done.exception
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    return done


def load(folder: Path) -> Stream:
    found = definitions.find(folder)
    assert not found.broken
    return replace(found.valid[NAME], quiet="2 seconds", window="2 minutes")


def groups() -> set[str]:
    """The consumer groups that the brokers know."""
    brokers = client.admin()
    found = brokers.list_consumer_groups(request_timeout=15).result()
    return {group.group_id for group in found.valid}


def land(stream: Stream, connection: Connection) -> tuple[int, int, int]:
    """Drains the topic; returns how many records landed, became dead letters, and were quarantined."""
    total = [0, 0, 0]
    ends = topics.extents(stream.topic, topics.describe(stream.topic).partitions)
    for _ in range(5):
        drained = drain(stream, "test")
        for at, count in enumerate((drained.landed, drained.dead_letters, drained.quarantined)):
            total[at] += count
        read = rows(connection, "SELECT coalesce(sum(next_offset), 0) FROM millrace.position")[0][0]
        if read == sum(extent.stable_end for extent in ends.values()):
            break
    return total[0], total[1], total[2]


@pytest.mark.parametrize("kind", KINDS)
def test_everything_lands_with_the_definition(
    kind: str, folder: Path, topic: Callable[..., str], warehouse: Connection
) -> None:
    sent, name = KINDS[kind], topic("kind")
    fill(name, sent)
    done = run(new, "stream", NAME, "--from-topic", name)
    assert done.exit_code == 0, done.output
    stream = load(folder)
    count = len([value for _, value in sent if value is not None])
    assert land(stream, warehouse) == (count, 0, 0), (folder / f"{NAME}.py").read_text()
    done = run(check, NAME, "--against-topic")
    # The schema of an envelope is left out.
    left_out = [line for line in done.output.splitlines() if "not in the definition" in line and ": schema" not in line]
    assert (done.exit_code, left_out) == (0, []), done.output


def test_the_values_of_the_rows(folder: Path, topic: Callable[..., str], warehouse: Connection) -> None:
    fill(name := topic("rows"), KINDS["click"])
    run(new, "stream", NAME, "--from-topic", name)
    land(load(folder), warehouse)
    types = rows(
        warehouse,
        "SELECT attname, format_type(atttypid, NULL), attnotnull FROM pg_attribute "
        "WHERE attrelid = 'landing.sampled'::regclass AND attnum > 0 AND attname NOT LIKE 'kafka%%' ORDER BY attnum",
    )
    assert types == [
        ("ts", "timestamp with time zone", True),
        ("user", "uuid", True),
        ("page", "text", True),
        ("status", "text", True),
        ("dwell", "double precision", False),
        ("mobile", "boolean", True),
        ("day", "date", True),
    ]
    landed = rows(warehouse, 'SELECT ts, "user"::text, page, status, dwell, mobile, day::text FROM landing.sampled')
    expected = [json.loads(value or b"") for _, value in KINDS["click"]]
    assert sorted(landed, key=lambda row: row[1]) == sorted(
        ((datetime.fromisoformat(each["ts"]), *list(each.values())[1:]) for each in expected), key=lambda row: row[1]
    )
    text = (folder / f"{NAME}.py").read_text()
    assert 'Literal["closed", "open", "pending"]' in text


@pytest.mark.parametrize(
    ("sent", "code", "named"),
    [
        ([], Code.TOPIC_EMPTY, "no records"),
        ([None] * 5, Code.TOPIC_EMPTY, "tombstones"),
        ([b"hello"] * 5, Code.RECORDS_UNSUPPORTED, "plain text (5)"),
        ([b'"{\\"a\\": 1}"'] * 5, Code.RECORDS_UNSUPPORTED, "JSON inside a JSON string (5)"),
        ([bytes([255, 1, 2, 3])] * 5, Code.RECORDS_UNSUPPORTED, "binary data (5)"),
        ([b"[1, 2]"] * 5, Code.RECORDS_UNSUPPORTED, "array_like=True"),
        ([b"1;2;3"] * 5, Code.RECORDS_UNSUPPORTED, "names of its fields"),
    ],
)
def test_a_topic_that_cannot_land_is_an_error(
    sent: list[bytes | None], code: Code, named: str, folder: Path, topic: Callable[..., str]
) -> None:
    fill(name := topic("not"), [(None, value) for value in sent])
    with raises(code, name, named):
        run(new, "stream", NAME, "--from-topic", name)
    assert not list(folder.iterdir())


def test_a_registry_that_is_not_known_is_an_error(folder: Path, topic: Callable[..., str]) -> None:
    fill(name := topic("framed"), [(None, b"\0\0\0\0\7\x06abc\x02")] * 5)
    with raises(Code.CONNECTION_UNDEFINED, name, "such as schema id 7", "'unknown_registry'", "--registry NAME"):
        run(new, "stream", NAME, "--from-topic", name, "--registry", "unknown_registry")
    assert not list(folder.iterdir())


def test_a_topic_that_does_not_exist_is_an_error(folder: Path, topic: Callable[..., str]) -> None:
    name = topic("none")
    with raises(Code.TOPIC_MISSING, name):
        run(new, "stream", NAME, "--from-topic", name)
    assert name not in topics.names()


# A definition for the topic of clicks that does not fit all of its records.
STRICT = """
from typing import Literal

import msgspec

from include.streams import definition


class Sampled(msgspec.Struct):
    ts: definition.Instant
    page: str
    status: Literal["open", "closed"]
    absent: int | None = None


stream = definition.Stream(name="sampled", topic="{topic}", event=Sampled, event_time="ts")
"""


def test_check_shows_what_would_not_land(folder: Path, topic: Callable[..., str], warehouse: Connection) -> None:
    name = topic("checked")
    odd = [
        (None, b"not JSON"),
        (None, json.dumps({"ts": "2020-01-01T00:00:00Z", "page": "/", "status": "open"}).encode()),
        (None, None),
    ]
    fill(name, [*KINDS["click"][:300], *odd])
    (folder / f"{NAME}.py").write_text(STRICT.replace("{topic}", name))
    done = run(check, NAME, "--against-topic")
    assert done.exit_code == 1
    pending = sum(json.loads(value or b"")["status"] == "pending" for _, value in KINDS["click"][:300])
    lines = done.output.splitlines()
    assert lines[0] == f"{name}: read 303 records of 303 offsets in 3 partitions"
    assert lines[1] == f"  {300 - pending} of 303 records would land"
    assert lines[2] == f"  {pending + 1} would become dead letters:"
    assert lines[3].startswith(f"    {pending} such as ") and "Invalid enum value 'pending'" in lines[3]
    assert "1 such as 0:100: DecodeError" in lines[4]
    assert lines[5] == "  1 would be quarantined:" and "1:100: ts is" in lines[6] and "older" in lines[6]
    assert lines[7] == "  1 are tombstones and would be skipped"
    assert lines[8].startswith("  not in the definition: user (in 300), dwell (in 300)")
    assert lines[9] == "  in the definition, but in no record of the sample: absent"
    assert land(load(folder), warehouse) == (300 - pending, pending + 1, 1), "the drain decides as check says"


def test_check_leaves_no_trace(folder: Path, topic: Callable[..., str], warehouse: Connection) -> None:
    fill(name := topic("traced"), KINDS["nested"])
    run(new, "stream", NAME, "--from-topic", name)
    before = groups()
    run(check, NAME, "--against-topic")
    assert groups() == before
    assert not rows(warehouse, "SELECT 1 FROM millrace.position")
    assert not rows(warehouse, "SELECT 1 WHERE to_regclass('landing.sampled') IS NOT NULL")


def test_a_large_topic_is_sampled_in_every_part(topic: Callable[..., str]) -> None:
    fill(name := topic("large"), values(30_000, lambda random, number: {"n": number}), partitions=2)
    reports: list[int] = []
    found = sample.read(name, 500, progress=reports.append)
    assert (len(found.messages), found.partitions, found.offsets, found.cut) == (500, 2, 30_000, "")
    numbers = [json.loads(message.value() or b"")["n"] for message in found.messages]
    assert {0, 1, 29_998, 29_999} <= set(numbers) and len(set(numbers)) == 500
    assert all(any(low <= number < low + 5_000 for number in numbers) for low in range(0, 30_000, 5_000))


def test_a_consumer_that_fetches_no_more_is_replaced(
    topic: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Silent:
        """A consumer that delivers nothing."""

        def __init__(self, consumer: Any) -> None:
            self._consumer = consumer

        def __getattr__(self, name: str) -> Any:
            return getattr(self._consumer, name)

        def consume(self, *_: object) -> list[Any]:
            return []

    connected = reader.connected
    made: list[Any] = []

    def first_is_silent(**overrides: Any) -> Any:
        made.append(connected(**overrides))
        return Silent(made[0]) if len(made) == 1 else made[-1]

    fill(name := topic("silent"), values(50, lambda random, number: {"n": number}))
    monkeypatch.setattr(reader, "connected", first_is_silent)
    monkeypatch.setattr(sample, "STALLED_S", 0.2)
    found = sample.read(name)
    assert (len(found.messages), found.cut, len(made)) == (50, "", 2)


def test_a_sample_ends_at_its_limits(topic: Callable[..., str]) -> None:
    fill(name := topic("limits"), KINDS["long"])
    found = sample.read(name, 100, max_bytes=1_000_000)
    assert 1 <= len(found.messages) <= 6 and "MiB" in found.cut
    found = sample.read(name, 100, max_s=0)
    assert "too long" in found.cut


def test_a_sample_has_committed_records_only(topic: Callable[..., str]) -> None:
    name = topic("transactions")
    topics.create(name, partitions=1, config={})
    producer = client.producer(transactional_id=name)
    producer.init_transactions()
    for text, is_committed in (("a", True), ("b", False), ("c", True)):
        producer.begin_transaction()
        for _ in range(20):
            producer.produce(name, text)
        producer.flush()
        if is_committed:
            producer.commit_transaction()
        else:
            producer.abort_transaction()
    producer.begin_transaction()
    producer.produce(name, "open")
    producer.flush()
    found = sample.read(name, 1_000)
    producer.abort_transaction()
    assert [message.value() for message in found.messages] == [b"a"] * 20 + [b"c"] * 20
    assert len(sample.read(name, 10).messages) >= 5


def test_a_name_that_is_taken_is_an_error_before_the_topic_is_read(folder: Path) -> None:
    (folder / f"{NAME}.py").write_text("stream = None")
    with raises(Code.DEFINITION_EXISTS, NAME):
        run(new, "stream", NAME, "--from-topic", "no-such-topic")
