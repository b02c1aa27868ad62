"""Detects the dialect of a file of delimited text. The result is a proposal that a definition records."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from include.datasets.sources import compressed
from include.error_codes import Code
from include.errors import UserError

# In order of likelihood.
DELIMITERS = (",", ";", "\t", "|")
SAMPLE_BYTES = 1024 * 1024
_SAMPLE_ROWS = 500
_PIECE = 1024 * 1024
_ODD_BYTES = 64 * 1024

_PLAIN = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_COMMA = re.compile(r"[+-]?(?:\d+|\d{1,3}(?:\.\d{3})+)(?:,\d+)?")
_DATE = re.compile(r"\d{1,4}[-./]\d{1,2}[-./]\d{1,4}(?:[T ]\d{1,2}:\d{2}.*)?|\d{1,2}:\d{2}(?::\d{2})?")
_WORDS = re.compile(r"[^,;\t|]*")


@dataclass(frozen=True)
class Found:
    """The detected dialect.

    Attributes:
        options: The options of ``File`` that differ from its defaults. They include ``names`` if the header has one
            name less than the rows have fields.
        first: The fields of the first row.
        header: Whether the first row names the columns; None if it may also be a row of data.
    """

    options: dict[str, Any] = field(default_factory=dict)
    first: Sequence[str] = ()
    header: bool | None = True


def options(path: Path) -> dict[str, Any]:
    """The options of ``File`` for this file that differ from the defaults."""
    return sniff(path).options


def sniff(path: Path, **known: Any) -> Found:
    """Detects the dialect from the beginning of a file, and the encoding from the whole file.

    Args:
        known: Options of ``File`` that are already known.

    Raises:
        UserError: The file is not text.
        OSError: The file cannot be read.
    """
    encoding = known.get("encoding") or _encoding(path)
    lines = _sample(path, encoding)
    comment = known.get("comment") or _comment(lines)
    if comment:
        lines = [line for line in lines if not line.startswith(comment)]
    before = known.get("skip") or 0
    lines = lines[before:]
    delimiter, quote = known.get("delimiter"), known.get("quote", '"')
    if delimiter is None:
        delimiter = _delimiter(lines, quote)
    rows = _rows(lines, delimiter, quote)
    if rows and "quote" not in known and all(re.fullmatch("'[^']*'", cell.strip()) for cell in rows[0]):
        quote = "'"
        rows = _rows(lines, delimiter, quote)
    skip = before or _preamble(lines, rows, delimiter, quote)
    rows = _rows(lines[skip - before :], delimiter, quote)
    if not rows:
        return Found()
    decimal, thousands = known.get("decimal"), known.get("thousands")
    if decimal is None and "," not in (delimiter, thousands):
        decimal, thousands = _decimal(rows[1:], thousands)
    found: dict[str, Any] = {
        "delimiter": delimiter,
        "quote": quote,
        "decimal": decimal or ".",
        "thousands": thousands,
        "encoding": encoding,
        "skip": skip,
        "comment": comment,
    }
    if "names" not in known and (names := _names(rows)):
        found |= {"names": names, "skip": skip + _lines_of_first(lines[skip - before :], delimiter, quote)}
        rows[0] = names
    defaults = {"delimiter": ",", "quote": '"', "decimal": ".", "encoding": "utf-8", "skip": 0}
    differing = {name: value for name, value in found.items() if value != defaults.get(name)}
    return Found(differing, rows[0], _has_header(rows, decimal or "."))


def _encoding(path: Path) -> str:
    """The encoding of the whole file, since its first letter outside ASCII may come late."""
    decoder, odd, ascii_only = codecs.getincrementaldecoder("utf-8")(), b"", True
    valid = True
    with compressed.opened(path) as stream:
        first = stream.read(_PIECE)
        for mark, name in (
            (codecs.BOM_UTF8, "utf-8"),
            (codecs.BOM_UTF32_LE, "utf-32"),
            (codecs.BOM_UTF32_BE, "utf-32"),
            (codecs.BOM_UTF16_LE, "utf-16"),
            (codecs.BOM_UTF16_BE, "utf-16"),
        ):
            if first.startswith(mark):
                return name
        if wide := _wide(first):
            return wide
        piece = first
        while piece:
            if b"\0" in piece:
                raise UserError(
                    f"The file {path} is not delimited text or Parquet: it contains zero bytes.",
                    "Save it as CSV.",
                    code=Code.FORMAT_UNSUPPORTED,
                )
            if valid:
                try:
                    decoder.decode(piece)
                except UnicodeDecodeError:
                    valid = False
            if not piece.isascii() and len(odd) < _ODD_BYTES:
                ascii_only = False
                odd += b"\n".join(line for line in piece.splitlines() if not line.isascii())[:_ODD_BYTES]
            piece = stream.read(_PIECE)
    if valid and not decoder.getstate()[0]:
        return "utf-8"
    assert not ascii_only
    return _legacy(odd)


def _wide(first: bytes) -> str | None:
    """UTF-16 without a byte order mark: every other byte of ASCII text is zero."""
    for name, places in (("utf-16-le", slice(1, 2_000, 2)), ("utf-16-be", slice(0, 2_000, 2))):
        zeros = first[places]
        if len(zeros) > 2 and zeros.count(0) > 0.6 * len(zeros):
            return name
    return None


def _legacy(odd: bytes) -> str:
    """A single-byte encoding, or an East Asian one."""
    from charset_normalizer import from_bytes

    best = from_bytes(odd).best()
    try:
        western = odd.decode("cp1252")
    except UnicodeDecodeError:
        western = ""
    # Words of Western languages have few letters outside ASCII; words of other scripts have only such letters.
    words = re.findall(r"[^\W\d_]+", western)
    foreign = [word for word in words if len(word) > 3 and all(ord(letter) > 127 for letter in word)]
    if western and len(foreign) * 20 < len(words):
        return "cp1252"
    return best.encoding if best is not None else "cp1252"


def _sample(path: Path, encoding: str) -> list[str]:
    codec = "utf-8-sig" if encoding == "utf-8" else encoding
    with compressed.opened(path) as stream:
        content = stream.read(SAMPLE_BYTES)
        more = bool(stream.read(1))
    decoded = codecs.getincrementaldecoder(codec)("replace").decode(content)
    lines = io.StringIO(decoded, newline=None).read().split("\n")
    return [line + "\n" for line in (lines[:-1] if more and len(lines) > 1 else lines)]


def _comment(lines: Sequence[str]) -> str | None:
    """``#`` if the file begins with lines that begin with it and most lines do not."""
    marked = [line.startswith("#") for line in lines if line.strip()]
    return "#" if marked and marked[0] and not all(marked) and marked.count(True) * 2 < len(marked) + 1 else None


