"""Files made at random from a seed, with everything about them known: dialects, types, nulls, ids and sizes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import uuid
import zipfile
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
    "łódź",
    "🙂",
    "no\u00a0break",
    "back\\slash",
    "=1+1",
    "x" * 300,
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
    "new\nline",
    "🙂",
    "n" * 80,
]
FILES = ["rows", "my rows (1)", "Übersicht", "it's", 'of "2024"', "a\\b", "{name}"]


@dataclass(frozen=True)
class Made:
    """A column that was made.

    Attributes:
        values: What it means: what a model is to be given, None where there is nothing.
        texts: How it is written in delimited text.
        arrow: How it is in a Parquet file.
        stored: What it means in a Parquet file, where that is something else.
        learned: Whether it may be learned from; None where either is right.
    """

    values: list[Any]
    texts: list[str]
    arrow: pa.Array
    learned: bool | None = True
    stored: list[Any] | None = None


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
        sizes = [
            int(self._rng.integers(low, high)) for low, high in ((4, 30), (30, 300), (300, 1_500), (9_000, 10_000))
        ]
        self._rows = sizes[self._rng.choice(4, p=[0.15, 0.67, 0.17, 0.01])]
        self._delimiter = str(self._rng.choice([",", ";", "\t", "|"], p=[0.5, 0.25, 0.15, 0.1]))
        self._decimal = "," if self._delimiter != "," and self._chance(0.5) else "."
        self._thousands = "." if self._decimal == "," and self._chance(0.4) else None
        encodings = ["utf-8", "utf-8-sig", "cp1252", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
        self._encoding = str(self._rng.choice(encodings, p=[0.6, 0.1, 0.14, 0.07, 0.03, 0.03, 0.03]))
        # The text that means a missing value, if an option has to name it.
        self._null = str(self._rng.choice(["?", "-", ".", "missing", "-999"])) if self._chance(0.15) else ""

    def make(self) -> Random:
        """Writes the file."""
        signal = self._rng.normal(size=self._rows)
        columns: dict[str, Made] = {"signal": self._number(signal)}
        makers = list(_COLUMNS)
        for place in range(int(self._rng.integers(1, 8)) if self._chance(0.98) else 100):
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
            columns = {
                name: made if made.stored is None else replace(made, values=made.stored)
                for name, made in columns.items()
            }
            return Random(path, columns, target, kind, {}, f"Parquet, {self._rows} rows")
        return self._text(columns, target, kind)

    def _chance(self, share: float) -> bool:
        return bool(self._rng.random() < share)

    def _parquet(self, columns: dict[str, Made]) -> Path:
        path = self._folder / str(self._rng.choice(["rows.parquet", "rows.pq", "rows"]))
        rows = pa.table({name: made.arrow for name, made in columns.items()})
        if self._chance(0.15) and "Unnamed: 0" not in columns:
            # As pandas writes an index, with a name or without.
            name = str(self._rng.choice(["__index_level_0__", "index"]))
            columns[name] = Made([], [], pa.array(self._rng.permutation(self._rows)), False)
            rows = rows.append_column(name, columns[name].arrow)
        parquet.write_table(
            rows,
            path,
            row_group_size=int(self._rng.choice([7, 100, 10_000])),
            compression=str(self._rng.choice(["snappy", "zstd", "gzip", "none"])),
            use_dictionary=self._chance(0.7),
            data_page_version=str(self._rng.choice(["1.0", "2.0"])),
        )
        return path

    def _text(self, columns: dict[str, Made], target: str, kind: str) -> Random:
        header, everything = self._chance(0.9), self._chance(0.2)
        fields = [list(row) for row in zip(*(made.texts for made in columns.values()), strict=True)]
        names = list(columns)
        if self._chance(0.2) and "Unnamed: 0" not in columns:
            # As pandas writes its index, or R the rows' names, for which the header has no name.
            fields = [[str(number), *row] for number, row in enumerate(fields, int(self._chance(0.5)))]
            # An empty last field would look like an extra delimiter at the end of each row.
            short = self._chance(0.4) and header and any(row[-1].strip() for row in fields)
            names = names if short else ["", *names]
            few = self._rows < 10
            columns = {"Unnamed: 0": Made([], [], pa.nulls(0), None if few and not header else False), **columns}
        fields = [names, *fields] if header else fields
        quote = "'" if self._chance(0.04) else '"'
        pad = " " if self._chance(0.05) else ""
        written = [[self._quoted(cell, everything, quote) for cell in row] for row in fields]
        if any(cell.startswith(quote) for row in written for cell in row):
            pad = ""
        lines = [
            (self._delimiter + (pad if number or not header else "")).join(row) for number, row in enumerate(written)
        ]
        content, about = self._file(lines, header)
        suffix = str(self._rng.choice([".csv", ".tsv", ".txt", ".dat", ""]))
        path = self._folder / f"{FILES[int(self._rng.integers(len(FILES)))]}{suffix}"
        path.write_bytes(self._compressed(content))
        options: dict[str, Any] = {"quote": quote} if quote == "'" else {}
        if self._null:
            options["nulls"] = [self._null]
        if not header:
            options["header"] = False
            named = {name: f"column_{place}" for place, name in enumerate(columns, 1)}
            # Without its name an id that is almost one is a number like any other.
            columns = {
                named[name]: replace(made, learned=None) if name.startswith("shop_id") else made
                for name, made in columns.items()
            }
            target = named[target]
        about = f"{self._rows} rows, {self._delimiter!r} {self._decimal!r} {about} {options}"
        return Random(path, columns, target, kind, options, about)

    def _file(self, lines: list[str], header: bool) -> tuple[bytes, str]:
        """The content of a file, and what is odd about it."""
        end = str(self._rng.choice(["\n", "\r\n", "\r"], p=[0.67, 0.3, 0.03]))
        odd = [name for name in ("comment", "title", "blank before", "blank between", "no end") if self._chance(0.06)]
        if "blank between" in odd:
            lines = [line for number, text in enumerate(lines) for line in ([text, ""] if number % 5 == 2 else [text])]
        if "title" in odd and header:
            lines = ["Made by a machine", "", *lines]
        if "comment" in odd and header:
            lines = ["# made by a machine", *lines]
        if "blank before" in odd:
            lines = ["", *lines]
        text = end.join(lines) + ("" if "no end" in odd else end)
        try:
            content = text.encode(self._encoding)
        except UnicodeEncodeError:
            content = text.encode()
        return content, f"{self._encoding} header={header} {end!r} {odd}"

    def _compressed(self, content: bytes) -> bytes:
        form = int(self._rng.integers(25))
        if form == 0:
            return gzip.compress(content)
        if form == 1:
            return bz2.compress(content)
        if form == 2:
            return lzma.compress(content)
        if form == 3:
            return bytes(pa.compress(content, "zstd", asbytes=True))
        if form == 4:
            archive = io.BytesIO()
            with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
                file.writestr("rows.csv", content)
            return archive.getvalue()
        return content

    def _quoted(self, cell: str, everything: bool, quote: str) -> str:
        if everything or any(letter in cell for letter in (self._delimiter, quote, "\n", "\r")) or cell.startswith("#"):
            return quote + cell.replace(quote, 2 * quote) + quote
        return cell

    def _written(self, number: float) -> str:
        return repr(float(number)).replace(".", self._decimal)

    def _blank(self) -> str:
        return self._null or str(self._rng.choice(["", "NA", "nan", "null", "N/A", "NULL"]))

    def _missing(self, values: list[Any]) -> list[Any]:
        share = float(self._rng.choice([0, 0, 0.02, 0.3]))
        return [None if self._rng.random() < share else value for value in values]

    def _number(self, values: Any) -> Made:
        found = [float(value) for value in values]
        return Made(found, [self._written(value) for value in found], pa.array(found))

    def _numbers(self) -> Made:
        found = self._missing(self._rng.normal(scale=100, size=self._rows).tolist())
        form = str(self._rng.choice(["r", "+.3f", ".4e"], p=[0.7, 0.15, 0.15]))
        if form != "r":
            found = [None if value is None else float(format(value, form)) for value in found]
        blank = self._blank()
        texts = [
            blank
            if value is None
            else (self._written(value) if form == "r" else format(value, form).replace(".", self._decimal))
            for value in found
        ]
        if form == "r" and self._chance(0.15):
            # As R writes it.
            found[0], texts[0] = 1_000.0, "1e3"
        kinds = [pa.float64(), pa.float32(), pa.float16()]
        kind = kinds[self._rng.choice(3, p=[0.7, 0.2, 0.1])]
        arrow = pa.array(np.array([np.nan if value is None else value for value in found], "f2"), pa.float16())
        if kind == pa.float16():
            arrow = pa.array([None if v is None else n for v, n in zip(found, arrow.to_numpy(), strict=True)], kind)
        else:
            arrow = pa.array(found, kind)
        return Made(found, texts, arrow, stored=[None if v is None else float(v) for v in arrow.to_pylist()])

    def _whole(self) -> Made:
        high = int(self._rng.choice([3, 50, 10**6]))
        kinds = [pa.int64(), pa.int32(), pa.float64()]
        kinds += [pa.int8(), pa.uint8(), pa.int16(), pa.uint16()] if high < 100 else [pa.uint32(), pa.uint64()]
        kind = kinds[int(self._rng.integers(len(kinds)))]
        low = 0 if str(kind).startswith("u") else -high
        found = self._missing(self._rng.integers(low, high, self._rows).tolist())
        blank = self._blank()
        texts = [blank if value is None else str(value) for value in found]
        return Made(found, texts, pa.array(found, kind), None if high == 10**6 or self._rows < 30 else True)

    def _decimals(self) -> Made:
        high = 10_000 if self._chance(0.5) else 10**9
        found = self._missing([Decimal(int(n)).scaleb(-2) for n in self._rng.integers(0, high, self._rows)])
        blank = self._blank()
        texts = [blank if value is None else self._price(value) for value in found]
        values = [None if value is None else float(value) for value in found]
        kind = pa.decimal128(14, 2) if self._chance(0.7) else pa.decimal256(40, 2)
        return Made(values, texts, pa.array(found, kind), None if self._rows < 200 else True)

    def _price(self, value: Decimal) -> str:
        text = f"{value:,.2f}" if self._thousands else f"{value:.2f}"
        return text.translate({ord(","): self._thousands, ord("."): self._decimal})

    def _words(self) -> Made:
        chosen = self._rng.choice(len(WORDS), int(self._rng.integers(2, 6)), replace=False)
        found = self._missing([WORDS[int(n)] for n in self._rng.choice(chosen, self._rows)])
        arrow = pa.array(found, [pa.string(), pa.large_string(), pa.string_view()][int(self._rng.integers(3))])
        arrow = arrow if self._chance(0.6) else pa.array(found, pa.string()).dictionary_encode()
        texts = [self._null if value is None else value for value in found]
        return Made(found, texts, arrow, None if self._rows < 30 else True)

    def _codes(self) -> Made:
        found = [f"{int(n):05d}" for n in self._rng.integers(0, 12, self._rows)]
        return Made(found, found, pa.array(found), None if self._rows < 30 else True)

    def _truths(self) -> Made:
        found = self._missing([bool(n) for n in self._rng.integers(0, 2, self._rows)])
        no, yes = [("False", "True"), ("false", "true"), ("FALSE", "TRUE"), ("no", "yes"), ("F", "T")][
            int(self._rng.integers(5))
        ]
        texts = [self._null if value is None else (yes if value else no) for value in found]
        return Made(found, texts, pa.array(found, pa.bool_()))

    def _notes(self) -> Made:
        found = [f"note {n}: " + WORDS[int(self._rng.integers(len(WORDS)))] for n in range(self._rows)]
        return Made(found, found, pa.array(found), None if self._rows < 30 else False)

    def _odd_numbers(self) -> Made:
        found = [str(n) if n % 5 else "?" for n in self._rng.integers(1, 10_000, self._rows)]
        found[0], known = "?", self._null == "?"
        values = [None if value == "?" else float(value) for value in found] if known else found
        return Made(values, found, pa.array(found), None if self._rows < 100 or known else False, found)

    def _percents(self) -> Made:
        found = [f"{n}%" for n in self._rng.integers(0, 100, self._rows)]
        return Made(found, found, pa.array(found), False)

    def _days(self) -> Made:
        start = date(2020, 1, 1) + timedelta(int(self._rng.integers(0, 1_000)))
        found = self._missing([start + timedelta(int(n)) for n in self._rng.integers(0, 500, self._rows)])
        form = str(self._rng.choice(["%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y", "%d %b %Y"], p=[0.7, 0.1, 0.1, 0.1]))
        texts = [self._null if value is None else value.strftime(form) for value in found]
        kind = pa.date32() if self._chance(0.7) else pa.date64()
        return Made(found, texts, pa.array(found, kind), None if self._rows < 30 else False)

    def _moments(self) -> Made:
        start = datetime(2024, 1, 1)
        found = [start + timedelta(seconds=int(n)) for n in self._rng.integers(0, 10**7, self._rows)]
        zone = str(self._rng.choice(["", "+02:00", "Z", "+0530"], p=[0.6, 0.2, 0.1, 0.1]))
        where = [None, "UTC", "Europe/Berlin", "+05:30"][self._rng.choice(4, p=[0.5, 0.3, 0.1, 0.1])]
        kind = pa.timestamp(str(self._rng.choice(["s", "ms", "us", "ns"])), where)
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
        stored: list[Any] | None = None
        if form == 0:
            ids = [str(uuid.UUID(bytes=self._rng.bytes(16))) for _ in range(self._rows)]
            arrow = pa.array([uuid.UUID(value).bytes for value in ids], pa.uuid())
        elif form == 1:
            ids = [str(2**63 + 7 * int(n)) for n in self._rng.permutation(self._rows)]
            arrow, stored = pa.array([int(value) for value in ids], pa.uint64()), [float(value) for value in ids]
        elif form == 2:
            ids = ["0" * (n % 3) + str(n // 3 + 1) for n in range(self._rows)]
            arrow = pa.array(ids)
        elif form == 3:
            ids = [str(10**20 + int(n)) for n in self._rng.permutation(self._rows)]
            arrow, stored = pa.array([Decimal(value) for value in ids], pa.decimal128(38)), [float(n) for n in ids]
        else:
            ids = [f"A-{n}" for n in self._rng.permutation(self._rows)]
            arrow = pa.array(ids).dictionary_encode()
        return Made(ids, ids, arrow, None if self._rows < 10 or form in (1, 3) else False, stored)

    def _empty(self) -> Made:
        return Made([None] * self._rows, [""] * self._rows, pa.nulls(self._rows), False)

    def _parts(self) -> Made:
        """What no model learns from, in Parquet; a number in text."""
        numbers = self._rng.integers(0, 9, self._rows).tolist()
        form = int(self._rng.integers(6))
        if form == 0:
            arrow = pa.array([{"a": n, "b": [str(n)]} for n in numbers])
        elif form == 1:
            arrow = pa.array([[("a", n)] for n in numbers], pa.map_(pa.string(), pa.int64()))
        elif form == 2:
            arrow = pa.array([timedelta(seconds=n) for n in numbers])
        elif form == 3:
            arrow = pa.array([b"%d\xff" % n for n in numbers], pa.binary())
        elif form == 4:
            arrow = pa.array([b"%d\xff" % n for n in numbers], pa.binary(2))
        else:
            arrow = pa.array(numbers, pa.time32("s"))
        return Made(numbers, [str(n) for n in numbers], arrow, None)

    def _levels(self) -> Made:
        """Numbers that pandas keeps as categories; Parquet gives them back as numbers."""
        found = self._rng.choice([10, 20, 50], self._rows).tolist()
        return Made(found, [str(n) for n in found], pa.array(found, pa.int64()).dictionary_encode(), None)

    def _lists(self) -> Made:
        found = [[int(n)] for n in self._rng.integers(0, 9, self._rows)]
        texts = [str(value) for value in found]
        return Made(texts, texts, pa.array(found), None)

    def _constant(self) -> Made:
        return Made([1] * self._rows, ["1"] * self._rows, pa.array([1] * self._rows))

    def _target(self, signal: Any) -> tuple[str, Made]:
        form = int(self._rng.integers(11))
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
                texts = [self._null if value is None else f"{value}{self._decimal}0" for value in found]
                arrow = pa.array(found, pa.float64())
            return "classification", Made(found, texts, arrow)
        if form == 5:
            found = [bool(value > 0) for value in noisy]
            return "classification", Made(found, [str(value) for value in found], pa.array(found))
        if form == 8:
            # Half of it may mean a missing value, so that the command needs an option.
            found = ["NA" if value > 0 else "fine" for value in noisy]
            return "classification", Made(found, found, pa.array(found))
        if form == 9:
            found = self._missing([int(value * 1_000) for value in noisy])
            texts = [self._null if value is None else str(value) for value in found]
            return "regression", Made(found, texts, pa.array(found, pa.int32()))
        if form == 10:
            found = self._missing([f"{int(value > 0):02d}" for value in noisy])
            return "classification", Made(found, [value or self._null for value in found], pa.array(found))
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
    Maker._parts,
    Maker._levels,
    Maker._constant,
]


def frame(columns: dict[str, Made], names: list[str]) -> pd.DataFrame:
    """The columns as a user would pass them to scikit-learn."""
    found = {}
    for name in names:
        values = columns[name].values
        numbers = all(
            value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values
        )
        found[name] = pd.Series(values, dtype="float64") if numbers else pd.Series(values, dtype=object)
    return pd.DataFrame(found)
