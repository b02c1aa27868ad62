"""Random tables of PostgreSQL's types, made from a seed, with a query on each."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np

SETUP = """
    create type mood as enum ('sad', 'ok', 'of "quotes"');
    create domain small as numeric(4, 0);
    create domain word as text check (length(value) < 50);
    create type pair as (a int, b text)
"""
WORDS = [
    "north",
    "south",
    "Köln",
    "",
    " ",
    "it's",
    'say "so"',
    "a,b",
    "{1,2}",
    "NULL",
    "null",
    "\\N",
    "two\nlines",
    "🙂",
]
FIRST, DAYS = datetime(2026, 1, 1), 10

Make = Callable[[np.random.Generator, int], list[Any]]


@dataclass(frozen=True)
class Kind:
    """A type of PostgreSQL.

    Attributes:
        sql: Its name.
        make: Makes the given number of values, as PostgreSQL reads them.
        read: The value of what PostgreSQL writes.
        shown: How the column is written so that ``read`` reads it.
        learned: ``number`` or ``category`` when a model can learn from it.
    """

    sql: str
    make: Make
    read: Callable[[str], Any] = str
    shown: str = "{}::text"
    learned: str | None = None


@dataclass
class Table:
    """A table, and the query on it.

    Attributes:
        columns: The type of each column.
        values: The values of each column; None is null.
        record_id: The column that identifies a record.
        target: The column to predict.
        kind: Whether the target is a class or a number.
        event_time: The column with the time of a record, if there is one.
        features: The columns to learn from; None to decide by the query's types.
        learned: The columns that the version has as features.
        sql: The query.
    """

    name: str
    columns: dict[str, Kind]
    values: dict[str, list[Any]]
    record_id: str
    target: str
    kind: str
    event_time: str | None
    features: list[str] | None = None
    learned: list[str] = field(default_factory=list)
    sql: str = ""


def _decimal(text: str) -> Decimal | None:
    value = Decimal(text)
    return value if value.is_finite() else None


def _numbers(low: int, high: int) -> Make:
    return lambda rng, rows: rng.integers(low, high, rows, endpoint=True).tolist()


def _decimals(digits: int, scale: int, odd: bool = False) -> Make:
    def make(rng: np.random.Generator, rows: int) -> list[str]:
        found = [
            str(Decimal(int("".join(map(str, rng.integers(0, 10, digits))))).scaleb(-scale) * int(rng.choice([-1, 1])))
            for _ in range(rows)
        ]
        return [str(rng.choice(["NaN", "0"])) if odd and rng.random() < 0.05 else text for text in found]

    return make


def _floats(rng: np.random.Generator, rows: int) -> list[str]:
    return [repr(value) for value in (rng.normal(size=rows) * 10.0 ** rng.integers(-5, 6)).tolist()]


def _of(*values: Any) -> Make:
    def make(rng: np.random.Generator, rows: int) -> list[Any]:
        chosen = rng.choice(len(values), min(len(values), 5), replace=False)
        return [values[int(place)] for place in rng.choice(chosen, rows)]

    return make


def _moments(rng: np.random.Generator, rows: int) -> list[datetime]:
    return [FIRST + timedelta(microseconds=int(n)) for n in rng.integers(0, DAYS * 86_400_000_000 - 1_000_000, rows)]


def _days(rng: np.random.Generator, rows: int) -> list[date]:
    return [(FIRST + timedelta(int(n))).date() for n in rng.integers(0, DAYS, rows)]


def _lists(make: Make) -> Make:
    def made(rng: np.random.Generator, rows: int) -> list[list[Any]]:
        return [[None if rng.random() < 0.1 else v for v in make(rng, int(rng.integers(0, 4)))] for _ in range(rows)]

    return made


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("\\x"))


AT_UTC = "({} at time zone 'UTC')::text"
LIST = "to_json({})::text"
# A cast to text adds the length of the network, which PostgreSQL does not write otherwise.
INET = "case when {0} is null then null else format('%s', {0}) end"
NUMBERS = [
    Kind("smallint", _numbers(-(2**15), 2**15 - 1), int, learned="number"),
    Kind("integer", _numbers(-5, 5), int, learned="number"),
    Kind("bigint", _numbers(-(2**63), 2**63 - 1), int, learned="number"),
    Kind("real", _floats, lambda text: float(np.float32(text)), learned="number"),
    Kind("double precision", _floats, float, learned="number"),
    Kind("numeric", _decimals(20, 9, odd=True), _decimal, learned="number"),
    Kind("numeric(10,2)", _decimals(9, 2, odd=True), _decimal, learned="number"),
    Kind("numeric(5,0)", _decimals(5, 0, odd=True), _decimal, learned="number"),
    Kind("numeric(30,10)", _decimals(29, 10), _decimal, learned="number"),
    Kind("numeric(60,5)", _decimals(50, 5), _decimal, learned="number"),
    Kind("numeric(5,-2)", _decimals(6, 0), _decimal, learned="number"),
    Kind(
        "numeric(3,5)",
        lambda rng, rows: [f"0.00{n:03d}" for n in rng.integers(0, 999, rows)],
        _decimal,
        learned="number",
    ),
    Kind("small", _numbers(-999, 9999), Decimal, learned="number"),
    Kind("oid", _numbers(0, 2**32 - 1), int, learned="number"),
]
CATEGORIES = [
    Kind("boolean", _of(True, False), lambda text: text == "true", learned="category"),
    Kind("text", _of(*WORDS), learned="category"),
    Kind("varchar", _of(*WORDS), learned="category"),
    Kind("varchar(10)", _of("a", "bc", " d", "Köln"), learned="category"),
    Kind("char(4)", _of("a", "bc", "Köln"), lambda text: text.ljust(4), learned="category"),
    Kind('"char"', _of("a", "b", "9"), learned="category"),
    Kind("name", _of("a", "b c"), learned="category"),
    Kind("word", _of(*WORDS), learned="category"),
    Kind("mood", _of("sad", "ok", 'of "quotes"'), learned="category"),
    Kind("inet", _of("10.0.0.1", "10.0.0.0/8", "::1"), learned="category", shown=INET),
    Kind("cidr", _of("10.0.0.0/8", "192.168.1.0/24"), learned="category"),
    Kind("macaddr", _of("08:00:2b:01:02:03", "08:00:2b:01:02:04"), learned="category"),
    Kind("bit(3)", _of("101", "000"), learned="category"),
    Kind("uuid", _of(*(str(uuid.UUID(int=n)) for n in range(4))), learned="category"),
]
OTHERS = [
    Kind("date", _days, date.fromisoformat),
    Kind("timestamp", _moments, datetime.fromisoformat),
    Kind("timestamp(0)", _moments, datetime.fromisoformat),
    Kind("timestamptz", _moments, datetime.fromisoformat, AT_UTC),
    Kind("time", _of("10:00:00", "23:59:59.999999", "00:00:00"), time.fromisoformat),
    Kind("interval", _of("1 month 2 days", "-3 hours", "00:00:01.5")),
    Kind("json", _of('{"a": 1}', "[1, null]", '"x"')),
    Kind("jsonb", _of('{"a": {"b": "ß"}}', "null", "1.50")),
    Kind("bytea", _of(b"\x00\xff", b"", b"text"), _bytes),
    Kind("integer[]", _lists(_numbers(-9, 9)), json.loads, LIST),
    Kind("double precision[]", _lists(_floats), json.loads, LIST),
    Kind("text[]", _lists(_of(*WORDS)), json.loads, LIST),
    Kind("boolean[]", _lists(_of(True, False)), json.loads, LIST),
    Kind("mood[]", _lists(_of("sad", "ok", 'of "quotes"')), json.loads, LIST),
    Kind("int4range", _of("[1,3)", "empty")),
    Kind("money", _of("1.50", "-2")),
    Kind("point", _of("(1,2)", "(0.5,-1)")),
    Kind("pair", _of("(1,x)", '(2,"a b")')),
    Kind("timetz", _of("10:00:00+02", "10:00:00+00")),
    Kind("tsvector", _of("'a' 'b'", "'x':1")),
]
IDS: list[tuple[str, Callable[[np.random.Generator, int], list[Any]]]] = [
    ("integer", lambda rng, rows: rng.permutation(rows).tolist()),
    ("bigint", lambda rng, rows: (2**63 - 1 - rng.permutation(rows)).tolist()),
    ("numeric(20,0)", lambda rng, rows: [str(12345678901234567890 + int(n)) for n in rng.permutation(rows)]),
    ("numeric(25,3)", lambda rng, rows: [f"{10**20 + int(n)}.{int(n) % 10}" for n in rng.permutation(rows)]),
    ("numeric", lambda rng, rows: [f"{int(n)}.5" for n in rng.permutation(rows)]),
    ("text", lambda rng, rows: ["0" * (n % 3) + str(n // 3 + 1) for n in range(rows)]),
    ("varchar(12)", lambda rng, rows: [f"A-{n}" for n in rng.permutation(rows)]),
    ("char(9)", lambda rng, rows: [f"A-{n}" for n in rng.permutation(rows)]),
    ("uuid", lambda rng, rows: [str(uuid.UUID(bytes=rng.bytes(16))) for _ in range(rows)]),
    ("word", lambda rng, rows: [f"of {n} 🙂" for n in range(rows)]),
    ("timestamptz", lambda rng, rows: [FIRST + timedelta(seconds=int(n)) for n in rng.permutation(rows)]),
    ("date", lambda rng, rows: [(FIRST - timedelta(int(n))).date() for n in rng.permutation(rows)]),
    ("inet", lambda rng, rows: [f"10.0.{n // 250}.{n % 250}" for n in range(rows)]),
]

_ID_READERS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("integer", "bigint"), int),
    "numeric": Decimal,
    "char": lambda text: text.ljust(9),
    "timestamptz": datetime.fromisoformat,
    "date": date.fromisoformat,
}


def table(seed: int, name: str) -> Table:
    """The table of a seed.

    Args:
        name: What it is called.
    """
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(60, 250))
    signal = rng.normal(size=rows)
    noisy = signal + rng.normal(scale=0.5, size=rows)

    def chance(share: float) -> bool:
        return bool(rng.random() < share)

    def some(values: list[Any]) -> list[Any]:
        share = float(rng.choice([0, 0, 0.02, 0.3, 1], p=[0.3, 0.2, 0.25, 0.2, 0.05]))
        return [None if rng.random() < share else value for value in values]

    sql, ids = IDS[int(rng.integers(len(IDS)))]
    read = {kind.sql: kind for kind in (*NUMBERS, *CATEGORIES, *OTHERS)}
    shown = {"timestamptz": AT_UTC, "inet": INET}.get(sql, "{}::text")
    columns = {"id": Kind(sql, ids, _ID_READERS.get(sql.partition("(")[0], str), shown)}
    values: dict[str, list[Any]] = {"id": ids(rng, rows)}
    columns["signal"], values["signal"] = read["double precision"], [repr(float(value)) for value in signal]
    for place in range(int(rng.integers(1, 9))):
        group = [NUMBERS, CATEGORIES, OTHERS][int(rng.integers(3))]
        kind = group[int(rng.integers(len(group)))]
        column = str(rng.choice([f"c{place}", f"Größe {place}", f'of "{place}"', f"100%{place}"]))
        columns[column], values[column] = kind, some(kind.make(rng, rows))
    kind_of = "classification"
    form = int(rng.integers(8))
    labels = ["integer", "text", "boolean", "mood", "numeric(1,0)", "small", "double precision", "numeric(10,4)"][form]
    target: list[Any]
    if form < 6:
        pair = [(0, 1), ("no", "yes"), (False, True), ("sad", "ok"), (0, 1), (7, 12)][form]
        target = [pair[int(value > 0)] for value in noisy]
    else:
        kind_of, target = "regression", [f"{value:.4f}" for value in noisy]
    readers = {"numeric(1,0)": int, "small": int, "numeric(10,4)": Decimal}
    columns["y"] = read[labels] if labels in read and form != 5 else Kind(labels, _of(), readers[labels])
    values["y"] = [None if chance(0.02) else value for value in target] if chance(0.5) else target
    event_time = None
    if chance(0.4):
        event_time = "at"
        columns["at"] = read[str(rng.choice(["date", "timestamp", "timestamptz"]))]
        values["at"] = columns["at"].make(rng, rows)
    made = Table(name, columns, values, "id", "y", kind_of, event_time)
    _ask(made, rng)
    return made


def _ask(made: Table, rng: np.random.Generator) -> None:
    """Writes the query, and chooses what is learned from."""
    named = [made.record_id, made.target, made.event_time]
    possible = [name for name, kind in made.columns.items() if kind.learned and name not in named]
    wanted = list(made.columns)
    if rng.random() < 0.5:
        made.features = [name for name in possible if name == "signal" or rng.random() < 0.8]
        made.learned = made.features
    else:
        # A time that nothing names would be a feature.
        times = [n for n, k in made.columns.items() if k.sql.startswith(("date", "timestamp")) and n not in named]
        wanted = [name for name in wanted if name not in times]
        made.learned = [name for name in wanted if name in possible]
    rng.shuffle(wanted)
    made.learned = [name for name in wanted if name in made.learned] if made.features is None else made.learned
    shown = ", ".join(quoted(name) for name in wanted)
    made.sql = f"select {shown if rng.random() < 0.7 or made.features is None else '*'} from {made.name}"
    if made.event_time and rng.random() < 0.5:
        made.sql += " where (%(start)s is null or at >= %(start)s) and (%(end)s is null or at < %(end)s)"


def quoted(name: str) -> str:
    """A name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'
