"""Stream definitions with events from a seed, with the types, names, settings and values that producers can send."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from random import Random
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec

from include.streams.definition import (
    RECORD_TIMESTAMP,
    EpochMicros,
    EpochMillis,
    EpochNanos,
    EpochSeconds,
    Instant,
    Stream,
    Zone,
)
from include.streams.field import TIMESTAMP, fields_of

KEYS = ("text", "bigint", "uuid", "boolean", "date", TIMESTAMP)


class Dice(Random):
    """A generator. While it is tidy, it generates values that can be decoded."""

    tidy = True


Make = Callable[[Dice], str]
"""Generates the JSON text of a value."""

WORDS = ("", "x", "null", "é😀", "\\N", 'a "quoted" text', "tab\tand\nline", "0", "long " * 500, "\x7f\x01", "\u2028")
NAMES = (
    *(
        "value",
        "select",
        "user",
        "table",
        "order",
        "class",
        "from",
        "None",
        "event",
        "events",
        "self",
        "when",
        "offset",
    ),
    *(
        "tableoid",
        "ctid",
        "xmin",
        "oid",
        "kafka_offset",
        "Kafka",
        "UPPER",
        "größe",
        "名前",
        "_x",
        "x" * 63,
        "x" * 64,
    ),
    *(
        "é" * 31,
        "é" * 32,
        "stream",
        "ts2",
        "text",
        "jsonb",
        "primary",
        "array",
        "all",
        "user_id",
        "screened",
        "referenced",
    ),
)
NAMED = ("a" * 49, "x_20260101", "x_20260101_0600", "x_pkey", "Upper", "9x", "", "ä", "a b", None, 5)
ODD_TEXT = ('"\\u0000"', '"\\ud800"', '"\\udc00\\ud800"', '"a\\u0000b"', '"\\\\u0000"', '"' + "x" * 100_000 + '"')
NUMBERS = (
    *("0", "-0", "1", "-1", "1.5", "-0.0", "1e5", "1E-5", str(2**53 + 1), str(2**63 - 1), str(-(2**63)), str(2**63)),
    *(
        "1e308",
        "5e-324",
        "1e400",
        "1e-400",
        "1e4299",
        "1e4301",
        "9" * 400,
        "9" * 4_301,
        "0.1000",
        "123456789.123456789012345",
    ),
)
ANYTHING = ("null", "true", "[]", "{}", '{"a": {"b": [1, null]}}', "[[[]]]", '""', '{"": 0, "é": "\\u2028"}')


def text(random: Dice) -> str:
    if not random.tidy and random.random() < 0.3:
        return random.choice(ODD_TEXT)
    return json.dumps(random.choice(WORDS), ensure_ascii=random.random() < 0.5)


def number(random: Dice) -> str:
    return str(random.randint(-1000, 1000)) if random.tidy else random.choice(NUMBERS)


def real(random: Dice) -> str:
    return repr(random.uniform(-1e6, 1e6)) if random.tidy else random.choice(NUMBERS)


def anything(random: Dice) -> str:
    return random.choice((text, number, real, lambda _: random.choice(ANYTHING), deep))(random)


def deep(random: Dice) -> str:
    levels = random.choice((3, 400) if random.tidy else (498, 499, 500, 994, 2_000))
    return "[" * levels + "]" * levels if random.random() < 0.5 else '{"a":' * levels + "1" + "}" * levels


def moment(random: Dice) -> str:
    """A time, mostly a recent one, in one of its notations."""
    if not random.tidy and random.random() < 0.3:
        ends = (
            "0001-01-01T00:00:00Z",
            "0001-01-01T00:00:00+05:30",
            "9999-12-31T23:59:59-05:00",
            "9999-12-31T23:59:59Z",
        )
        return json.dumps(random.choice((*ends, "infinity", "", "1970-01-01T00:00:00Z", "2026-02-30T00:00:00Z", "now")))
    at = datetime.now(UTC) - timedelta(seconds=random.uniform(-60, 100_000))
    ways = (
        at.isoformat(),
        at.isoformat(),
        f"{at:%Y-%m-%dT%H:%MZ}",
        f"{at:%Y-%m-%dT%H:%M:%S}+00",
        f"{at:%Y%m%dT%H%M%SZ}",
        f"{at:%Y-%m-%d %H:%M:%S,%f}+0000",
        f"{at:%Y-%m-%dT%H:%M:%S}",
        str(at.timestamp()),
    )
    return json.dumps(random.choice(ways[:6] if random.tidy else ways))


def counted(per_second: int) -> Make:
    """A number since 1970, mostly a recent time."""

    def make(random: Dice) -> str:
        if not random.tidy and random.random() < 0.4:
            return random.choice(
                (*NUMBERS, '"soon"', '""', '"NaN"', '"1e3"', '"-5"', "true", "null", '"' + "9" * 50 + '"')
            )
        at = (datetime.now(UTC).timestamp() - random.uniform(-60, 100_000)) * per_second
        return random.choice((str(int(at)), str(int(at)), f'"{int(at)}"', repr(at), f'"{at}"'))

    return make


def local(random: Dice) -> str:
    """A time without a zone, mostly a recent one."""
    if not random.tidy and random.random() < 0.5:
        return random.choice(
            (moment(random), '"2026-03-29T02:30:00"', '"2026-10-25T02:30"', '"0001-01-01T00:00:00"', "1")
        )
    at = datetime.now(UTC) - timedelta(seconds=random.uniform(0, 100_000))
    return json.dumps(random.choice((f"{at:%Y-%m-%dT%H:%M:%S.%f}", f"{at:%Y-%m-%d %H:%M}", f"{at:%Y%m%dT%H%M%S}")))


def listed(make: Make) -> Make:
    return lambda random: f"[{', '.join(make(random) for _ in range(random.randint(0, 4)))}]"


def keyed(make: Make, key: Make = text) -> Make:
    return lambda random: f"{{{', '.join(f'{key(random)}: {make(random)}' for _ in range(random.randint(0, 3)))}}}"


def of(*texts: str) -> Make:
    """One of some texts; only the first is tidy."""
    return lambda random: texts[0] if random.tidy else random.choice(texts)


class Color(Enum):
    RED = "red"
    BLUE = "blu\0e"


class Level(IntEnum):
    LOW = 1
    HIGH = 2**62


class Place(msgspec.Struct):
    lat: float
    at: Instant | None = None
    inner: Place | None = None


class Circle(msgspec.Struct, tag="circle"):
    r: float


class Square(msgspec.Struct, tag="square"):
    side: int
    at: Instant


class Pair(msgspec.Struct, tag="pair", array_like=True):
    number: int
    at: Instant | None


class Foreign:
    """A class that JSON cannot be decoded to."""


def shape(random: Dice) -> str:
    square = f'{{"type": "square", "side": {number(random)}, "at": {moment(random)}}}'
    return random.choice(('{"type": "circle", "r": 1}', square, "null" if random.tidy else '{"type": "other"}'))


def place(random: Dice) -> str:
    inner = place(random) if random.random() < 0.4 else "null"
    return f'{{"lat": {real(random)}, "at": {moment(random)}, "inner": {inner}}}'


TYPES: list[tuple[Any, Make]] = [
    (str, text),
    (int, number),
    (float, real),
    (bool, of("true", "false", "1")),
    (Instant, moment),
    (date, of('"2026-01-15"', '"0001-01-01"', '"9999-12-31"', '"20260115"')),
    (time, of('"10:00:00"', '"10:00"', '"10:00Z"', '"25:00"')),
    (timedelta, of('"PT1S"', '"P1D"', '"-P999999999D"', "1.5", '"P1Y"')),
    (bytes, of('"AP8="', '""', '"*"')),
    (bytearray, of('"AP8="', '""')),
    (UUID, of('"00000000-0000-0000-0000-000000000000"', '"x"')),
    (
        Decimal,
        lambda random: random.choice((real(random), '"NaN"', '"sNaN"', '"Infinity"', '"1E+200000"', '"1E-16383"')),
    ),
    (Color, of('"red"', '"blu\\u0000e"', '"green"')),
    (Level, of("1", str(2**62), "2")),
    (Literal["left", "right", None], of('"left"', "null", '"up"')),
    (Literal[1, "a"], of("1", '"a"', "2")),
    (int | float, number),
    (int | str | None, lambda random: random.choice((number, text))(random)),
    (Any, anything),
    (object, anything),
    (msgspec.Raw, anything),
    (list[msgspec.Raw], listed(anything)),
    (list[Instant], listed(moment)),
    (dict[str, Instant | None], keyed(moment)),
    (dict[Instant, int], keyed(number, moment)),
    (tuple[int, Instant], lambda random: f"[{number(random)}, {moment(random)}]"),
    (set[str], listed(text)),
    (frozenset[int] | None, listed(number)),
    (dict[int, Decimal], keyed(real, of('"1"', '"-5"'))),
    (Place, place),
    (Circle | Square | None, shape),
    (Pair | None, lambda random: f'["pair", {number(random)}, {moment(random)}]'),
    (Annotated[int, msgspec.Meta(ge=-900, description="A \0 number")], number),
    (Annotated[str, msgspec.Meta(max_length=3)] | None, of('"abc"', '"abcd"', "null")),
    (None, of("null", "1")),
    (memoryview, of('"AP8="')),
    (EpochSeconds, counted(1)),
    (EpochMillis, counted(1_000)),
    (EpochMicros | None, counted(1_000_000)),
    (EpochNanos, counted(1_000_000_000)),
    (list[EpochMillis], listed(counted(1_000))),
    (Annotated[datetime, Zone("Europe/Berlin")], local),
    # These cannot be decoded from JSON, or cannot be a column.
    (Foreign, of("1")),
    (complex, of("1")),
    (list[Foreign], of("[]")),
    (msgspec.UnsetType, of("1")),
    (msgspec.Raw | None, of("1")),
    (datetime, moment),
    (msgspec.msgpack.Ext, of("1")),
    ("Missing", of("1")),
    (int | Level, of("1")),
]
VALID_TYPES = 42
TIMES: list[tuple[Any, Make]] = [
    (EpochSeconds, counted(1)),
    (EpochMillis, counted(1_000)),
    (EpochNanos, counted(1_000_000_000)),
    (Annotated[datetime, Zone("Europe/Berlin")], local),
]


def raising(event: Any) -> None:
    """A definition's own code, which depends on the event alone."""
    chosen = event.ts.second % 8 if isinstance(event.ts, datetime) else len(str(event.ts)) % 8
    if chosen == 0:
        raise KeyError("a definition's own")
    if chosen == 1:
        raise StopIteration
    if chosen == 2:
        event.ts = None


