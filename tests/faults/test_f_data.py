"""F: the contents of records. Each lands unchanged, or is kept with its bytes and a reason; none stops the others."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from include.landing import recovery
from include.landing.choice import Choice
from include.streams.definition import Instant
from tests.faults.toolbox import tampering
from tests.faults.toolbox.events import ANYTHING, Expected
from tests.faults.toolbox.stage import Stage

TABLE_ROWS = 30


def now() -> datetime:
    return datetime.now(UTC)


def record(**fields: Any) -> bytes:
    return json.dumps({"id": 1, "ts": now().isoformat(), **fields}).encode()


def raw(field: str, text: str) -> bytes:
    """A record with a field given as JSON text."""
    return record(**{field: "@"}).replace(b'"@"', text.encode())


@pytest.fixture
def anything(staged: Callable[..., Stage]) -> Stage:
    """A stream with a column of every type, one partition."""
    return staged(ANYTHING)


def send_among_good_ones(stage: Stage, *values: bytes | None, expect: Expected = "landed", **options: Any) -> None:
    """Sends each value with good records before and after it."""
    for value in values:
        stage.topic.events(TABLE_ROWS, name=None)
        stage.topic.send([value], expect=expect, **options)
    stage.topic.events(TABLE_ROWS)


POISON = {
    "not_json": b"{broken",
    "empty": b"",
    "blanks": b"   ",
    "half_of_a_record": record()[:20],
    "two_records": record() + record(),
    "a_list": b"[1, 2]",
    "null": b"null",
    "a_number": b"7",
    "a_wrong_type": record(whole="seven"),
    "a_missing_field": b'{"ts": "2026-01-01T00:00:00Z"}',
    "a_null_field": record(id=None),
    "avro": b"\x00\x00\x00\x00\x07\x0cmeter 1",
    "a_byte_order_mark": b"\xef\xbb\xbf" + record(),
    "utf_16": record().decode().encode("utf-16"),
    "nested_deeply": b'{"id": 1, "ts": "2026-01-01T00:00:00Z", "extra": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


def test_f49_poison(anything: Stage) -> None:
    send_among_good_ones(anything, *POISON.values(), expect="dead letter")
    dispositions = anything.finish().dispositions
    assert dispositions == {"landed": TABLE_ROWS * (len(POISON) + 1), "dead letter": len(POISON)}


def test_f49_a_dropped_dead_letter_is_noticed(anything: Stage) -> None:
    send_among_good_ones(anything, b"{broken", expect="dead letter")
    anything.drain(tamper=tampering.dead_letters_are_dropped).wait()
    with pytest.raises(AssertionError, match="expected disposition"):
        anything.finish()


def test_f51_null_keys(anything: Stage) -> None:
    """A key is optional. A dead letter keeps no key, an empty key and a key that is not text apart."""
    for key in (None, b"", b"\x00\xff\xfe"):
        anything.topic.send([record()], key=key)
        anything.topic.send([b"{broken"], expect="dead letter", key=key)
    assert anything.finish().dispositions == {"landed": 3, "dead letter": 3}


def test_f52_tombstones(anything: Stage) -> None:
    send_among_good_ones(anything, None, None, None)
    anything.topic.send([None] * 200)
    assert anything.finish().dispositions == {"landed": 4 * TABLE_ROWS, "skipped": 203}


def test_f53_texts(anything: Stage) -> None:
    """Characters that COPY's text format has to escape, and those that PostgreSQL's texts cannot hold."""
    good = [
        "",
        "\t",
        "\n",
        "\r\n",
        "\\",
        "\\N",
        "\\.",
        "\\x41",
        "'",
        '"',
        ",",
        "\b\f\v",
        "\x01\x7f",
        "é",
        "ß 漢 🚌",
        "\u2028",
        "\ufeff",
    ]
    anything.topic.send([record(text=text, tags=[text], extra={text: text}) for text in good])
    anything.topic.send([record(text=None), record(text="null"), record(text="NULL")])
    bad = [
        record(text="a\0b"),
        record(tags=["a\0b"]),
        record(extra={"a\0b": 1}),
        raw("text", '"\\ud800"'),
        record(text="@").replace(b"@", b"\xff\xfe"),
        record(text="@").replace(b"@", b"\xc0\x80"),
        record(text="@").replace(b"@", b"\xed\xa0\x80"),
    ]
    send_among_good_ones(anything, *bad, expect="dead letter")
    dispositions = anything.finish().dispositions
    assert dispositions == {"landed": len(good) + 3 + TABLE_ROWS * (len(bad) + 1), "dead letter": len(bad)}


def test_f54_numbers(anything: Stage) -> None:
    """The ends of every type's range, digits that a double would lose, and values that are not numbers."""
    good = [
        *(raw("whole", text) for text in ("0", "-0", str(2**63 - 1), str(-(2**63)))),
        *(
            raw("real", text)
            for text in ("0.1", "-0.0", "1e308", "5e-324", "1", "1.7976931348623157e308", "123456789012345678")
        ),
        *(
            raw("exact", text)
            for text in ('"0.1"', '"-0.000"', '"123456789012345678901234567890.123456789"', "0.1", '"1E+30"')
        ),
        raw("exact", '"' + "9" * 2000 + '"'),
        raw("exact", '"NaN"'),
        record(flag=True, day="2024-02-29", uid="00000000-0000-0000-0000-000000000000", raw="AP8="),
        record(day="0001-01-01", raw=""),
        record(day="9999-12-31", extra=[1, {"a": None}, "b"], tags=[]),
    ]
    anything.topic.send(good)
    bad = [
        *(raw("whole", text) for text in (str(2**63), str(-(2**63) - 1), "1.5", "1e30", '"1"')),
        *(raw("real", text) for text in ("NaN", "Infinity", "1e400", '"1"')),
        *(raw("exact", text) for text in ('"one"', '"1E+200000"', '"1E-20000"')),
        *(raw("day", text) for text in ('"2023-02-29"', '"10000-01-01"', "20240101")),
        raw("uid", '"no"'),
        raw("raw", '"*"'),
        raw("flag", "1"),
    ]
    send_among_good_ones(anything, *bad, expect="dead letter")
    dispositions = anything.finish().dispositions
    assert dispositions == {"landed": len(good) + TABLE_ROWS * (len(bad) + 1), "dead letter": len(bad)}


