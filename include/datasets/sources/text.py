"""Finds the type that fits all texts of a column, and converts texts to it.

A type fits if it preserves every text: ``00501``, twenty digits or ``12E5`` stay text, since a number would
change them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

# The names of types in definitions.
TYPES = ("text", "integer", "number", "boolean", "date", "timestamp")
# Texts that pyarrow reads as a missing number. In a column of text they stay text.
MISSING = (
    *("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("N/A", "NA", "NULL", "NaN", "n/a", "nan", "null"),
)
_FIRST = 64
# Leading zeros, hexadecimal digits, a telephone number.
_CODE = r"^\s*(?:[+-]?0[0-9xX]|\+[0-9]{6,})"
# An exponent after a whole number: a code, unless other numbers of the column have fractions.
_EXPONENT = r"^\s*[+-]?[0-9]+[eE][0-9]+\s*$"
# Whole numbers that a double may not represent.
_LONG = r"^\s*[+-]?[0-9]{16,}\s*$"


@dataclass(frozen=True)
class Numbers:
    """The notation of numbers.

    Attributes:
        decimal: The decimal point.
        thousands: The separator of thousands, if there is one.
    """

    decimal: str = "."
    thousands: str | None = None

    @property
    def plain(self) -> bool:
        """Whether it is Python's notation."""
        return self.decimal == "." and self.thousands is None


def arrow_type(name: str) -> pa.DataType:
    """The Arrow type of one of ``TYPES``."""
    import pyarrow as pa

    return {
        "text": pa.string(),
        "integer": pa.int64(),
        "number": pa.float64(),
        "boolean": pa.bool_(),
        "date": pa.date32(),
        "timestamp": pa.timestamp("us"),
    }[name]


def convert(texts: pa.Array, wanted: pa.DataType, numbers: Numbers) -> pa.Array:
    """Converts texts to a type; nulls stay null.

    Raises:
        pyarrow.ArrowInvalid: A text is not a value of the type.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as types

    if types.is_string(wanted) or types.is_null(wanted):
        return texts if types.is_string(wanted) else pa.nulls(len(texts))
    number = types.is_integer(wanted) or types.is_floating(wanted)
    if not number or numbers.plain:
        try:
            found = _cast(texts, wanted)
        except pa.ArrowInvalid:
            pass
        else:
            if not types.is_floating(wanted) or not pc.any(pc.is_nan(found)).as_py():
                return found
    return _cast(_cleaned(texts, numbers if number else Numbers()), wanted)


def convert_to_chosen(texts: pa.Array, wanted: pa.DataType, numbers: Numbers) -> pa.Array:
    """Converts texts to a type that the user chose: as ``convert``, but ``1.0`` is a whole number, too.

    Raises:
        pyarrow.ArrowInvalid: A text is not a value of the type.
    """
    import pyarrow as pa
    import pyarrow.types as types

    try:
        return convert(texts, wanted, numbers)
    except pa.ArrowInvalid:
        if not types.is_integer(wanted):
            raise
        return convert(texts, pa.float64(), numbers).cast(wanted)


def missing(texts: pa.Array) -> pa.Array:
    """For each text, whether it means a missing value in a column of any type; a Boolean array without nulls."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.or_(pc.is_null(texts), pc.is_in(pc.utf8_trim_whitespace(texts), pa.array(["", *MISSING])))


def misfits(texts: pa.Array | pa.ChunkedArray, wanted: pa.DataType, numbers: Numbers) -> list[str]:
    """The distinct texts that are not values of the type, the most frequent first."""
    import pyarrow as pa
    import pyarrow.compute as pc

    counted = pc.value_counts(texts.filter(pc.invert(missing(texts))))
    counted = counted.take(pc.sort_indices(pc.negate(counted.field("counts"))))
    found = []
    for text in counted.field("values").to_pylist():
        try:
            convert_to_chosen(pa.array([text]), wanted, numbers)
        except pa.ArrowInvalid:
            found.append(text)
    return found


def codes(texts: pa.Array | pa.ChunkedArray) -> list[str]:
    """Some of the texts that look like numbers, but that a number would change."""
    import pyarrow.compute as pc

    found = texts.filter(pc.fill_null(pc.match_substring_regex(texts, f"{_CODE}|{_EXPONENT}|{_LONG}"), False))
    distinct: list[str] = pc.unique(found.slice(0, 1_000)).to_pylist()
    return distinct


