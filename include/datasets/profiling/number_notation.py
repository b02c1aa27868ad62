"""Columns of text that are mostly numbers in another notation than Python's."""

from __future__ import annotations

import re
from dataclasses import dataclass

from include.datasets.profiling.column import Column
from include.datasets.profiling.wording import MAX_LISTED, listed, null_options, rows
from include.datasets.sources import text
from include.datasets.sources.text import Numbers

# Up to this many different texts with a unit are names, such as 4wd or 2nd.
MAX_UNIT_NAMES = 20
# The rows of a column that are examined.
_EXAMINED_ROWS = 100_000


@dataclass(frozen=True)
class _Notation:
    pattern: re.Pattern[str]
    remedy: str


_NOTATIONS = {
    "commas": _Notation(re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d+)?"), "--thousands ',' reads these"),
    "points": _Notation(re.compile(r"[+-]?\d{1,3}(\.\d{3})+,\d+"), "--decimal ',' --thousands . reads these"),
    "decimal comma": _Notation(re.compile(r"[+-]?\d*,\d+"), "--decimal ',' reads these"),
    "percent": _Notation(
        re.compile(r"[+-]?\d[\d.,]* ?%"), "to make these numbers, write them without the percent sign in the file"
    ),
    "unit": _Notation(
        re.compile(r"[-+(]*[$€£¥] ?\d[\d.,]*\)?|[+-]?\d[\d.,]* ?([$€£¥]|[a-zA-Z]{1,3})"),
        "to make these numbers, write them without the unit in the file",
    ),
}


@dataclass(frozen=True)
class OddNumbers:
    """The texts that keep a column from being numbers.

    Attributes:
        description: The texts, for a message.
        remedy: How to read them as numbers or missing values.
    """

    description: str
    remedy: str


def odd_numbers(column: Column) -> OddNumbers | None:
    """The texts that keep a column from being numbers; None if it is not mostly numbers."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = column.values.drop_null().slice(0, _EXAMINED_ROWS)
    counted = pc.value_counts(values.filter(pc.invert(text.missing(values))))
    counts = dict(zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True))
    odd = text.misfits(pa.array(list(counts), pa.string()), pa.float64(), Numbers())
    matches = {
        name: [value for value in odd if notation.pattern.fullmatch(value.strip())]
        for name, notation in _NOTATIONS.items()
    }
    if len(matches["unit"]) <= MAX_UNIT_NAMES:
        matches["unit"] = []
    # A text counts for the first notation that it matches.
    matched: set[str] = set()
    for name, texts in matches.items():
        matches[name] = [value for value in texts if value not in matched]
        matched |= set(texts)
    others = sorted((value for value in odd if value not in matched), key=lambda value: -counts[value])
    if not odd or sum(counts[value] for value in others) * 2 >= sum(counts.values()):
        return None
    descriptions, remedies = [], []
    if others:
        descriptions.append(listed([f"{value!r} in {rows(counts[value])}" for value in others]))
        remedies.append(f"{null_options(others[:MAX_LISTED])} makes it a missing value")
    for name, texts in matches.items():
        if texts:
            descriptions.append(f"values written as {listed(texts)}")
            remedies.append(_NOTATIONS[name].remedy)
    return OddNumbers(" and ".join(descriptions), ", ".join(remedies))