@dataclass
class Case:
    """A definition, which may be refused, and the records of its topic.

    Attributes:
        settings: The arguments of the stream.
        records: Values and timestamps in milliseconds; 0 for the broker's time.
    """

    settings: dict[str, Any]
    records: list[tuple[bytes | None, int]] = field(default_factory=list)

    def stream(self) -> Stream:
        """Raises InvalidDefinition, and no other error, if the definition is refused."""
        return Stream(**self.settings)


def case(seed: int, name: str, topic: str) -> Case:
    """A definition with events.

    Args:
        name, topic: Those of the stream, unless the seed chooses odd ones.
    """
    random = Dice(seed)
    event = _event(random)
    settings: dict[str, Any] = {"name": name, "topic": topic, "event": event.struct, "event_time": "ts"}
    settings |= {"quiet": "1 second", "kafka_partitions": random.randint(1, 3)}
    spans = {
        "partition": (
            *("1 day", "1 hour", "6 hours", "7 days", "36500 days", "5 hours", "1000000 days"),
            *("1 month", "3 months", "1 year", "100 years", "5 months"),
        ),
        "keep": ("90 days", "50000 days", "500000 days", "1 day", "1000000 days", "99999999999 days", "forever", "any"),
        "late": ("7 days", "1 hour", "365000 days", "999999999 days", "0 days", "soon"),
        "early": ("1 hour", "365000 days", "1 second", "999999999 days", ""),
    }
    for setting, values in spans.items():
        if random.random() < 0.1:
            settings[setting] = random.choice(values)
    if random.random() < 0.05:
        settings |= {"late": "any", "keep": "forever"}
    if random.random() < 0.1:
        settings["event_time"] = RECORD_TIMESTAMP
    odd: dict[str, Any] = {
        "name": NAMED,
        "topic": ("^foo.*", "a b", "x" * 250, "..", 5),
        "drains": (0, 1.5, True, "1", 10**6),
        "kafka_partitions": (-1, 2.0, None, 10**9),
        "key": ("ts", "nothing", 5, []),
        "event_time": ("nothing", 5, "f0"),
        "event": (None, dict, msgspec.Struct, int),
        "simulate": (5, list),
        "window": ("1000000 days", "0 seconds", 5),
    }
    settings |= _current(Random(seed), event.struct)
    if random.random() < 0.15:
        setting = random.choice(sorted(odd))
        settings[setting] = random.choice(odd[setting])
    return Case(settings, [_record(random, event) for _ in range(random.randint(1, 25))])