class Guess:
    """Finds the type of a column whose texts arrive in pieces of any size."""

    def __init__(self, numbers: Numbers) -> None:
        import pyarrow as pa

        self._numbers = numbers
        self._any = self._exponents = self._fractions = False
        self._possible = {
            "integer": pa.int64(),
            "boolean": pa.bool_(),
            "date": pa.date32(),
            "seconds": pa.timestamp("s"),
            "nanoseconds": pa.timestamp("ns"),
            "seconds of a zone": pa.timestamp("s", "UTC"),
            "nanoseconds of a zone": pa.timestamp("ns", "UTC"),
            "number": pa.float64(),
        }

    def add(self, texts: pa.Array) -> None:
        """Adds more texts."""
        import pyarrow as pa

        if not self._possible:
            return
        texts = texts.drop_null() if texts.null_count else texts
        if not len(texts):
            return
        for name, kind in list(self._possible.items()):
            try:
                # A cast is slow if many texts do not fit, which the first ones already show.
                convert(texts.slice(0, _FIRST), kind, self._numbers)
                found = convert(texts, kind, self._numbers)
            except pa.ArrowInvalid:
                del self._possible[name]
                continue
            if found.null_count == len(found):
                return
        self._any = True
        if "integer" in self._possible or "number" in self._possible:
            self._exclude_codes(texts)

    def type(self) -> pa.DataType:
        """The first type that fits; null if there were no values."""
        import pyarrow as pa

        if not self._any and self._possible:
            return pa.null()
        if self._exponents and not self._fractions:
            return pa.string()
        return next(iter(self._possible.values()), pa.string())

    def _exclude_codes(self, texts: pa.Array) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        if not self._fractions and "integer" not in self._possible:
            self._fractions = pc.any(pc.match_substring(texts, self._numbers.decimal)).as_py()
        special = pc.match_substring_regex(texts, f"{_CODE}|{_EXPONENT}|{_LONG}")
        if not pc.any(special).as_py():
            return
        texts = texts.filter(special)
        if pc.any(pc.match_substring_regex(texts, _CODE)).as_py():
            self._possible = {}
            return
        exponents = pc.match_substring_regex(texts, _EXPONENT)
        self._exponents |= pc.any(exponents).as_py()
        texts = texts.filter(pc.invert(exponents))
        try:
            convert(texts, pa.int64(), self._numbers).cast(pa.float64())
        except pa.ArrowInvalid:
            self._possible.pop("number", None)


def guess(pieces: Iterable[Mapping[str, pa.Array]], numbers: Numbers) -> dict[str, pa.DataType]:
    """The type of each column of a file that is read in pieces."""
    guesses: dict[str, Guess] = {}
    for piece in pieces:
        for name, texts in piece.items():
            guesses.setdefault(name, Guess(numbers)).add(texts)
    return {name: found.type() for name, found in guesses.items()}


def _cast(texts: pa.Array, wanted: pa.DataType) -> pa.Array:
    import pyarrow as pa
    import pyarrow.types as types

    if types.is_timestamp(wanted) and wanted.tz is None and wanted.unit == "us":
        # The user chose the type, so a time with a zone becomes UTC.
        try:
            return texts.cast(wanted)
        except pa.ArrowInvalid:
            return texts.cast(pa.timestamp("us", "UTC")).cast(wanted)
    return texts.cast(wanted)


def _cleaned(texts: pa.Array, numbers: Numbers) -> pa.Array:
    """Texts without blanks around them, with null for missing values, and with numbers in Python's notation."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = pc.utf8_trim_whitespace(texts)
    texts = pc.if_else(pc.is_in(texts, pa.array(["", *MISSING])), pa.scalar(None, texts.type), texts)
    if numbers.plain:
        return texts
    point, between = _literal(numbers.decimal), _literal(numbers.thousands or "")
    if numbers.thousands:
        grouped = rf"^[+-]?[0-9]{{1,3}}(?:{between}[0-9]{{3}})+(?:{point}[0-9]*)?$"
        whole = pc.fill_null(pc.match_substring_regex(texts, grouped), False)
        texts = pc.if_else(whole, pc.replace_substring(texts, numbers.thousands, ""), texts)
    if numbers.decimal != ".":
        if pc.any(pc.match_substring(texts, ".")).as_py():
            raise pa.ArrowInvalid(f"a number has a point, but decimal is {numbers.decimal!r}")
        texts = pc.replace_substring(texts, numbers.decimal, ".")
    return texts


def _literal(text: str) -> str:
    import re

    return re.escape(text)