def test_f55_records_larger_than_a_fetch(anything: Stage) -> None:
    """Larger than a consumer's fetch from one partition."""
    anything.kafka_settings = {"max.partition.fetch.bytes": 100_000}
    send_among_good_ones(anything, *(record(text="x" * size) for size in (99_000, 400_000, 1_900_000)))
    send_among_good_ones(anything, b"{" + b"x" * 1_500_000, expect="dead letter")
    drain = anything.drain()
    assert drain.wait().kind == "drained"
    assert anything.prove().dispositions == {"landed": 3 + 6 * TABLE_ROWS, "dead letter": 1}


def test_f56_more_values_than_parameters_in_a_statement(anything: Stage) -> None:
    """One batch has 12,000 rows of twelve values; a statement can have 65,535 parameters."""
    anything.topic.events(12_000)
    drain = anything.drain()
    assert drain.wait().kind == "drained"
    assert anything.prove().dispositions == {"landed": 12_000}


def test_f57_f58_events_that_repeat(stage: Stage) -> None:
    """The same key, id and bytes, in one batch and in other partitions: each record is one row."""
    same = record(name="same", amount=1.5)
    for partition in range(3):
        stage.topic.send([same] * 50, partition=partition, key=b"same")
    assert stage.finish().dispositions == {"landed": 150}


class Wider(msgspec.Struct):
    """Readings with two more fields, in another order."""

    unit: str | None = None
    amount: float | None = None
    name: str | None = None
    tags: list[str] | None = None
    id: int = 0
    ts: Instant = datetime(2000, 1, 1, tzinfo=UTC)


class Narrower(msgspec.Struct):
    """Readings without their amount and name."""

    id: int
    ts: Instant


class Retyped(msgspec.Struct):
    """Readings whose id is a text."""

    id: str
    ts: Instant
    name: str | None


def test_f59_a_new_column(stage: Stage) -> None:
    """First the records have it, then the definition, while the drain of the old definition still runs."""
    stage.topic.events(300)
    old = stage.drain(replace(stage.stream, quiet="15 seconds"))
    stage.until_landed(300)
    stage.topic.events(300, unit="kWh")
    stage.until_landed(600)
    stage.stream = replace(stage.stream, event=Wider)
    new = stage.drain(postgres=stage.relay())
    stage.until_claimed(2)
    stage.topic.events(300, unit="kWh", tags=["a"])
    assert new.wait().kind == "drained"
    assert old.wait().kind == "fenced"
    assert stage.query(f"SELECT unit, count(*) FROM landing.{stage.stream.name} GROUP BY 1 ORDER BY 1") == [
        ("kWh", 300),
        (None, 600),
    ]
    assert not stage.audit_of(stage.snapshot(), columns=("id", "ts", "name", "amount")).wrong


def test_f60_a_type_changes(stage: Stage) -> None:
    """A change in the definition is refused; in the records, the values are dead letters."""
    stage.topic.events(300)
    stage.land()
    stage.topic.send([stage.topic.value(id="seven") for _ in range(20)], expect="dead letter")
    outcome = stage.drain(replace(stage.stream, event=Retyped)).wait()
    assert outcome.kind == "failed", outcome
    assert "event.id" in outcome.message
    assert stage.landed() == 300
    assert stage.finish().dispositions == {"landed": 300, "dead letter": 20}


