"""The source `File`: delimited text, such as CSV, or Parquet."""

from __future__ import annotations

import codecs
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from include.datasets.sources import compressed, text
from include.datasets.sources.delimited import Delimited, Dialect
from include.datasets.sources.plain import cast
from include.datasets.sources.source import SCAN_ROWS, Scan, Source, Whole, numbered, require_free
from include.datasets.sources.text import Numbers
from include.definitions import InvalidDefinition
from include.error_codes import Code
from include.errors import NonRetryableError
from include.project import ROOT

if TYPE_CHECKING:
    import pyarrow as pa

SCAN_VALUES = 32 * SCAN_ROWS
TEXT_IN_MEMORY_BYTES = 64 * 1024 * 1024
# Text is at most this many times larger than its compressed form.
COMPRESSION = 8
# `check` reads a file of up to this size completely, and the beginning of a larger one.
CHECK_BYTES = 4 * 1024 * 1024

_UNSUPPORTED = {
    b"ARROW1": "an Arrow file",
    b"ORC": "an ORC file",
    b"Obj\x01": "an Avro file",
    b"\xd0\xcf\x11\xe0": "a spreadsheet or a document",
    b"SQLite format 3": "an SQLite database",
    b"\x89HDF": "an HDF5 file",
    b"%PDF": "a PDF document",
}


