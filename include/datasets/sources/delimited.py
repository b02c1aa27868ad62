"""Reads delimited text, such as CSV, in blocks, and converts each column to the type that fits the whole file."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from include.datasets.sources import compressed, text
from include.datasets.sources.text import Numbers
from include.error_codes import Code
from include.errors import NonRetryableError

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_BYTES = 8 * 1024 * 1024
# A value cannot be longer than a block.
MAX_BLOCK_BYTES = 512 * 1024 * 1024


@dataclass(frozen=True)
class Dialect:
    """The notation of a file of delimited text.

    Attributes:
        delimiter: The character between fields.
        quote: The character around a field that contains a delimiter or a line break.
        encoding: One of Python's codecs.
        numbers: The notation of numbers.
        names: The columns' names, if the file has no header.
        skip: The number of lines before the header.
        comment: The beginning of a line that is not a row.
        nulls: Texts that mean a missing value, besides an empty field.
    """

    delimiter: str = ","
    quote: str = '"'
    encoding: str = "utf-8"
    numbers: Numbers = field(default_factory=Numbers)
    names: Sequence[str] = ()
    skip: int = 0
    comment: str | None = None
    nulls: Sequence[str] = ()


class Delimited:
    """A file of delimited text.

    Attributes:
        schema: All columns, with the types that fit all rows.
    """

    def __init__(
        self, path: Path, dialect: Dialect, types: Mapping[str, str], held: bool, max_bytes: int | None = None
    ) -> None:
        """Reads the whole file once, to find the types of its columns.

        Args:
            types: The types of columns that are known, by column; names of ``text.TYPES``.
            held: Whether to keep the rows in memory.
            max_bytes: Read only the rows within this many bytes from the beginning.

        Raises:
            NonRetryableError: The file has no header, or another number of columns than the dialect.
            pyarrow.ArrowInvalid, UnicodeError: The file does not match the dialect.
        """
        import pyarrow as pa

        self._path, self._dialect, self._max_bytes = path, dialect, max_bytes
        self.names, self._before, self._empty = _header(path, dialect)
        self._block_bytes, self._held = BLOCK_BYTES, held
        self._texts: list[pa.RecordBatch] = []
        guessed = self._guess_types()
        wanted = {name: text.arrow_type(kind) for name, kind in types.items()}
        self.schema = pa.schema([(name, wanted.get(name, guessed.get(name, pa.null()))) for name in self.names])

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows, with these columns only."""
        import pyarrow as pa

        first = 1
        for piece in self._texts if self._held else self._read(columns):
            arrays = [self._converted(piece.column(name), name, first) for name in columns]
            yield pa.RecordBatch.from_arrays(arrays, names=list(columns))
            first += piece.num_rows

    def _converted(self, texts: pa.Array, name: str, first: int) -> pa.Array:
        import pyarrow as pa

        wanted = self.schema.field(name).type
        try:
            return text.convert_to_chosen(texts, wanted, self._dialect.numbers)
        except pa.ArrowInvalid as error:
            odd = text.misfits(texts, wanted, self._dialect.numbers)
            row = first + texts.to_pylist().index(odd[0]) if odd else first
            raise NonRetryableError(
                f"{self._path}: the column {name!r} has values that are not {wanted}: "
                f"{', '.join(map(repr, odd[:3]))}, first in row {row}.",
                "List texts that mean a missing value in nulls=, correct types=, or correct the file.",
                code=Code.TYPE_MISMATCH,
            ) from error

    def _guess_types(self) -> dict[str, pa.DataType]:
        import pyarrow as pa

        while True:
            try:
                return text.guess(self._pieces(), self._dialect.numbers)
            except pa.ArrowInvalid as error:
                if "straddling" not in str(error) or self._block_bytes >= MAX_BLOCK_BYTES:
                    raise
                self._block_bytes = min(8 * self._block_bytes, MAX_BLOCK_BYTES)

    def _pieces(self) -> Iterator[Mapping[str, pa.Array]]:
        self._texts, last = [], None
        for piece in self._read(self.names):
            if self._held:
                self._texts.append(piece)
            yield dict(zip(piece.schema.names, piece.columns, strict=True))
            last = piece
        if last is not None:
            self._require_closed(last)

    def _require_closed(self, piece: pa.RecordBatch) -> None:
        """Refuses a file whose last quotation mark is never closed; pyarrow would accept the rest as one value."""
        value = piece.columns[-1][-1].as_py() or ""
        if not self._dialect.quote or len(value.splitlines()) < 2:
            return
        last = ""
        with opened(self._path, self._dialect, self._max_bytes) as (stream, encoding):
            lines = io.TextIOWrapper(stream, encoding=encoding)
            for line in lines:
                last = line.strip() or last
            lines.detach()
        if not last.endswith(self._dialect.quote):
            raise NonRetryableError(
                f"{self._path}: the quotation mark before {value.splitlines()[0][:40]!r} is never closed, so that the "
                "rest of the file is one value.",
                "Close it, or set quote='' if the file does not quote fields.",
                code=Code.FILE_UNREADABLE,
            )

    def _read(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa
        from pyarrow import csv as arrow

        dialect = self._dialect
        if self._empty:
            return
        with opened(self._path, dialect, self._max_bytes) as (stream, encoding):
            reader = arrow.open_csv(
                stream,
                read_options=arrow.ReadOptions(
                    block_size=self._block_bytes,
                    column_names=list(self.names),
                    skip_rows=self._before,
                    encoding=encoding,
                ),
                parse_options=arrow.ParseOptions(
                    delimiter=dialect.delimiter, quote_char=dialect.quote or False, newlines_in_values=True
                ),
                convert_options=arrow.ConvertOptions(
                    include_columns=list(columns),
                    column_types=dict.fromkeys(columns, pa.string()),
                    null_values=[""],
                    strings_can_be_null=True,
                ),
            )
            for batch in reader:
                yield _without_nulls(batch, dialect.nulls) if dialect.nulls else batch


def _without_nulls(batch: pa.RecordBatch, nulls: Sequence[str]) -> pa.RecordBatch:
    """Replaces each text that means a missing value with null, also if it has blanks around it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    known = pa.array(nulls, pa.string())
    columns = [
        pc.if_else(pc.is_in(pc.utf8_trim_whitespace(column), known), pa.scalar(None, column.type), column)
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


@contextmanager
def opened(path: Path, dialect: Dialect, max_bytes: int | None = None) -> Iterator[tuple[BinaryIO, str]]:
    """Opens the file's rows as bytes without comments; yields the stream and its encoding.

    Args:
        max_bytes: Stop at the end of the row that reaches this many bytes.
    """
    with compressed.opened(path) as stream:
        if dialect.comment is None and max_bytes is None:
            yield stream, dialect.encoding
        else:
            lines: Iterable[str] = io.TextIOWrapper(stream, encoding=_codec(dialect), newline="")
            if max_bytes is not None:
                lines = _beginning(lines, dialect, max_bytes)
            yield _Lines(_uncommented(lines, dialect)), "utf-8"  # type: ignore[misc]


def _beginning(lines: Iterable[str], dialect: Dialect, max_bytes: int) -> Iterator[str]:
    """The first lines, up to the end of a row."""
    length, open_ = 0, False
    for line in lines:
        open_ ^= bool(dialect.quote and line.count(dialect.quote) % 2)
        yield line
        length += len(line)
        if length >= max_bytes and not open_:
            return


def _uncommented(lines: Iterable[str], dialect: Dialect) -> Iterator[bytes]:
    inside = False
    for line in lines:
        if not inside and line.startswith(dialect.comment or "\0"):
            continue
        inside ^= bool(dialect.quote and line.count(dialect.quote) % 2)
        yield line.encode()


class _Lines(io.RawIOBase):
    """Makes a readable file of lines."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines = lines
        self._left = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        pieces, length = [self._left], len(self._left)
        for line in self._lines:
            pieces.append(line)
            length += len(line)
            if 0 <= size <= length:
                break
        content = b"".join(pieces)
        self._left = content[size:] if size >= 0 else b""
        return content[:size] if size >= 0 else content


def _header(path: Path, dialect: Dialect) -> tuple[list[str], int, bool]:
    """The columns' names, the number of lines before the first row, and whether the file has no rows.

    A column without a name is named after its position, as pandas does: ``Unnamed: 0``.
    """
    with opened(path, dialect) as (stream, encoding):
        codec = "utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding
        lines = io.TextIOWrapper(stream, encoding=codec, newline="")
        before = [line for _, line in zip(range(dialect.skip), lines, strict=False)]
        blank = 0
        rest: Iterator[str] = iter(lines)
        for line in rest:
            if line.strip("\r\n"):
                rest = itertools.chain([line], rest)
                break
            blank += 1
        quoting: dict[str, Any] = {"quotechar": dialect.quote} if dialect.quote else {"quoting": csv.QUOTE_NONE}
        reader = csv.reader(rest, delimiter=dialect.delimiter, **quoting)
        first = next(reader, None)
        empty = not dialect.names and not any(line.strip() for line in rest)
        lines.detach()
    if first is None:
        raise NonRetryableError(f"The file {path} is empty.", "Provide a file with rows.", code=Code.FILE_EMPTY)
    if dialect.names:
        if len(dialect.names) != len(first):
            raise NonRetryableError(
                f"The rows of {path} have {len(first)} fields, but names= has {len(dialect.names)} names.",
                "Correct names=.",
                code=Code.FILE_UNREADABLE,
            )
        return list(dialect.names), len(before) + blank, empty
    names = [name or f"Unnamed: {place}" for place, name in enumerate(first)]
    return names, len(before) + blank + reader.line_num, empty


def _codec(dialect: Dialect) -> str:
    return "utf-8-sig" if dialect.encoding.lower() in ("utf-8", "utf8") else dialect.encoding