def test_f61_a_column_is_dropped(stage: Stage) -> None:
    """The definition drops it: the column stays with the values of old rows, and is null in new ones."""
    stage.topic.events(300)
    stage.land()
    stage.stream = replace(stage.stream, event=Narrower)
    stage.topic.events(300)
    stage.land()
    table = f"landing.{stage.stream.name}"
    assert stage.query(f"SELECT count(*), count(name), count(amount) FROM {table}") == [(600, 300, 300)]
    stage.prove()


def test_f62_fields_in_another_order(stage: Stage) -> None:
    value = {"name": None, "unknown": {"a": [1]}, "amount": 2, "ts": now().isoformat(), "id": 5}
    for fields in (list(value.items()), list(value.items())[::-1]):
        stage.topic.send([json.dumps(dict(fields)).encode()] * 10)
    assert stage.finish().dispositions == {"landed": 20}


def test_f63_timestamps(anything: Stage) -> None:
    """Times with an offset land as their moment. Numbers and local times are ambiguous, so they do not land."""
    moment = now().replace(microsecond=123456)
    good = [
        moment.isoformat(),
        moment.isoformat().replace("+00:00", "Z"),
        moment.astimezone(tz(5.5)).isoformat(),
        moment.astimezone(tz(-9.5)).isoformat(),
        moment.replace(microsecond=0).isoformat(),
        moment.isoformat().replace("T", "t").replace("+00:00", "z"),
        # The same hour before and after a clock was set back; the offsets differ.
        moment.astimezone(tz(2)).isoformat(),
        moment.astimezone(tz(1)).isoformat(),
    ]
    anything.topic.send([record(ts=text) for text in good])
    bad = [
        *(raw("ts", str(number)) for number in (1_700_000_000, 1_700_000_000_000, 1_700_000_000_000_000, 1.5, "null")),
        *(
            record(ts=text)
            for text in ("", "now", "yesterday", moment.replace(tzinfo=None).isoformat(), "2026-02-30T00:00:00Z")
        ),
        *(
            record(ts=text)
            for text in ("2016-12-31T23:59:60Z", "10000-01-01T00:00:00Z", "2026-01-01", "2026-01-01T25:00:00Z")
        ),
        b'{"id": 1}',
    ]
    send_among_good_ones(anything, *bad, expect="dead letter")
    outside = ["1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2262-04-12T00:00:00Z"]
    send_among_good_ones(anything, *(record(ts=text) for text in outside), expect="quarantined")
    dispositions = anything.finish().dispositions
    assert dispositions == {
        "landed": len(good) + TABLE_ROWS * (len(bad) + len(outside) + 2),
        "dead letter": len(bad),
        "quarantined": len(outside),
    }


@pytest.mark.parametrize("where", ["first", "last", "middle", "many"])
def test_f65_bad_rows_in_a_batch(anything: Stage, where: str) -> None:
    good = [anything.topic.value() for _ in range(2_000)]
    bad = {"first": {0}, "last": {1_999}, "middle": {1_000}, "many": set(range(0, 2_000, 3))}[where]
    for start in range(0, 2_000):
        anything.topic.send_later(
            b"{broken" if start in bad else good[start], "dead letter" if start in bad else "landed"
        )
    anything.topic.flush()
    assert anything.finish().dispositions == {"landed": 2_000 - len(bad), "dead letter": len(bad)}


@pytest.mark.parametrize("where", ["first", "last", "middle", "many"])
def test_f65_rows_that_postgresql_refuses(stage: Stage, where: str) -> None:
    """A user's constraint: rows that violate it are dead letters with the SQLSTATE, and the others land."""
    stage.topic.events(30)
    stage.land()
    stage.query(f"ALTER TABLE landing.{stage.stream.name} ADD CHECK (amount < 100)")
    bad = {"first": {0}, "last": {999}, "middle": {500}, "many": set(range(0, 1_000, 50))}[where]
    for number in range(1_000):
        refused = number in bad
        stage.topic.send_later(
            stage.topic.value(amount=500 if refused else 5), "dead letter" if refused else "landed", 0
        )
    stage.topic.flush()
    findings = stage.finish()
    assert findings.dispositions == {"landed": 1_030 - len(bad), "dead letter": len(bad)}
    assert stage.query("SELECT DISTINCT sqlstate FROM millrace.dead_letter") == [("23514",)]


def test_f64_only_bad_records(stage: Stage) -> None:
    """The producer or the definition is wrong: the task stops, and the position does not move."""
    stage.topic.events(300)
    stage.land()
    before = stage.positions()
    for partition in range(3):
        stage.topic.send([stage.topic.value(id="seven") for _ in range(3_000)], partition, expect="dead letter")
    outcome = stage.drain().wait()
    assert outcome.kind == "stop", outcome
    assert stage.positions() == before
    assert stage.query("SELECT count(*) FROM millrace.dead_letter") == [(0,)]
    assert not stage.audit().wrong
    with stage.connected() as connection:
        recovery.accept(connection, stage.stream, Choice.BAD, "a test")
    assert stage.finish().dispositions == {"landed": 300, "dead letter": 9_000}


def tz(hours: float) -> timezone:
    return timezone(timedelta(hours=hours))
