"""Sources: where a dataset's rows come from. Nothing is opened or imported before the rows are asked for."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.errors import LastingError

if TYPE_CHECKING:
    import pyarrow as pa

PROJECT = Path(__file__).resolve().parents[2]


class Source(ABC):
    """Something that has rows."""

    @abstractmethod
    def rows(self, start: datetime | None, end: datetime | None) -> pa.Table:
        """Its rows as an Arrow table; a source may leave out those outside [start, end) (UTC), if it can.

        Raises:
            UserError: The source is not there or cannot be read.
        """


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
        if self.number is not None:
            table = table.add_column(0, self.number, pa.array(range(table.num_rows), pa.int64()))
        return table

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

        readers = {".csv": csv.read_csv, ".parquet": parquet.read_table, ".pq": parquet.read_table}
        path = PROJECT / self.path
        reader = readers.get(path.suffix.lower())
        if reader is None:
            raise LastingError(f"The file {path} is neither CSV nor Parquet by its name.", "Call it .csv or .parquet.")
        try:
            table = reader(path)
        except FileNotFoundError as error:
            raise LastingError(f"The file {path} does not exist.", "Put it there, or correct the path.") from error
        except (OSError, pa.ArrowInvalid) as error:
            raise LastingError(f"The file {path} cannot be read: {error}.", "Mend the file.") from error
        if self.number is not None:
            table = table.add_column(0, self.number, pa.array(range(table.num_rows), pa.int64()))
        return table

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