@dataclass(frozen=True)
class File(Source):
    """A file of delimited text, which may be compressed, or a Parquet file. The content decides, not the name.

    All options but ``path``, ``number`` and ``types`` apply to delimited text only. A column of text gets the type that
    fits all of its rows: whole numbers, numbers, booleans, dates or times. A text such as ``00501``, which a number
    would change, stays text.

    Attributes:
        path: Absolute, or relative to the project's directory.
        number: The name of a column to add with the number of the row, for rows without an id.
        types: The types of columns, if they are not to be detected: ``text``, ``integer``, ``number``, ``boolean``,
            ``date`` or ``timestamp`` (UTC).
        delimiter: The character between fields.
        quote: The character around fields that contain delimiters or line breaks; empty if the file has none.
        decimal: The decimal point.
        thousands: The separator of thousands.
        encoding: One of Python's codecs.
        nulls: Texts that mean a missing value, besides an empty field and, among numbers, ``NA``, ``NaN``, ``null`` and
            the like.
        names: The columns' names, if the file has no header.
        skip: The number of lines before the header.
        comment: The beginning of a line that is not a row.

    Raises:
        InvalidDefinition: An option has an invalid value.
    """

    path: str
    number: str | None = None
    types: Mapping[str, str] = field(default_factory=dict)
    delimiter: str = ","
    quote: str = '"'
    decimal: str = "."
    thousands: str | None = None
    encoding: str = "utf-8"
    nulls: Sequence[str] = ()
    names: Sequence[str] = ()
    skip: int = 0
    comment: str | None = None

    def __post_init__(self) -> None:
        self._check_types()
        for option, value, empty in (
            ("delimiter", self.delimiter, False),
            ("quote", self.quote, True),
            ("decimal", self.decimal, False),
            ("thousands", self.thousands, False),
        ):
            if value is not None and (not isinstance(value, str) or len(value) > 1 or not (value or empty)):
                raise InvalidDefinition(
                    "source", f"{option}={value!r} is not one character.", f'Write one, as in {option}=";".'
                )
            if value in ("\n", "\r"):
                raise InvalidDefinition("source", f"{option}={value!r} is a line break.", "Use another character.")
        if self.decimal == (self.thousands or ""):
            raise InvalidDefinition(
                "source", f"decimal and thousands are both {self.decimal!r}.", "Change one of them."
            )
        if self.quote and self.quote == self.delimiter:
            raise InvalidDefinition("source", f"delimiter and quote are both {self.quote!r}.", "Change one of them.")
        try:
            codecs.lookup(self.encoding)
        except (LookupError, TypeError) as error:
            raise InvalidDefinition(
                "source",
                f"encoding={self.encoding!r} is not an encoding that Python knows.",
                "Write one such as 'utf-8' or 'cp1252'.",
            ) from error
        for option, texts in (("nulls", self.nulls), ("names", self.names)):
            if isinstance(texts, str) or not all(isinstance(value, str) and value for value in texts):
                raise InvalidDefinition(
                    "source", f"{option}={texts!r} is not a list of texts.", f'Write {option}=["a", "b"].'
                )
        if not isinstance(self.skip, int) or self.skip < 0:
            raise InvalidDefinition("source", f"skip={self.skip!r} is not a number of lines.", "Write skip=2.")
        if self.comment is not None and (not isinstance(self.comment, str) or not self.comment):
            raise InvalidDefinition("source", f"comment={self.comment!r} is not a text.", 'Write comment="#".')

    @property
    def dialect(self) -> Dialect:
        """The options that describe delimited text."""
        return Dialect(
            delimiter=self.delimiter,
            quote=self.quote,
            encoding=self.encoding,
            numbers=Numbers(self.decimal, self.thousands),
            names=self.names,
            skip=self.skip,
            comment=self.comment,
            nulls=self.nulls,
        )

    def rows(self, start: datetime | None, end: datetime | None) -> pa.Table:
        import pyarrow as pa

        with self.readable() as path:
            if is_parquet(path):
                scan: _Numbered = _Parquet(path, self.number, self.types)
            else:
                scan = _Text(path, self.number, self._delimited(path, held=True))
            names = [name for name in scan.schema.names if name != self.number]
            table = pa.Table.from_batches(scan.read(names), pa.schema([scan.schema.field(name) for name in names]))
        return numbered(str(self), table, self.number)

    @contextmanager
    def scan(self, start: datetime | None, end: datetime | None) -> Iterator[Scan]:
        """Scans the rows in batches, without all of them in memory. Text of less than 64 MiB is read completely."""
        with self.readable() as path:
            if is_parquet(path):
                yield _Parquet(path, self.number, self.types)
            elif _size(path) > TEXT_IN_MEMORY_BYTES:
                yield _Text(path, self.number, self._delimited(path, held=False))
            else:
                yield Whole(self.rows(start, end))

    @contextmanager
    def beginning(self) -> Iterator[Scan | None]:
        """All rows of a small file; of a large file the schema of Parquet, or the first rows of text."""
        with self.readable() as path:
            if _size(path) <= CHECK_BYTES:
                yield Whole(self.rows(None, None))
            elif is_parquet(path):
                scan: Scan = _Parquet(path, self.number, self.types)
                scan.certain = "types"
                yield scan
            else:
                scan = _Text(path, self.number, self._delimited(path, held=True, max_bytes=CHECK_BYTES))
                scan.certain = "names"
                yield scan

    def _delimited(self, path: Path, held: bool, max_bytes: int | None = None) -> Delimited:
        found = Delimited(path, self.dialect, self.types, held, max_bytes)
        _require_columns(path, self.types, found.names)
        return found

    @contextmanager
    def readable(self) -> Iterator[Path]:
        """Yields the file's path, and raises the errors of the ``with`` block as errors of this file.

        Raises:
            NonRetryableError: The file does not exist or cannot be read with these options.
        """
        import pyarrow as pa

        path = ROOT / self.path
        if path.is_dir():
            raise NonRetryableError(
                f"{path} is a directory, not a file.", "Name a CSV or Parquet file in it.", code=Code.INVALID_PATH
            )
        try:
            require_rows(path)
            yield path
        except FileNotFoundError as error:
            raise NonRetryableError(
                f"The file {path} does not exist.", "Put it there, or correct the path.", code=Code.FILE_NOT_FOUND
            ) from error
        except UnicodeError as error:
            raise self._unreadable(path, f"is not in {self.encoding.upper()}") from error
        except (*compressed.BROKEN, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            if "invalid UTF8" in str(error):
                raise self._unreadable(path, "is not in UTF-8") from error
            raise self._unreadable(path, f"cannot be read: {_in_one_line(error)}") from error

    def _unreadable(self, path: Path, reason: str) -> NonRetryableError:
        """An error that proposes the options that fit the file."""
        from include.datasets.sources import sniff

        try:
            found = sniff.options(path) if not is_parquet(path) else {}
        except Exception:  # The first error is reported, whatever the detection of options runs into.
            found = {}
        other = [f"{name}={value!r}" for name, value in found.items() if value != getattr(self, name)]
        remedy = f"It looks like File(…, {', '.join(other)})." if other else "Correct the file."
        return NonRetryableError(f"The file {path} {reason}.", remedy, code=Code.FILE_UNREADABLE)

    def __str__(self) -> str:
        return self.path

    def _check_types(self) -> None:
        if not isinstance(self.types, Mapping):
            raise InvalidDefinition("source", f"types={self.types!r} is not a mapping.", 'Write types={"zip": "text"}.')
        for name, kind in self.types.items():
            if kind not in text.TYPES:
                known = ", ".join(text.TYPES)
                raise InvalidDefinition(
                    "source", f"types: {kind!r}, for the column {name!r}, is not a type.", f"Use one of {known}."
                )


def _size(path: Path) -> int:
    """An upper bound of the size of the content as text."""
    return path.stat().st_size * (COMPRESSION if compressed.is_compressed(path) or is_parquet(path) else 1)


def is_parquet(path: Path) -> bool:
    """Whether the file's content is Parquet."""
    return compressed.beginning(path).startswith(b"PAR1")


def require_rows(path: Path) -> None:
    """Refuses files that are neither delimited text nor Parquet.

    Raises:
        NonRetryableError: The file is empty, or has another format.
        OSError: The file cannot be read.
    """
    start = compressed.beginning(path)
    other = next((name for magic, name in _UNSUPPORTED.items() if start.startswith(magic)), None)
    if other is not None:
        raise NonRetryableError(
            f"The file {path} is {other}, not delimited text or Parquet.",
            "Save it as CSV.",
            code=Code.FORMAT_UNSUPPORTED,
        )
    if not start:
        raise NonRetryableError(f"The file {path} is empty.", "Provide a file with rows.", code=Code.FILE_EMPTY)


class _Numbered(Scan):
    """The rows of a file, with a column of row numbers if ``number`` names one."""

    def __init__(self, path: Path, schema: pa.Schema, number: str | None) -> None:
        import pyarrow as pa

        require_free(str(path), number, schema.names)
        self._number = number
        self.schema = schema if number is None else schema.insert(0, pa.field(number, pa.int64()))

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        read, before = [name for name in columns if name != self._number], 0
        for batch in self.read(read or self.schema.names[1:2]):
            numbers = pa.array(range(before, before + batch.num_rows), pa.int64()) if len(read) < len(columns) else None
            arrays = [numbers if name == self._number else batch.column(name) for name in columns]
            yield pa.RecordBatch.from_arrays(arrays, names=list(columns))
            before += batch.num_rows

    @abstractmethod
    def read(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """The file's own columns."""


class _Parquet(_Numbered):
    def __init__(self, path: Path, number: str | None, types: Mapping[str, str]) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        self._path = path
        schema = parquet.read_schema(path)
        _require_columns(path, types, schema.names)
        self._wanted = {name: text.arrow_type(kind) for name, kind in types.items()}
        fields = [pa.field(found.name, self._wanted.get(found.name, found.type)) for found in schema]
        super().__init__(path, pa.schema(fields), number)

    def read(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa
        from pyarrow import parquet

        # With pre_buffer, everything that was read stays in memory until the end of the file.
        with parquet.ParquetFile(self._path, pre_buffer=False) as file:
            # Larger batches of few columns: the cost of each batch outweighs that of its values.
            for batch in file.iter_batches(max(SCAN_ROWS, SCAN_VALUES // max(1, len(columns))), columns=columns):
                arrays = [self._cast(batch.column(name), name) for name in columns]
                yield pa.RecordBatch.from_arrays(arrays, names=columns)

    def _cast(self, values: pa.Array, name: str) -> pa.Array:
        import pyarrow as pa
        import pyarrow.types as types

        wanted = self._wanted.get(name)
        if wanted is None or values.type == wanted:
            return values
        try:
            if types.is_dictionary(values.type):
                values = values.dictionary_decode()
            return cast(values, wanted)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise NonRetryableError(
                f"{self._path}: the column {name!r} is {values.type} and has values that are not {wanted}: "
                f"{_in_one_line(error)}.",
                "Correct types=.",
                code=Code.TYPE_MISMATCH,
            ) from error


class _Text(_Numbered):
    def __init__(self, path: Path, number: str | None, content: Delimited) -> None:
        self._content = content
        super().__init__(path, content.schema, number)

    def read(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        yield from self._content.batches(columns)


def _require_columns(path: Path, types: Mapping[str, str], names: Sequence[str]) -> None:
    if unknown := [name for name in types if name not in names]:
        raise NonRetryableError(
            f"{path} has no column {', '.join(map(repr, unknown))}, which types= names; it has {', '.join(names)}.",
            "Correct types=.",
            code=Code.COLUMN_MISSING,
        )


def _in_one_line(error: Exception) -> str:
    """The error's message without line breaks or unprintable characters, which it may quote from the file."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(error).rstrip("."))
