"""Sources: where a dataset's rows come from. Nothing is opened or imported before the rows are asked for."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.errors import LastingError

if TYPE_CHECKING:
    import pyarrow as pa

PROJECT = Path(__file__).resolve().parents[2]
SCAN_ROWS = 32_768
SCAN_VALUES = 32 * SCAN_ROWS
CSV_IN_MEMORY_BYTES = 64 * 1024 * 1024
CSV_BLOCK_BYTES = 8 * 1024 * 1024


class Scan(ABC):
    """Rows that can be gone through several times, a batch at a time: the same rows in the same order each time.

    Attributes:
        schema: Of all columns.
    """

    schema: pa.Schema

    @abstractmethod
    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows from the first to the last, with these columns in this order.

        Raises:
            UserError: The rows cannot be read.
        """


class Whole(Scan):
    """Rows that are in memory."""

    def __init__(self, rows: pa.Table) -> None:
        self.schema = rows.schema
        self._rows = rows

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        yield from self._rows.select(list(columns)).to_batches(max_chunksize=SCAN_ROWS)


class Source(ABC):
    """Something that has rows."""

    @abstractmethod
    def rows(self, start: datetime | None, end: datetime | None) -> pa.Table:
        """Its rows as an Arrow table; a source may leave out those outside [start, end) (UTC), if it can.

        Raises:
            UserError: The source is not there or cannot be read.
        """

    @contextmanager
    def scan(self, start: datetime | None, end: datetime | None) -> Iterator[Scan]:
        """Its rows in batches; a source of more rows than fit into memory overrides this.

        Raises:
            UserError: The source is not there or cannot be read.
        """
        yield Whole(self.rows(start, end))


@dataclass(frozen=True)
class Packaged(Source):
    """A data set that comes inside a Python package.

    Attributes:
        function: What returns it, as ``package.module:name``; a pandas frame, or a scikit-learn bunch.
        arguments: Passed to it by keyword.
        number: Name of a column to add with the number of the row, for data without an id of its own.
    """

    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    number: str | None = None

    def rows(self, start: datetime | None, end: datetime | None) -> pa.Table:
        import pyarrow as pa

        found = self._load()(**self.arguments)
        table = pa.Table.from_pandas(getattr(found, "frame", found), preserve_index=False)
        return _numbered(str(self), table, self.number)

    def __str__(self) -> str:
        return self.function

    def _load(self) -> Any:
        module, _, path = self.function.partition(":")
        try:
            found = importlib.import_module(module)
            for name in path.split("."):
                found = getattr(found, name)
        except (ImportError, AttributeError, ValueError) as error:
            raise LastingError(
                f"The packaged data set {self.function!r} cannot be imported: {error}.",
                "Write package.module:function, and have the package installed.",
            ) from error
        return found


@dataclass(frozen=True)
class File(Source):
    """A CSV or Parquet file.

    Attributes:
        path: Absolute, or relative to the project's directory.
        number: Name of a column to add with the number of the row, for data without an id of its own.
    """

    path: str
    number: str | None = None

    def rows(self, start: datetime | None, end: datetime | None) -> pa.Table:
        import pyarrow as pa
        from pyarrow import csv, parquet

        with self._legible() as path:
            if path.suffix.lower() == ".csv":
                table = pa.Table.from_batches(map(_with_nulls, (read := csv.read_csv(path)).to_batches()), read.schema)
            else:
                table = parquet.read_table(path)
            # Names that are no UTF-8 are refused when they are looked at.
            _ = table.column_names
        return _numbered(str(self), table, self.number)

    @contextmanager
    def scan(self, start: datetime | None, end: datetime | None) -> Iterator[Scan]:
        """Its rows in batches, without ever holding all of them; a CSV file below 64 MiB is read as a whole."""
        with self._legible() as path:
            if path.suffix.lower() != ".csv":
                yield _Parquet(path, self.number)
            elif path.stat().st_size > CSV_IN_MEMORY_BYTES:
                yield _Csv(path, self.number)
            else:
                yield Whole(self.rows(start, end))

    @contextmanager
    def _legible(self) -> Iterator[Path]:
        import pyarrow as pa

        path = PROJECT / self.path
        if path.is_dir():
            raise LastingError(f"{path} is a directory, not a file.", "Name a CSV or Parquet file in it.")
        if path.suffix.lower() not in (".csv", ".parquet", ".pq"):
            raise LastingError(f"The file {path} is neither CSV nor Parquet by its name.", "Call it .csv or .parquet.")
        try:
            yield path
        except FileNotFoundError as error:
            raise LastingError(f"The file {path} does not exist.", "Put it there, or correct the path.") from error
        except UnicodeDecodeError as error:
            raise LastingError(f"The file {path} is not in UTF-8.", "Save it in this encoding.") from error
        except (OSError, pa.ArrowInvalid) as error:
            # The error may quote a file that is no text at all.
            reason = "".join(letter if letter.isprintable() else "?" for letter in str(error).rstrip("."))
            raise LastingError(f"The file {path} cannot be read: {reason}.", "Mend the file.") from error

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True)
class Query(Source):
    """A query on the warehouse, such as one on the tables where streams land.

    Attributes:
        sql: A SELECT, which may use ``%(start)s`` and ``%(end)s``: the bounds of the rows wanted, or NULL.
    """

    sql: str

    def rows(self, start: datetime | None, end: datetime | None) -> pa.Table:
        import pandas as pd
        import psycopg2
        import pyarrow as pa

        from include.warehouse.connection import connected

        with connected("millrace source") as connection, connection.cursor() as cursor:
            connection.set_session(readonly=True, isolation_level="REPEATABLE READ")
            # Only these two: any other % in the query is the user's own.
            bounds = {name: cursor.mogrify("%s", (bound,)).decode() for name, bound in (("start", start), ("end", end))}
            statement = self.sql.replace("%(start)s", bounds["start"]).replace("%(end)s", bounds["end"])
            try:
                cursor.execute(statement)
            except psycopg2.Error as error:
                raise LastingError(f"The source's query fails: {str(error).strip()}.", "Correct its SQL.") from error
            names = [column.name for column in cursor.description or ()]
            frame = pd.DataFrame.from_records(cursor.fetchall(), columns=names, coerce_float=True)
        return pa.Table.from_pandas(frame, preserve_index=False)

    def __str__(self) -> str:
        return " ".join(self.sql.split())


