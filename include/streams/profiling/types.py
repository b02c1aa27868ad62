"""The type of a field, from the values that a sample has for it.

A type is stated only if every value of the sample has it. Otherwise the field takes any JSON value.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, NamedTuple

from include.streams.profiling import times
from include.streams.profiling.times import Unit

# A text becomes a Literal of its values if the sample has this many, and each of them this often.
MIN_TEXTS = 500
MIN_REPETITIONS = 10
MAX_CHOICES = 10
# Texts become decimal numbers if the sample has this many.
MIN_DECIMALS = 20
# An object becomes a dict if it has this many different names, and the objects have fewer than one of ten on average.
MIN_KEYS = 50
MAX_LEVELS = 8
_BIGINT = 2**63
_ROWS = ("before", "after")
_LONGEST_SHOWN = 40
_CHOICE = re.compile(r"[A-Za-z][A-Za-z _./+-]{0,39}")
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,30})\.[0-9]{1,20}")
_DIGITS = re.compile(r"[1-9][0-9]{8,18}")
_UUID = re.compile(r"[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
# Names of texts that stand for one thing each: a value that is not in the sample is to be expected.
_IDENTIFYING = re.compile(
    r"(id|ids|uid|uuid|guid|key|code|name|user|customer|client|account|device|sensor|host|hostname|node|city|country|"
    r"region|place|vehicle|merchant|product|item|sku|tag|title|text|message|comment|description|url|uri|path|version|"
    r"currency|language|lang|locale|browser|os|model|brand|source|referrer|timezone|zone|unit|reason|team|owner|author|"
    r"topic|queue|service|tenant)"
)
_VERSION = re.compile(r"version|release|revision|build|ip|address")
# Names of numbers that may have a fraction.
_MEASURED = re.compile(
    r"(amount|price|cost|total|subtotal|balance|fee|tax|lat|latitude|lon|lng|long|longitude|altitude|temperature|temp|"
    r"humidity|pressure|speed|weight|height|width|length|distance|ratio|rate|percent|percentage|score|value|average|avg|"
    r"mean|voltage|power|energy)"
)
# Names of numbers that are times.
_TIMELY = re.compile(
    r"(time|timestamp|ts|date|at|when|created|updated|modified|occurred|epoch|expires|expiry|since|until)"
)
_UNITS = re.compile(r"(ms|millis|us|micros|ns|nanos|s|sec|seconds|utc)")
_DAY_US = 86_400 * 10**6


class Seen(NamedTuple):
    """A value of a field, and the timestamp of its record in milliseconds since 1970."""

    value: Any
    stamp: int | None


@dataclass(frozen=True)
class Type:
    """The type of a field."""


@dataclass(frozen=True)
class Plain(Type):
    """A type that has a name in Python, such as ``str`` or ``Instant``."""

    name: str


@dataclass(frozen=True)
class Epoch(Type):
    """A number since 1970."""

    unit: Unit


@dataclass(frozen=True)
class Choice(Type):
    """One of some texts."""

    values: tuple[str, ...]


@dataclass(frozen=True)
class Unscaled(Type):
    """A decimal of Kafka Connect, whose scale the schema has."""

    scale: int


@dataclass(frozen=True)
class OfKey(Type):
    """A value of the Kafka key, and not of the event.

    Attributes:
        type: The type of the value.
        path: The field of the key; empty for the whole key.
    """

    type: Plain
    path: str = ""


@dataclass(frozen=True)
class OfSource(Type):
    """A value of the block ``source`` of change events."""

    name: str
    type: Plain


@dataclass(frozen=True)
class ListOf(Type):
    """A list."""

    item: Type
    has_nulls: bool = False


@dataclass(frozen=True)
class DictOf(Type):
    """An object whose names are data."""

    value: Type
    has_nulls: bool = False


@dataclass(frozen=True)
class Struct(Type):
    """An object with fields."""

    fields: tuple[Field, ...]


@dataclass(frozen=True)
class Field:
    """A field of an object.

    Attributes:
        name: Its name in the JSON.
        type: Its type, without null.
        objects: The number of objects that could have it.
        present: The number of objects that have it, with a value or null.
        nulls: The number of objects that have null for it.
        notes: What the sample shows about it, besides these numbers.
        optional: Whether its schema allows that it is null or missing.
    """

    name: str
    type: Type
    objects: int
    present: int
    nulls: int
    notes: tuple[str, ...] = ()
    optional: bool = False

    @property
    def lacking(self) -> bool:
        """Whether it is null or missing in an object of the sample."""
        return self.nulls > 0 or self.present < self.objects

    @property
    def nullable(self) -> bool:
        """Whether it is null or missing in an object, or may be."""
        return self.optional or self.lacking


STR, INT, FLOAT, BOOL, ANY = (Plain(name) for name in ("str", "int", "float", "bool", "Any"))
# Inside a jsonb column, a whole number stays one.
NUMBER = Plain("int | float")
INSTANT, DATE, UUID, DECIMAL = (Plain(name) for name in ("Instant", "date", "UUID", "Decimal"))
BYTES, TIME, DURATION = (Plain(name) for name in ("bytes", "time", "timedelta"))


def fields_of(objects: Sequence[Seen], *, nested: bool = False, level: int = 0) -> tuple[Field, ...]:
    """The fields of objects, in the order in which the sample has them.

    Args:
        objects: Values that are dicts.
        nested: Whether they are inside a field. There, a value keeps its JSON type, because the column is ``jsonb``.
        level: How many fields they are inside of.
    """
    found: dict[str, list[Seen]] = {}
    for value, stamp in objects:
        for name, item in value.items():
            found.setdefault(name, []).append(Seen(item, stamp))
    fields = tuple(_field(name, seen, len(objects), nested, level) for name, seen in found.items())
    return _with_rows_alike(fields, found, level) if {"op", "source", "before", "after"} <= found.keys() else fields


def _with_rows_alike(fields: tuple[Field, ...], found: Mapping[str, Sequence[Seen]], level: int) -> tuple[Field, ...]:
    """The fields of a change event, where the rows before and after the change have the same columns."""
    rows = [each for name in _ROWS for each in found[name] if each.value is not None]
    if not rows or any(not isinstance(each.value, dict) for each in rows):
        return fields
    declared, notes = _object(rows, level)
    return tuple(
        replace(field, type=declared, notes=notes) if field.name in _ROWS and field.nulls < field.present else field
        for field in fields
    )


def named_like_a_time(name: str) -> bool:
    """Whether a name has a word for a time, such as ``created_at`` or ``ts_ms``."""
    words = [word for word in words_of(name) if not _UNITS.fullmatch(word)]
    return bool(words) and bool(_TIMELY.fullmatch(words[-1]) or _TIMELY.fullmatch(words[0]))


def words_of(name: str) -> list[str]:
    """The words of a name, in lower case: those of ``eventTime`` are ``event`` and ``time``."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]


