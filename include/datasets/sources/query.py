"""A query on the warehouse."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from include.datasets.sources.source import Scan, Source
from include.errors import NonRetryableError, UserError

if TYPE_CHECKING:
    import pyarrow as pa

    from include.warehouse.arrow import Column


@dataclass(frozen=True)
class Query(Source):
    """A query on the warehouse, such as one on the tables where streams land.

    PostgreSQL's types decide those of the rows, see docs/definitions.md. Columns that the definition does not name may
    hold anything.

    Attributes:
        sql: A SELECT, which may use ``%(start)s`` and ``%(end)s``: the bounds of the rows wanted, or NULL.
    """

    sql: str

    def rows(self, start: datetime | None, end: datetime | None) -> pa.Table:
        import pyarrow as pa

        found = _Found(self._columns(start, end))
        return pa.Table.from_batches(found.batches(found.schema.names), found.schema)

    @contextmanager
    def scan(self, start: datetime | None, end: datetime | None) -> Iterator[Scan]:
        """Its rows, all in memory."""
        yield _Found(self._columns(start, end))

    @contextmanager
    def beginning(self) -> Iterator[Scan | None]:
        """The columns that PostgreSQL gives it, without running it."""
        found = _Found(self._columns(None, None, described=True))
        found.certain = "types"
        yield found

    def _columns(self, start: datetime | None, end: datetime | None, described: bool = False) -> list[Column]:
        import psycopg2

        from include.warehouse import arrow
        from include.warehouse.connection import connected

        with connected("millrace source") as connection, connection.cursor() as cursor:
            connection.set_session(readonly=True, isolation_level="REPEATABLE READ")
            # Only these two: any other % in the query is the user's own.
            bounds = {name: cursor.mogrify("%s", (bound,)).decode() for name, bound in (("start", start), ("end", end))}
            statement = self.sql.replace("%(start)s", bounds["start"]).replace("%(end)s", bounds["end"])
            try:
                return arrow.describe(cursor, statement) if described else arrow.run(cursor, statement)
            except psycopg2.OperationalError as error:
                # A server that restarts, a lock, a time limit: another try may succeed.
                raise UserError(f"The source's query was ended: {str(error).strip()}.") from error
            except psycopg2.Error as error:
                raise NonRetryableError(
                    f"The source's query fails: {str(error).strip()}.", "Correct its SQL."
                ) from error

    def __str__(self) -> str:
        return " ".join(self.sql.split())


class _Found(Scan):
    """The rows of a query; a column is converted when it is asked for."""

    def __init__(self, columns: Sequence[Column]) -> None:
        import pyarrow as pa

        self._columns = {column.name: column for column in columns}
        self.schema = pa.schema([pa.field(column.name, column.type) for column in columns])
        self.unfit = {column.name: column.database for column in columns if not column.fit}

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        for arrays in zip(*(self._columns[name].pieces() for name in columns), strict=True):
            yield pa.RecordBatch.from_arrays(list(arrays), names=list(columns))
