"""Files made at random from a seed, with everything about them known: dialects, types, nulls, ids and sizes."""

from __future__ import annotations

import bz2
import gzip
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

WORDS = [
    "north",
    "south",
    "Köln",
    "a b",
    "it's",
    "x;y",
    "p,q",
    "tab\there",
    'say "so"',
    "two\nlines",
    "|",
    "#1",
    "NA",
    "ß",
]
NAMES = [
    "amount",
    "Größe",
    "unit price",
    "it's",
    'size "inch"',
    "a;b",
    "x,y",
    "{name}",
    "back\\slash",
    "class of",
    "Zahl €",
]


@dataclass(frozen=True)
class Made:
    """A column that was made.

    Attributes:
        values: What it means: what a model is to be given, None where there is nothing.
        texts: How it is written in delimited text.
        arrow: How it is in a Parquet file.
        learned: Whether it may be learned from; None where either is right.
    """

    values: list[Any]
    texts: list[str]
    arrow: pa.Array
    learned: bool | None = True


@dataclass(frozen=True)
class Random:
    """A file that was made.

    Attributes:
        path: Where it is.
        columns: What is in it.
        target: The column to predict.
        kind: What it is meant to be.
        options: What the command needs to know: ``header``, for example.
        about: What it is, for the message of a failure.
    """

    path: Path
    columns: dict[str, Made]
    target: str
    kind: str
    options: dict[str, Any] = field(default_factory=dict)
    about: str = ""