def _rows(lines: Sequence[str], delimiter: str, quote: str) -> list[list[str]]:
    quoting: dict[str, Any] = {"quotechar": quote} if quote else {"quoting": csv.QUOTE_NONE}
    found: list[list[str]] = []
    try:
        for row in csv.reader(lines, delimiter=delimiter, **quoting):
            if row:
                found.append(row)
            if len(found) >= _SAMPLE_ROWS:
                break
    except csv.Error:
        pass
    return found


def _delimiter(lines: Sequence[str], quote: str) -> str:
    """The delimiter that gives most rows the same number of fields, with the fewest other delimiters inside fields."""
    scores = {}
    for place, delimiter in enumerate(DELIMITERS):
        rows = _rows(lines, delimiter, quote)
        if not rows:
            continue
        width, count = Counter(map(len, rows)).most_common(1)[0]
        if width < 2:
            continue
        alike = [row for row in rows if len(row) == width]
        cells = [cell.strip() for row in alike for cell in row]
        clean = sum(_is_clean(cell) for cell in cells) / len(cells)
        scores[delimiter] = (round(count / len(rows), 3) * clean, len(rows[0]) == width, width, -place)
    if scores:
        return max(scores, key=lambda name: scores[name])
    # Texts contain blanks, too: they are delimiters only if every row has the same number.
    widths = {len(row) for row in _rows([line.rstrip() for line in lines if line.strip()], " ", quote)}
    return " " if len(widths) == 1 and widths != {1} else ","