class _Numbered(Scan):
    """The rows of a file, with a column of their numbers, if one is wanted."""

    def __init__(self, path: Path, schema: pa.Schema, number: str | None) -> None:
        import pyarrow as pa

        _require_free(str(path), number, schema.names)
        self._number = number
        self.schema = schema if number is None else schema.insert(0, pa.field(number, pa.int64()))

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        read, before = [name for name in columns if name != self._number], 0
        for batch in self._batches(read or self.schema.names[1:2]):
            numbers = pa.array(range(before, before + batch.num_rows), pa.int64()) if len(read) < len(columns) else None
            arrays = [numbers if name == self._number else batch.column(name) for name in columns]
            yield pa.RecordBatch.from_arrays(arrays, names=list(columns))
            before += batch.num_rows

    @abstractmethod
    def _batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]: ...


class _Parquet(_Numbered):
    def __init__(self, path: Path, number: str | None) -> None:
        from pyarrow import parquet

        self._path = path
        super().__init__(path, parquet.read_schema(path), number)

    def _batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        from pyarrow import parquet

        # Buffered ahead, what was read of the file stays in memory until its end.
        with parquet.ParquetFile(self._path, pre_buffer=False) as file:
            # Of a few columns more rows at a time: what a batch costs is much of it.
            yield from file.iter_batches(max(SCAN_ROWS, SCAN_VALUES // len(columns)), columns=columns)


class _Csv(_Numbered):
    def __init__(self, path: Path, number: str | None) -> None:
        self._path = path
        with self._opened(None) as reader:
            super().__init__(path, reader.schema, number)

    def _batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        with self._opened(columns) as reader:
            yield from map(_with_nulls, reader)

    def _opened(self, columns: list[str] | None) -> Any:
        from pyarrow import csv

        # Types are those of the first block, for all columns and for some of them alike.
        types = {field.name: field.type for field in self.schema} if columns is not None else None
        return csv.open_csv(
            self._path,
            read_options=csv.ReadOptions(block_size=CSV_BLOCK_BYTES),
            convert_options=csv.ConvertOptions(include_columns=columns, column_types=types),
        )


def _numbered(source: str, rows: pa.Table, number: str | None) -> pa.Table:
    """The rows with a column of their numbers in front, if one is wanted."""
    import pyarrow as pa

    _require_free(source, number, rows.column_names)
    return rows if number is None else rows.add_column(0, number, pa.array(range(rows.num_rows), pa.int64()))


def _require_free(source: str, number: str | None, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise LastingError(f"{source} has several columns called {', '.join(twice)}.", "Rename all but one.")
    if number in names:
        raise LastingError(
            f"{source} has a column {number!r}, and its rows' numbers are to be one of the same name.",
            "Give number= another name.",
        )


def _with_nulls(rows: pa.RecordBatch) -> pa.RecordBatch:
    """The rows of a CSV file with null for text that is empty: nobody has written that there is nothing.

    pyarrow's own option for that would take the words that mean null among numbers, such as NA, for null in text, too.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = [
        pc.replace_with_mask(column, pc.equal(column, ""), pa.scalar(None, column.type))
        if pa.types.is_string(column.type)
        else column
        for column in rows.columns
    ]
    return pa.RecordBatch.from_arrays(columns, schema=rows.schema)