class Maker:
    """Makes one file.

    Args:
        seed: Of everything.
        folder: Where the file goes.
    """

    def __init__(self, seed: int, folder: Path) -> None:
        self._rng = np.random.default_rng(seed)
        self._folder = folder
        sizes = [int(self._rng.integers(4, 30)), int(self._rng.integers(30, 300)), int(self._rng.integers(300, 1_500))]
        self._rows = sizes[self._rng.choice(3, p=[0.15, 0.65, 0.2])]
        self._delimiter = str(self._rng.choice([",", ";", "\t", "|"], p=[0.5, 0.25, 0.15, 0.1]))
        self._decimal = "," if self._delimiter != "," and self._chance(0.5) else "."
        self._encoding = str(self._rng.choice(["utf-8", "utf-8-sig", "cp1252", "utf-16"], p=[0.6, 0.1, 0.2, 0.1]))

    def make(self) -> Random:
        """Writes the file."""
        signal = self._rng.normal(size=self._rows)
        columns: dict[str, Made] = {"signal": self._number(signal)}
        makers = list(_COLUMNS)
        for place in range(int(self._rng.integers(1, 8))):
            maker = makers[int(self._rng.integers(len(makers)))]
            name = f"{NAMES[int(self._rng.integers(len(NAMES)))]}{place}"
            name = {"_index": f"Unnamed: {place}", "_near_id": f"shop_id{place}"[: -len(str(place))]}.get(
                maker.__name__, name
            )
            if name not in columns:
                columns[name] = maker(self)
        kind, made = self._target(signal)
        target = ["label", "y", "outcome €"][int(self._rng.integers(3))]
        columns[target] = made
        order = list(self._rng.permutation(list(columns)))
        columns = {str(name): columns[str(name)] for name in order}
        if self._chance(0.25):
            path = self._parquet(columns)
            return Random(path, columns, target, kind, {}, f"Parquet, {self._rows} rows")
        return self._text(columns, target, kind)

    def _chance(self, share: float) -> bool:
        return bool(self._rng.random() < share)

    def _parquet(self, columns: dict[str, Made]) -> Path:
        path = self._folder / str(self._rng.choice(["rows.parquet", "rows.pq", "rows"]))
        size = int(self._rng.choice([7, 100, 10_000]))
        parquet.write_table(pa.table({name: made.arrow for name, made in columns.items()}), path, row_group_size=size)
        return path

    def _text(self, columns: dict[str, Made], target: str, kind: str) -> Random:
        header = self._chance(0.9)
        unnamed = self._chance(0.15)
        fields = [list(columns)] if header else []
        fields += [list(row) for row in zip(*(made.texts for made in columns.values()), strict=True)]
        if unnamed:
            start = 0 if header else None
            fields = [
                (["", *row] if header and number == 0 else [str(number - (start is not None)), *row])
                for number, row in enumerate(fields)
            ]
            columns = {"Unnamed: 0": Made([], [], pa.nulls(0), False), **columns}
        everything = self._chance(0.2)
        end = "\r\n" if self._chance(0.3) else "\n"
        text = end.join(self._delimiter.join(self._quoted(cell, everything) for cell in row) for row in fields) + end
        if header and self._chance(0.1):
            text = f"# made by a machine{end}" + text
        try:
            content = text.encode(self._encoding)
        except UnicodeEncodeError:
            content = text.encode()
        suffix = str(self._rng.choice([".csv", ".tsv", ".txt", ".dat"]))
        path = self._folder / f"rows{suffix}"
        if self._chance(0.2):
            content = gzip.compress(content) if self._chance(0.5) else bz2.compress(content)
        path.write_bytes(content)
        about = f"{self._rows} rows, {self._delimiter!r} {self._decimal!r} {self._encoding} header={header}"
        options: dict[str, Any] = {}
        if not header:
            options = {"header": False}
            names = {name: f"column_{place}" for place, name in enumerate(columns, 1)}
            # Without its name an id that is almost one is a number like any other.
            columns = {
                names[name]: replace(made, learned=None) if name.startswith("shop_id") else made
                for name, made in columns.items()
            }
            target = names[target]
        return Random(path, columns, target, kind, options, about)

    def _quoted(self, cell: str, everything: bool) -> str:
        if everything or any(letter in cell for letter in (self._delimiter, '"', "\n", "\r")) or cell.startswith("#"):
            return '"' + cell.replace('"', '""') + '"'
        return cell

    def _written(self, number: float) -> str:
        return repr(float(number)).replace(".", self._decimal)

    def _missing(self, values: list[Any]) -> list[Any]:
        share = float(self._rng.choice([0, 0, 0.02, 0.3]))
        return [None if self._rng.random() < share else value for value in values]

    def _number(self, values: Any) -> Made:
        found = [float(value) for value in values]
        return Made(found, [self._written(value) for value in found], pa.array(found))

    def _numbers(self) -> Made:
        found = self._missing(self._rng.normal(scale=100, size=self._rows).tolist())
        blank = str(self._rng.choice(["", "NA", "nan", "null"]))
        texts = [blank if value is None else self._written(value) for value in found]
        kind = pa.float64() if self._chance(0.7) else pa.float32()
        arrow = pa.array(found, kind)
        return Made(arrow.to_pylist() if kind == pa.float32() else found, texts, arrow)

    def _whole(self) -> Made:
        high = int(self._rng.choice([3, 50, 10**6]))
        found = self._missing(self._rng.integers(-high, high, self._rows).tolist())
        kind = [pa.int64(), pa.int32(), pa.float64()][int(self._rng.integers(3))]
        texts = ["" if value is None else str(value) for value in found]
        return Made(found, texts, pa.array(found, kind), None if high == 10**6 or self._rows < 30 else True)

    def _decimals(self) -> Made:
        found = self._missing([Decimal(int(n)) / 100 for n in self._rng.integers(0, 10_000, self._rows)])
        texts = ["" if value is None else str(value).replace(".", self._decimal) for value in found]
        values = [None if value is None else float(value) for value in found]
        return Made(values, texts, pa.array(found, pa.decimal128(10, 2)), None if self._rows < 200 else True)

    def _words(self) -> Made:
        chosen = self._rng.choice(len(WORDS), int(self._rng.integers(2, 6)), replace=False)
        found = self._missing([WORDS[int(n)] for n in self._rng.choice(chosen, self._rows)])
        arrow = pa.array(found, [pa.string(), pa.large_string(), pa.string_view()][int(self._rng.integers(3))])
        arrow = arrow if self._chance(0.6) else pa.array(found, pa.string()).dictionary_encode()
        return Made(
            found, ["" if value is None else value for value in found], arrow, None if self._rows < 30 else True
        )

    def _codes(self) -> Made:
        found = [f"{int(n):05d}" for n in self._rng.integers(0, 12, self._rows)]
        return Made(found, found, pa.array(found), None if self._rows < 30 else True)

    def _truths(self) -> Made:
        found = self._missing([bool(n) for n in self._rng.integers(0, 2, self._rows)])
        texts = ["" if value is None else str(value) for value in found]
        return Made(found, texts, pa.array(found, pa.bool_()))

    def _notes(self) -> Made:
        found = [f"note {n}: " + WORDS[int(self._rng.integers(len(WORDS)))] for n in range(self._rows)]
        return Made(found, found, pa.array(found), None if self._rows < 30 else False)

    def _odd_numbers(self) -> Made:
        found = [str(n) if n % 5 else "?" for n in self._rng.integers(1, 10_000, self._rows)]
        return Made(found, found, pa.array(found), None if self._rows < 100 else False)

    def _percents(self) -> Made:
        found = [f"{n}%" for n in self._rng.integers(0, 100, self._rows)]
        return Made(found, found, pa.array(found), False)

    def _days(self) -> Made:
        start = date(2020, 1, 1) + timedelta(int(self._rng.integers(0, 1_000)))
        found = self._missing([start + timedelta(int(n)) for n in self._rng.integers(0, 500, self._rows)])
        texts = ["" if value is None else str(value) for value in found]
        return Made(found, texts, pa.array(found, pa.date32()), False)

    def _moments(self) -> Made:
        start = datetime(2024, 1, 1)
        found = [start + timedelta(seconds=int(n)) for n in self._rng.integers(0, 10**7, self._rows)]
        zone = "+02:00" if self._chance(0.3) else ""
        kind = pa.timestamp(str(self._rng.choice(["s", "us", "ns"])), "UTC" if self._chance(0.5) else None)
        return Made(found, [f"{value}{zone}" for value in found], pa.array(found, kind), False)

    def _index(self) -> Made:
        found = list(range(self._rows)) if self._chance(0.6) else self._rng.permutation(self._rows).tolist()
        return Made(found, [str(n) for n in found], pa.array(found), False)

    def _counter(self) -> Made:
        start, step = int(self._rng.integers(0, 1_000)), int(self._rng.integers(1, 9))
        found = [start + step * n for n in range(self._rows)]
        return Made(found, [str(n) for n in found], pa.array(found), None if self._rows < 10 else False)

    def _near_id(self) -> Made:
        found: list[Any] = self._rng.permutation(10 * self._rows)[: self._rows].tolist()
        found[1] = None if self._chance(0.5) else found[0]
        texts = ["" if value is None else str(value) for value in found]
        return Made(found, texts, pa.array(found, pa.int64()), False)

    def _ids(self) -> Made:
        form = int(self._rng.integers(5))
        ids: list[str]
        if form == 0:
            ids = [str(uuid.UUID(bytes=self._rng.bytes(16))) for _ in range(self._rows)]
            arrow = pa.array([uuid.UUID(value).bytes for value in ids], pa.uuid())
        elif form == 1:
            ids = [str(2**63 + 7 * int(n)) for n in self._rng.permutation(self._rows)]
            arrow = pa.array([int(value) for value in ids], pa.uint64())
        elif form == 2:
            ids = ["0" * (n % 3) + str(n // 3 + 1) for n in range(self._rows)]
            arrow = pa.array(ids)
        elif form == 3:
            ids = [str(10**20 + int(n)) for n in self._rng.permutation(self._rows)]
            arrow = pa.array([Decimal(value) for value in ids], pa.decimal128(38))
        else:
            ids = [f"A-{n}" for n in self._rng.permutation(self._rows)]
            arrow = pa.array(ids).dictionary_encode()
        return Made(ids, ids, arrow, None if self._rows < 10 or form in (1, 3) else False)

    def _empty(self) -> Made:
        return Made([None] * self._rows, [""] * self._rows, pa.nulls(self._rows), False)

    def _lists(self) -> Made:
        found = [[int(n)] for n in self._rng.integers(0, 9, self._rows)]
        texts = [str(value) for value in found]
        return Made(texts, texts, pa.array(found), None)

    def _constant(self) -> Made:
        return Made([1] * self._rows, ["1"] * self._rows, pa.array([1] * self._rows))

    def _target(self, signal: Any) -> tuple[str, Made]:
        form = int(self._rng.integers(8))
        noisy = signal + self._rng.normal(scale=0.5, size=self._rows)
        if form < 2:
            found: list[Any] = ["yes" if value > 0 else "no" for value in noisy]
            arrow = pa.array(found) if form else pa.array(found).dictionary_encode()
            return "classification", Made(found, found, arrow)
        if form < 5:
            found = [int(value > 0) + (form == 4 and int(value > 1)) for value in noisy]
            texts, arrow = [str(n) for n in found], pa.array(found)
            if form == 3:
                found[0] = None
                texts = ["" if value is None else f"{value}{self._decimal}0" for value in found]
                arrow = pa.array(found, pa.float64())
            return "classification", Made(found, texts, arrow)
        if form == 5:
            found = [bool(value > 0) for value in noisy]
            return "classification", Made(found, [str(value) for value in found], pa.array(found))
        if form == 6:
            decimals = [Decimal(round(value * 1_000)) / 1_000 for value in noisy]
            texts = [str(value).replace(".", self._decimal) for value in decimals]
            return "regression", Made([float(value) for value in decimals], texts, pa.array(decimals))
        return "regression", self._number(noisy * 10)


_COLUMNS: list[Callable[[Maker], Made]] = [
    Maker._numbers,
    Maker._numbers,
    Maker._whole,
    Maker._decimals,
    Maker._words,
    Maker._words,
    Maker._codes,
    Maker._truths,
    Maker._notes,
    Maker._odd_numbers,
    Maker._percents,
    Maker._days,
    Maker._moments,
    Maker._index,
    Maker._counter,
    Maker._near_id,
    Maker._ids,
    Maker._empty,
    Maker._lists,
    Maker._constant,
]


def frame(columns: dict[str, Made], names: list[str]) -> pd.DataFrame:
    """The columns as somebody would give them to scikit-learn who knows what they mean."""
    found = {}
    for name in names:
        values = columns[name].values
        numbers = all(
            value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values
        )
        found[name] = pd.Series(values, dtype="float64") if numbers else pd.Series(values, dtype=object)
    return pd.DataFrame(found)
