"""A PostgreSQL table with columns of many types, written by a random workload, and its copy in the current state."""

from __future__ import annotations

import json
import threading
from contextlib import closing, suppress
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from random import Random
from typing import Annotated, Any
from uuid import UUID

import msgspec
import psycopg2

from include.streams.change_events import Source
from include.streams.connect_types import (
    ConnectDate,
    ConnectDecimal,
    ConnectTimestamp,
    JsonText,
    MicroTime,
    MicroTimestamp,
    VariableDecimal,
)
from include.streams.definition import Instant, Stream
from tests.faults.toolbox.servers import Database

KEYS = 300
_LETTERS = "aZ09 _-'\"\\/{}[]%$\t\r\n\x01\x1f\x7f\x85äßéñ中文字\u200d\u202e🙂👩‍👧\ufeff\uffff𝄞"

TABLE = """
CREATE TABLE things (
    id bigint PRIMARY KEY, name text NOT NULL, note varchar, amount numeric(14,3), free numeric, price float8 NOT NULL,
    few integer, flag boolean NOT NULL, born date, at time, made timestamp, made_ms timestamp(3),
    seen timestamptz NOT NULL, doc jsonb, plain json, data bytea, uid uuid, tags text[],
    body text NOT NULL, load bytea
);
ALTER TABLE things ALTER body SET STORAGE EXTERNAL, ALTER load SET STORAGE EXTERNAL;
"""


class Thing(msgspec.Struct, kw_only=True):
    """A row of the table."""

    id: int
    name: str
    note: str | None
    amount: Annotated[str, ConnectDecimal(3)] | None
    free: VariableDecimal | None
    price: float
    few: int | None
    flag: bool
    born: ConnectDate | None
    at: MicroTime | None
    made: MicroTimestamp | None
    made_ms: ConnectTimestamp | None
    seen: Instant
    doc: JsonText | None
    plain: JsonText | None
    data: bytes | None
    uid: UUID | None
    tags: list[str | None] | None
    body: str
    load: bytes | None
    lsn: Annotated[int, Source("lsn")]


THINGS = Stream(
    name="things",
    envelope="debezium",
    event=Thing,
    event_time="change_time",
    key="id",
    current=True,
    window="15 seconds",
    quiet="2 seconds",
    kafka_partitions=3,
)

# The timestamps of the source have no time zone; they land as times in UTC. Debezium cuts zeros off the end of numbers
# without a declared scale.
_SAME = "id, name, note, amount::text, free, price, few, flag, born, at, seen, doc, data, uid, body, load"
SOURCE = f"SELECT {_SAME}, made, made_ms, plain::jsonb, to_jsonb(tags) FROM things ORDER BY id"
COPY = f"SELECT {_SAME}, made AT TIME ZONE 'UTC', made_ms AT TIME ZONE 'UTC', plain, tags FROM {{}} ORDER BY id"


class Writer:
    """Writes the table in a thread, from a seed, whatever happens to the server.

    Args:
        rate: The number of transactions per second, at most.
    """

    def __init__(self, source: Database, seed: int, rate: float) -> None:
        self.transactions = 0
        self._source, self._random, self._rate = source, Random(seed), rate
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread, after its transaction."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            with suppress(psycopg2.Error), closing(self._source.superuser()) as connection:
                connection.autocommit = False
                while not self._ended.wait(1 / self._rate):
                    with connection, connection.cursor() as cursor:
                        for _ in range(self._random.choice((1, 1, 1, 2, 8))):
                            self._change(cursor)
                    self.transactions += 1
            self._ended.wait(0.2)

    def _change(self, cursor: Any) -> None:
        key = self._random.randrange(KEYS)
        match self._random.randrange(10):
            case 0 | 1 | 2:
                self._insert(cursor, key)
            case 3 | 4 | 5:
                names = self._random.sample(sorted(set(_VALUES) - {"body", "load"}), 3)
                assigned = ", ".join(f"{name} = %s" for name in names)
                values = [_VALUES[name](self._random) for name in names]
                # The large texts do not change, so Debezium does not get them.
                cursor.execute(f"UPDATE things SET {assigned}, seen = clock_timestamp() WHERE id = %s", (*values, key))
            case 6:
                body, load = (_VALUES[name](self._random) for name in ("body", "load"))
                cursor.execute(
                    "UPDATE things SET body = %s, load = %s, seen = clock_timestamp() WHERE id = %s", (body, load, key)
                )
            case 7:
                cursor.execute("DELETE FROM things WHERE id = %s", (key,))
            case 8:
                # Debezium makes a delete and an insert of it. It does not get large values that do not change.
                other = self._random.randrange(KEYS)
                body, load = (_VALUES[name](self._random) for name in ("body", "load"))
                cursor.execute(
                    "UPDATE things SET id = %s, body = %s, load = %s, seen = clock_timestamp() WHERE id = %s "
                    "AND NOT EXISTS (SELECT FROM things WHERE id = %s)",
                    (other, body, load, key, other),
                )
            case 9:
                cursor.execute("DELETE FROM things WHERE id = %s", (key,))
                self._insert(cursor, key)

    def _insert(self, cursor: Any, key: int) -> None:
        names = list(_VALUES)
        cursor.execute(
            f"INSERT INTO things (id, seen, {', '.join(names)}) VALUES (%s, clock_timestamp(), "
            f"{', '.join(['%s'] * len(names))}) ON CONFLICT DO NOTHING",
            (key, *(_VALUES[name](self._random) for name in names)),
        )


def _text(random: Random, most: int = 12) -> str:
    return "".join(random.choices(_LETTERS, k=random.randrange(most)))


def _large(random: Random) -> str:
    return random.choice(("", "short", _text(random, 40) * 300))


def _document(random: Random) -> str:
    value = {_text(random).replace("\0", ""): [random.random(), None, True, {"a": _text(random)}], "n": 10**30}
    return json.dumps(random.choice((value, [], "text", 1.50, None)))


def _or_none(value: Any, random: Random) -> Any:
    return None if random.random() < 0.2 else value


def _moment(random: Random) -> datetime:
    return datetime(1960, 1, 1) + timedelta(seconds=random.randrange(4 * 10**9), microseconds=random.randrange(10**6))


_VALUES: dict[str, Any] = {
    "name": _text,
    "note": lambda random: _or_none(_text(random), random),
    "amount": lambda random: _or_none(Decimal(random.randrange(-(10**12), 10**12)) / 1000, random),
    "free": lambda random: _or_none(
        Decimal((random.randrange(2), tuple(random.choices(range(10), k=30)), -random.randrange(25))), random
    ),
    "price": lambda random: random.choice((0.0, -0.0, 1e300, 5e-324, random.random())),
    "few": lambda random: _or_none(random.randrange(-(2**31), 2**31), random),
    "flag": lambda random: random.random() < 0.5,
    "born": lambda random: _or_none(date(1, 1, 1) + timedelta(days=random.randrange(3_000_000)), random),
    "at": lambda random: _or_none(time(random.randrange(24), 59, 59, random.randrange(10**6)), random),
    "made": lambda random: _or_none(_moment(random), random),
    "made_ms": lambda random: _or_none(_moment(random), random),
    "doc": lambda random: _or_none(_document(random), random),
    "plain": lambda random: _or_none(_document(random), random),
    "data": lambda random: _or_none(random.randbytes(random.randrange(20)), random),
    "uid": lambda random: _or_none(str(UUID(int=random.getrandbits(128))), random),
    "tags": lambda random: _or_none([_text(random), None], random),
    "body": _large,
    "load": lambda random: _or_none(random.randbytes(random.choice((0, 10, 6_000))), random),
}