def _field(name: str, seen: Sequence[Seen], objects: int, nested: bool, level: int) -> Field:
    values = [each for each in seen if each.value is not None]
    declared, notes = type_of(name, values, nested=nested, level=level) if values else (ANY, ("its type is unknown",))
    return Field(name, declared, objects, len(seen), len(seen) - len(values), notes)


Typed = tuple[Type, tuple[str, ...]]
"""A type, and remarks about it."""


def type_of(name: str, seen: Sequence[Seen], *, nested: bool = False, level: int = 0) -> Typed:
    """The type of values that are not null, and remarks about them; the arguments are those of ``fields_of``."""
    kinds = Counter(_kind(each.value) for each in seen)
    if len(kinds) > 1:
        listed = ", ".join(f"{kind} ({count:,})" for kind, count in kinds.most_common())
        return ANY, (f"different types: {listed}",)
    (kind,) = kinds
    if kind == "object":
        return _object(seen, level)
    if kind == "list":
        return _list(name, seen, level)
    if kind == "boolean":
        return BOOL, ()
    if kind == "number":
        return _number(name, seen, nested)
    if all(_DIGITS.fullmatch(each.value) for each in seen):
        numbers = [Seen(int(each.value), each.stamp) for each in seen]
        unit = times.unit_of(each.value for each in numbers)
        if unit and (reason := _why_time(name, numbers, unit)):
            return _epoch([each.value for each in numbers], unit, f"sent as texts; {reason}", STR, nested)
    return _text(name, [each.value for each in seen], nested)


def _kind(value: Any) -> str:
    match value:
        case bool():
            return "boolean"
        case int() | Decimal():
            return "number"
        case str():
            return "text"
        case dict():
            return "object"
    return "list"


def _object(seen: Sequence[Seen], level: int) -> Typed:
    names = Counter(name for each in seen for name in each.value)
    if not names:
        return ANY, ("always an empty object, so its fields are unknown",)
    if level >= MAX_LEVELS:
        return ANY, (f"nested deeper than {MAX_LEVELS} levels",)
    if len(names) >= MIN_KEYS and sum(names.values()) * 10 < len(names) * len(seen):
        items = [Seen(item, each.stamp) for each in seen for item in each.value.values()]
        item = _field("", items, len(items), True, level + 1)
        return DictOf(item.type, item.nullable), (f"{len(names):,} different names, so the names are data", *item.notes)
    return Struct(fields_of(seen, nested=True, level=level + 1)), ()


def _list(name: str, seen: Sequence[Seen], level: int) -> Typed:
    items = [Seen(item, each.stamp) for each in seen for item in each.value]
    if not items:
        return ListOf(ANY), ("always empty, so the type of its items is unknown",)
    if level >= MAX_LEVELS:
        return ListOf(ANY), (f"nested deeper than {MAX_LEVELS} levels",)
    item = _field(name, items, len(items), True, level + 1)
    return ListOf(item.type, item.nullable), tuple(f"items: {note}" for note in item.notes)


