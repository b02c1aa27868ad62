"""Text as values: which type fits all texts of a column, and the texts converted to it.

A type fits when it gives every text back: ``00501``, twenty digits or ``12E5`` stay text, since a number would not be
the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

# The names of types in definitions.
TYPES = ("text", "integer", "number", "boolean", "date", "timestamp")
# What pyarrow takes for a missing number; among texts these stay what they are.
MISSING = (
    *("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("N/A", "NA", "NULL", "NaN", "n/a", "nan", "null"),
)
_FIRST = 64
# Leading zeros, hexadecimal digits, a telephone number.
_CODE = r"^\s*(?:[+-]?0[0-9xX]|\+[0-9]{6,})"
# An exponent after a whole number: a code, unless other numbers of the column have fractions.
_EXPONENT = r"^\s*[+-]?[0-9]+[eE][0-9]+\s*$"
# Whole numbers that a double may not hold.
_LONG = r"^\s*[+-]?[0-9]{16,}\s*$"


@dataclass(frozen=True)
class Numbers:
    """How a file writes numbers.

    Attributes:
        decimal: The decimal point.
        thousands: What separates thousands, if anything does.
    """

    decimal: str = "."
    thousands: str | None = None

    @property
    def plain(self) -> bool:
        """Whether they are written as in Python."""
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
    """The texts as values of a type; nulls stay nulls.

    Raises:
        pyarrow.ArrowInvalid: A text is no such value.
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


def convert_as_asked(texts: pa.Array, wanted: pa.DataType, numbers: Numbers) -> pa.Array:
    """As ``convert``, to a type that somebody has decided on: ``1.0`` is a whole number, too.

    Raises:
        pyarrow.ArrowInvalid: A text is no such value.
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
    """For each text whether there is no value in it, whatever type the column has; a Boolean array without nulls."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.or_(pc.is_null(texts), pc.is_in(pc.utf8_trim_whitespace(texts), pa.array(["", *MISSING])))


def misfits(texts: pa.Array | pa.ChunkedArray, wanted: pa.DataType, numbers: Numbers) -> list[str]:
    """The different texts that are no values of the type, those that occur most often first."""
    import pyarrow as pa
    import pyarrow.compute as pc

    counted = pc.value_counts(texts.filter(pc.invert(missing(texts))))
    counted = counted.take(pc.sort_indices(pc.negate(counted.field("counts"))))
    found = []
    for text in counted.field("values").to_pylist():
        try:
            convert_as_asked(pa.array([text]), wanted, numbers)
        except pa.ArrowInvalid:
            found.append(text)
    return found


def codes(texts: pa.Array | pa.ChunkedArray) -> list[str]:
    """Some of the texts that look like numbers and would not be the same as numbers."""
    import pyarrow.compute as pc

    found = texts.filter(pc.fill_null(pc.match_substring_regex(texts, f"{_CODE}|{_EXPONENT}|{_LONG}"), False))
    return pc.unique(found.slice(0, 1_000)).to_pylist()


class Guess:
    """Finds the type of a column while its texts come by in pieces, however they are cut."""

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

    def see(self, texts: pa.Array) -> None:
        """Takes in more texts."""
        import pyarrow as pa

        if not self._possible:
            return
        texts = texts.drop_null() if texts.null_count else texts
        if not len(texts):
            return
        for name, kind in list(self._possible.items()):
            try:
                # A cast takes long where many texts are no values, which the first ones show.
                convert(texts.slice(0, _FIRST), kind, self._numbers)
                found = convert(texts, kind, self._numbers)
            except pa.ArrowInvalid:
                del self._possible[name]
                continue
            if found.null_count == len(found):
                return
        self._any = True
        if "integer" in self._possible or "number" in self._possible:
            self._keep_text(texts)

    def type(self) -> pa.DataType:
        """The first type that fits: null when there were no values at all."""
        import pyarrow as pa

        if not self._any and self._possible:
            return pa.null()
        if self._exponents and not self._fractions:
            return pa.string()
        return next(iter(self._possible.values()), pa.string())

    def _keep_text(self, texts: pa.Array) -> None:
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
    """The type of each column of a file that comes in pieces."""
    guesses: dict[str, Guess] = {}
    for piece in pieces:
        for name, texts in piece.items():
            guesses.setdefault(name, Guess(numbers)).see(texts)
    return {name: found.type() for name, found in guesses.items()}


def _cast(texts: pa.Array, wanted: pa.DataType) -> pa.Array:
    import pyarrow as pa
    import pyarrow.types as types

    if types.is_timestamp(wanted) and wanted.tz is None and wanted.unit == "us":
        # Asked for by name, a time may have a zone: it becomes UTC.
        try:
            return texts.cast(wanted)
        except pa.ArrowInvalid:
            return texts.cast(pa.timestamp("us", "UTC")).cast(wanted)
    return texts.cast(wanted)


def _cleaned(texts: pa.Array, numbers: Numbers) -> pa.Array:
    """Texts without blanks around them, with null for what means that a value is missing, and Python's numbers."""
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
            raise pa.ArrowInvalid(f"a number is written with a point, and the decimal point is {numbers.decimal!r}")
        texts = pc.replace_substring(texts, numbers.decimal, ".")
    return texts


def _literal(text: str) -> str:
    import re

    return re.escape(text)