def _is_clean(cell: str) -> bool:
    return bool(_PLAIN.fullmatch(cell) or _COMMA.fullmatch(cell) or _DATE.fullmatch(cell) or _WORDS.fullmatch(cell))


def _preamble(lines: Sequence[str], rows: Sequence[Sequence[str]], delimiter: str, quote: str) -> int:
    """The number of lines before the first row that has as many fields as most rows."""
    if not rows:
        return 0
    width = Counter(map(len, rows)).most_common(1)[0][0]
    if width < 2 or len(rows[0]) == width:
        return 0
    for number in range(1, min(len(lines), 30)):
        rest = _rows(lines[number:], delimiter, quote)
        if rest and lines[number].strip() and (len(rest[0]) == width or 1 < len(rest[0]) == width - 1):
            # A short first row with delimiters is an error in the file, not a title.
            return number if all(len(row) == 1 for row in rows[: max(1, len(rows) - len(rest))]) else 0
    return 0


def _names(rows: Sequence[Sequence[str]]) -> list[str]:
    """The columns' names if the header has one name less than every row has fields; otherwise empty.

    R writes a first column of row names without a name for it. If the last field is always empty, every row ends with
    an extra delimiter.
    """
    header, rest = [cell.strip() for cell in rows[0]], rows[1:]
    if len(header) < 2 or not rest or any(len(row) != len(header) + 1 for row in rest):
        return []
    named = [cell or f"Unnamed: {place}" for place, cell in enumerate(header)]
    return [*named, f"Unnamed: {len(named)}"] if not any(row[-1].strip() for row in rest) else ["Unnamed: 0", *named]


def _lines_of_first(lines: Sequence[str], delimiter: str, quote: str) -> int:
    """The number of lines up to the end of the first row."""
    quoting: dict[str, Any] = {"quotechar": quote} if quote else {"quoting": csv.QUOTE_NONE}
    reader = csv.reader(lines, delimiter=delimiter, **quoting)
    next(row for row in reader if row)
    return reader.line_num


def _decimal(rows: Sequence[Sequence[str]], thousands: str | None) -> tuple[str, str | None]:
    """The decimal point and the separator of thousands: a comma and a point if no other reading gives numbers."""
    width = max(map(len, rows), default=0)
    columns = [[row[place].strip() for row in rows if place < len(row)] for place in range(width)]
    commas, points = [], 0
    for cells in columns:
        found = [cell for cell in cells if "," in cell and _COMMA.fullmatch(cell)]
        # Three digits after each comma may be thousands or thousandths.
        if not all(re.fullmatch(r"[+-]?[1-9]\d{0,2}(,\d{3})+", cell) for cell in found):
            commas.append(found)
        points += any("." in cell and _PLAIN.fullmatch(cell) and not _COMMA.fullmatch(cell) for cell in cells)
    if not commas or len(commas) < points:
        return ".", thousands
    grouped = any("." in cell for cells in commas for cell in cells)
    return ",", "." if grouped and thousands is None else thousands


def _has_header(rows: Sequence[Sequence[str]], decimal: str) -> bool | None:
    """Whether the first row names the columns; None if it looks like the rows after it."""
    first, rest = [cell.strip() for cell in rows[0]], rows[1:]
    number = _COMMA if decimal == "," else _PLAIN
    if any(number.fullmatch(cell) or _DATE.fullmatch(cell) for cell in first):
        return None
    named = [cell for cell in first if cell]
    if len(named) > 1 and len(set(named)) == 1:
        return None
    below = [{row[place].strip() for row in rest if place < len(row)} for place in range(len(first))]
    again = [cell for cell, values in zip(first, below, strict=True) if cell and cell in values]
    return None if again and len(again) * 2 >= len(named) else True