def _number(name: str, seen: Sequence[Seen], nested: bool) -> Typed:
    numbers = [each.value for each in seen]
    is_whole = all(isinstance(number, int) for number in numbers)
    is_measure = any(map(_MEASURED.fullmatch, words_of(name)))
    is_exact_float = all(map(_is_exact, numbers))
    plain = INT if is_whole and not (is_measure and is_exact_float) else NUMBER if nested else FLOAT
    if (unit := times.unit_of(numbers)) and (reason := _why_time(name, seen, unit)):
        return _epoch(numbers, unit, reason, plain, nested)
    if plain is INT:
        if nested or all(-_BIGINT <= number < _BIGINT for number in numbers):
            return INT, ()
        return DECIMAL, ("some do not fit into 64 bits",)
    if is_exact_float:
        return plain, (("whole numbers in the sample, but others are likely",) if is_whole else ())
    note = "some have more digits than a float holds"
    return (plain, (f"{note}, and are rounded",)) if nested else (DECIMAL, (note,))


def _epoch(numbers: Sequence[int | Decimal], unit: Unit, reason: str, plain: Plain, nested: bool) -> Typed:
    """The type of numbers since 1970.

    Args:
        plain: Their type inside a ``jsonb`` column, where times stay as they are.
    """
    first, last = (times.shown(unit.microseconds(number)) for number in (min(numbers), max(numbers)))
    declared = plain if nested else Epoch(unit)
    return declared, (f"{unit.label} since 1970, from {first} to {last}; {reason}",)


def _is_exact(number: int | Decimal) -> bool:
    """Whether a float has the value that the JSON shows."""
    try:
        nearest = float(number)
    except OverflowError:
        return False
    return Decimal(repr(nearest)) == number


def _why_time(name: str, seen: Sequence[Seen], unit: Unit) -> str:
    """Why numbers that could be times are times; empty if nothing shows that."""
    stamped = [each for each in seen if each.stamp is not None]
    near = sum(abs(unit.microseconds(value) - (stamp or 0) * 1000) < 7 * _DAY_US for value, stamp in stamped)
    if stamped and near * 20 >= len(stamped) * 19:
        return f"within 7 days of the record's timestamp in {near:,} of {len(stamped):,}"
    return "recognized by the name" if named_like_a_time(name) else ""


def _text(name: str, values: Sequence[str], nested: bool) -> Typed:
    for description, test, declared in _NOTATIONS:
        count = sum(map(test, values))
        if count == len(values):
            if declared is DECIMAL and (count < MIN_DECIMALS or _VERSION.search(name.lower())):
                continue
            return (STR if nested else declared), ((description,) if nested or declared is STR else ())
        if count * 10 >= len(values) * 9 and declared is not DECIMAL:
            other = next(value for value in values if not test(value))
            return STR, (f"{description} in {count:,} of {len(values):,}, but not {quoted(other)}",)
    counts = Counter(values)
    if not nested and _may_be_choice(name, counts):
        return Choice(tuple(sorted(counts))), (f"{len(counts)} different values in {len(values):,}",)
    if len(counts) == 1 and len(values) > 1:
        return STR, (f"always {quoted(values[0])}",)
    return STR, ()


_NOTATIONS: tuple[tuple[str, Callable[[str], bool], Plain], ...] = (
    ("times with a time zone", lambda text: times.moment(text) is not None, INSTANT),
    (times.LOCAL, times.is_local, STR),
    (times.FOREIGN, times.is_foreign, STR),
    ("dates", times.is_date, DATE),
    ("UUIDs", lambda text: _UUID.fullmatch(text) is not None, UUID),
    ("decimal numbers", lambda text: _DECIMAL.fullmatch(text) is not None, DECIMAL),
)


def _may_be_choice(name: str, counts: Mapping[str, int]) -> bool:
    return (
        2 <= len(counts) <= MAX_CHOICES
        and sum(counts.values()) >= MIN_TEXTS
        and min(counts.values()) >= MIN_REPETITIONS
        and all(map(_CHOICE.fullmatch, counts))
        and not any(map(_IDENTIFYING.fullmatch, words_of(name)[-1:]))
    )


def quoted(value: str) -> str:
    """A text as a comment shows it: on one line, and not too long."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in value)
    return f"'{shown if len(shown) <= _LONGEST_SHOWN else shown[: _LONGEST_SHOWN - 1] + '…'}'"


def structs_of(declared: Type) -> Iterator[Struct]:
    """The structs inside a type that are not inside another struct."""
    match declared:
        case Struct():
            yield declared
        case ListOf(item=inside) | DictOf(value=inside):
            yield from structs_of(inside)