def _current(random: Random, event: type[msgspec.Struct]) -> dict[str, Any]:
    """The settings of a current state, for some streams."""
    if random.random() < 0.6:
        return {}
    try:
        fields = fields_of(event)
    except Exception:  # the definition is refused
        return {}
    possible = [field.name for field in fields if not field.nullable and field.sql in KEYS]
    if not possible:
        return {}
    settings: dict[str, Any] = {"current": True, "key": tuple(random.sample(possible, min(len(possible), 2)))}
    if random.random() < 0.3 and "ts" in possible:
        settings["order_by"] = "ts"
    flags = [field.name for field in fields if field.sql == "boolean"]
    if flags and random.random() < 0.5:
        settings["deletes"] = random.choice(flags)
    return settings


@dataclass
class _Event:
    struct: type[msgspec.Struct]
    generators: dict[str, Make]
    is_list: bool


def _event(random: Dice) -> _Event:
    count = random.choice((1, 2, 3, 5, 8)) if random.random() > 0.01 else random.choice((300, 1_020, 1_700))
    declared, make = (Instant, moment) if random.random() > 0.2 else random.choice(TIMES)
    fields: list[tuple[Any, ...]] = [("ts", declared)]
    makes: dict[str, Make] = {"ts": make}
    for index in range(count):
        is_odd = random.random() < 0.02
        declared, make = random.choice(TYPES[VALID_TYPES:] if is_odd else TYPES[:VALID_TYPES])
        name = random.choice(NAMES) if random.random() < 0.1 and count < 100 else f"f{index}"
        if name in makes:
            continue
        makes[name] = make
        default = random.choice(([], [], [None], [msgspec.UNSET], [msgspec.NODEFAULT]))
        if default == [msgspec.UNSET] and isinstance(declared, type):
            declared = declared | msgspec.UnsetType
        fields.append((name, declared, *(each for each in default if each is not msgspec.NODEFAULT)))
    options: dict[str, Any] = {"kw_only": True}
    for option in ("array_like", "forbid_unknown_fields", "omit_defaults"):
        options[option] = random.random() < 0.05
    if random.random() < 0.1:
        options["tag"] = True
    namespace: dict[str, Any] = {"__doc__": random.choice((None, "", " ", "A \0 line\nand another", "Text", "\n\n"))}
    if random.random() < 0.1:
        namespace["__post_init__"] = raising
    struct = msgspec.defstruct("Event", fields, namespace=namespace, **options)
    return _Event(struct, makes, options["array_like"])


def _record(random: Dice, event: _Event) -> tuple[bytes | None, int]:
    stamps = (1, -1, 10**15 * 2, 2 * 10**18, 2**63 - 1, 253_402_300_799_999)
    stamp = random.choice(stamps) if random.random() < 0.03 else 0
    if random.random() < 0.03:
        return random.choice(
            (None, b"", b"{", b"null", b"[" * 5_000, b"\xff\xfe", b'{"ts": 1e999}', b'{"ts":"x"}')
        ), stamp
    random.tidy = random.random() < 0.7
    values = {name: make(random) for name, make in event.generators.items() if random.tidy or random.random() > 0.02}
    if random.random() < 0.05:
        values["unknown"] = anything(random)
    if event.is_list:
        return f"[{', '.join(values.values())}]".encode("utf-8", "surrogatepass"), stamp
    tag = ['"type": "Event"'] if event.struct.__struct_config__.tag else []
    members = [*tag, *(f"{json.dumps(name)}: {value}" for name, value in values.items())]
    return f"{{{', '.join(members)}}}".encode("utf-8", "surrogatepass"), stamp
