"""A CSV or Parquet file."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.datasets.sources.source import PROJECT, SCAN_ROWS, Scan, Source, Whole, numbered, require_free
from include.errors import LastingError

if TYPE_CHECKING:
    import pyarrow as pa

SCAN_VALUES = 32 * SCAN_ROWS
CSV_IN_MEMORY_BYTES = 64 * 1024 * 1024
CSV_BLOCK_BYTES = 8 * 1024 * 1024


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
        return numbered(str(self), table, self.number)

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


class _Numbered(Scan):
    """The rows of a file, with a column of their numbers, if one is wanted."""

    def __init__(self, path: Path, schema: pa.Schema, number: str | None) -> None:
        import pyarrow as pa

        require_free(str(path), number, schema.names)
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
